"""The arms of `train-speed`, each in a process of its own: `python -m benchmarks.train_arms SPEC`.

SPEC is a `Spec` as JSON; what was measured is the last line on standard output. Three arms train on the same
rows in the same order: `ours`, TRL with its defaults, and TRL tuned by hand. Libraries are imported where
they are used, so that no arm's start-up pays for another's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

LEARNING_RATE, BETA, RANK, ALPHA = 1e-4, 0.1, 16, 32
VALIDATION = 1e-6
"""Share of the log that `fit` keeps for validation: one row. TRL's processes are given the others."""
NUM_SAMPLES = 4
"""Responses that RL has beside the edit and the response."""
WARM_UP = 1
"""Steps that are taken before the clock starts."""
LAB = ("summary", "email")
"""In place of a size: a domain of the lab with its base, its rows and that base's responses."""
LAB_BATCH = 32
"""Rows of a step there."""


@dataclass(frozen=True)
class Spec:
    """What one process measures.

    Attributes:
        arm: `ours`, `trl tuned` or `trl default`.
        methods: What to train; more than one only by `ours`, end to end.
        folder: For what is written, empty at the start.
        size: Name of the base, or a domain of the lab.
        shared: Shared fraction of the pairs.
        steps: Optimiser steps after the warm-up.
        log: End to end: the log to train on, instead of made-up rows.
        base: End to end: the folder of the base.
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
        """The specification as the process takes it."""
        return json.dumps(asdict(self))


def measure(spec: Spec) -> dict[str, Any]:
    """Train as the specification says and return seconds and memory; `pass` trains nothing."""
    measured: dict[str, Any]
    if spec.methods == ("pass",):
        measured = _passes(spec)
    elif spec.log is None:
        clock = _clock()
        measured = {}
        if spec.arm == "ours":
            measured["tokens"] = _ours_steps(spec, clock)
        else:
            _trl_steps(spec, clock)
        (start, cpu_start), (end, cpu_end) = clock.times[WARM_UP - 1], clock.times[-1]
        measured |= {"seconds": end - start, "processor_seconds": cpu_end - cpu_start}
    else:
        (_ours_whole if spec.arm == "ours" else _trl_whole)(spec)
        measured = {}
    return measured | {"peak_mb": _peak_memory() / 1e6}


def _peak_memory() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    from benchmarks.log_scale import peak_memory

    return peak_memory()


def _clock() -> Any:
    """A callback that keeps when each step ended, by the wall and by the processor."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append((time.perf_counter(), time.process_time()))

    return Clock()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _rows(spec: Spec) -> tuple[list[Any], int]:
    """The rows of a specification, and how many go into a step."""
    if spec.size in LAB:
        return _edited(spec.size, LAB_BATCH * (WARM_UP + spec.steps)), LAB_BATCH
    from benchmarks.train_workload import SIZES, make_pairs

    size = SIZES[spec.size]
    return make_pairs(size.batch * (WARM_UP + spec.steps), tokens=size.tokens, shared=spec.shared), size.batch


def _edited(domain: str, count: int) -> list[Any]:
    """So many rows of the lab that the weak user has edited."""
    from editloop.lab import get_domain, stream_log
    from editloop.users import get_user

    user = get_user("weak", get_domain(domain), seed=0)
    rows = stream_log(get_domain(domain), user, 8 * count, 0, policy=_policy(Spec("ours", (), "", domain)))
    return list(islice((row for row in rows if row.edit != row.response), count))


def _policy(spec: Spec) -> Any:
    """The base in memory, as a policy."""
    if spec.size in LAB:
        from editloop.lab import base_path
        from editloop.policy import load_base

        return load_base(base_path(spec.size), device=_device())
    from benchmarks.train_workload import build_base, build_tokenizer
    from editloop.policy import Encoder, Policy
    from editloop.policy.probe import probe_trees

    model = build_base(spec.size, _device())
    encoder = Encoder(build_tokenizer(), 4096)
    return Policy(model, encoder, spec.size, spec.size, shares=probe_trees(model)[0])


