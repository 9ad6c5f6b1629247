"""Run folders from elsewhere: each is checked before any of it is used, even if its promotion is forced."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import error, run, serving, sqlite

from editloop.errors import RunError, StoreUnreachableError
from editloop.policy import RunFolder
from editloop.policy.catalog import find_policies, objection, validation
from editloop.serve.backends import time_limit
from editloop.serve.problem import Problem
from small_run import adapter_weights, cost, make_run, save_adapter, write_format_1

Damage = Callable[[RunFolder], None]


def with_manifest(change: Callable[[dict[str, Any]], object]) -> Damage:
    """A run with a changed run.json; NaN is written as such."""

    def damage(folder: RunFolder) -> None:
        manifest = json.loads(folder.manifest_path.read_text())
        change(manifest)
        folder.manifest_path.write_text(json.dumps(manifest))

    return damage


def with_cost(**figures: Any) -> Damage:
    return with_manifest(lambda m: m["policies"]["sft"]["trials"][0]["sampled"]["cost"].update(figures))


def renamed(name: str) -> Damage:
    def damage(folder: RunFolder) -> None:
        folder.policy_path("sft").rename(folder.policy_path(name))
        with_manifest(lambda m: m["policies"].update({name: m["policies"].pop("sft")}))(folder)

    return damage


def weights(name: str = "adapter_model.safetensors") -> Callable[[RunFolder], Path]:
    return lambda folder: folder.policy_path("sft") / name


def fifo(folder: RunFolder) -> None:
    weights()(folder).unlink()
    os.mkfifo(weights()(folder))


def linked(folder: RunFolder) -> None:
    outside = folder.path.parent / "outside.safetensors"
    weights()(folder).rename(outside)
    weights()(folder).symlink_to(outside)


def not_a_number(folder: RunFolder) -> None:
    made = adapter_weights()
    next(iter(made.values()))[0, 0] = np.nan
    save_adapter(folder.policy_path("sft"), made)


def cut_off(folder: RunFolder) -> None:
    weights()(folder).write_bytes(weights()(folder).read_bytes()[:-10])


def mixture(**parts: Any) -> Damage:
    return with_manifest(lambda m: m.update(mixture={"weights": parts}))


DAMAGE: dict[str, tuple[Damage, str]] = {
    "a cost that is NaN": (with_cost(mean=float("nan")), "NaN is no JSON number"),
    "a cost that is null": (with_cost(mean=None), "a validation cost is not a number"),
    "a cost that is true": (
        with_cost(mean=True),
        "run.json is damaged, policies.sft.trials.0.sampled.cost.mean: Input should be a valid number",
    ),
    "a cost that is infinite": (with_cost(mean=float("-inf")), "Infinity is no JSON number"),
    "an error below zero": (with_cost(se=-1.0), "a validation cost is not a number"),
    "a cost of nothing": (with_cost(n=0), "without responses"),
    "a cost that is a list": (
        with_manifest(lambda m: m["policies"]["sft"]["trials"][0]["sampled"].update(cost=[1])),
        "run.json is damaged, policies.sft.trials.0.sampled.cost",
    ),
    "alarms that are no text": (
        with_manifest(lambda m: m["policies"]["sft"].update(alarms=["\ud800"])),
        "run.json is damaged, a text in it is not Unicode",
    ),
    "no base": (with_manifest(lambda m: m.pop("base")), "run.json is damaged, base: Field required"),
    "a base with a path for a hash": (
        with_manifest(lambda m: m["base"].update(fingerprint="../../x\r\ny")),
        "not a name",
    ),
    "policies in a list": (
        with_manifest(lambda m: m.update(policies=["sft"])),
        "run.json is damaged, policies: Input should be a valid dictionary",
    ),
    "a choice that is no trial": (
        with_manifest(lambda m: m["policies"]["sft"].update(chosen=1)),
        "run.json is damaged, policies.sft: Value error, chosen is not one of the trials",
    ),
    "a policy without a trial": (
        with_manifest(lambda m: m["policies"]["sft"].update(trials=[])),
        "run.json is damaged, policies.sft.trials",
    ),
    "a pipe as weights": (fifo, "not a regular file"),
    "a link to elsewhere": (linked, "leads out of the run folder"),
    "weights that were cut off": (cut_off, "the weights are damaged"),
    "weights of another rank": (
        lambda folder: save_adapter(folder.policy_path("sft"), adapter_weights(rank=3)),
        "rank is 2",
    ),
    "weights of another base": (
        lambda folder: save_adapter(folder.policy_path("sft"), adapter_weights(out=5)),
        "where the base's are",
    ),
    "weights that are NaN": (not_a_number, "not finite"),
    "a name with CR and LF": (renamed("sft\r\nX-Evil: 1"), "not a name"),
    "a name with a quote": (renamed("sft'"), "not a name"),
    "a name that leads out": (
        with_manifest(lambda m: m["policies"].update({"../../base": m["policies"]["sft"]})),
        "not a name",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.timeout(30)
def test_a_damaged_run_is_refused_even_by_force(tmp_path: Path, what: str) -> None:
    damage, shown = DAMAGE[what]
    folder = make_run(tmp_path / "run")
    damage(folder)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for force in (False, True):
                answer = await service.http.post("/v1/arms", json={"run": str(folder.path), "force": force})
                message = error(answer, 400, "run_unusable")["message"]
                assert shown in message and "\n" not in message
            assert service.loop.bandit.arms == ("a@1", "b@2") and service.backend.prepared == []
            assert (await service.http.get("/v1/arms")).json()["data"] == []
            assert (await service.ask()).status_code == 200

    run(work())


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ({"sft": 0.5, "dpo": float("nan")}, "NaN is no JSON number"),
        ({"sft": 0.5, "none": 0.5}, "a weight of the mixture is not valid"),
        ({"sft": 1.5, "dpo": -0.5}, "a weight of the mixture is not valid"),
        ({"sft": "1", "dpo": 0}, r"damaged, mixture\.weights\.sft: Input should be a valid number"),
        ({"sft": 0.5, "dpo": 0.2}, "do not sum to 1"),
    ],
)
def test_a_mixture_is_one(tmp_path: Path, parts: dict[str, Any], shown: str) -> None:
    folder = make_run(tmp_path / "run")
    mixture(sft=0.25, dpo=0.75)(folder)
    (served,) = find_policies(folder.path, ["mixture"])
    assert sorted(served.weights.values()) == [0.25, 0.75]
    mixture(**parts)(folder)
    with pytest.raises(RunError, match=shown):
        find_policies(folder.path, ["mixture"])


def test_a_server_does_not_start_with_a_damaged_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    not_a_number(folder)

    async def work() -> None:
        with pytest.raises(Problem, match="not finite"):
            async with serving(sqlite(tmp_path), tmp_path, (), app_options={"runs": [folder.path]}):
                pass

    run(work())


def test_an_arm_whose_folder_was_damaged_meanwhile_keeps_nobody_from_starting(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, ()) as service:
            body = {"run": str(folder.path)}
            assert (await service.http.post("/v1/arms", json=body)).status_code == 200
            assert len(service.backend.prepared) == 2
        with_manifest(lambda m: m["base"].pop("fingerprint"))(folder)
        async with serving(sqlite(tmp_path), tmp_path, ()) as service:
            assert service.backend.prepared == [] and len(service.loop.bandit.arms) == 2

    run(work())


def test_a_folder_that_cannot_be_read_in_time_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limit, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr("editloop.serve.api.arms.find_policies", lambda run, names: time.sleep(60))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            answer = await service.http.post("/v1/arms", json={"run": str(tmp_path)})
            assert "could not be read in 0.2 s" in error(answer, 400, "run_unusable")["message"]

    started = time.monotonic()
    run(work())  # and the thread that hangs is not waited for
    assert time.monotonic() - started < 30


def test_a_store_that_is_down_at_a_promotion_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "run")

    def down(*_: object) -> None:
        raise StoreUnreachableError("the store does not answer")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            assert (await service.ask()).status_code == 200  # the keys have been read
            monkeypatch.setattr(service.loop.store, "transaction", down)
            monkeypatch.setattr(service.loop.store, "read", down)
            answer = await service.http.post("/v1/arms", json={"run": str(folder.path)})
            error(answer, 503, "store_unavailable")

    run(work())


def test_what_is_not_measured_is_for_force_to_take(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ("sft",))
    with_manifest(lambda m: m["policies"]["sft"]["trials"][0].update(sampled=None))(folder)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            body = {"run": str(folder.path)}
            error(await service.http.post("/v1/arms", json=body), 409, "evaluation_gate")
            assert (await service.http.post("/v1/arms", json=body | {"force": True})).status_code == 200

    run(work())


def test_a_run_of_an_older_version_is_promoted_by_the_figures_that_it_has(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ("sft", "dpo", "early"))
    as_it_is_written_today = find_policies(folder.path)
    content = write_format_1(folder)
    assert find_policies(folder.path) == as_it_is_written_today
    assert [validation(folder.path, name)["cost"]["mean"] for name in ("sft", "dpo", "early", "base")] == [
        0.4,
        0.2,
        0.9,
        0.5,
    ]
    assert validation(folder.path, "early")["alarms"] == ["samples cost more"]
    mixed = validation(folder.path, "mixture")["cost"]
    assert mixed["mean"] == pytest.approx(0.25 * 0.4 + 0.75 * 0.2) and mixed["n"] == 9
    (mixture,) = find_policies(folder.path, ["mixture"])
    assert sorted(mixture.weights.values()) == [0.25, 0.75]

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            body = {"run": str(folder.path)}
            answer = await service.http.post("/v1/arms", json=body)
            message = error(answer, 409, "evaluation_gate")["message"]
            assert "early" in message and "0.900" in message
            body["policies"] = ["sft", "dpo"]
            promoted = (await service.http.post("/v1/arms", json=body)).json()
            assert [arm.partition("@")[0] for arm in promoted["arms"][-2:]] == ["sft", "dpo"]
        content["policies"]["sft"]["candidates"][1]["sampled"]["cost"]["mean"] = True
        folder.manifest_path.write_text(json.dumps(content))
        with pytest.raises(RunError, match=r"damaged, policies\.sft\.trials\.1\.sampled\.cost\.mean"):
            find_policies(folder.path)

    run(work())


def test_a_cost_that_is_no_number_is_an_objection() -> None:
    """Also for figures from elsewhere: NaN is neither above the base's cost nor below it."""
    good, bad = cost(0.2)["sampled"]["cost"], cost(float("nan"))["sampled"]["cost"]
    assert objection({"cost": good, "base": good}) is None
    assert objection({"cost": bad, "base": good}) is not None
    assert objection({"cost": good, "base": bad}) is not None
    assert objection({"cost": good | {"se": float("nan")}, "base": good}) is not None


def test_figures_of_one_response_have_no_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ("sft",))
    with_cost(se=None, n=1)(folder)
    assert validation(folder.path, "sft")["cost"] == {"mean": 0.2, "se": None, "n": 1}
