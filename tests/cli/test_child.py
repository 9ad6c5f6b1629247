"""A command that runs beside others steps back behind them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="the system has no idle processes")
@pytest.mark.parametrize(("niceness", "is_idle"), [(10, False), (19, True)])
def test_a_command_steps_back_as_far_as_it_should(niceness: int, is_idle: bool) -> None:
    work = f"""
import os, threading
from editloop.cli.child import step_back
before = os.nice(0)
step_back({niceness})
thread = []
worker = threading.Thread(target=lambda: thread.append(os.sched_getscheduler(0)))
worker.start()
worker.join()
print(os.nice(0) - before, *[each == os.SCHED_IDLE for each in (os.sched_getscheduler(0), *thread)])
"""
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(niceness), str(is_idle), str(is_idle)]
