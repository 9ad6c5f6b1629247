"""The guide's Python code runs unchanged against a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from site_server import served

from editloop.edits import Record, read_log

GUIDE = Path(__file__).parents[2] / "docs" / "serve.md"
OPENAI, BY_KEY, RESPONSES, CLIENT = re.findall(
    r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL
)


def records_of(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """The log that code of the guide leaves, the oldest row first."""
    monkeypatch.chdir(folder)
    with served(folder) as (url, _):
        here = code.replace("http://127.0.0.1:8040", url)
        assert here != code
        exec(compile(here, str(GUIDE), "exec"), {})
    return sorted(read_log(f"sqlite:///{folder}/edits.db"), key=lambda record: record.time or 0)


@pytest.mark.parametrize("block", [OPENAI, CLIENT], ids=["openai", "client"])
def test_the_python_of_the_guide_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(block.strip().splitlines()) <= 10
    (record,) = records_of(block, tmp_path, monkeypatch)
    assert (record.user, record.status) == ("bob", "edited")
    assert record.edit == f"{record.response} Bring your questions."


def test_what_goes_on_from_it_runs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, by_key, response, more = records_of(OPENAI + BY_KEY + RESPONSES, tmp_path, monkeypatch)
    assert by_key.edit == first.edit and "editloop_key" in (by_key.metadata or {})
    assert (response.user, response.edit) == ("bob", "Hi Ada!")
    assert [message.content for message in more.context] == [  # type: ignore[union-attr]
        "Invite Ada to the demo on Friday.",
        response.response,
        "Shorter.",
    ]
