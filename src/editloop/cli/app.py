"""The frame of the command: its verbs, and errors in one line."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

import typer

from editloop.cli import (
    arms,
    autopilot,
    demo,
    demo_real,
    diagnose,
    estimate,
    evaluate,
    export,
    fit,
    importing,
    inspect,
    keys,
    lab,
    serve,
    simulate,
    split,
    sweep,
    theory,
)
from editloop.cli.configured import SectionedCommand
from editloop.cli.console import fail
from editloop.cli.places import guarded
from editloop.errors import EditLoopError
from editloop.extras import missing_extra

__all__ = ["app", "main"]

app = typer.Typer(
    name="editloop",
    help="Turns the edits people make to an LLM's drafts into better policies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


VERBS: dict[Callable[..., None], str] = {
    inspect.inspect: "Check a log and show what is in it.",
    diagnose.diagnose: "What a log says about its users, and which method to train.",
    fit.fit: "Train policies from a log.",
    sweep.sweep: "A grid of fits, here or by Slurm, and one table of what they validated.",
    simulate.simulate: "The online phase: choose among a run's policies while a user edits.",
    evaluate.evaluate: "Held-out likelihood and accuracies of a run's policies.",
    estimate.estimate: "What other rules of choice would have cost, from a log of decisions.",
    serve.serve: "The live loop: policies behind one endpoint, which learns from edits.",
    serve.serve_demo: "The live loop with simulated people, for a first look.",
    arms.promote: "Make a run's policies arms of a server.",
    arms.retire: "Stop playing an arm of a server.",
    importing.import_: "Make a log, or records of a server, from the export of another tool.",
    export.export: "Write a view of a log in another tool's format.",
    split.split: "Write the train, validation and test parts of a log.",
    demo.demo: "The whole loop on the embedded lab: logs, policies, their costs, a report.",
    demo_real.demo_real: "The whole loop on a real base, SmolLM2: drafts, edits, policies, before and after.",
    theory.theory: f"The paper's claims in worlds where everything is known: {', '.join(theory.CLAIMS)}.",
}
for verb, help_line in VERBS.items():
    name = verb.__name__.rstrip("_").replace("_", "-")  # `import` is a word of Python
    app.command(name, help=help_line, cls=SectionedCommand)(guarded(verb))
app.add_typer(autopilot.autopilot, name="autopilot")
app.add_typer(keys.keys, name="keys")
app.add_typer(lab.lab, name="lab")


INTERRUPTED = 130
"""The exit status after Ctrl-C: 128 and the number of the signal, as shells have it."""

GOES_ON = ("fit", "sweep", "demo", "demo-real", "simulate", "serve-demo")
"""Verbs that, run again, continue what was interrupted."""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
"""What torch's RuntimeErrors say on a GPU and on a CPU; on a CPU it has no type for them."""


def main() -> None:
    """Run the command. A user's error is one line and exit status 1, or 2 for a wrong flag.

    Any other exception is a defect of this package, and keeps its traceback.
    """
    # Warnings of the libraries are for programmers; the command prints its own as lines of its output.
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        # Not as a program of its own: Typer would print errors in its way and end the process.
        status = app(standalone_mode=False)
    except EditLoopError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        fail(str(missing))
    except typer.TyperException as error:
        line = error.format_message()
        if not line.startswith("Usage:"):  # otherwise no verb was given, and the help is the answer
            fail(" ".join(line.split()), error.exit_code)
        print(line, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        fail("out of memory (lower --micro-batch-size or --max-length, or give --gradient-checkpointing)")
    except OSError as error:
        if error.errno is None:  # not from the system but from a library, so nothing is known about it
            raise
        fail(f"{error.strerror}: {error.filename or ''}".rstrip(": "))
    if status == INTERRUPTED:
        kept = sys.argv[1] in GOES_ON
        again = "; finished work is kept, and the same command goes on from there" if kept else ""
        fail(f"interrupted{again}", INTERRUPTED)
    raise SystemExit(status)