def _with_sampled(policy: Any, examples: list[Any], spec: Spec) -> list[Any]:
    """Examples for RL: of the lab with the base's own responses, else with made-up ones."""
    from benchmarks.train_workload import made_up_completions, made_up_costs

    if spec.size in LAB:
        from editloop.lab.log import MAX_NEW_TOKENS
        from editloop.offline.cost_model.sampled import add_sampled, sample_completions

        texts = sample_completions(
            policy, examples, NUM_SAMPLES, seed=0, max_new_tokens=MAX_NEW_TOKENS, cache=Path(spec.folder)
        )
        completions = add_sampled(policy, examples, texts)
    else:
        completions = made_up_completions(examples, NUM_SAMPLES)
    return made_up_costs(policy, examples, completions)


def _ours_steps(spec: Spec, clock: Any) -> int:
    """Our trainer as `fit` uses it; its one evaluation and checkpoint come after the last step.

    Returns the distinct tokens of the timed steps' trees.
    """
    from editloop.offline import (
        METHODS,
        EditTrainer,
        FitConfig,
        Trial,
        make_examples,
        reference_pass,
        training_arguments,
    )
    from editloop.policy import LoraSettings, attach_adapter

    rows, batch = _rows(spec)
    policy, (method,) = _policy(spec), spec.methods
    examples = list(make_examples(rows, policy.encoder).examples)
    if method == "rl":
        examples = _with_sampled(policy, examples, spec)
    elif method != "sft":
        examples, _ = reference_pass(policy, examples, cache=Path(spec.folder))
    policy = attach_adapter(policy, LoraSettings(rank=RANK, alpha=ALPHA), seed=0)
    config = FitConfig(batch_size=batch, epochs=1, evaluations=1)
    model = METHODS.get(method).hyperparameters
    ours = {"learning_rate": LEARNING_RATE, "beta": BETA}
    values = {name: value for name, value in ours.items() if name in model.model_fields}
    trial = Trial(METHODS.get(method), model.model_validate(values))
    train = trial.method.completions(examples, trial.hyperparameters)
    trees = [each.tree for each in train]
    arguments = training_arguments(config, Path(spec.folder), policy, trees, learning_rate=LEARNING_RATE)
    EditTrainer(
        policy=policy,
        trial=trial,
        config=config,
        arguments=arguments,
        train=train,
        validate=lambda: {"loss": 0.0},
        callbacks=[clock],
        shuffle=False,
    ).train()
    looked_at = [e.sampled.tree if e.sampled else e.tree for e in examples[WARM_UP * batch :]]
    return sum(len(tree.layout) for tree in looked_at)


def _passes(spec: Spec) -> dict[str, Any]:
    """Seconds of the reference pass, of the same with features, and of fitting and asking the cost model."""
    import numpy as np

    from editloop.edits import get_cost
    from editloop.offline import feature_pass, fit_cost_model, make_examples, reference_pass
    from editloop.policy import context_columns

    rows, _ = _rows(spec)
    policy = _policy(spec)
    examples = make_examples(rows, policy.encoder).examples
    trees = [e.tree for e in examples]
    policy.log_probs(trees[:WARM_UP])
    folder, seconds = Path(spec.folder), dict[str, float]()

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        start = time.perf_counter()
        found = work()
        return time.perf_counter() - start, found

    # Half of the plain passes come first, half last.
    before, _ = timed(lambda: reference_pass(policy, examples, cache=folder / "before"))
    seconds["features"], (scored, _) = timed(lambda: feature_pass(policy, trees, cache=folder))
    after, _ = timed(lambda: reference_pass(policy, examples, cache=folder / "after"))
    seconds["reference"] = (before + after) / 2
    costs = get_cost()([e.response for e in examples], [e.edit for e in examples])
    features = np.stack([each.features[1] for each in scored])
    width = context_columns(features.shape[1])
    fitting, model = timed(lambda: fit_cost_model(features, costs, context=width))
    pricing, _ = timed(lambda: model.predict(np.concatenate([each.features for each in scored])))
    seconds["cost_model"] = fitting + pricing
    return {**seconds, "rows": len(rows)}


