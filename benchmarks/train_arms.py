"""One process of `train-speed`: `python -m benchmarks.train_arms SPEC`.

SPEC is a `Spec` as JSON. The last line on standard output holds the measured figures as JSON.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

from benchmarks.train_spec import WARM_UP, Spec, step_clock


def measure(spec: Spec) -> dict[str, Any]:
    """Measure what a specification names, and return seconds and memory."""
    arm = import_module(f"benchmarks.{'own_arm' if spec.arm == 'ours' else 'trl_arm'}")
    measured: dict[str, Any] = {}
    if spec.methods == ("pass",):
        measured = arm.time_passes(spec)
    elif spec.steps == 0:
        arm.train_whole(spec)
    else:
        clock = step_clock()
        measured = arm.train_steps(spec, clock)
        (start, cpu_start), (end, cpu_end) = clock.times[WARM_UP - 1], clock.times[-1]
        measured |= {"seconds": end - start, "processor_seconds": cpu_end - cpu_start}
    return measured | {"peak_mb": peak_memory() / 1e6}


def peak_memory() -> int:
    """Return the peak memory in bytes: the GPU's where there is one, else this process's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    from benchmarks import log_scale

    return log_scale.peak_memory()


def main() -> None:
    """Measure what the first argument specifies, and print it."""
    print(json.dumps(measure(Spec.from_json(sys.argv[1]))))


if __name__ == "__main__":
    main()
