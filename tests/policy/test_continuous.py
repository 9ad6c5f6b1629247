"""Rows that join and leave a batch at every token: each gets the tokens that it gets alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from editloop.policy import Policy, continuous, load_base
from editloop.policy.continuous import ContinuousBatch, Row, SeparateRows, takes_row_cache
from editloop.policy.drawing import NOT_FINITE
from editloop.policy.generation import GenerationSettings
from editloop.policy.row_cache import ROOM
from editloop.policy.sampling import sample, without_shipped_settings
from tiny import FAMILIES, VOCABULARY, tiny_model

GREEDY = GenerationSettings(temperature=0)
RECURRENT = {"mamba", "rwkv"}
"""Families whose rows cannot come and go."""

Batch = ContinuousBatch | SeparateRows


def numbers(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(7, VOCABULARY, length).tolist())


def a_row(length: int = 8, tokens: int = 6, *, seed: int = 0, settings: GenerationSettings = GREEDY) -> Row:
    stream = np.random.SeedSequence(7, spawn_key=(seed,))
    return Row(prompt=numbers(length, seed), max_tokens=tokens, settings=settings, stream=stream)


def step(batch: Batch) -> list[Row]:
    """A step, after which the rows that have all their tokens are ended; the rows that got a token."""
    drawn = [row for row, _ in batch.step()]
    for row in drawn:
        if len(row.ids) == row.max_tokens:
            row.done = "length"
    return drawn


def drain(batch: Batch) -> int:
    """Steps until no row is left."""
    steps = 0
    while batch.rows:
        step(batch)
        steps += 1
        assert steps < 500
    return steps


def generated(model: Any, row: Row) -> list[int]:
    """What `transformers` gives for the row alone."""
    ids = torch.tensor([row.prompt])
    config = GenerationConfig(max_new_tokens=row.max_tokens, do_sample=False, pad_token_id=1)
    found = without_shipped_settings(model).generate(
        ids, attention_mask=torch.ones_like(ids), generation_config=config
    )
    return [int(token) for token in found[0, len(row.prompt) :]]


@pytest.fixture
def shapes() -> Callable[[Any], list[tuple[int, int]]]:
    """The [rows, columns] of every forward of a model from now on."""

    def record(model: Any) -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []

        def note(_: Any, __: Any, arguments: dict[str, Any]) -> None:
            seen.append(tuple(arguments["input_ids"].shape))

        model.register_forward_pre_hook(note, with_kwargs=True)
        return seen

    return record


Shapes = Callable[[Any], list[tuple[int, int]]]


@pytest.mark.parametrize("kind", [ContinuousBatch, SeparateRows])
def test_a_row_knows_how_likely_its_tokens_are_however_they_were_drawn(kind: type[Batch]) -> None:
    """By the model itself: at temperature 1, over all tokens, without a penalty."""
    model = tiny_model("llama")
    ways = (
        GREEDY,
        GenerationSettings(temperature=0.5, top_p=0.8),
        GenerationSettings(temperature=1.5, repetition_penalty=1.3),
        GenerationSettings(top_k=3),
    )
    rows = [a_row(4 + i, 5, seed=i, settings=settings) for i, settings in enumerate(ways)]
    batch = kind(model)
    for row in rows:
        batch.add(row)
    drain(batch)
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.ids]])
        with torch.no_grad():
            table = model(ids).logits[0].log_softmax(-1)[len(row.prompt) - 1 : -1]
        assert row.logprob == pytest.approx(
            float(table.gather(1, ids[0, len(row.prompt) :, None]).sum()), abs=1e-4
        )
        assert row.logprob < -1


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_greedy_tokens_are_those_of_generate_whenever_a_row_comes(family: str) -> None:
    """Models with windows of 6 tokens are among them, and recurrent ones, whose rows are computed apart."""
    model = tiny_model(family)
    together, reason = takes_row_cache(model)
    assert together == (family not in RECURRENT), reason
    batch = (ContinuousBatch if together else SeparateRows)(model)
    lengths = (9, 150, 3, 20, 12)  # the second is longer than what is read between two tokens
    # The first one is also longer than the room that new buffers have.
    rows = [a_row(length, 12 if i else ROOM + 12, seed=i) for i, length in enumerate(lengths)]
    for row in rows:
        batch.add(row)
        step(batch)
        step(batch)
    drain(batch)
    assert [row.ids for row in rows] == [generated(model, row) for row in rows]
    assert len({tuple(row.ids[:5]) for row in rows}) > 1


@pytest.mark.parametrize("kind", [ContinuousBatch, SeparateRows])
def test_sampled_tokens_are_those_of_the_policys_own_sampling(base: Any, kind: type[Batch]) -> None:
    policy: Policy = load_base(base(), device="cpu")
    contexts = ["a", "Dear Ann, thank you for the notes", "bc", "What now?"]
    kinds = [
        GenerationSettings(),
        GenerationSettings(temperature=0.7, top_p=0.9),
        GenerationSettings(temperature=1.5, top_k=5, repetition_penalty=1.3),
        GREEDY,
    ]
    prompts = [tuple(policy.encoder.prompt(context)) for context in contexts]
    streams = [np.random.SeedSequence(5, spawn_key=(i,)) for i in range(len(contexts))]
    rows = [
        Row(prompt=prompt, max_tokens=14, settings=settings, stream=stream)
        for settings in kinds
        for prompt, stream in zip(prompts, streams, strict=True)
    ]
    batch = kind(policy.model)
    for row in rows:
        batch.add(row)
    while batch.rows:
        for row, token in batch.step():
            if token in policy.encoder.ends or len(row.ids) == row.max_tokens:
                row.done = "stop"
    ends = policy.encoder.ends
    found = [policy.encoder.decode([token for token in row.ids if token not in ends]) for row in rows]
    expected = [
        each.text
        for settings in kinds
        for each in sample(
            policy.model, policy.encoder, contexts, seed=5, settings=settings, max_new_tokens=14
        )
    ]
    assert found == expected
    assert len(set(found)) > 8


def test_a_row_has_the_same_tokens_alone_and_in_company() -> None:
    model = tiny_model()
    settings = GenerationSettings(temperature=0.9, top_p=0.95)
    alone = a_row(11, 20, seed=3, settings=settings)
    batch = ContinuousBatch(model)
    batch.add(alone)
    drain(batch)
    beside = a_row(11, 20, seed=3, settings=settings)
    for i in range(4):
        batch.add(a_row(5 + 9 * i, 5 + i, seed=i, settings=settings))
        step(batch)
    batch.add(beside)
    for i in range(4):
        step(batch)
        batch.add(a_row(2 + 17 * i, 3, seed=10 + i, settings=settings))
    drain(batch)
    assert beside.ids == alone.ids


def test_a_short_row_behind_a_long_one_gets_its_tokens_at_once() -> None:
    """Its prompt is read and its first token drawn at the step after it has come."""
    batch = ContinuousBatch(tiny_model())
    long, short = a_row(10, 100), a_row(8, 5, seed=1)
    batch.add(long)
    for _ in range(20):
        step(batch)
    batch.add(short)
    for count in range(1, 6):
        assert set(step(batch)) == {long, short}
        assert (len(short.ids), len(long.ids)) == (count, 20 + count)
    assert short.done == "length"
    assert set(step(batch)) == {long}


def test_eight_at_once_take_as_many_forwards_as_the_longest(shapes: Shapes) -> None:
    model = tiny_model()
    seen = shapes(model)
    batch = ContinuousBatch(model)
    for i in range(8):
        batch.add(a_row(9 + i % 7, 6 + 2 * i, seed=i))
    assert drain(batch) == 20
    assert seen[0] == (8, 15)  # all prompts at once
    assert [columns for _, columns in seen[1:]] == [1] * 19
    # Row i has 6 + 2 i tokens: from the second on, each is one forward, of no more rows than are left.
    assert [rows for rows, _ in seen[1:]] == [8] * 5 + [n for n in range(7, 0, -1) for _ in range(2)]


def test_longer_prompts_delay_the_others_by_a_few_steps(shapes: Shapes) -> None:
    model = tiny_model()
    seen = shapes(model)
    batch = ContinuousBatch(model)
    for i in range(8):
        batch.add(a_row(40, 20, seed=i))
    assert drain(batch) == 20 + 2  # three prompts fit in a chunk, so the last two are read at the third step
    assert [rows for rows, columns in seen if columns > 1] == [3, 3, 2]
    assert len(seen) == 3 + 19 + 2


def test_a_row_that_was_ended_is_gone_from_the_next_step(shapes: Shapes) -> None:
    model = tiny_model()
    seen = shapes(model)
    batch = ContinuousBatch(model)
    rows = [a_row(8, 30, seed=i) for i in range(3)]
    for row in rows:
        batch.add(row)
    for _ in range(4):
        step(batch)
    rows[1].done = "stop"
    drawn = step(batch)
    assert set(drawn) == {rows[0], rows[2]} and seen[-1] == (2, 1)
    assert len(rows[1].ids) == 4 and batch.rows == [rows[0], rows[2]]
    drain(batch)
    assert [rows[i].ids for i in (0, 2)] == [generated(model, rows[i]) for i in (0, 2)]


def test_rows_that_end_before_their_first_token_cost_nothing_more(
    shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous, "MAX_ROWS", 2)
    model = tiny_model()
    seen = shapes(model)
    batch = ContinuousBatch(model)
    running, read, waits = a_row(4, 9), a_row(250, 3, seed=1), a_row(5, 3, seed=2)
    for row in (running, read, waits):
        batch.add(row)
    step(batch)
    step(batch)
    assert read.ids == [] and waits in batch.rows
    read.done = waits.done = "stop"
    before = len(seen)
    drain(batch)
    assert set(seen[before:]) == {(1, 1)}
    assert read.ids == [] and waits.ids == [] and running.ids == generated(model, running)


def test_a_long_prompt_is_read_in_chunks_while_others_go_on(
    shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous, "CHUNK", 16)
    model = tiny_model()
    seen = shapes(model)
    batch = ContinuousBatch(model)
    running, long, short = a_row(8, 60), a_row(100, 4, seed=1), a_row(6, 4, seed=2)
    batch.add(running)
    step(batch)
    batch.add(long)
    for count in range(2, 5):
        assert step(batch) == [running] and len(running.ids) == count
    batch.add(short)
    # It is behind one chunk of the long prompt, and from then on the two take turns until it has been read.
    arrived = [step(batch) for _ in range(2)]
    assert any(short in drawn for drawn in arrived) and all(running in drawn for drawn in arrived)
    while not long.ids:
        assert running in step(batch)
    # 7 chunks of 16 and of the rest, each at a step of its own, and one step for the short prompt.
    assert len(running.ids) == 1 + 7 + 1
    assert max(columns for _, columns in seen) == 16
    drain(batch)
    for row in (running, long, short):
        assert row.ids == generated(model, row)


def test_rows_wait_for_room_in_the_cache_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "MAX_CACHED", 60)
    batch = ContinuousBatch(tiny_model())
    # Of 20 columns each: three have room. The fourth would need 4 * 20; the fifth, though short, waits, too.
    rows = [a_row(14, 6, seed=i) for i in range(4)] + [a_row(2, 2, seed=9)]
    for row in rows:
        batch.add(row)
    step(batch)
    assert batch.admitted == rows[:3] and list(batch.waiting) == rows[3:]
    for _ in range(5):
        step(batch)
    assert all(row.done for row in rows[:3])
    step(batch)
    assert batch.admitted == rows[3:]
    drain(batch)
    assert all(len(row.ids) == row.max_tokens for row in rows)


def test_a_row_that_exceeds_all_room_is_generated_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "MAX_CACHED", 10)
    batch = ContinuousBatch(tiny_model())
    rows = [a_row(14, 6, seed=i) for i in range(2)]
    for row in rows:
        batch.add(row)
    assert drain(batch) == 12
    assert [len(row.ids) for row in rows] == [6, 6]


@pytest.mark.parametrize("kind", [ContinuousBatch, SeparateRows])
def test_a_row_whose_scores_are_not_finite_is_told_and_the_others_go_on(
    kind: type[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    batch = kind(model)
    well, ill = a_row(8, 4), a_row(8, 4, seed=1)
    embed = model.get_input_embeddings()
    poisoned = next(token for token in ill.prompt if token not in well.prompt)
    with torch.no_grad():
        embed.weight[poisoned] = torch.nan
    batch.add(well)
    batch.add(ill)
    drawn = dict(batch.step())
    assert drawn[ill] == NOT_FINITE
    assert drawn[well] >= 0


def test_a_model_that_mixes_rows_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ignores the mask, so it sees the padding of the shorter row."""
    model = tiny_model()
    forward = type(model).forward

    def blind(
        self: Any, *inputs: Any, attention_mask: Any = None, position_ids: Any = None, **more: Any
    ) -> Any:
        return forward(self, *inputs, **more)

    monkeypatch.setattr(type(model), "forward", blind)
    together, reason = takes_row_cache(model)
    assert not together and "mixes rows" in reason


def test_a_model_that_returns_no_cache_reads_all_tokens_again(shapes: Shapes) -> None:
    model = tiny_model("rwkv")
    seen = shapes(model)
    batch = SeparateRows(model)
    rows: Sequence[Row] = [a_row(5, 3), a_row(7, 2, seed=1)]
    for row in rows:
        batch.add(row)
    assert drain(batch) == 3
    assert seen == [(1, 5), (1, 7), (1, 6), (1, 8), (1, 7)]
