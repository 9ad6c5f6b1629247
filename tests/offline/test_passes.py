"""Nothing is scored or sampled twice: the tokens that the model reads are counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from editloop.diagnosis import diagnose
from editloop.edits.record import Record
from editloop.offline import FitConfig, evaluate, feature_pass, fit, make_examples
from editloop.policy import Policy, RunFolder, load_base
from small_log import small_log

SMALL: dict[str, Any] = {
    "methods": ["rl", "sft", "dpo"],
    "hyperparameters": {name: {"learning_rate": 1e-2} for name in ("rl", "sft", "dpo")},
    "epochs": 1,
    "batch_size": 8,
    "num_samples": 1,
    "validation": 0.25,
    "validation_samples": 2,
    "max_new_tokens": 6,
    "lora": {"rank": 2},
}


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(chat=True), device="cpu")


@pytest.fixture(scope="module")
def run(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with three policies, a cost model and a mixture of two of them."""
    folder = tmp_path_factory.mktemp("passes")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EDITLOOP_CACHE", str(folder / "cache"))
        run = fit(small_log(60), policy, folder / "run", FitConfig(**SMALL))
    assert run.cost_model.is_dir()
    run.keep_mixture({"weights": {"rl": 0.5, "sft": 0.5, "dpo": 0.0}, "errors": {}, "by": "likelihood"})
    return run


@pytest.fixture
def read(policy: Policy) -> Iterator[list[int]]:
    """The number of tokens of each forward of the model, as they are read."""
    tokens: list[int] = []
    hook = policy.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: tokens.append(inputs[0].numel())
    )
    yield tokens
    hook.remove()


