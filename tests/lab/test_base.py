"""The base model: the shipped asset, its recipe, and the loop that trains one."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from editloop.errors import ConfigError
from editloop.lab import (
    DOMAINS,
    Domain,
    LabDomain,
    Recipe,
    base_path,
    get_domain,
    pretrain,
    recipe_hash,
    shipped_recipe,
)
from editloop.lab.pretraining import build_tokenizer, new_model, train
from editloop.lab.templates import moved
from editloop.policy import load_base

EMAIL = get_domain("email")
every = pytest.mark.parametrize("domain", list(DOMAINS.parts()), ids=lambda domain: domain.name)
both = pytest.mark.parametrize("domain", [EMAIL, get_domain("summary")], ids=lambda domain: domain.name)
TINY = Recipe(hidden_size=16, layers=1, heads=2, steps=8, batch_size=4)


@every
def test_the_asset_was_made_by_this_recipe_from_these_tables(domain: LabDomain) -> None:
    about = json.loads((base_path(domain.name) / "recipe.json").read_text())
    assert about["hash"] == recipe_hash(domain, shipped_recipe(domain)), (
        "rebuild it by `editloop lab pretrain`"
    )


def test_another_recipe_or_another_grammar_has_another_hash() -> None:
    assert recipe_hash(EMAIL, Recipe()) == recipe_hash(EMAIL, Recipe())
    assert recipe_hash(EMAIL, Recipe(diversity=0.3)) != recipe_hash(EMAIL, Recipe())
    other = replace(EMAIL, facts={**EMAIL.facts, "day": ("Monday",)})
    assert recipe_hash(other, Recipe()) != recipe_hash(EMAIL, Recipe())


@every
def test_the_asset_is_small_and_loads_by_transformers_alone(domain: LabDomain) -> None:
    folder = base_path(domain.name)
    assert (folder / "model.safetensors").stat().st_size <= 3_000_000
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == "llama"
    assert model.dtype == torch.float32
    assert model.num_parameters() == json.loads((folder / "recipe.json").read_text())["parameters"]


@both
def test_the_base_writes_well_formed_texts_with_the_right_facts(domain: Domain) -> None:
    contexts = list(islice(domain.contexts(0, stream="test"), 200))
    samples = load_base(base_path(domain.name), device="cpu").sample(contexts, max_new_tokens=96)
    drafts = [domain.parse(sample.text) for sample in samples]
    right = [
        draft is not None and domain.read(context).facts.items() <= draft.items()
        for context, draft in zip(contexts, drafts, strict=True)
    ]
    assert sum(draft is not None for draft in drafts) >= 0.95 * 200
    assert sum(right) >= 0.95 * 200


@both
def test_the_base_covers_every_style_as_its_recipe_says(domain: Domain) -> None:
    recipe, habits = shipped_recipe(domain), moved(domain.styles, 1)
    contexts = list(islice(domain.contexts(1, stream="test"), 200))
    samples = load_base(base_path(domain.name), device="cpu").sample(contexts, max_new_tokens=96)
    read = [(domain.read(c).kind, domain.parse(s.text)) for c, s in zip(contexts, samples, strict=True)]
    drafts = [(kind, draft) for kind, draft in read if draft is not None]
    for attribute, values in domain.attributes.items():
        for value in values:
            # Any value, that of the next kind, and the neutral one for the rest.
            chances = [
                recipe.diversity / len(values)
                + recipe.awareness * (value == habits[kind][attribute])
                + (1 - recipe.diversity - recipe.awareness) * (value == domain.neutral[attribute])
                for kind, _ in drafts
            ]
            found = sum(draft[attribute] == value for _, draft in drafts)
            assert abs(found - sum(chances)) < 4.5 * sum(p * (1 - p) for p in chances) ** 0.5


@both
def test_the_tokenizer_restores_every_text(domain: Domain) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_path(domain.name))
    for context in islice(domain.contexts(0), 200):
        for text in (
            context,
            domain.render(domain.wanted(context)),
            domain.render({**domain.wanted(context), **domain.neutral}),
        ):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text


def test_the_chat_template_is_the_form_that_was_trained_on() -> None:
    tokenizer = build_tokenizer(EMAIL)
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hey"}]
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "Hello<sep>"
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "Hello<sep>Hey<eos>"


def test_training_is_the_same_from_the_same_seed(tmp_path: Path) -> None:
    losses: list[float] = []
    pretrain(EMAIL, tmp_path / "a", TINY, progress=lambda step, steps, loss: losses.append(loss))
    about = pretrain(EMAIL, tmp_path / "b", TINY)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert len(losses) == 8
    assert abs(losses[0] - 5.1) < 0.2  # log of the 166 tokens: a uniform guess
    assert losses[-1] < losses[0]
    assert about == json.loads((tmp_path / "b" / "recipe.json").read_text())
    assert not [path for path in (tmp_path / "a").iterdir() if path.is_dir()]


def test_training_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    pretrain(EMAIL, tmp_path, replace(TINY, steps=1))
    assert torch.equal(torch.rand(1), expected)


def test_training_ends_when_its_minutes_are_spent() -> None:
    model = new_model(build_tokenizer(EMAIL), hidden_size=16, layers=1, heads=2, positions=8, seed=0)
    ids = torch.zeros(1, 4, dtype=torch.int64)

    def batches():  # type: ignore[no-untyped-def]
        while True:
            yield ids, ids

    steps = train(model, batches(), steps=10**9, learning_rate=1e-3, minutes=0.005)
    assert 1 <= steps < 10**4


@pytest.mark.parametrize("change", [{"diversity": 1.2}, {"awareness": 0.6}, {"steps": 0}, {"layers": -1}])
def test_a_recipe_that_cannot_be_followed_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        Recipe(**change)  # type: ignore[arg-type]
