"""The policies that wrote a log, as the reference of its rows.

A log's rows come from policies μ that changed over time. A preference of the edit over the draft of μ is a
step from μ: with the base as its reference, a correction of a draft that is far from the base is taken for
one of the base, and corrections of corrections add up (docs/findings.md). So the reference of a row may be
the policy that wrote it, loaded from its run folder, where that is still there; the base is that of the
others.

log μ(y'|x) of an edit was not known when the draft was served, so what a log has of log μ(y|x)
(`Record.logprob`) cannot be the reference of a pair. It says whether the policy in the folder is the one that
wrote the draft.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from editloop.edits import Log
from editloop.errors import RunError
from editloop.offline.examples import RESPONSE, Completions, Example
from editloop.offline.reference import Scorer, reference_of
from editloop.policy import Policy, RunFolder, arm_name, policy_fingerprint, processes
from editloop.policy.memory import release_memory

__all__ = ["LoggedPolicy", "LoggingPolicies", "find_logging_policies", "log_policies"]

TOLERANCE = 0.1
"""Nats per token by which the logged and the computed log-probability of a draft may differ, in the median.

Another precision or attention kernel makes a hundredth of that; another adapter usually makes more.
"""

FEW = 5
"""Drafts of a policy below which nothing is said about their log-probabilities."""

BASE = "base"


class LoggedPolicy(NamedTuple):
    """Where a policy that wrote drafts is.

    Attributes:
        run: Its run folder.
        name: Its name in the run: `sft`, `early`, `mixture`, `base` ...
    """

    run: str | Path
    name: str


@dataclass(frozen=True)
class LoggingPolicies:
    """The policies that are the reference of the rows that they wrote; without any, that is the base.

    Attributes:
        places: Where each is, by the name that it has in the log.
        fingerprints: What identifies the weights of each, by that name.
        without: The other names in the log, None for rows without a name, and why the base stands for them;
            empty for the base itself.
    """

    places: Mapping[str, LoggedPolicy] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    without: Mapping[str | None, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.places)

    def of(self, example: Example) -> str | None:
        """The policy that is the reference of an example, by its name in the log; None for the base."""
        return example.policy if example.policy in self.places else None

    def identity(self, example: Example) -> str:
        """What the reference of an example depends on: the weights of its policy; empty for the base."""
        name = self.of(example)
        return "" if name is None else self.fingerprints[name]

    def line(self, examples: Iterable[Example]) -> str:
        """How many rows have which reference, in a line."""
        rows = Counter(example.policy for example in examples)
        written = {name: rows[name] for name in self.places if rows[name]}
        text = f"reference: {sum(written.values())} rows by the policies that wrote them"
        if written:
            text += f" ({', '.join(f'{name} {count}' for name, count in written.items())})"
        reasons: Counter[str] = Counter()
        for name, count in rows.items():
            if name not in self.places:
                reasons[self.without.get(name, "")] += count
        if reasons:
            why = ", ".join(f"{count}: {reason}" for reason, count in reasons.items() if reason)
            text += f"; {reasons.total()} by the base" + (f" ({why})" if why else "")
        return text

    def score(
        self,
        policy: Policy,
        examples: Sequence[Example],
        completions: Sequence[Completions],
        *,
        cache: Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[list[Completions], bool]:
        """Compute log π_ref of completions, each by the reference of its example.

        The policies are loaded one after the other over the one base, so the memory is that of one adapter,
        or of one whole model, beside it.

        Args:
            policy: The base, without an adapter.
            examples: The examples [n].
            completions: Completions of the context of each [n].
            cache: As for `reference_of`.
            progress: Called with the number of this process's contexts done so far.

        Returns:
            The completions with log π_ref [n], and whether all of it came from the cache.
        """
        found: list[Completions] = list(completions)
        all_known, done, world = True, 0, processes(policy.device).num_processes
        names = [self.of(example) for example in examples]
        for name in dict.fromkeys(names):
            mine = [i for i, each in enumerate(names) if each == name]
            before = done

            def moved(own: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + own)

            scorer = None if name is None else self._scorer(name, policy)
            some, known = reference_of(
                policy, [completions[i] for i in mine], cache=cache, progress=moved, scorer=scorer
            )
            for i, each in zip(mine, some, strict=True):
                found[i] = each
            all_known, done = all_known and known, done + len(mine) // world
            if name is not None and not known:
                release_memory()  # a whole model is not to stand beside the next one
        return found, all_known

    def _scorer(self, name: str, base: Policy) -> Scorer:
        place = self.places[name]
        return Scorer(self.fingerprints[name], lambda: RunFolder(place.run).policy(place.name, base))

    def mismatches(self, examples: Sequence[Example]) -> list[str]:
        """Say which policies did not write their drafts as they are here, by what was logged at serving.

        Args:
            examples: Examples, of which those with log π_ref and a logged log-probability count.

        Returns:
            A line for each policy whose log-probabilities differ from the logged ones.
        """
        gaps: dict[str, list[float]] = {}
        for example in examples:
            name, known = self.of(example), example.completions.reference
            # A mixture logs the log-probability of the part that wrote the draft, which is not its own.
            if (
                name is None
                or known is None
                or example.logprob is None
                or self.places[name].name == "mixture"
            ):
                continue
            draft = example.completions.of(RESPONSE)
            tokens = len(example.tree.continuations[draft])
            gaps.setdefault(name, []).append(abs(known[draft] - example.logprob) / max(1, tokens))
        lines = []
        for name, each in gaps.items():
            # The median, because a draft that was written in other tokens than those that its text gives
            # differs whoever wrote it.
            if len(each) >= FEW and (gap := float(np.median(each))) > TOLERANCE:
                lines.append(
                    f"{name} in {self.places[name].run} gives the drafts that it is logged for other "
                    f"log-probabilities than it had at serving, by {gap:.2f} nats a token in the median of "
                    f"{len(each)}: another chat template, precision or adapter?"
                )
        return lines


def find_logging_policies(
    names: Iterable[str | None], places: Mapping[str, LoggedPolicy], base: Policy
) -> LoggingPolicies:
    """Look up the policies of a log, and check that they are those that wrote it.

    Args:
        names: The policies that the rows of the log name.
        places: Where policies are, by their names in the log.
        base: The base of the fit.
    """
    found: dict[str, LoggedPolicy] = {}
    fingerprints: dict[str, str] = {}
    without: dict[str | None, str] = {}
    for name in dict.fromkeys(names):
        if name is None:
            without[name] = "no policy is named"
        elif name == BASE or name == f"{BASE}@{base.fingerprint[:8]}":
            without[name] = ""
        elif name not in places:
            without[name] = "their policy is not known"
        else:
            place = LoggedPolicy(*places[name])
            reason, fingerprint = _examined(name, place, base)
            if reason is not None:
                without[name] = reason
            elif place.name == BASE:
                without[name] = ""
            else:
                found[name], fingerprints[name] = place, fingerprint
    return LoggingPolicies(found, fingerprints, without)


def _examined(name: str, place: LoggedPolicy, base: Policy) -> tuple[str | None, str]:
    """Why a policy cannot be a reference, None if it can; and its fingerprint."""
    folder = RunFolder(place.run)
    try:
        manifest = folder.manifest()
        if place.name not in folder.arm_names():
            return "their policy is gone", ""
        if manifest.base.fingerprint != base.fingerprint:
            return "their policy has another base", ""
        fingerprint = policy_fingerprint(folder, place.name)
    except (RunError, OSError):  # the folder was removed, or is damaged
        return "their policy is gone", ""
    # An arm's name has a hash of its weights: the run folder may have been fitted anew since.
    _, at, shown = name.rpartition("@")
    if at and not fingerprint.startswith(shown):
        return "their policy was replaced", ""
    return None, fingerprint


def log_policies(log: object, runs: Iterable[str | Path] = ()) -> dict[str, LoggedPolicy]:
    """Where the policies of a log are: those of a server's store, and those of run folders.

    Args:
        log: What `read_log` returned; only that of a store knows its policies.
        runs: Run folders, whose policies have the names under which they are served.

    Raises:
        RunError: One of `runs` is no run folder, or a policy of it is not in order.
    """
    found: dict[str, LoggedPolicy] = {}
    if isinstance(log, Log) and not isinstance(log.report.path, Path):
        places = log.report.path.policies()
        found |= {arm: LoggedPolicy(run, name) for arm, (run, name) in places.items()}
    for run in runs:
        folder = RunFolder(run)
        found |= {arm_name(folder, name): LoggedPolicy(folder.path, name) for name in folder.arm_names()}
    return found
