"""Sampling: the whole distribution, a function of the seed, the same in every batch; loops trimmed."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from editloop.edits import Message
from editloop.errors import ConfigError, ModelError
from editloop.policy import (
    LoraSettings,
    MixedPolicy,
    Policy,
    attach_adapter,
    detach_adapter,
    load_base,
    sampling,
)
from editloop.policy.generation import GenerationSettings
from editloop.policy.sampling import InversionSampler, trim_loops, without_shipped_settings

CONTEXTS = ["a", "Dear Ann, thank you for the notes", "bc", "What now?", "xyz xyz", "0"]


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def texts(policy: Policy, contexts: list[str] = CONTEXTS, **options: Any) -> list[str]:
    return [s.text for s in policy.sample(contexts, max_new_tokens=12, **options)]


def test_the_seed_decides_and_the_global_state_is_left_alone(policy: Policy) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = texts(policy, seed=7)
    assert torch.equal(torch.rand(1), expected)
    assert texts(policy, seed=7) == first
    assert texts(policy, seed=8) != first


def greedy(policy: Policy, context: str, steps: int) -> list[int]:
    ids = list(policy.encoder.prompt(context))
    sampled: list[int] = []
    with torch.no_grad():
        while len(sampled) < steps and policy.encoder.end not in sampled:
            sampled.append(int(policy.model(torch.tensor([ids + sampled])).logits[0, -1].argmax()))
    return sampled


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_temperature_zero_takes_the_likeliest_token_whatever_shares_the_batch(base: Any, family: str) -> None:
    """The batch of 6 pads on the left, the batches of 1 do not; the loop by hand knows no batch at all."""
    policy = load_base(base(family), device="cpu")
    by_hand = [greedy(policy, context, 12) for context in CONTEXTS]
    expected = [policy.encoder.decode([t for t in ids if t != policy.encoder.end]) for ids in by_hand]
    assert texts(policy, temperature=0, batch_size=6) == expected
    assert texts(policy, temperature=0, batch_size=1, seed=4) == expected
    assert len(set(expected)) > 1


def test_frequencies_are_those_of_the_softmax(policy: Policy) -> None:
    """One token from 160, 4000 times: a chi-square gate at 5 standard errors, seeded."""
    repeats = 4000
    with torch.no_grad():
        logits = policy.model(torch.tensor([policy.encoder.prompt("ab")])).logits[0, -1]
    for temperature in (1.0, 2.0):
        p = (logits / temperature).softmax(-1).double().numpy()
        sampled = _sampled_ids(policy, ["ab"] * repeats, temperature)
        counts = np.bincount([ids[0] for ids in sampled], minlength=len(p))
        large = p * repeats >= 5
        rest = [[each[~large].sum()] if not large.all() else [] for each in (counts, p * repeats)]
        observed = np.concatenate([counts[large], rest[0]])
        expected = np.concatenate([p[large] * repeats, rest[1]])
        freedom = len(observed) - 1
        chi2 = float(((observed - expected) ** 2 / expected).sum())
        assert freedom > 20  # no top-k, no top-p: the tail is sampled, too
        assert abs(chi2 - freedom) < 5 * (2 * freedom) ** 0.5


def _sampled_ids(policy: Policy, contexts: list[str], temperature: float) -> list[list[int]]:
    """Sampled token ids, before the decoder, which drops special tokens."""
    found: list[list[int]] = []
    original = policy.model.generate

    def watched(ids: Any, **options: Any) -> Any:
        result = original(ids, **options)
        if len(ids) > 1:  # and not what was read of a prompt that all rows share
            found.extend(result[:, ids.shape[1] :].tolist())
        return result

    policy.model.generate = watched
    try:
        policy.sample(contexts, seed=1, temperature=temperature, max_new_tokens=1, batch_size=1000)
    finally:
        del policy.model.generate
    return found


@pytest.mark.parametrize("adapted", [False, True])
def test_a_sample_depends_on_nothing_that_shares_its_batch(base: Any, adapted: bool) -> None:
    """A response follows from its context, its place and the seed, whatever the others and the batches."""
    policy = load_base(base(), device="cpu")
    if adapted:
        policy = attach_adapter(policy, LoraSettings(rank=2), seed=0)
    together = texts(policy, seed=3, batch_size=6)
    assert texts(policy, seed=3, batch_size=1) == texts(policy, seed=3, batch_size=4) == together
    assert texts(policy, CONTEXTS[:3], seed=3) == together[:3]
    assert texts(policy, [*CONTEXTS[:3], "other", *CONTEXTS[4:]], seed=3)[4:] == together[4:]
    same = texts(policy, ["a"] * 8, seed=3)
    assert len(set(same)) == 8  # equal contexts in other places are other samples
    assert texts(policy, seed=-3) == texts(policy, seed=-3) != together  # any integer is a seed
    assert texts(policy, seed=3 + 2**64) != together


@pytest.mark.parametrize("adapted", [False, True])
def test_the_view_without_shipped_settings_leaves_the_model_alone(base: Any, adapted: bool) -> None:
    policy = load_base(base(), device="cpu")
    if adapted:
        policy = attach_adapter(policy, LoraSettings(rank=2), seed=0)
    policy.model.generation_config.top_p = 0.5
    before = {name: dict(module._modules) for name, module in policy.model.named_modules()}
    view = without_shipped_settings(policy.model)
    assert (view.generation_config.top_p, policy.model.generation_config.top_p) == (None, 0.5)
    assert type(view) is type(policy.model)
    assert {name: dict(module._modules) for name, module in policy.model.named_modules()} == before
    mine, theirs = dict(view.named_parameters()), dict(policy.model.named_parameters())
    assert mine.keys() == theirs.keys() and all(mine[name] is theirs[name] for name in mine)


def test_threads_that_share_a_policy_sample_as_one_alone_does(base: Any) -> None:
    """The model is in training mode, with dropout, and stays so; the global random state is not touched."""
    policy = attach_adapter(load_base(base(), device="cpu"), LoraSettings(rank=4, dropout=0.5), seed=0)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5, generator=torch.Generator().manual_seed(1))
    policy.model.eval()
    expected = texts(policy, seed=7)
    policy.model.train()
    modes = [module.training for module in policy.model.modules()]
    shipped = policy.model.generation_config, policy.model.get_base_model().generation_config
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: texts(policy, seed=7), range(12)))
    assert found == [expected] * 12
    assert [module.training for module in policy.model.modules()] == modes
    assert (policy.model.generation_config, policy.model.get_base_model().generation_config) == shipped
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def test_the_token_is_the_first_whose_cumulative_share_exceeds_u() -> None:
    """Shares of .5, 0, .25 and .25, by hand; at temperature 1/2 they are 4/6, 0, 1/6 and 1/6."""
    logits = torch.tensor([[0.5, 0.0, 0.25, 0.25]]).log()
    for temperature, u, token in [
        (1.0, 0.0, 0),
        (1.0, 0.4999999, 0),
        (1.0, 0.5000001, 2),
        (1.0, 0.7499999, 2),
        (1.0, 0.7500001, 3),
        (1.0, 1 - 2**-53, 3),
        (1.0, 1.0, 3),  # what a float32 of such a number is
        (0.5, 0.66666, 0),
        (0.5, 0.66667, 2),
        (0.5, 0.83334, 3),
    ]:
        settings = GenerationSettings(temperature=temperature)
        processor = InversionSampler(torch.tensor([[0.9, u]], dtype=torch.float64), settings, 3)
        left = processor(torch.zeros(1, 4, dtype=torch.long), logits)
        assert left.isfinite().nonzero().tolist() == [[0, token]], (temperature, u)
    for top_p, top_k, u, token in [
        (0.9, 0, 0.7499999, 2),
        (0.7, 0, 0.6249, 0),  # of .5, .3 and .2 the first two reach .7: they have 5/8 and 3/8 of what is left
        (0.7, 0, 0.6251, 2),
        (0.5, 0, 0.9999, 0),
        (0.1, 0, 0.9999, 0),  # the likeliest stays
        (1.0, 2, 0.6249, 0),  # the two likeliest, again with 5/8 and 3/8
        (1.0, 2, 0.9999, 2),
        (0.6, 2, 0.9999, 0),  # of what top-k has left, the likeliest has 5/8 already
        (1.0, 1, 0.9999, 0),
    ]:
        settings = GenerationSettings(top_p=top_p, top_k=top_k)
        processor = InversionSampler(torch.tensor([[u]], dtype=torch.float64), settings, 3)
        left = processor(torch.zeros(1, 3, dtype=torch.long), torch.tensor([[0.5, 0.0, 0.3, 0.2]]).log())
        assert left.isfinite().nonzero().tolist() == [[0, token]], (top_p, top_k, u)
    with pytest.raises(ModelError, match="not finite"):
        processor(torch.zeros(1, 3, dtype=torch.long), logits * torch.nan)


def test_chats_may_be_plain_dicts_and_one_text_is_no_list(base: Any) -> None:
    policy = load_base(base(chat=True), device="cpu")
    chat = [{"role": "user", "content": "What now?"}]
    message = (Message(role="user", content="What now?"),)
    sampled = [policy.sample(["a", each], seed=1, max_new_tokens=5) for each in (chat, message, "What now?")]
    assert sampled[0] == sampled[1] == sampled[2]
    assert policy.encoder.tree(chat, ["x"]) == policy.encoder.tree(message, ["x"])
    mixed = MixedPolicy(policy, {"one": 1.0}, lambda _: nullcontext(policy))
    assert mixed.sample(["a", chat], seed=1, max_new_tokens=5) == sampled[0]
    for each in (policy, mixed):
        with pytest.raises(
            ConfigError, match=r"contexts come as a list: 'Invite Ada' \(give one text as \[text\]\)"
        ):
            each.sample("Invite Ada")
        for wrong in (chat, [[]], [None], [[{"role": "user"}]], [["text"]], [7]):
            with pytest.raises(ConfigError, match=r"give text, or a list of \{role, content\} messages"):
                each.sample(wrong)


@pytest.mark.parametrize("adapted", [False, True])
def test_settings_that_a_model_is_shipped_with_decide_unless_others_are_asked_for(
    policy: Policy, base: Any, tmp_path: Path, adapted: bool
) -> None:
    from transformers import GenerationConfig

    folder = tmp_path / "base"
    shutil.copytree(base(), folder)
    GenerationConfig(
        do_sample=True, top_k=1, top_p=0.1, repetition_penalty=9.0, temperature=0.1, min_new_tokens=5
    ).save_pretrained(folder)
    expected = texts(policy, seed=5, temperature=1.0), texts(policy, temperature=0)
    shipped = load_base(folder, device="cpu")
    settings = "temperature 0.1, top-p 0.1, top-k 1, repetition penalty 9"
    assert f"responses at {settings} (as the base ships them)" in shipped.decisions
    if adapted:
        shipped = attach_adapter(shipped, LoraSettings(rank=2), seed=0)
    assert (texts(shipped, seed=5, temperature=1.0), texts(shipped, temperature=0)) == expected
    # Of one token that top-k leaves, the seed is without effect; the penalty makes it another than greedily.
    assert texts(shipped, seed=5) == texts(shipped, seed=6) != texts(shipped, temperature=0)
    core = detach_adapter(shipped).model if adapted else shipped.model
    assert core.generation_config.top_k == 1  # what the model was shipped with is still there


def test_finished_says_whether_the_turn_was_ended(base: Any) -> None:
    policy = load_base(base(seed=1), device="cpu")
    head = policy.model.lm_head.weight
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(1.0)
        head.zero_()
    always = torch.zeros_like(head)

    def bias(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output + always[:, 0]

    policy.model.lm_head.register_forward_hook(bias)
    always[policy.encoder.tokenizer.convert_tokens_to_ids("q")] = 50
    (endless,) = policy.sample(["a"], max_new_tokens=5)
    assert (endless.text, endless.tokens, endless.finished, endless.trimmed) == ("qqqqq", 5, False, 0)
    (looping,) = policy.sample(["a"], max_new_tokens=230)
    assert (looping.text, looping.tokens, looping.finished, looping.trimmed) == ("q", 230, False, 229)
    always[policy.encoder.end] = 100
    (ended,) = policy.sample(["a"], max_new_tokens=5)
    assert (ended.text, ended.tokens, ended.finished) == ("", 1, True)


def test_nothing_to_sample_and_no_room_to_sample_in(policy: Policy) -> None:
    assert policy.sample([]) == []
    with pytest.raises(ModelError, match=r"leaves no room.*--max-length"):
        policy.sample(["a", "b" * 255])
    (short,) = policy.sample(["b" * 250], max_new_tokens=50)  # 251 tokens of 256
    assert short.tokens <= 5


def test_a_long_prompt_shortens_no_other_response(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of 2, 201, 251 and 253 tokens of 256: the first two have room for 50 more."""
    batches: list[tuple[int, int]] = []
    original = policy.model.generate

    def watched(ids: torch.Tensor, generation_config: Any, **options: Any) -> Any:
        batches.append((len(ids), generation_config.max_new_tokens))
        return original(ids, generation_config=generation_config, **options)

    monkeypatch.setattr(policy.model, "generate", watched, raising=False)
    done: list[int] = []
    contexts = ["b" * 250, "a", "b" * 252, "b" * 200, "c" * 250]
    found = policy.sample(contexts, max_new_tokens=50, progress=done.append)
    assert batches == [(2, 50), (2, 5), (1, 3)]
    assert done == [2, 4, 5]
    assert all(s.tokens <= n for s, n in zip(found, (5, 50, 3, 50, 5), strict=True))


