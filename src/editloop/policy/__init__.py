"""A language model as a policy: context tree, log-probabilities, sampling, adapters, run folders.

The names are imported when they are first used, so that reading a run folder needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.policy.adapters import (
        attach_adapter,
        detach_adapter,
        load_adapter,
        trainable_copy,
    )
    from editloop.policy.device import check_device, choose_device, choose_dtype, processes
    from editloop.policy.encode import Encoder
    from editloop.policy.identity import arm_name, policy_fingerprint
    from editloop.policy.loading import load_base
    from editloop.policy.logprob import (
        batch_features,
        batch_log_probs,
        batch_log_squares,
        context_columns,
        tree_mask,
    )
    from editloop.policy.lora import LoraSettings
    from editloop.policy.mixed import MixedPolicy
    from editloop.policy.model import Policy
    from editloop.policy.packing import TreeBatch, pack
    from editloop.policy.run import RunFolder, library_versions, load_policy
    from editloop.policy.sampling import Sample, sample, trim_loops
    from editloop.policy.tree import ContextTree, Layout
    from editloop.policy.verify import check_name, check_policy

_MODULES = {
    "adapters": ("attach_adapter", "detach_adapter", "load_adapter", "trainable_copy"),
    "device": ("check_device", "choose_device", "choose_dtype", "processes"),
    "encode": ("Encoder",),
    "identity": ("arm_name", "policy_fingerprint"),
    "loading": ("load_base",),
    "lora": ("LoraSettings",),
    "logprob": ("batch_features", "batch_log_probs", "batch_log_squares", "context_columns", "tree_mask"),
    "mixed": ("MixedPolicy",),
    "model": ("Policy",),
    "packing": ("TreeBatch", "pack"),
    "run": ("RunFolder", "library_versions", "load_policy"),
    "sampling": ("Sample", "sample", "trim_loops"),
    "tree": ("ContextTree", "Layout"),
    "verify": ("check_name", "check_policy"),
}
__getattr__, __dir__ = lazy_getattr(__name__, _MODULES)

__all__ = [
    "ContextTree",
    "Encoder",
    "Layout",
    "LoraSettings",
    "MixedPolicy",
    "Policy",
    "RunFolder",
    "Sample",
    "TreeBatch",
    "arm_name",
    "attach_adapter",
    "batch_features",
    "batch_log_probs",
    "batch_log_squares",
    "check_device",
    "check_name",
    "check_policy",
    "choose_device",
    "choose_dtype",
    "context_columns",
    "detach_adapter",
    "library_versions",
    "load_adapter",
    "load_base",
    "load_policy",
    "pack",
    "policy_fingerprint",
    "processes",
    "sample",
    "trainable_copy",
    "tree_mask",
    "trim_loops",
]
