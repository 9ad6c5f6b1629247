"""What the tests of several benchmarks share: jobs that run in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from benchmarks import defaults, edit_losses, estimate, personal_adapters, real, real_table, rerank
from editloop.progress import WarningCallback


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process, one after the other, so that a test can watch them."""

    def in_turn(work: Callable[[Any], Any], jobs: Sequence[Any], *_: Any) -> Iterator[tuple[Any, Any]]:
        return ((job, work(job)) for job in jobs)

    for module in (defaults, edit_losses, estimate, personal_adapters, real, real_table, rerank):
        monkeypatch.setattr(module, "in_parallel", in_turn)
    for module in (edit_losses, real, real_table):
        monkeypatch.setattr(module, "RelayedCallback", lambda label: WarningCallback())
