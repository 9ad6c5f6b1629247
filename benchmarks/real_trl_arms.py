"""One process of `real-trl`: `python -m benchmarks.real_trl_arms SPEC`.

It trains policies on people's edits, from a log to finished adapters, and then scores the edits of other
people. The last line on standard output holds the figures as JSON. Time and memory are those of the training,
start-up and loading included; all arms are scored by the same code on the same tokens.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.train_spec import ALPHA, BETA, RANK, device, equal_precision

STARTED = time.perf_counter()
BATCH = 8
RATES = {"sft": 2e-4, "dpo": 5e-5, "early": 5e-5}
"""Learning rates of both tuned arms. TRL's defaults, 2e-5 and 1e-6, are meant for all weights; an adapter
takes ten times that, and DPO more, because its runs are short here."""
TRL_TERMS: dict[str, Any] = {"reduction": "token", "dpo_weight": 1.0}
"""How TRL joins the two losses of `early`, which is not our default."""
WARM_UP_SHARE = 0.1
VALIDATION_ROWS = 8
"""Train rows that `ours tuned` keeps for validation, with nothing to choose; TRL learns from them, too."""


@dataclass(frozen=True)
class RealSpec:
    """What one process trains and scores.

    Attributes:
        arm: `ours`, with the defaults of `fit`; `ours tuned`, with the settings of `trl tuned`; `trl tuned`;
            or `trl default`.
        methods: The methods to train, of which only ours takes several.
        base: The folder of the base.
        train: The log to learn from.
        test: The log to score.
        steps: Optimiser steps of the tuned arms, of `BATCH` rows, for a method that learns from every row.
        reference: A folder in which log π_ref of the test rows is kept for the other processes.
        folder: A folder for what is written, empty at the start.
    """

    arm: str
    methods: tuple[str, ...]
    base: str
    train: str
    test: str
    steps: int
    reference: str
    folder: str = ""

    def to_json(self) -> str:
        """Return the specification as the process takes it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RealSpec:
        """Return the specification that `to_json` wrote."""
        content = json.loads(text)
        return cls(**content | {"methods": tuple(content["methods"])})


def measure(spec: RealSpec) -> dict[str, Any]:
    """Train and score, and return the figures.

    Returns:
        `seconds`, `processor_seconds` and `peak_mb` of the training, the `machine`, and for each policy its
        `scores`: the fields of `Scores` as lists.
    """
    from benchmarks.train_arms import peak_memory
    from editloop.results import machine_name

    adapters = _train_ours(spec) if spec.arm.startswith("ours") else _train_theirs(spec)
    measured = {
        "seconds": time.perf_counter() - STARTED,
        "processor_seconds": time.process_time(),
        "peak_mb": peak_memory() / 1e6,
        "machine": machine_name(),
    }
    return measured | {"scores": _scores(spec, adapters)}


def _train_ours(spec: RealSpec) -> dict[str, Path]:
    """Run one `fit`, and return the folders of its policies."""
    from editloop.edits import read_log
    from editloop.offline import FitConfig, fit
    from editloop.policy import load_base

    log = read_log(spec.train)
    by_default = spec.arm == "ours"
    config = FitConfig(methods=spec.methods) if by_default else _tuned(spec, len(log))
    base = load_base(spec.base, device=device(), dtype="auto" if by_default else equal_precision())
    run = fit(log, base, Path(spec.folder) / "run", config)
    return {name: run.policy_path(name) for name in spec.methods}


def _tuned(spec: RealSpec, rows: int) -> Any:
    """The configuration with the settings of `trl tuned`: one trial of each method, and no choice to make."""
    from editloop.offline import METHODS, FitConfig
    from editloop.policy import LoraSettings

    def settings(method: str) -> dict[str, tuple[Any, ...]]:
        known = METHODS.get(method).hyperparameters.model_fields
        values = {"learning_rate": RATES[method], "beta": BETA} | (TRL_TERMS if method == "early" else {})
        return {name: (value,) for name, value in values.items() if name in known}

    return FitConfig(
        methods=spec.methods,
        hyperparameters={method: settings(method) for method in spec.methods},
        lora=LoraSettings(rank=RANK, alpha=ALPHA),
        batch_size=BATCH,
        epochs=spec.steps * BATCH / (rows - VALIDATION_ROWS),
        warmup=WARM_UP_SHARE,
        evaluations=1,
        validation=VALIDATION_ROWS / rows,
        validation_samples=0,
    )


def _train_theirs(spec: RealSpec) -> dict[str, Path]:
    """Train one method with TRL, and return the folder of its adapter."""
    from peft import LoraConfig
    from transformers import AutoTokenizer

    from benchmarks.trl_arm import plain_arguments, read_rows, trainer_of, tuned_arguments

    (method,) = spec.methods
    rows = log = read_rows(spec.train)
    if method != "sft":  # a pair of two equal sides has no gradient, and costs as much as another
        rows = [row for row in log if row.edit != row.response]
    steps = round(spec.steps * len(rows) / len(log))  # as many passes over the rows as of another method
    arguments = plain_arguments(str(Path(spec.folder) / "trainer"))
    if spec.arm == "trl tuned":
        arguments |= tuned_arguments(method) | {
            "per_device_train_batch_size": BATCH,
            "max_steps": steps,
            "learning_rate": RATES[method],
            "warmup_steps": round(steps * WARM_UP_SHARE),
            "max_length": 4096,
        }
        lora: Any = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    else:
        from trl import ModelConfig, get_peft_config

        lora = get_peft_config(ModelConfig(use_peft=True))
    tokenizer = AutoTokenizer.from_pretrained(spec.base)
    trainer = trainer_of(method, rows, arguments, spec.base, tokenizer, lora)
    trainer.train()
    adapter = Path(spec.folder) / "adapter"
    trainer.save_model(str(adapter))
    return {method: adapter}


def _scores(spec: RealSpec, adapters: dict[str, Path]) -> dict[str, dict[str, list[float]]]:
    """The scores of each policy on the test rows."""
    from editloop.edits import read_log
    from editloop.offline import make_examples, reference_pass
    from editloop.offline.scoring import score
    from editloop.policy import detach_adapter, load_adapter, load_base

    base = load_base(spec.base, device=device())
    made = make_examples(tuple(read_log(spec.test)), base.encoder).examples
    examples, _ = reference_pass(base, made, cache=Path(spec.reference))
    found = {}
    for name, adapter in adapters.items():
        policy = load_adapter(base, adapter)
        found[name] = {key: values.tolist() for key, values in vars(score(policy, examples)).items()}
        base = detach_adapter(policy)
    return found


def main() -> None:
    """Measure what the first argument specifies, and print it."""
    print(json.dumps(measure(RealSpec.from_json(sys.argv[1]))))


if __name__ == "__main__":
    main()