def test_progress_is_reported_and_the_mode_of_the_model_kept(policy: Policy) -> None:
    done: list[int] = []
    policy.model.train()
    policy.sample(CONTEXTS, max_new_tokens=2, batch_size=4, progress=done.append)
    assert policy.model.training
    policy.model.eval()
    assert done == [4, 6]


@pytest.mark.parametrize(
    ("text", "trimmed"),
    [
        ("", ""),
        ("no loop at all, " + "".join(map(chr, range(500, 800))), None),
        ("a" * 199, None),
        ("a" * 200, "a"),
        ("a" * 5000, "a"),
        ("ab" * 99 + "a", None),  # 199 characters
        ("ab" * 100, "ab"),
        ("Dear Ann, " + "very " * 60 + "good.", "Dear Ann, very good."),
        ("ha! " * 49 + "ha", None),  # 198
        ("ha! " * 50 + "ha", "ha! ha"),  # only whole units are dropped
        ("x" * 199 + "y" + "x" * 199, None),
        ("x" * 200 + "y" + "z" * 300, "xyz"),
        ("é🙂" * 150 + "!", "é🙂!"),
        ("abc" * 100 + "d" * 300, "abcd"),  # the longer unit stands before the shorter one
        ("d" * 300 + "abc" * 100, "dabc"),
        ("0123456789" * 4 + "." + "0123456789" * 4, None),  # 81 characters
        (("0123456789abcdefghijklmnopqrstuvwxyzABCD") * 6, "0123456789abcdefghijklmnopqrstuvwxyzABCD"),
    ],
)
def test_loops_of_200_characters_are_trimmed_to_a_unit(text: str, trimmed: str | None) -> None:
    assert trim_loops(text) == (text if trimmed is None else trimmed)


