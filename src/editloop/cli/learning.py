"""The autopilot as a child of the server, which starts it again whenever it ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from editloop.autopilot.config import AutopilotConfig
from editloop.cli.autopilot import child_command
from editloop.offline import FitConfig
from editloop.store.database import Store

__all__ = ["autopilot_command", "demo_command", "keep_running"]

log = logging.getLogger("editloop.serve")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until an autopilot that has ended is started again; the pause is doubled each time."""

STOP_SECONDS = 15.0
"""Seconds in which it has to end with the server."""


def autopilot_command(store: Store, state: Path, config: AutopilotConfig, **flags: str) -> list[str]:
    """The command of an autopilot, whose configuration is written into the state folder.

    JSON is YAML, too, so that `--config` reads it.

    Args:
        store: The store.
        state: The folder for the file.
        config: The configuration.
        flags: Further flags of `editloop autopilot run`.
    """
    given = {name: value for name, value in config.model_dump().items() if value is not None}
    # In a file and not in the arguments, which every user of the machine may see: it may have a password.
    given["store"] = store.url.render_as_string(hide_password=False)
    file = state / "autopilot.yaml"
    state.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**given, **flags}, indent=1)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(text)
    return [*child_command(), "autopilot", "run", "--config", str(file)]


def demo_command(store: Store, out: Path, settings: FitConfig) -> list[str]:
    """The command of the autopilot of a demo, which needs little to fit again and to decide."""
    fit = out / "fit.yaml"
    # Whatever the autopilot says itself is left out: its methods, and the rows that it holds out.
    given = settings.model_dump(exclude_defaults=True, exclude={"methods"}, mode="json")
    fit.write_text(json.dumps(given, indent=1), encoding="utf-8")
    quick = AutopilotConfig(
        learn_from=",".join(settings.methods),
        min_edits=60,
        growth=0.5,
        shadow_share=0.5,
        shadow_rounds=20,
        canary_rounds=80,
        interval=2.0,
    )
    return autopilot_command(store, out / "state", quick, fit_config=str(fit), runs=str(out / "generations"))


async def keep_running(command: list[str]) -> None:
    """Run a command until this task is cancelled; start it again when it ends."""
    pause = FIRST_PAUSE
    while True:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            if process.returncode is None:
                process.kill()
            raise
        log.warning("the autopilot has ended with %s; it starts again in %.0f s", status, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
