"""The specification of one process of `train-speed`, and the rows, the base and the clock of all arms.

Three arms train on the same rows in the same order: `ours`, TRL with its defaults, and TRL tuned by hand.
Libraries are imported inside functions, so that the start-up time of one arm does not include another's
libraries.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from editloop.errors import ConfigError

LEARNING_RATE, BETA, RANK, ALPHA = 1e-4, 0.1, 16, 32
VALIDATION = 1e-6
"""Share of the log that `fit` keeps for validation, which is one row; TRL's processes get the others."""
NUM_SAMPLES = 4
"""Sampled completions that RL has beside the edit and the response."""
WARM_UP = 1
"""Optimiser steps before the clock starts."""
LAB = ("summary", "email")
"""Domains of the lab that can replace a size: base, rows and responses are then those of the domain."""
LAB_BATCH = 32
"""Rows of an optimiser step on the lab's rows."""
LOG_BATCH = 8
"""Rows of an optimiser step on those of a log."""


@dataclass(frozen=True)
class Spec:
    """What one process measures.

    Attributes:
        arm: `ours`, `trl tuned` or `trl default`.
        methods: The methods to train, of which only `ours` takes several, end to end; or `pass`, which times
            the reference pass and trains nothing.
        folder: A folder for what is written, empty at the start.
        size: The name of the base in `SIZES`, the folder of one, or a domain of the lab.
        shared: The shared fraction of the pairs.
        steps: Optimiser steps after the warm-up; with none, a whole training is measured.
        log: The log to train on instead of made-up rows, with the base's own tokenizer. A whole training
            always has one.
        base: The folder of the base, for a whole training.
    """

    arm: str
    methods: tuple[str, ...]
    folder: str
    size: str
    shared: float = 0.0
    steps: int = 0
    log: str | None = None
    base: str | None = None

    def to_json(self) -> str:
        """Return the specification as the process takes it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """Return the specification that `to_json` wrote."""
        content = json.loads(text)
        return cls(**content | {"methods": tuple(content["methods"])})


def step_clock() -> Any:
    """Return a callback of the trainer that keeps when each step ended, in wall-clock and processor time."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            # Kernels run asynchronously: without this the clock would show when the step was queued.
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append((time.perf_counter(), time.process_time()))

    return Clock()


def device() -> str:
    """Return the device of all arms: the GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def equal_precision() -> str:
    """Return the precision of our arms: on a CPU float32, as that of tuned TRL, also where `auto` is not."""
    return "float32" if device() == "cpu" else "auto"


def make_rows(spec: Spec) -> tuple[list[Any], int]:
    """Return the rows of a specification, and the number of rows of an optimiser step."""
    if spec.size in LAB:
        return edited_rows(spec.size, LAB_BATCH * (WARM_UP + spec.steps)), LAB_BATCH
    if spec.log is not None:
        from editloop.edits import read_log

        count = LOG_BATCH * (WARM_UP + spec.steps)
        edited = [row for row in read_log(spec.log) if row.edit not in (None, row.response)]
        if len(edited) < count:
            raise ConfigError(f"the speed is measured on {count} edited rows", seen=len(edited))
        return edited[:count], LOG_BATCH
    from benchmarks.train_workload import make_pairs, workload

    tokens, batch = workload(spec.size)
    return make_pairs(batch * (WARM_UP + spec.steps), tokens=tokens, shared=spec.shared), batch


def write_rows(rows: Iterable[Any], file: Path) -> str:
    """Write records as a log that every arm can read, and return its path."""
    lines = (row.model_dump_json(include={"id", "context", "response", "edit"}) for row in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(file)


def edited_rows(domain: str, count: int) -> list[Any]:
    """Return `count` rows of the lab that the weak user has edited."""
    from editloop.lab import get_domain, stream_log
    from editloop.users import get_user

    user = get_user("weak", get_domain(domain), seed=0)
    rows = stream_log(
        get_domain(domain), user, 8 * count, 0, policy=make_policy(Spec("ours", (), "", domain))
    )
    return list(islice((row for row in rows if row.edit != row.response), count))


def make_policy(spec: Spec) -> Any:
    """Return the base of a specification as a policy."""
    if spec.size in LAB or spec.log is not None:
        from editloop.lab import base_path
        from editloop.policy import load_base

        folder = base_path(spec.size) if spec.size in LAB else spec.size
        return load_base(folder, device=device(), dtype=equal_precision())
    from benchmarks.train_workload import build_base, build_tokenizer
    from editloop.policy import Encoder, Policy
    from editloop.policy.probe import probe_head, probe_trees

    model = build_base(spec.size, device())
    encoder = Encoder(build_tokenizer(), 4096)
    shares, linear_head = probe_trees(model)[0], probe_head(model)
    return Policy(model, encoder, spec.size, spec.size, shares=shares, linear_head=linear_head)
