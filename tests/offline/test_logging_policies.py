"""The policies that wrote a log as the reference of its rows: exact on both sides, cached and counted."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from editloop.edits.record import Record
from editloop.errors import RunError
from editloop.offline import FitConfig, fit, make_examples, plan_fit, reference_pass
from editloop.offline import plan as plan_module
from editloop.offline.data import encode_log, trial_rows, with_references
from editloop.offline.examples import Example
from editloop.offline.fitting import _in_own_order
from editloop.offline.logging_policies import (
    LoggedPolicy,
    LoggingPolicies,
    find_logging_policies,
    log_policies,
)
from editloop.offline.losses import preference_margin
from editloop.offline.resume import RESOURCES, run_identity
from editloop.offline.speed import Speed
from editloop.policy import Policy, RunFolder, arm_name, load_base
from small_log import RecordingCallback, small_log

QUICK: dict[str, Any] = {
    "hyperparameters": {name: {"learning_rate": 2e-2} for name in ("sft", "dpo", "ipo")},
    "epochs": 3,
    "batch_size": 8,
    "evaluations": 1,
    "validation": 0.25,
    "validation_samples": 0,
    "mixture": "none",
    "max_new_tokens": 8,
    "lora": {"rank": 4, "alpha": 8},
}


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


@pytest.fixture(scope="module")
def earlier(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose policies differ from the base."""
    folder = tmp_path_factory.mktemp("earlier") / "run"
    config = FitConfig(methods=["sft", "ipo"], **{**QUICK, "mixture": "likelihood"})
    return fit(small_log(), policy, folder, config, report=False)


def log_of(*names: str | None, rows: int = 40, **more: Any) -> list[Record]:
    """A log whose rows these policies wrote in turn."""
    return [
        each.model_copy(update={"policy": names[i % len(names)], **more})
        for i, each in enumerate(small_log(rows))
    ]


def examples_of(records: Sequence[Record], policy: Policy) -> tuple[Example, ...]:
    return make_examples(records, policy.encoder).examples


def references(run: RunFolder, policy: Policy, *names: str) -> LoggingPolicies:
    return find_logging_policies(names, log_policies(None, [run]), policy)


def test_each_row_has_the_figures_of_the_policy_that_wrote_it(
    policy: Policy, earlier: RunFolder, tmp_path: Path
) -> None:
    sft = arm_name(earlier, "sft")
    examples = examples_of(log_of(sft, "base", None, rows=9), policy)
    found = references(earlier, policy, sft, "base")
    completions = [example.completions for example in examples]
    scored, known = found.score(policy, examples, completions, cache=tmp_path)
    assert not known
    by_base, _ = reference_pass(policy, examples, cache=tmp_path / "base")
    with earlier.policy("sft", policy) as adapted:
        by_sft = adapted.log_probs([example.tree for example in examples])
    for i, each in enumerate(scored):
        expected = by_sft[i] if i % 3 == 0 else by_base[i].completions.reference
        assert each.reference == pytest.approx(expected, abs=1e-4)
        assert by_sft[i] != pytest.approx(by_base[i].completions.reference, abs=0.1)
    assert not hasattr(policy.model, "peft_config")  # the base is as it was


def test_from_the_cache_no_policy_is_loaded(
    policy: Policy, earlier: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sft, ipo = arm_name(earlier, "sft"), arm_name(earlier, "ipo")
    examples = examples_of(log_of(sft, rows=6), policy)
    completions = [example.completions for example in examples]
    first, _ = references(earlier, policy, sft).score(policy, examples, completions, cache=tmp_path)

    def never(*_: Any) -> None:
        raise AssertionError("loaded again")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "load_policy", never)
        again, known = references(earlier, policy, sft).score(policy, examples, completions, cache=tmp_path)
        assert known and again == first
    # The same tokens by another policy are other numbers: its weights are a part of the key.
    others = examples_of(log_of(ipo, rows=6), policy)
    other, known = references(earlier, policy, ipo).score(policy, others, completions, cache=tmp_path)
    assert not known and other != first


