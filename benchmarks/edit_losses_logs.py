"""The logs of `edit-losses`: who edits in the lab, in how many visits, and people's post-edits.

A user of the lab who visits a draft several times goes on where they left it, and every visit that changed
something is a revision. No file of real edits has revisions, so those of translations are made: the draft
with the first half of the translator's changes, from left to right, as the chains of arXiv 2512.23693 go.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rapidfuzz.distance import Levenshtein

from benchmarks.real_rows import LANGUAGES, Fold, mlqe
from editloop.edits import Record
from editloop.lab import LabDomain, base_path, get_domain, make_log
from editloop.lab.drafts import KeptDrafts
from editloop.policy import Policy, load_base
from editloop.users import User, get_user

__all__ = ["EditedLog", "Size", "half_way", "in_visits"]


class Size(NamedTuple):
    """How large the logs are; tests make small ones.

    Attributes:
        rows: Rows to learn from, in the lab.
        tests: Rows to test on, in the lab.
        rate_rows: Rows to learn from where learning rates are tried.
        real_rows: Rows to learn from, of people's edits.
        real_tests: Rows to test on, of people's edits.
        base: The base of people's edits, as `load_base` takes it.
        dtype: The precision of its weights.
        changes: Changes to the defaults of `fit`.
    """

    rows: int = 300
    tests: int = 150
    rate_rows: int = 600
    real_rows: int = 150
    real_tests: int = 80
    base: str = "smollm2"
    dtype: str = "bfloat16"
    changes: tuple[tuple[str, Any], ...] = ()

    def of(self, log: EditedLog) -> dict[str, Any]:
        """Return what the rows and the base of a log depend on, as JSON types."""
        if log.is_real:
            return {
                "rows": self.real_rows,
                "tests": self.real_tests,
                "base": self.base,
                "dtype": self.dtype,
            }
        return {"rows": self.rows, "tests": self.tests}


class EditedLog(NamedTuple):
    """A log, apart from its seed.

    Attributes:
        world: A domain of the lab, or a pair of languages of MLQE-PE.
        user: Who edits, in the lab.
        visits: How often they visit each draft.
    """

    world: str
    user: str = ""
    visits: int = 1

    @property
    def is_real(self) -> bool:
        """Whether people made the edits."""
        return self.world in LANGUAGES

    @property
    def has_chains(self) -> bool:
        """Whether there are earlier revisions of edits."""
        return self.is_real or self.visits > 1

    @property
    def name(self) -> str:
        """The log in a word that is safe in a path."""
        return self.world if self.is_real else f"{self.world}-{self.user}-{self.visits}"

    @property
    def title(self) -> str:
        """The log in a heading."""
        visits = f", {self.visits} visits" if self.visits > 1 else ""
        return self.world if self.is_real else f"{self.world}, {self.user}{visits}"

    @property
    def domain(self) -> LabDomain:
        """The domain of the lab."""
        return get_domain(self.world)

    def base(self, size: Size) -> Policy:
        """Return the base that drafts and learns."""
        if self.is_real:
            return load_base(size.base, dtype=size.dtype)
        return load_base(base_path(self.world))

    def fold(self, base: Policy, seed: int, size: Size, work: Path, data: Path | None = None) -> Fold:
        """Return the rows to learn from, and those to test on, whose contexts are others.

        Args:
            base: The base, which writes the drafts of the lab.
            seed: The seed of the lab's log; people's edits are the same for each.
            size: The size of the benchmark.
            work: Where the drafts of the lab are kept, which all users and methods share.
            data: The folder of real edits.
        """
        if self.is_real:
            fold = mlqe(self.world, data)
            return Fold(tuple(map(half_way, fold.train[: size.real_rows])), fold.test[: size.real_tests])
        user = get_user(self.user, self.domain, seed=seed)
        drafts = KeptDrafts(base, work / f"drafts-{self.world}-{seed}.jsonl", base.fingerprint)
        log = make_log(self.domain, user, size.rows + size.tests, seed, policy=drafts)
        train = tuple(in_visits(record, user, self.visits) for record in log[: size.rows])
        known = {record.context for record in train}
        rest = (in_visits(record, user, self.visits) for record in log[size.rows :])
        return Fold(train, tuple(record for record in rest if record.context not in known))


def in_visits(record: Record, user: User, visits: int) -> Record:
    """Return a row whose user comes back to it, with what each visit but the last changed as a revision.

    Args:
        record: The row after the first visit; its context is a text.
        user: Who edited it.
        visits: The number of visits, the first one included.
    """
    assert isinstance(record.context, str) and record.edit is not None
    texts = [record.response, record.edit]
    for visit in range(1, visits):
        texts.append(user.edit(record.context, texts[-1], round=visit))
    return _revised(record, texts)


def half_way(record: Record) -> Record:
    """Return a row with the text half way from the draft to the edit; one with a single change has none."""
    assert record.edit is not None
    old, new = record.response.split(), record.edit.split()
    parts = Levenshtein.opcodes(old, new)
    changes = sum(part.tag != "equal" for part in parts)
    if changes < 2:
        return record
    words, done = list[str](), 0
    for part in parts:
        done += part.tag != "equal"
        is_new = part.tag != "equal" and 2 * done <= changes
        span = new[part.dest_start : part.dest_end] if is_new else old[part.src_start : part.src_end]
        words += span
    return _revised(record, [record.response, " ".join(words), record.edit])


def _revised(record: Record, texts: Sequence[str]) -> Record:
    """A row whose edit is the last of texts, and whose earlier revisions are those that changed something."""
    saved = [later for earlier, later in pairwise(texts) if later != earlier]
    revisions = {"revisions": saved[:-1]} if len(saved) > 1 else {}
    given = record.model_dump(exclude={"edit", "status", "metadata"})
    return Record(**given, edit=texts[-1], metadata={**record.metadata, **revisions})
