"""The one exception tree: every error that a user can cause.

EditLoopError
├── ConfigError          a flag, a config file or an argument that cannot be used
│   └── MissingExtraError    a library is not installed; the message names the extra that brings it
├── LogError             an edit log that cannot be read or used
│   ├── LogFormatError       not in the format that its name implies, or columns are missing
│   ├── TooManyBadRows       more rows in quarantine than the set share
│   └── EmptyViewError       no row is left for a view, for example because all rows are unedited
├── CostError            an unknown cost, or one whose inputs are missing
├── ModelError           a base model, tokenizer or adapter that cannot be loaded or used
├── AutopilotError       a stage that a policy cannot have, or a lease that another autopilot holds
├── BanditError          an event, a cost or a state that the online phase cannot use
├── UserError            a user, simulated or played by an LLM, who cannot answer
│   └── BudgetError          the budget of requests to an LLM is spent
├── WorldError           a world of the exact lab that is impossible, too large, or without a solution
├── SandboxError         a sandbox for programs that cannot be made here
├── RunError             a run folder that is missing, damaged or belongs to another configuration
└── ServeError           something that the server, its store or its client cannot do
    ├── StoreError           a store that is locked, of another version, damaged, or counted by another cost
    │   └── StoreUnreachableError  a store that does not answer now, but may answer later
    └── Problem              a request that is refused, with its HTTP status (`editloop.serve.problem`)
"""

from __future__ import annotations

__all__ = [
    "AutopilotError",
    "BanditError",
    "BudgetError",
    "ConfigError",
    "CostError",
    "EditLoopError",
    "EmptyViewError",
    "LogError",
    "LogFormatError",
    "MissingExtraError",
    "ModelError",
    "RunError",
    "SandboxError",
    "ServeError",
    "StoreError",
    "StoreUnreachableError",
    "TooManyBadRows",
    "UserError",
    "WorldError",
]


class EditLoopError(Exception):
    """An error of one line: `WHAT: SEEN (DO)`.

    Args:
        what: What is wrong, without a full stop at its end.
        seen: The value that was seen; its `repr` is shown, shortened to 120 characters. None shows nothing.
        do: What the user can do about it.
    """

    def __init__(self, what: str, *, seen: object = None, do: str | None = None) -> None:
        self.what, self.seen, self.do = what, seen, do
        line = what
        if seen is not None:
            text = repr(seen)
            line += f": {text if len(text) <= 120 else text[:117] + '...'}"
        if do is not None:
            line += f" ({do})"
        super().__init__(" ".join(line.split()))  # one line, although a library's message may have several


class ConfigError(EditLoopError):
    """A flag, a config file or an argument that cannot be used."""


class MissingExtraError(ConfigError, ImportError):
    """A library is not installed; the message names the extra that brings it."""


class LogError(EditLoopError):
    """An edit log that cannot be read or used."""


class LogFormatError(LogError):
    """A log that is not in the format that its name implies, or lacks columns."""


class TooManyBadRows(LogError):
    """More rows went to quarantine than the set share."""


class EmptyViewError(LogError):
    """No row of the log is left for the view that a method learns from."""


class CostError(EditLoopError):
    """An unknown cost, or one whose inputs are missing."""


class ModelError(EditLoopError):
    """A base model, tokenizer or adapter that cannot be loaded or used."""


class BanditError(EditLoopError):
    """An event, a cost or a state that the online phase cannot use."""


class AutopilotError(EditLoopError):
    """A stage that a policy cannot have, or a lease that another autopilot holds."""


class WorldError(EditLoopError):
    """A world of the exact lab that is impossible, too large, or without a solution that can be found."""


class RunError(EditLoopError):
    """A run folder that is missing, damaged, or belongs to another configuration."""


class SandboxError(EditLoopError):
    """A sandbox for programs that cannot be made here."""


class ServeError(EditLoopError):
    """Something that the server, its store or its client cannot do."""


class StoreError(ServeError):
    """A store that is locked, of another version, damaged, or counted by another cost."""


class StoreUnreachableError(StoreError):
    """A store that does not answer now, but may answer later."""


class UserError(EditLoopError):
    """A user, simulated or played by an LLM, who cannot answer."""


class BudgetError(UserError):
    """The budget of requests to an LLM is spent."""
