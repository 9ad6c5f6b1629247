"""The command as a child that ends with its parent: `python -m editloop.cli.child VERB ...`.

A fit that outlived the autopilot that began it would write into a run folder that another one goes on with.
So the parent holds one end of the child's standard input; when the parent is gone, however it ended, that end
is closed, and the child ends at once.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from editloop.autopilot.children import NICENESS

__all__ = ["end_with_parent", "step_back"]

MOST = 19
"""The niceness with which a process gets only the time that no other one wants, where the system has that."""


def end_with_parent() -> None:
    """End this process as soon as its standard input is closed."""

    def watch() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def step_back(niceness: int) -> None:
    """Let other processes go first, as far as the system can.

    By niceness alone a process keeps a core until its turn is over, and whoever is woken waits for that. An
    idle process makes way at once, which an answer within milliseconds needs.
    """
    with suppress(OSError, AttributeError):  # where a process has no niceness
        os.nice(niceness)
    if niceness >= MOST and hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    end_with_parent()
    with suppress(ValueError):
        step_back(int(os.environ.get(NICENESS, "0")))
    from editloop.cli.app import main

    sys.argv[0] = "editloop"  # by this name a reader of the log calls the verbs that it hints at

    main()