def _ours_whole(spec: Spec) -> None:
    """One `fit` of all methods: from a log and a base's folder to a run folder."""
    from benchmarks.train_workload import SIZES
    from editloop.edits import read_log
    from editloop.offline import METHODS, FitConfig, fit

    assert spec.log is not None and spec.base is not None
    config = FitConfig(
        methods=spec.methods,
        hyperparameters={
            method: {
                name: (value,)
                for name, value in {"learning_rate": LEARNING_RATE, "beta": BETA}.items()
                if name in METHODS.get(method).hyperparameters.model_fields
            }
            for method in spec.methods
        },
        batch_size=SIZES[spec.size].batch,
        epochs=1,
        evaluations=1,
        validation=VALIDATION,
        validation_samples=0,
    )
    fit(read_log(spec.log), spec.base, Path(spec.folder) / "run", config, report=False)


def _trl_steps(spec: Spec, clock: Any) -> None:
    """TRL's trainer on a base in memory."""
    from benchmarks.train_workload import build_base, build_tokenizer

    rows, batch = _rows(spec)
    train = _trl_trainer(spec, rows, batch, build_base(spec.size, _device()), build_tokenizer())
    train.add_callback(clock)
    train.train()


def _trl_whole(spec: Spec) -> None:
    """One method by TRL: from a log and a base's folder to an adapter's folder."""
    from transformers import AutoTokenizer

    from benchmarks.train_workload import SIZES

    assert spec.log is not None and spec.base is not None
    lines = Path(spec.log).read_text(encoding="utf-8").splitlines()
    rows = [_Row(**json.loads(line)) for line in lines]
    tokenizer = AutoTokenizer.from_pretrained(spec.base)
    trainer = _trl_trainer(spec, rows, SIZES[spec.size].batch, spec.base, tokenizer)
    trainer.train()
    trainer.save_model(str(Path(spec.folder) / "policy"))


@dataclass(frozen=True)
class _Row:
    id: str
    context: str
    response: str
    edit: str


def _trl_trainer(spec: Spec, rows: list[Any], batch: int, model: Any, tokenizer: Any) -> Any:
    """TRL's trainer for a method, told only what all arms share and, if tuned, what makes it faster here."""
    from datasets import Dataset
    from peft import LoraConfig

    (method,), tuned = spec.methods, spec.arm == "trl tuned"
    arguments: dict[str, Any] = {
        "output_dir": spec.folder,
        "per_device_train_batch_size": batch,
        "max_steps": len(rows) // batch,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": round(len(rows) // batch * 0.1),
        "max_length": 4096,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": _device() == "cpu",
        "dataloader_pin_memory": _device() != "cpu",
    }
    if tuned:
        arguments |= {"gradient_checkpointing": False, "bf16": _device() != "cpu"}
    shared: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "peft_config": LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    }
    if method == "sft":
        from trl import SFTConfig, SFTTrainer

        texts = [{"prompt": f"{row.context}\n", "completion": row.edit} for row in rows]
        return SFTTrainer(args=SFTConfig(**arguments), train_dataset=Dataset.from_list(texts), **shared)
    from trl import DPOConfig, DPOTrainer

    texts = [{"prompt": f"{row.context}\n", "chosen": row.edit, "rejected": row.response} for row in rows]
    arguments |= {"beta": BETA, "loss_type": ["sigmoid", "sft"] if method == "early" else ["sigmoid"]}
    if tuned:
        arguments |= {"precompute_ref_log_probs": True}
    return DPOTrainer(args=DPOConfig(**arguments), train_dataset=Dataset.from_list(texts), **shared)


def main() -> None:
    """Measure what the first argument specifies and print it."""
    told = json.loads(sys.argv[1])
    print(json.dumps(measure(Spec(**told | {"methods": tuple(told["methods"])}))))


if __name__ == "__main__":
    main()
