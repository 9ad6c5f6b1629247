"""Drafts that are kept: what a policy has written before a job was killed is not drawn again.

A real base writes some tens of tokens a second on a CPU, so a log of a hundred rows takes minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from editloop.edits import Context
from editloop.errors import RunError
from editloop.journal import append_rows, read_rows
from editloop.policy import Policy, Sample

__all__ = ["KeptDrafts", "Writer"]


class Writer(Protocol):
    """Who answers contexts: a policy, or one whose drafts are kept."""

    def sample(
        self,
        contexts: Sequence[Context],
        *,
        seed: int,
        max_new_tokens: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[Sample]:
        """Return one response for each context."""
        ...


class KeptDrafts:
    """A policy whose drafts are kept in a file.

    Args:
        policy: The policy, which writes what the file does not have.
        path: A JSONL file, which is made if it is not there; several policies may share it.
        key: Tells apart what may differ behind the same name: the policy, its base and its run.

    Raises:
        RunError: The file is damaged.
    """

    def __init__(self, policy: Policy, path: Path, key: str) -> None:
        self.policy, self.path, self.key = policy, path, key
        try:
            self._kept = {
                row["asked"]: [Sample(**each) for each in row["drafts"]] for row in read_rows(path, RunError)
            }
        except (TypeError, KeyError) as error:
            raise RunError("the kept drafts are damaged", seen=str(path), do="remove the file") from error

    def sample(
        self,
        contexts: Sequence[Context],
        *,
        seed: int,
        max_new_tokens: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[Sample]:
        """Return the responses that are kept of just this call, or those that the policy draws now."""
        call = repr((self.key, list(contexts), seed, max_new_tokens))
        asked = hashlib.sha256(call.encode()).hexdigest()
        if asked not in self._kept:
            drawn = self.policy.sample(contexts, seed=seed, max_new_tokens=max_new_tokens, progress=progress)
            append_rows(self.path, [{"asked": asked, "drafts": [asdict(each) for each in drawn]}])
            self._kept[asked] = drawn
        return self._kept[asked]
