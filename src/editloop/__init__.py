"""EditLoop turns the edits people make to an LLM's drafts into better policies.

    import editloop
    log = editloop.read_log("edits.jsonl")
    run = editloop.fit(log, "Qwen/Qwen3-0.6B", "run")
    policy = editloop.load_policy(run.path, "early")
    print(policy.sample(["Write to Ada: the demo is on Friday."])[0].text)

The names are loaded when they are first used, so that `import editloop` needs neither torch nor
transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazily

if TYPE_CHECKING:
    from editloop.edits import Record, export, get_cost, read_log, register_cost, split, summarize, write_log
    from editloop.offline import FitConfig, evaluate, fit
    from editloop.policy import Policy, RunFolder, load_base, load_policy
    from editloop.serve.client import AsyncClient, Client

__version__ = "0.1.0"

_MODULES = {
    "edits": (
        "Record",
        "export",
        "get_cost",
        "read_log",
        "register_cost",
        "split",
        "summarize",
        "write_log",
    ),
    "offline": ("FitConfig", "evaluate", "fit"),
    "serve.client": ("AsyncClient", "Client"),
    "policy": ("Policy", "RunFolder", "load_base", "load_policy"),
}
__getattr__ = lazily(__name__, _MODULES)

__all__ = [
    "AsyncClient",
    "Client",
    "FitConfig",
    "Policy",
    "Record",
    "RunFolder",
    "evaluate",
    "export",
    "fit",
    "get_cost",
    "load_base",
    "load_policy",
    "read_log",
    "register_cost",
    "split",
    "summarize",
    "write_log",
]
