"""The plan of a fit: rows, steps, memory, micro-batches and minutes, before the work begins.

What a token takes is measured (`editloop.offline.speed`), and the system is asked for the memory that there
is (`editloop.policy.memory`). The rest is counting.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from accelerate.utils import broadcast_object_list

from editloop.errors import ConfigError
from editloop.offline.arguments import forward_tokens, step_size, training_length
from editloop.offline.arguments import micro_batch as choose_micro_batch
from editloop.offline.config import FitConfig, Trial
from editloop.offline.data import FitData
from editloop.offline.examples import Example
from editloop.offline.schedule import rung_steps
from editloop.offline.speed import Speed, measure_speed
from editloop.policy import ContextTree, Policy, processes
from editloop.policy.memory import free_memory, parse_size, show_size, used_memory
from editloop.progress import show_duration

__all__ = ["FitPlan", "MethodPlan", "make_plan", "memory_limit"]

SHARE = 0.8
"""The part of the free memory that a fit takes at most, unless `memory` says otherwise."""
NEAR = 0.75
"""The part of the limit from which on a process gives freed memory back in any case."""
MARGIN = 1.15
"""What is added to a measured memory when a micro-batch is chosen: batches differ in how they are packed."""


@dataclass(frozen=True)
class MethodPlan:
    """What a method will take.

    Attributes:
        name: The method.
        trials: Its trials, of which the worse may be dropped on the way.
        rows: The rows that it learns from.
        steps: Optimiser steps of all trials.
        tokens: Tokens of their forwards with a backward.
        micro_batch: Contexts in one forward.
        checkpointing: Whether activations are computed again in the backward.
        memory: Bytes at its largest batch.
        seconds: Time of training, validation and samples, if no training stops early.
    """

    name: str
    trials: int
    rows: int
    steps: int
    tokens: int
    micro_batch: int
    checkpointing: bool
    memory: float
    seconds: float


@dataclass(frozen=True)
class FitPlan:
    """What a fit will take.

    Attributes:
        methods: The methods, in their order.
        speed: What was measured.
        limit: The most memory that may be used, in bytes, and why.
        before: Seconds of the reference pass, the base's samples, and completions for a cost model.
    """

    methods: tuple[MethodPlan, ...]
    speed: Speed
    limit: tuple[float, str]
    before: float

    @property
    def seconds(self) -> float:
        """The whole time, from the reference pass to the mixture."""
        return self.before + sum(each.seconds for each in self.methods)

    @property
    def memory(self) -> float:
        """The most memory that is used at a time."""
        return max(each.memory for each in self.methods)

    @property
    def heap(self) -> float:
        """The memory from which on a process gives freed memory back: what was announced, below the limit."""
        return min(self.memory, NEAR * self.limit[0])

    def lines(self) -> list[str]:
        """The plan as text, a line for each method and two for the whole."""
        lines = [
            f"plan: {1 / self.speed.train:,.0f} tokens a second with gradients, "
            f"{1 / self.speed.score:,.0f} without (measured)"
        ]
        for each in self.methods:
            trials = f"{each.trials} trials, " if each.trials > 1 else ""
            kept = ", activations computed twice" if each.checkpointing else ""
            contexts = f"{each.micro_batch} context{'s' * (each.micro_batch > 1)} a forward"
            lines.append(
                f"plan: {each.name}: {trials}{each.rows} rows, {each.steps} steps, {each.tokens:,} tokens, "
                f"{contexts}{kept}, {show_size(each.memory)}, "
                f"about {show_duration(each.seconds)}"
            )
        limit, why = self.limit
        lines.append(
            f"plan: about {show_duration(self.seconds)} and {show_size(self.memory)} of memory in all; "
            f"the limit is {show_size(limit)} ({why})"
        )
        return lines

    def config_for(self, name: str, config: FitConfig) -> FitConfig:
        """The configuration with which a method is trained: with its micro-batch and its checkpointing."""
        (mine,) = (each for each in self.methods if each.name == name)
        return config.changed(
            {"micro_batch_size": mine.micro_batch, "gradient_checkpointing": mine.checkpointing}
        )


def memory_limit(memory: str | None, device: torch.device) -> tuple[float, str]:
    """The most memory that a fit may use in all, in bytes, and why.

    Args:
        memory: What was asked for, such as `6GB`; None for a share of what is free.
        device: The device.
    """
    if memory is not None:
        return float(parse_size(memory)), "as asked"
    free, why = free_memory(device)
    return used_memory(device) + SHARE * free, f"in use, and {SHARE:.0%} of {show_size(free)} {why}"


def make_plan(policy: Policy, config: FitConfig, data: FitData, *, trained: Collection[str] = ()) -> FitPlan:
    """Measure one batch and plan a fit; the same plan in all processes.

    Args:
        policy: The base.
        config: The fit's configuration, with the limit of sampled responses.
        data: The encoded log.
        trained: The methods that an earlier process has trained, which take no more time.

    Raises:
        ConfigError: Even one context at a time does not fit into the memory.
    """
    limit = memory_limit(config.memory, policy.device)
    # With all of them trained, the plan is of no use, but there is one.
    names = [name for name in config.methods if name not in trained] or list(config.methods)
    trials = {name: config.trials(name) for name in names}
    trees = {name: _trees(own[0], data.train.examples) for name, own in trials.items()}
    draws = config.validation_samples or "cost_model" in config.needs
    contexts = [example.context for example in data.validation.examples[:1]] if draws else []
    speed = measure_speed(policy, config, [tree for own in trees.values() for tree in own], contexts)
    made = tuple(
        _plan_method(trials[name], trees[name], policy, config, data, speed, limit) for name in names
    )
    plan = FitPlan(made, speed, limit, _before(config, data, speed))
    # Measured in each process, and not equal to the last digit: all have to take the same decisions.
    shared: FitPlan = broadcast_object_list([plan])[0]
    return shared


def _trees(trial: Trial, examples: Sequence[Example]) -> list[ContextTree]:
    """The trees that a trial learns from, without the completions that are yet to be sampled."""
    mine = [example for example in examples if trial.method.rows(example)]
    if "cost_model" in trial.needs:
        return [example.tree for example in mine]
    return [each.tree for each in trial.method.completions(mine, trial.hyperparameters)]


def _sampled_tokens(config: FitConfig, examples: Sequence[Example]) -> float:
    """About how many tokens the sampled completions add to a tree of a method that needs them."""
    lengths = [len(tokens) for example in examples for tokens in example.tree.continuations[:1]]
    return config.draws * sum(lengths) / max(1, len(lengths))


def _plan_method(
    trials: Sequence[Trial],
    trees: Sequence[ContextTree],
    policy: Policy,
    config: FitConfig,
    data: FitData,
    speed: Speed,
    limit: tuple[float, str],
) -> MethodPlan:
    method = trials[0].method
    samples = "cost_model" in trials[0].needs
    more = _sampled_tokens(config, data.train.examples) if samples else 0.0
    most = config.draws * config.longest_response if samples else 0  # each of a batch may reach the limit
    sizes = [len(tree.layout) for tree in trees]
    mean = more + sum(sizes) / max(1, len(sizes))
    lengths = sorted((size + most for size in sizes), reverse=True)
    world = processes(policy.device).num_processes
    batch = max(1, step_size(config, len(trees), world))  # 0 is refused where the training begins
    micro = choose_micro_batch(batch, trees, forward_tokens(policy), most=config.micro_batch_size)
    if not method.forward_matters:
        bearable = (limit[0] - speed.resident) / (MARGIN * speed.token)
        while micro > 1 and sum(lengths[:micro]) > bearable:
            micro = max(size for size in range(1, micro) if batch % size == 0)
    tokens = sum(lengths[:micro])
    fits = speed.resident + MARGIN * speed.token * tokens <= limit[0]
    checkpointing = config.gradient_checkpointing or not fits
    memory = speed.resident + (speed.checkpointed if checkpointing else speed.token) * tokens
    if checkpointing and memory > limit[0]:
        raise ConfigError(
            f"{method.name} needs {show_size(memory)} of memory for {micro} of its longest rows, and the "
            f"limit is {show_size(limit[0])}",
            seen=config.memory,
            do="raise --memory, or lower --max-length",
        )
    steps, finalists, evaluations = _trained_steps(trials, config, len(trees), world)
    trained = steps * batch * world * mean
    held = sum(len(example.tree.layout) for example in data.validation.examples)
    # Where the activations are computed twice, so is the forward.
    seconds = trained / world * (speed.train + (speed.score if checkpointing else 0.0))
    # A method that weighs tokens reads the held rows once more, and has a reference of its own.
    weighted = any(tree.weights is not None for tree in trees)
    seconds += evaluations * held * (1 + weighted) / world * speed.score
    if weighted and "reference" in trials[0].needs:
        seconds += (mean * len(trees) + held) / world * speed.score
    seconds += finalists * _drawing(config.validation_samples, config, data.validation.examples, speed)
    return MethodPlan(
        method.name, len(trials), len(trees), steps, round(trained), micro, checkpointing, memory, seconds
    )


def _trained_steps(
    trials: Sequence[Trial], config: FitConfig, rows: int, world: int
) -> tuple[int, int, float]:
    """Optimiser steps of a method's trials, the trials that are trained to the end, and all evaluations.

    Args:
        trials: The trials, which are halved on the way or not.
        config: The fit's configuration.
        rows: The rows that the method learns from.
        world: The number of processes.
    """
    lengths = [training_length(config, rows, world, trial.hyperparameters.epochs) for trial in trials]
    whole, every = max(lengths)
    if config.is_halved:
        left, before, total = len(trials), 0, 0
        for rung in rung_steps(whole, len(trials), every):
            total += left * (rung - before)
            left, before = math.ceil(left / 2), rung
        total += left * (whole - before)
    else:
        total, left = sum(steps for steps, _ in lengths), len(trials)
    return total, left, config.evaluations * total / lengths[0][0]


def _drawing(count: int, config: FitConfig, examples: Sequence[Example], speed: Speed) -> float:
    """Seconds of sampling responses: one for each of the first `count` examples, in batches."""
    contexts = [len(example.tree.context) for example in examples[:count]]
    seconds = 0.0
    for start in range(0, len(contexts), speed.together):
        part = contexts[start : start + speed.together]
        # A batch's prompts are padded to its longest, and it goes on until its longest response has ended. A
        # step is as long as that of one response (reading the weights) and the work of the others.
        seconds += max(part) * len(part) * speed.score
        seconds += config.longest_response * (speed.draw + (len(part) - 1) * speed.score)
    return seconds


def _before(config: FitConfig, data: FitData, speed: Speed) -> float:
    """Seconds of what comes before the first training, as if nothing were cached."""
    held, pairs = data.validation.examples, data.train.pairs
    scored = [*held, *(pairs if "reference" in config.needs else ())]
    if data.references or data.start:  # what training begins from reads the validation rows as well
        scored += held
    seconds = sum(len(example.tree.layout) for example in scored) * speed.score
    seconds += _drawing(config.validation_samples, config, held, speed)
    if "cost_model" in config.needs:
        everything = [*data.train.examples, *held]
        more = _sampled_tokens(config, everything)
        seconds += config.draws * _drawing(len(everything), config, everything, speed)
        seconds += sum(len(example.tree.layout) + more for example in everything) * speed.score
    return seconds
