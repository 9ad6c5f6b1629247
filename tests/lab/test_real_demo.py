"""The demo on a real base, here a tiny one: it goes on after a kill, and takes a log of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from editloop.edits import Record, read_log
from editloop.errors import ConfigError, RunError
from editloop.lab.demo import RealDemoSettings, run_real_demo
from editloop.lab.drafts import KeptDrafts
from editloop.offline import FitConfig
from editloop.policy import Policy, Sample, load_base

TINY = RealDemoSettings(
    rows=20,
    responses=3,
    rounds=4,
    config=FitConfig(
        methods=("sft",),
        hyperparameters={"sft": {"learning_rate": (1e-3,)}},
        epochs=1.0,
        evaluations=1,
        validation_samples=0,
        max_new_tokens=8,
    ),
)


class Counting:
    """A policy that counts the contexts that it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def sample(self, contexts: Sequence[Any], **_: object) -> list[Sample]:
        self.asked += len(contexts)
        return [Sample(f"{context}!", 1, i % 2 == 0, i) for i, context in enumerate(contexts)]


def kept(policy: Counting, path: Path, key: str = "a") -> KeptDrafts:
    return KeptDrafts(policy, path, key)  # type: ignore[arg-type]


def test_drafts_are_drawn_once(tmp_path: Path) -> None:
    policy, path = Counting(), tmp_path / "drafts.jsonl"
    first = kept(policy, path).sample(["x", "y"], seed=1, max_new_tokens=5)
    assert kept(policy, path).sample(["x", "y"], seed=1, max_new_tokens=5) == first
    assert policy.asked == 2
    again: list[tuple[KeptDrafts, dict[str, Any]]] = [
        (kept(policy, path), {"contexts": ["x", "z"], "seed": 1, "max_new_tokens": 5}),
        (kept(policy, path), {"contexts": ["x", "y"], "seed": 2, "max_new_tokens": 5}),
        (kept(policy, path), {"contexts": ["x", "y"], "seed": 1, "max_new_tokens": 6}),
        (kept(policy, path, "b"), {"contexts": ["x", "y"], "seed": 1, "max_new_tokens": 5}),
    ]
    for writer, call in again:
        writer.sample(**call)
    assert policy.asked == 10


def test_a_file_of_drafts_that_is_damaged_is_refused_and_one_that_was_cut_is_not(tmp_path: Path) -> None:
    policy, path = Counting(), tmp_path / "drafts.jsonl"
    kept(policy, path).sample(["x"], seed=1, max_new_tokens=5)
    with path.open("a") as file:
        file.write('{"asked": "0f')
    assert kept(policy, path).sample(["x"], seed=1, max_new_tokens=5)[0].text == "x!"
    path.write_text('{"asked": "0f"}\n')
    with pytest.raises(RunError, match="kept drafts are damaged"):
        kept(policy, path)


@pytest.fixture
def tiny(base: Callable[..., Path]) -> Policy:
    return load_base(base(chat=True, max_position_embeddings=1024), device="cpu")


def test_a_demo_on_a_real_base_goes_on_to_the_same(tiny: Policy, tmp_path: Path) -> None:
    whole = run_real_demo(tiny, tmp_path / "whole", TINY)
    assert list(whole.costs) == ["base", "sft"] and whole.best == "sft"
    assert [len(found.contexts) for found in whole.costs.values()] == [3, 3]
    assert whole.costs["base"].contexts == whole.costs["sft"].contexts
    assert whole.online is not None and len(whole.online.rounds) == 4
    log = read_log(tmp_path / "whole/log.jsonl")
    assert len(log) == 20 and not {r.context for r in log} & set(whole.costs["base"].contexts)

    class KilledError(Exception):
        pass

    class Killer:
        def message(self, line: str) -> None: ...

        def warn(self, line: str) -> None: ...

        def progress(self, task: str, done: int, total: int, note: str = "") -> None:
            if task == "drafts and their edits" and done == 17:  # the second batch has been drawn
                raise KilledError

    with pytest.raises(KilledError):
        run_real_demo(tiny, tmp_path / "cut", TINY, callback=Killer())
    drawn = (tmp_path / "cut/drafts.jsonl").read_text()
    resumed = run_real_demo(tiny, tmp_path / "cut", TINY)
    assert (tmp_path / "cut/drafts.jsonl").read_text().startswith(drawn) and drawn.count("\n") == 2
    assert resumed.costs["sft"].responses == whole.costs["sft"].responses
    assert resumed.online is not None and resumed.online.rounds == whole.online.rounds
    with pytest.raises(RunError, match="another demo"):
        run_real_demo(tiny, tmp_path / "cut", RealDemoSettings(rows=21))


def test_a_log_of_ones_own_is_learned_from_and_its_last_contexts_are_kept_back(
    tiny: Policy, tmp_path: Path
) -> None:
    rows = [
        Record(context=f"Write to {i}.", response=f"Dear {i}", edit=f"Hi {i}", user="ada") for i in range(20)
    ]
    found = run_real_demo(tiny, tmp_path, TINY, log=rows)
    assert found.online is None and found.costs["base"].contexts == tuple(
        f"Write to {i}." for i in (17, 18, 19)
    )
    assert found.costs["sft"].edits == ("Hi 17", "Hi 18", "Hi 19")
    with pytest.raises(ConfigError, match="the log has too few contexts: 5"):
        run_real_demo(tiny, tmp_path / "few", TINY, log=rows[:5])
