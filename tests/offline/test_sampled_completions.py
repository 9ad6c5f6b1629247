"""Completions are sampled in rounds that a kill does not lose, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from editloop.offline import Example, make_examples
from editloop.offline.cost_model import sampled
from editloop.offline.cost_model.sampled import sample_completions
from editloop.policy import Policy, load_base
from small_log import RecordingCallback, small_log


class Killed(Exception):
    """What stands for a kill in the middle of the work."""


class KilledAfter(RecordingCallback):
    """A callback that ends the process, as it were, after so many completions."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        super().progress(task, done, total, note)
        if done >= self.count:
            raise Killed


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


@pytest.fixture
def examples(policy: Policy) -> Sequence[Example]:
    return make_examples(small_log(20), policy.encoder).examples


@pytest.fixture
def asked(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of completions that the policy is asked for, by call."""
    found: list[int] = []
    sample = type(policy).sample

    def counted(self: Policy, contexts: Sequence[Any], **options: Any) -> Any:
        found.append(len(contexts))
        return sample(self, contexts, **options)

    monkeypatch.setattr(type(policy), "sample", counted)
    return found


def test_what_was_killed_goes_on_where_it_was_and_ends_the_same(
    policy: Policy, examples: Sequence[Example], asked: list[int], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": 6}
    whole = sample_completions(policy, examples, 4, **options, cache=tmp_path / "whole")
    assert asked == [32, 32, 16]  # of 80 completions, 32 in a round
    asked.clear()
    with pytest.raises(Killed):
        sample_completions(policy, examples, 4, **options, cache=tmp_path, callback=KilledAfter(50))
    (journal,) = (tmp_path / "sampled").iterdir()
    assert len(journal.read_text().splitlines()) == 64
    callback = RecordingCallback()
    assert sample_completions(policy, examples, 4, **options, cache=tmp_path, callback=callback) == whole
    assert asked == [32, 32, 16]
    assert callback.steps == [("sampled completions", 80, 80)]
    assert callback.lines == [
        "completions to sample: 80 (4 for each of 20 contexts), at most 96 tokens; 64 are known already"
    ]


def test_a_line_that_a_kill_cut_short_costs_its_completion_alone(
    policy: Policy, examples: Sequence[Example], asked: list[int], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": 6, "cache": tmp_path}
    whole = sample_completions(policy, examples, 2, **options)
    (journal,) = (tmp_path / "sampled").iterdir()
    content = journal.read_bytes()
    journal.write_bytes(content[: content.rindex(b"text")])
    asked.clear()
    assert sample_completions(policy, examples, 2, **options) == whole
    assert asked == [1]
    journal.write_bytes(b"damaged\n" + content)
    assert sample_completions(policy, examples, 2, **options) == whole
    assert journal.read_bytes() == content


def test_more_completions_are_added_to_those_that_are_known(
    policy: Policy, examples: Sequence[Example], asked: list[int], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": 6, "cache": tmp_path}
    two = sample_completions(policy, examples, 2, **options)
    asked.clear()
    three = sample_completions(policy, examples, 3, **options)
    assert sum(asked) == 20
    assert [texts[:2] for texts in three] == two
    assert any(len(set(texts)) == 3 for texts in three)
    asked.clear()
    assert sample_completions(policy, examples, 2, **options) == two
    assert asked == []


def test_a_round_is_shared_among_processes_without_changing_a_completion(
    policy: Policy, examples: Sequence[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": 6}
    alone = sample_completions(policy, examples, 3, **options, cache=tmp_path / "one")

    def of_two(_: Any, items: Sequence[Any], work: Any) -> list[Any]:
        found: dict[int, Any] = {}
        for rank in (0, 1):
            found |= dict(zip(range(rank, len(items), 2), work(items[rank::2]), strict=True))
        return [found[i] for i in range(len(items))]

    monkeypatch.setattr(sampled, "on_all_processes", of_two)
    assert sample_completions(policy, examples, 3, **options, cache=tmp_path / "two") == alone


def test_long_contexts_come_first_and_contexts_of_like_length_together(policy: Policy) -> None:
    made = make_examples(small_log(20), policy.encoder).examples
    rounds = sampled._rounds(made, 16, 1)
    lengths = [[len(made[i].tree.context) for i in members] for members in rounds]
    assert [len(each) for each in lengths] == [2] * 10
    joined = [length for each in lengths for length in each]
    assert joined == sorted(joined, reverse=True)
    assert sampled._rounds(made, 100, 2)[0] == rounds[0]  # two processes with a context each


def test_a_folder_that_cannot_be_written_costs_no_more_than_time(
    policy: Policy, examples: Sequence[Example], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": 6}
    (tmp_path / "sampled").write_text("not a folder")
    found = sample_completions(policy, examples, 1, **options, cache=tmp_path)
    assert found == sample_completions(policy, examples, 1, **options, cache=tmp_path / "other")