@pytest.fixture
def asked(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of responses that each call of a policy's `sample` is asked for."""
    found: list[int] = []
    sample = Policy.sample

    def counted(self: Policy, contexts: Sequence[Any], **options: Any) -> Any:
        found.append(len(contexts))
        return sample(self, contexts, **options)

    monkeypatch.setattr(Policy, "sample", counted)
    return found


def new_rows(count: int = 20) -> list[Record]:
    rows = small_log(60 + count)[60:]
    return [Record(context=f"new {each.id}", response=each.response, edit=each.edit) for each in rows]


def tokens_of_one_pass(policy: Policy, read: list[int], rows: list[Record], cache: Path) -> int:
    trees = [e.tree for e in make_examples(rows, policy.encoder).examples]
    feature_pass(policy, trees, cache=cache)
    found = sum(read)
    read.clear()
    return found


def test_an_evaluation_reads_the_log_once_with_the_base_and_once_with_each_policy(
    run: RunFolder, policy: Policy, read: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    rows = new_rows()
    once = tokens_of_one_pass(policy, read, rows, tmp_path / "other")
    found = evaluate(run, rows, base=policy)
    assert sum(read) == 4 * once  # the base, three policies; nothing for the mixture and the cost model
    assert list(found["policies"]) == ["base", "rl", "sft", "dpo", "mixture"]
    # What was not read again is what reading it would give.
    with run.policy("mixture", policy) as mixed:
        alone = evaluate(mixed, rows)["policies"]
    for name, other in (("mixture", "policy"), ("base", "base")):
        for key, figure in alone[other].items():
            if key != "sampled" and figure is not None:
                assert found["policies"][name][key]["mean"] == pytest.approx(figure["mean"], abs=1e-4), key
    read.clear()
    assert list(evaluate(policy, rows)["policies"]) == ["policy"]
    assert sum(read) == 0  # it is the reference itself, which is in the cache by now
    costs = run.cost_model
    hidden = costs.rename(costs.with_name("hidden"))
    read.clear()
    evaluate(run, rows, base=policy)
    assert sum(read) == 3 * once
    hidden.rename(costs)


def test_a_mixture_gives_the_responses_that_its_policies_gave(
    run: RunFolder, policy: Policy, asked: list[int]
) -> None:
    rows = new_rows()
    found = evaluate(run, rows, base=policy, samples=8)["policies"]
    assert asked == [8] * 4
    texts = {name: [each["sample"] for each in found[name]["sampled"]["examples"]] for name in found}
    with run.policy("mixture", policy) as mixed:
        alone = mixed.sample([each.context for each in rows[:5]], max_new_tokens=6)
    assert texts["mixture"] == [each.text for each in alone]
    assert texts["rl"] != texts["sft"]
    for own, first, second in zip(texts["mixture"], texts["rl"], texts["sft"], strict=True):
        assert own in (first, second)


def test_a_mixture_of_one_policy_costs_nothing(
    run: RunFolder,
    policy: Policy,
    read: list[int],
    asked: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    mixture = run.manifest().mixture
    assert mixture is not None
    run.keep_mixture(mixture.model_dump() | {"weights": {"rl": 0.0, "sft": 1.0, "dpo": 0.0}})
    rows = new_rows()
    once = tokens_of_one_pass(policy, read, rows, tmp_path / "other")
    found = evaluate(run, rows, base=policy)["policies"]
    assert sum(read) == 4 * once
    assert found["mixture"] == {**found["sft"], "preference_nll": found["mixture"]["preference_nll"]}
    asked.clear()
    evaluate(run, rows, base=policy, samples=3)
    assert asked == [3] * 4
    run.keep_mixture(mixture.model_dump())


def test_a_diagnosis_reads_the_log_once(
    policy: Policy, read: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    rows = new_rows(40)
    once = tokens_of_one_pass(policy, read, rows, tmp_path / "other")
    found = diagnose(rows, base=policy)
    assert sum(read) == once
    assert found["coverage"].estimate is not None and found["predicted cost"].estimate is not None


def test_the_mixture_of_a_fit_reads_nothing_that_the_trials_have_read(
    policy: Policy, read: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editloop.offline import fitting

    config = FitConfig(**SMALL | {"methods": ["sft", "dpo"], "validation_samples": 0})
    own: list[tuple[int, Any]] = []
    mix = fitting.mix_policies

    def counted(run: RunFolder, *arguments: Any) -> Any:
        before = sum(read)
        mixture = mix(run, *arguments)
        own.append((sum(read) - before, mixture))
        for result in run.work.glob("*/*/result.json"):  # as an older version left it
            content = json.loads(result.read_text())
            del content["edit_log_probs"]
            result.write_text(json.dumps(content))
        again = mix(run, *arguments)
        own.append((sum(read) - before, again))
        return mixture

    monkeypatch.setattr(fitting, "mix_policies", counted)
    fit(small_log(60), policy, tmp_path / "run", config)
    (nothing, mixture), (scored, again) = own
    assert nothing == 0 < scored
    assert mixture.weights == pytest.approx(again.weights, abs=1e-3)
    assert mixture.single == pytest.approx(again.single, abs=1e-4)


def test_the_mixture_by_cost_samples_nothing_that_the_trials_have_sampled(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editloop.offline import fitting

    config = FitConfig(**SMALL | {"methods": ["sft", "dpo"], "validation_samples": 4, "mixture": "cost"})
    own: list[tuple[int, Any]] = []
    mix, sample, calls = fitting.mix_policies, Policy.sample, [0]

    def counted_sample(self: Policy, *arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        return sample(self, *arguments, **options)

    def counted(run: RunFolder, *arguments: Any) -> Any:
        for is_old in (False, True):
            for result in run.work.glob("*/*/result.json") if is_old else ():
                content = json.loads(result.read_text())
                del content["responses"]  # as an older version left it
                result.write_text(json.dumps(content))
            before = calls[0]
            own.append((mix(run, *arguments), calls[0] - before))
        return own[0][0]

    monkeypatch.setattr(Policy, "sample", counted_sample)
    monkeypatch.setattr(fitting, "mix_policies", counted)
    fit(small_log(60), policy, tmp_path / "run", config)
    (mixture, none), (again, two) = own
    assert (none, two) == (0, 2)
    assert mixture == again