@given(st.text("ab", max_size=30), st.text("cdefgé", min_size=1, max_size=6), st.text("ab", max_size=30))
def test_a_loop_in_the_middle_leaves_what_is_around_it(before: str, unit: str, after: str) -> None:
    text = before + unit * (200 // len(unit) + 1) + after
    trimmed = trim_loops(text)
    assert trimmed.startswith(before)
    assert trimmed.endswith(after)
    assert len(trimmed) <= len(before) + len(unit) + len(after)
    assert trim_loops(trimmed) == trimmed


def test_a_megabyte_of_many_loops_is_no_deep_recursion() -> None:
    text = "".join(chr(0x4E00 + i) * 200 for i in range(5000))
    assert trim_loops(text) == "".join(chr(0x4E00 + i) for i in range(5000))


def test_a_gpu_samples_as_many_responses_together_as_its_memory_bears(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sampling.default_batch(policy.model, 10**9) == sampling.USUAL_BATCH == 32
    weight = SimpleNamespace(device=SimpleNamespace(type="cuda"), element_size=lambda: 2)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 9, "hidden_size": 576, "intermediate_size": 500}
    config = SimpleNamespace(**sizes, num_key_value_heads=3, head_dim=64)
    config.get_text_config = lambda: config
    model = SimpleNamespace(parameters=lambda: iter([weight]), config=config)
    # Keys and values of 2 layers with 3 heads of 64, and 3 times the inner width; 2 bytes, 100 tokens.
    row = (2 * 2 * 3 * 64 + 3 * 500) * 2 * 100
    for rows, expected in ((100, 100), (1, 32), (10_000, 256)):
        monkeypatch.setattr(sampling, "free_memory", lambda device, rows=rows: (4 * rows * row, "free"))
        assert sampling.default_batch(model, 100) == expected
    del config.num_attention_heads  # as of a recurrent model
    assert sampling.default_batch(model, 100) == 32
