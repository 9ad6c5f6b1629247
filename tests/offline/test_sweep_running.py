"""Fits in a pool and as jobs: their exit statuses, those that are killed, and what is left running."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from editloop.errors import ConfigError, RunError
from editloop.offline.sweep.grid import SweepRun
from editloop.offline.sweep.running import Fitter, Pool, Slurm, open_sweep

PYTHON = (sys.executable, "-c")


def fits(folder: Path, **programs: str) -> dict[str, Fitter]:
    return {name: Fitter(PYTHON, (program,), folder / f"{name}.log") for name, program in programs.items()}


def pool(jobs: int) -> Pool:
    return Pool(jobs, lambda place: {"PLACE": str(place)})


def test_a_pool_runs_all_and_gives_each_its_place(tmp_path: Path) -> None:
    say = "import os; print(os.environ['PLACE'])"
    found = dict(pool(2).run(fits(tmp_path, a=say, b=say, c=f"{say}; raise SystemExit(3)", d=say)))
    assert found == {"a": 0, "b": 0, "c": 3, "d": 0}
    assert {(tmp_path / f"{name}.log").read_text().strip() for name in found} <= {"0", "1"}


def test_no_more_fits_run_at_a_time_than_there_are_places(tmp_path: Path) -> None:
    # The folder of a place that is taken is there already, and `mkdir` fails.
    program = (
        f"import os, pathlib, time; here = pathlib.Path('{tmp_path}', os.environ['PLACE']); here.mkdir(); "
        "time.sleep(.3); here.rmdir()"
    )
    found = dict(pool(2).run(fits(tmp_path, **{f"run{i}": program for i in range(5)})))
    assert set(found.values()) == {0}


def test_a_killed_fit_is_told_and_the_others_finish(tmp_path: Path) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert dict(pool(1).run(fits(tmp_path, a=kill, b="print(1)"))) == {"a": -9, "b": 0}


def test_fits_end_with_their_pool(tmp_path: Path) -> None:
    file = f"pathlib.Path('{tmp_path}/pid')"
    long = f"import os, time, pathlib; {file}.write_text(str(os.getpid())); time.sleep(600)"
    short = f"import time, pathlib\nwhile not {file}.exists() or not {file}.read_text(): time.sleep(.1)"
    running = pool(2).run(fits(tmp_path, long=long, short=short))
    assert next(running) == ("short", 0)
    number = int((tmp_path / "pid").read_text())
    running.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_fit_that_cannot_write_its_output_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot begin"):
        Fitter(PYTHON, ("",), tmp_path / "file" / "x.log").launch()


def test_jobs_of_submitit_give_the_statuses_of_their_fits(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    here = Slurm(tmp_path / "jobs", "local", 2, {"timeout_min": 1})
    programs = {"a": "print('done')", "b": "raise SystemExit(4)"}
    assert dict(here.run(fits(tmp_path, **programs))) == {"a": 0, "b": 4}
    assert (tmp_path / "a.log").read_text() == "done\n"
    # A job whose own process is killed is a failure, and not an exception.
    kill = "import os, signal; os.kill(os.getppid(), signal.SIGKILL); import time; time.sleep(5)"
    assert dict(here.run(fits(tmp_path, c=kill)))["c"] != 0


def test_a_preempted_job_is_sent_anew_as_the_same_fit(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    fit = fits(tmp_path, a="print(1)")["a"]
    again = fit.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.function == fit
    assert again.result() == 0


@pytest.mark.parametrize(
    ("cluster", "options", "word"),
    [("slurm", {}, "srun"), ("local", {"nonsense": 1}, "nonsense"), ("nowhere", {}, "nowhere")],
)
def test_a_cluster_that_is_not_here_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str, options: dict[str, int], word: str
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no srun
    with pytest.raises(ConfigError, match=word):
        next(Slurm(tmp_path, cluster, 1, options).run(fits(tmp_path, a="")))


def test_a_folder_keeps_runs_of_the_same_arguments_only(tmp_path: Path) -> None:
    def run(name: str, *arguments: str) -> SweepRun:
        return SweepRun(name, {"seed": name}, arguments)

    open_sweep(tmp_path, [run("a", "fit", "x")])
    open_sweep(tmp_path, [run("a", "fit", "x"), run("b", "fit", "y")])
    with pytest.raises(RunError, match="--out"):
        open_sweep(tmp_path, [run("b", "fit", "z")])


def test_waiting_for_fits_takes_no_processor_time(tmp_path: Path) -> None:
    before = time.process_time()
    assert dict(pool(1).run(fits(tmp_path, a="import time; time.sleep(1)"))) == {"a": 0}
    assert time.process_time() - before < 0.3
