"""The examples run as they stand, and print what they promise; so does the notebook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import editloop
from editloop.edits import write_log

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
NOTEBOOK = EXAMPLES / "from_log_to_served_policy.ipynb"


def run(script: str, folder: Path, *arguments: str) -> str:
    """What a script prints."""
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def served(run: Path, folder: Path) -> Iterator[str]:
    """The address of a server, started by the command."""
    command = [sys.executable, "-m", "editloop", "serve", str(run), "--store", "edits.db", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            lines = (re.search(r"dashboard (\S+)/,", line) for line in server.stdout)
            yield next(found[1] for found in lines if found)
        finally:
            server.terminate()


def test_examples_are_short_and_all_are_run_here() -> None:
    assert SCRIPTS == [
        "application",
        "choose_among_arms",
        "custom_cost",
        "fit_and_evaluate",
        "large_log_with_daft",
        "read_a_log",
    ]
    for script in SCRIPTS:
        text = (EXAMPLES / f"{script}.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) < 60 and f"python examples/{script}.py" in text


def test_read_a_log(tmp_path: Path) -> None:
    said = run("read_a_log", tmp_path)
    assert "3 of 4 rows are observed, 67% of them edited" in said
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert [pair["rejected"] for pair in pairs] == [
        "Dear Ada, please come to the demo on Friday.",
        "Please send me the slides.",
    ]


def test_choose_among_arms(tmp_path: Path) -> None:
    said = run("choose_among_arms", tmp_path)
    plays = {arm: int(n) for arm, n in re.findall(r"(\w+) +played +(\d+) times", said)}
    assert sum(plays.values()) == 200
    assert plays["friendly"] > 150  # the arm whose edits cost least
    assert re.search(r"with probability (0\.\d+|1\.00)", said)


def test_a_large_log_with_daft(tmp_path: Path) -> None:
    pytest.importorskip("daft")
    rows = [("ann", "a b c d", "a b c x"), ("ann", "a b", "a b"), ("bob", "a b", "x y"), ("bob", "a b", None)]
    for part in range(3):
        log = [
            editloop.Record(context=f"{part % 2} {i}", response=response, edit=edit, user=user)
            for i, (user, response, edit) in enumerate(rows)
        ]
        (tmp_path / "log").mkdir(exist_ok=True)
        write_log(log, tmp_path / "log" / f"{part}.parquet")  # the third file repeats the first
    said = run("large_log_with_daft", tmp_path, "log", "pairs")
    # By hand: one word of four is replaced and nothing of the other draft; two words of two are.
    assert re.search(r"ann +4 edits cost 0\.1250 on average", said)
    assert re.search(r"bob +2 edits cost 1\.0000 on average", said)
    import pyarrow.dataset as ds

    pairs = ds.dataset(tmp_path / "pairs", partitioning="hive").to_table().to_pylist()
    assert sorted(pair["chosen"] for pair in pairs) == ["a b c x"] * 2 + ["x y"] * 2
    users = [{pair["part"] for pair in pairs if pair["chosen"] == edit} for edit in ("a b c x", "x y")]
    assert [len(parts) for parts in users] == [1, 1]  # a user is in one part


def test_custom_cost(tmp_path: Path) -> None:
    said = run("custom_cost", tmp_path).splitlines()
    # One number of two is wrong, none of two, and one of one.
    assert said[1].split() == ["wrong-numbers", "0.50", "0.00", "1.00"]


def test_fit_and_evaluate_and_the_application(tmp_path: Path) -> None:
    said = run("fit_and_evaluate", tmp_path)
    costs = {name: float(cost) for name, cost in re.findall(r"(\w+) +an edit costs ([\d.]+)", said)}
    assert set(costs) == {"base", "sft", "dpo"}
    assert costs["sft"] < 0.7 * costs["base"]  # the user is strong, so supervision pays soon
    assert set(re.findall(r"^(\w+) +accuracy", said, re.MULTILINE)) == {"base", "sft", "dpo", "mixture"}
    with served(tmp_path / "run", tmp_path) as address:
        said = run("application", tmp_path, address)
    assert len(re.findall(r"^(?:sft|dpo)@\w+: .* cost: [\d.]+$", said, re.MULTILINE)) == 3
    log = editloop.read_log(f"sqlite:///{tmp_path}/edits.db")
    assert [record.user for record in log] == ["bob"] * 3
    assert all(record.edit is not None and record.edit.endswith("Bob") for record in log)
    assert not (tmp_path / "edits-to-send.jsonl").exists()


def test_the_notebook_runs_from_a_log_to_a_served_policy() -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # what it prints is made when it is run
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    *_, last = (cell for cell in notebook.cells if cell.cell_type == "code")
    (result,) = (out for out in last.outputs if out.output_type == "execute_result")
    assert re.fullmatch(r"\('ada', '(sft|dpo)@\w+', '(edited|accepted)'\)", result["data"]["text/plain"])
