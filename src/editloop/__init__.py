"""EditLoop turns the edits people make to an LLM's drafts into better policies.

    import editloop
    log = editloop.read_log("edits.jsonl")
    run = editloop.fit(log, "Qwen/Qwen3-0.6B", "run")
    policy = editloop.load_policy(run, "early")
    print(policy.sample(["Write to Ada: the demo is on Friday."])[0].text)

The names are loaded when they are first used, so that `import editloop` needs neither torch nor
transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop import errors
from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.diagnosis import diagnose
    from editloop.edits import (
        Log,
        Message,
        Record,
        export,
        get_cost,
        read_log,
        register_cost,
        split,
        summarize,
        write_log,
    )
    from editloop.errors import (
        AutopilotError,
        BanditError,
        BudgetError,
        ConfigError,
        CostError,
        EditLoopError,
        EmptyViewError,
        LogError,
        LogFormatError,
        MissingExtraError,
        ModelError,
        RunError,
        SandboxError,
        ServeError,
        StoreError,
        StoreUnreachableError,
        TooManyBadRows,
        UserError,
        WorldError,
    )
    from editloop.offline import FitConfig, evaluate, fit
    from editloop.online import Bandit, BanditConfig
    from editloop.policy import Policy, RunFolder, Sample, load_base, load_policy
    from editloop.progress import EditLoopWarning, ProgressCallback, show_progress
    from editloop.serve.client import AsyncClient, Client

__version__ = "0.1.0"

_MODULES = {
    "edits": (
        "Log",
        "Message",
        "Record",
        "export",
        "get_cost",
        "read_log",
        "register_cost",
        "split",
        "summarize",
        "write_log",
    ),
    "errors": errors.__all__,
    "progress": ("EditLoopWarning", "ProgressCallback", "show_progress"),
    "offline": ("FitConfig", "evaluate", "fit"),
    "online": ("Bandit", "BanditConfig"),
    "policy": ("Policy", "RunFolder", "Sample", "load_base", "load_policy"),
    "serve.client": ("AsyncClient", "Client"),
    "diagnosis": ("diagnose",),
}
__getattr__, __dir__ = lazy_getattr(__name__, _MODULES)

__all__ = [
    "AsyncClient",
    "AutopilotError",
    "Bandit",
    "BanditConfig",
    "BanditError",
    "BudgetError",
    "Client",
    "ConfigError",
    "CostError",
    "EditLoopError",
    "EditLoopWarning",
    "EmptyViewError",
    "FitConfig",
    "Log",
    "LogError",
    "LogFormatError",
    "Message",
    "MissingExtraError",
    "ModelError",
    "Policy",
    "ProgressCallback",
    "Record",
    "RunError",
    "RunFolder",
    "Sample",
    "SandboxError",
    "ServeError",
    "StoreError",
    "StoreUnreachableError",
    "TooManyBadRows",
    "UserError",
    "WorldError",
    "diagnose",
    "evaluate",
    "export",
    "fit",
    "get_cost",
    "load_base",
    "load_policy",
    "read_log",
    "register_cost",
    "show_progress",
    "split",
    "summarize",
    "write_log",
]
