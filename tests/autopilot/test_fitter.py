"""Fits as processes of their own: what is called, how they end, and that they end with their parent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.fitter import CommandFitter, FitResult, held_out_figures
from editloop.autopilot.stages import Lineage
from editloop.errors import AutopilotError

COMMAND = """
import json, os, sys, time
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([*sys.argv[2:], os.environ["EDITLOOP_NICENESS"]]) + "\\n")
print("a line", flush=True)
print("the loss is not a number", flush=True)
if os.path.exists("hang"):
    time.sleep(60)
status = int(open(sys.argv[2] + ".status").read()) if os.path.exists(sys.argv[2] + ".status") else 0
os.kill(os.getpid(), -status) if status < 0 else sys.exit(status)
"""


@pytest.fixture
def fitter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("command.py").write_text(COMMAND)
    config = AutopilotConfig(niceness=7, fit_memory="2GB", learn_from="sft,dpo")
    command = [sys.executable, "command.py", "calls"]
    made = CommandFitter(command, "sqlite:///edits.db", "lab:email", config, ["--device", "cpu"])
    yield made
    made.stop()


def ended(fitter: CommandFitter) -> FitResult:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if (result := fitter.poll()) is not None:
            return result
        time.sleep(0.02)
    raise AssertionError("the fit does not end")


def calls() -> list[list[str]]:
    return [json.loads(line) for line in Path("calls").read_text().splitlines()]


def test_a_fit_reads_what_is_not_held_out_and_both_policies_are_evaluated_on_the_rest(fitter):
    assert fitter.poll() is None
    fitter.start(Lineage(1, until=12.5, run="runs/1"), Path("champion"))
    assert ended(fitter) == FitResult(Path("runs/1"))
    fit, own, other = calls()
    log = "sqlite:///edits.db?until=12.5&part=0.100000-1"
    assert fit == [
        *["fit", log, "--base", "lab:email", "--out", "runs/1", "--methods", "sft,dpo"],
        *["--reference", "base", "--memory", "2GB", "--device", "cpu", "7"],
    ]
    held_out = "sqlite:///edits.db?until=12.5&part=0-0.100000"
    assert own == ["evaluate", "runs/1", held_out, "--samples", "64", "7"]
    assert other == ["evaluate", "champion", held_out, "--samples", "64", "7"]


def test_a_fit_begins_at_the_adapter_that_it_is_given(fitter):
    fitter.start(Lineage(1, start="early@1a2b3c4d", until=12.5, run="runs/1"), None, Path("runs/0/early"))
    assert ended(fitter) == FitResult(Path("runs/1"))
    fit = calls()[0]
    assert fit[fit.index("--start") + 1] == "runs/0/early"


def test_a_fit_that_fails_says_its_last_line(fitter):
    Path("fit.status").write_text("1")
    fitter.start(Lineage(1, run="runs/1"))
    assert ended(fitter).error == "`fit` ended with 1: the loss is not a number"
    assert len(calls()) == 1  # nothing is evaluated
    assert fitter.poll() is None


def test_a_fit_that_was_done_before_is_only_evaluated(fitter):
    Path("runs/1").mkdir(parents=True)
    Path("runs/1/run.json").write_text('{"status": "done"}')
    fitter.start(Lineage(1, until=12.5, run="runs/1"))
    assert ended(fitter) == FitResult(Path("runs/1"))
    assert [each[0] for each in calls()] == ["evaluate"]


def test_where_nothing_is_held_out_a_fit_that_was_done_is_the_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/1").mkdir(parents=True)
    Path("runs/1/run.json").write_text('{"status": "done"}')
    made = CommandFitter(["false"], "sqlite:///x", "base", AutopilotConfig(hold_out=0))
    made.start(Lineage(1, run="runs/1"))
    assert made.poll() == FitResult(Path("runs/1")) and made.poll() is None


def test_a_secret_is_in_the_environment_and_not_among_the_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os, sys; open('seen', 'w').write(os.environ['PGPASSWORD'] + ' ' + ' '.join(sys.argv))"
    command = [sys.executable, "-c", code]
    made = CommandFitter(
        command, "postgresql://ada@h/x", "b", AutopilotConfig(hold_out=0), (), {"PGPASSWORD": "secret"}
    )
    made.start(Lineage(1, run="runs/1"))
    assert ended(made).error == ""
    assert Path("seen").read_text().startswith("secret -c fit postgresql://ada@h/x?until=")


def test_a_fit_is_stopped(fitter):
    Path("hang").touch()
    fitter.start(Lineage(1, run="runs/1"))
    fitter.stop()
    assert fitter.poll() is None


def test_a_fit_that_cannot_begin_is_an_error(fitter):
    Path("runs").write_text("a file")
    with pytest.raises(AutopilotError, match="cannot begin"):
        fitter.start(Lineage(1, run="runs/1"))


def test_figures_of_other_requests_are_not_taken_for_these(tmp_path):
    assert held_out_figures(tmp_path, "sft", 1.5) is None
    for name, until in (("a", 1.5), ("b", 2.5)):
        found = {"log": {"path": f"sqlite:///x?part=0-0.1&until={until}"}, "policies": {"sft": {"n": until}}}
        (tmp_path / f"evaluation-{name}.json").write_text(json.dumps(found))
    assert held_out_figures(tmp_path, "sft", 2.5) == {"n": 2.5}
    assert held_out_figures(tmp_path, "dpo", 2.5) is None
    assert held_out_figures(tmp_path, "sft", 3.5) is None


def test_a_child_ends_with_its_parent(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'from editloop.cli.child import end_with_parent; "
        "import time; end_with_parent(); print(1, flush=True); time.sleep(60)'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "1\n"  # the child watches
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until = time.monotonic() + 10
    while time.monotonic() < until and _lives(child):
        time.sleep(0.05)
    assert not _lives(child)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_command_that_cannot_be_launched_is_launched_at_the_next_look(fitter, monkeypatch):
    fitter.start(Lineage(1, until=12.5, run="runs/1"))
    popen, failures = subprocess.Popen, []

    def full(*arguments, **options):
        if not failures:
            failures.append(1)
            raise OSError(errno.ENOSPC, "No space left on device")
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", full)
    with pytest.raises(AutopilotError, match="cannot begin, No space left on device"):
        ended(fitter)
    assert ended(fitter) == FitResult(Path("runs/1"))
    assert [each[0] for each in calls()] == ["fit", "evaluate"]


def test_a_fit_that_could_not_write_its_error_has_failed_for_want_of_room(fitter, monkeypatch):
    Path("fit.status").write_text("120")
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    fitter.start(Lineage(1, run="runs/1"))
    assert ended(fitter).error.endswith("the loss is not a number (no space is left on the disk)")


def test_an_evaluation_without_requests_leaves_its_gates_open_and_says_why(fitter):
    Path("evaluate.status").write_text("1")
    fitter.start(Lineage(1, run="runs/1"), Path("champion"))
    assert ended(fitter) == FitResult(Path("runs/1"), unevaluated="the loss is not a number")
    assert [each[0] for each in calls()] == ["fit", "evaluate", "evaluate"]
    Path("evaluate.status").unlink()
    fitter.start(Lineage(2, run="runs/2"))
    assert ended(fitter) == FitResult(Path("runs/2"))


def test_a_policy_whose_evaluation_was_killed_or_found_the_disk_full_does_not_go_on(fitter, monkeypatch):
    Path("evaluate.status").write_text("-9")
    fitter.start(Lineage(1, run="runs/1"), Path("champion"))
    assert ended(fitter).error == "`evaluate` ended with -9: the loss is not a number"
    assert [each[0] for each in calls()] == ["fit", "evaluate"] and fitter.poll() is None
    Path("evaluate.status").write_text("1")
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    fitter.start(Lineage(2, run="runs/2"))
    assert "`evaluate` ended with 1" in ended(fitter).error


def test_a_child_names_the_command_that_a_user_calls():
    code = (
        "import runpy, sys, editloop.cli.app\n"
        "from editloop.cli.console import called\n"
        "sys.modules['editloop.cli.app'].main = lambda: print(called())\n"
        "runpy.run_module('editloop.cli.child', run_name='__main__', alter_sys=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.read() == "editloop\n"