def test_a_mixture_is_exact_too(policy: Policy, earlier: RunFolder, tmp_path: Path) -> None:
    name = arm_name(earlier, "mixture")
    examples = examples_of(log_of(name, rows=4), policy)
    found = references(earlier, policy, name)
    scored, _ = found.score(policy, examples, [e.completions for e in examples], cache=tmp_path)
    mixture = earlier.manifest().mixture
    assert mixture is not None
    tables = []
    for part, weight in mixture.weights.items():
        with earlier.policy(part, policy) as one:
            own = one.log_probs([example.tree for example in examples])
        tables.append([[math.exp(value) * weight for value in row] for row in own])
    for i, each in enumerate(scored):
        expected = [math.log(sum(values)) for values in zip(*(table[i] for table in tables), strict=True)]
        assert each.reference == pytest.approx(expected, abs=1e-3)


def test_with_the_policy_that_wrote_it_any_log_has_the_optimum_of_the_paper() -> None:
    """Three texts, and a user who moves among them towards π* and back, as Assumption 1 wants it.

    DPO at β = 1 has its minimum at π_ref · π*/μ for a log of μ. With the base as reference, a policy that is
    π* already writes the log from which the next one learns to be the base again.
    """
    wanted = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    base = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    # Metropolis: another text is proposed, either one with probability 1/2, and taken by the ratio of π*.
    user = 0.5 * torch.minimum(torch.ones(3, 3, dtype=torch.float64), wanted[None, :] / wanted[:, None])

    def learned(writer: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
        edit, draft = (torch.tensor(side) for side in zip(*pairs, strict=True))
        share = writer[draft] * user[draft, edit]
        logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([logits], max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-14)

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            policy, ref = logits.log_softmax(0), reference.log()
            margin = preference_margin(policy[edit], policy[draft], ref[edit], ref[draft])
            value = -(share * torch.nn.functional.logsigmoid(margin)).sum()
            value.backward()
            return value

        optimiser.step(loss)
        return logits.detach().softmax(0)

    for writer in (base, wanted, torch.tensor([0.1, 0.8, 0.1], dtype=torch.float64)):
        torch.testing.assert_close(learned(writer, writer), wanted, atol=1e-6, rtol=0)
        expected = base * wanted / writer
        torch.testing.assert_close(learned(writer, base), expected / expected.sum(), atol=1e-6, rtol=0)
    torch.testing.assert_close(learned(wanted, base), base, atol=1e-6, rtol=0)

    # Generations, each fitted on all rows so far: the mean of all writers comes to rest at √(π_0 π*).
    written, found = [base], [base]
    for _ in range(40):
        found.append(learned(torch.stack(written).mean(0), base))
        written.append(found[-1])
    between = (base * wanted).sqrt()
    between = between / between.sum()
    torch.testing.assert_close(found[1], wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.stack(written).mean(0), between, atol=0.01, rtol=0)
    assert (found[-1] - wanted).abs().max() > 0.1


def test_what_is_gone_replaced_or_of_another_base_is_counted_and_falls_back(
    policy: Policy, earlier: RunFolder, base: Any, tmp_path: Path
) -> None:
    sft, own = arm_name(earlier, "sft"), f"base@{policy.fingerprint[:8]}"
    gone = LoggedPolicy(tmp_path / "gone", "sft")
    places = {
        sft: LoggedPolicy(earlier.path, "sft"),
        "sft@00000000": LoggedPolicy(earlier.path, "sft"),
        "dpo@11111111": gone,
        "early": LoggedPolicy(earlier.path, "early"),
    }
    names = [sft, "sft@00000000", "dpo@11111111", "early", "unknown", own, "base", None]
    found = find_logging_policies(names, places, policy)
    assert set(found.places) == {sft}
    line = found.line(examples_of(log_of(*names, rows=40), policy))
    assert line == (
        f"reference: 5 rows by the policies that wrote them ({sft} 5); 35 by the base (5: their policy was "
        "replaced, 10: their policy is gone, 5: their policy is not known, 5: no policy is named)"
    )
    other = load_base(base(seed=1), device="cpu")
    assert find_logging_policies([sft], places, other).without == {sft: "their policy has another base"}
    with pytest.raises(RunError):
        log_policies(None, [tmp_path])


def test_a_policy_may_have_another_name_in_the_log(policy: Policy, earlier: RunFolder) -> None:
    found = find_logging_policies(["second"], {"second": LoggedPolicy(earlier.path, "sft")}, policy)
    assert set(found.places) == {"second"} and len(found.fingerprints["second"]) == 64


def test_logged_probabilities_tell_another_policy(policy: Policy, earlier: RunFolder, tmp_path: Path) -> None:
    sft, ipo = arm_name(earlier, "sft"), arm_name(earlier, "ipo")
    drafts = examples_of(log_of(sft), policy)
    with earlier.policy("sft", policy) as adapted:
        values = adapted.log_probs([e.tree for e in drafts])
    logged = {e.id: own[e.completions.of("response")] for e, own in zip(drafts, values, strict=True)}

    def lines(name: str, shift: float = 0.0) -> list[str]:
        records = [
            each.model_copy(update={"logprob": logged[each.id] + shift if each.id in logged else None})
            for each in log_of(name)
        ]
        examples = examples_of(records, policy)
        found = references(earlier, policy, name)
        scored, _ = found.score(policy, examples, [e.completions for e in examples], cache=tmp_path)
        return found.mismatches(
            [Example(**{**_fields(e), "completions": s}) for e, s in zip(examples, scored, strict=True)]
        )

    assert lines(sft) == []
    (line,) = lines(ipo)
    assert ipo in line and "nats a token in the median of 40" in line
    tokens = sorted(len(e.tree.continuations[e.completions.of("response")]) for e in drafts)[20]
    assert lines(sft, shift=-0.2 * tokens) and not lines(sft, shift=-0.05 * tokens)


def _fields(example: Example) -> dict[str, Any]:
    return {name: getattr(example, name) for name in Example.__slots__}


def run_config(**changes: Any) -> FitConfig:
    return FitConfig(**{**QUICK, "methods": ["dpo"], "reference": "logged", **changes})


def test_a_fit_starts_from_the_base_and_measures_from_the_policies(
    policy: Policy, earlier: RunFolder, tmp_path: Path
) -> None:
    sft = arm_name(earlier, "sft")
    records, callback = log_of(sft, "base"), RecordingCallback()
    places = log_policies(None, [earlier])
    run = fit(records, policy, tmp_path / "a", run_config(), policies=places, report=False, callback=callback)
    assert any(
        line.startswith(f"reference: 20 rows by the policies that wrote them ({sft} 20); 20 by the")
        for line in callback.lines
    )
    best = run.manifest().policies["dpo"].best
    # By the base as reference, all margins of the base are 0 and its loss is ln 2.
    by_base = fit(records, policy, tmp_path / "b", run_config(reference="base"), report=False)
    first = by_base.manifest().policies["dpo"].best.initial_loss
    assert first == pytest.approx(math.log(2), abs=1e-5)
    # By hand: the mean of −log σ(β margin) of the base over the validation pairs, and ln 2 times what their
    # edits lie below the policies that wrote the rows, in nats per token.
    data = encode_log(_in_own_order(records), policy, run_config(), RecordingCallback())
    held = data.validation.pairs
    found = references(earlier, policy, sft)
    scored, _ = found.score(policy, held, [e.completions for e in held], cache=tmp_path)
    losses, fall, tokens = 0.0, 0.0, 0
    for each, own in zip(scored, policy.log_probs([e.tree for e in held]), strict=True):
        edit, response = each.of("edit"), each.of("response")
        reference = each.reference or ()
        margin = (own[edit] - own[response]) - (reference[edit] - reference[response])
        losses += math.log(1 + math.exp(-0.1 * margin))
        fall += reference[edit] - own[edit]
        tokens += len(each.tree.continuations[edit])
    expected = losses / len(held) + math.log(2) * max(0.0, fall / tokens)
    assert best.initial_loss == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(math.log(2), abs=1e-3)


def test_a_run_goes_on_with_the_same_references_only(
    policy: Policy, earlier: RunFolder, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(earlier.path, moved)
    sft = arm_name(earlier, "sft")
    places = {sft: LoggedPolicy(moved, "sft")}
    records, config = log_of(sft), run_config()
    fit(records, policy, tmp_path / "run", config, policies=places, report=False)
    again = RecordingCallback()
    elsewhere = {sft: LoggedPolicy(earlier.path, "sft")}  # the same weights in another folder
    fit(records, policy, tmp_path / "run", config, policies=elsewhere, report=False, callback=again)
    assert any(line.startswith("nothing to do") for line in again.lines)
    shutil.rmtree(moved)
    with pytest.raises(RunError, match="another log, base or configuration"):
        fit(records, policy, tmp_path / "run", config, policies=places, report=False)


def test_a_log_without_its_policies_is_a_warning(policy: Policy, tmp_path: Path) -> None:
    callback = RecordingCallback()
    plan_fit(log_of("sft@12345678"), policy, run_config(), callback=callback)
    assert any("name run folders by --policies" in line for line in callback.lines)
    callback = RecordingCallback()
    plan_fit(log_of("base"), policy, run_config(), callback=callback)
    assert not any("--policies" in line for line in callback.lines)


def test_a_plan_counts_the_second_reading_of_the_validation_rows(
    policy: Policy, earlier: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        plan_module,
        "measure_speed",
        lambda *_: Speed(train=1e-3, score=1e-3, draw=1e-3, together=1, resident=1, token=1, checkpointed=1),
    )
    sft = arm_name(earlier, "sft")
    records, places = log_of(sft), log_policies(None, [earlier])
    logged = plan_fit(records, policy, run_config(), policies=places, callback=RecordingCallback())
    plain = plan_fit(records, policy, run_config(reference="base"), callback=RecordingCallback())
    held = examples_of(records, policy)
    assert 0 < logged.before - plain.before < sum(len(e.tree.layout) for e in held) * 1e-3


def test_kto_asks_the_policy_for_foreign_drafts_too(
    policy: Policy, earlier: RunFolder, tmp_path: Path
) -> None:
    """Completions that a method makes itself get the reference of their example."""
    sft, callback = arm_name(earlier, "sft"), RecordingCallback()
    config, records = run_config(methods=["kto"]), log_of(sft)
    data = encode_log(tuple(records), policy, config, callback)
    data = with_references(data, records, log_policies(None, [earlier]), policy, config, callback)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EDITLOOP_CACHE", str(tmp_path))
        rows = trial_rows(config.trials("kto")[0], policy, data, callback)
    by_base = policy.log_probs([each.tree for each in rows.held])
    with earlier.policy("sft", policy) as adapted:
        by_sft = adapted.log_probs([each.tree for each in rows.held])
    assert len(rows.held[0]) == 2  # the draft, and that of another context
    for each, own, base in zip(rows.held, by_sft, by_base, strict=True):
        assert each.reference == pytest.approx(own, abs=1e-4)
        assert each.start == pytest.approx(base, abs=1e-4)


def test_the_configuration_of_a_run_with_the_base_has_the_identity_that_it_had(
    policy: Policy, tmp_path: Path
) -> None:
    """A run of an earlier version has neither `reference` nor `start` in it, and can be continued."""
    config = run_config(reference="base")
    data = encode_log(tuple(small_log()), policy, config, RecordingCallback())
    settings = config.model_dump_json(exclude=RESOURCES | {"reference", "start"})
    assert not {"reference", "start"} & set(json.loads(settings))
    digest = hashlib.sha256(f"{policy.fingerprint} {settings}".encode())
    for example in data.examples:
        digest.update(repr((example.id, example.tree.context, example.tree.continuations)).encode())
    assert run_identity(policy, config, data) == digest.hexdigest()[:16]
