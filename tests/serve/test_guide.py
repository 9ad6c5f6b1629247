"""The guide's Python code runs unchanged against a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from site_server import served

from editloop.edits import read_log

GUIDE = Path(__file__).parents[2] / "docs" / "serve.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["openai", "client"])
def test_the_python_of_the_guide_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(block.strip().splitlines()) <= 10
    with served(tmp_path) as (url, _):
        code = block.replace("http://127.0.0.1:8040", url)
        assert code != block
        exec(compile(code, str(GUIDE), "exec"), {})
    (record,) = read_log(f"sqlite:///{tmp_path}/edits.db")
    assert (record.user, record.status) == ("bob", "edited")
    assert record.edit == f"{record.response} Bring your questions."
