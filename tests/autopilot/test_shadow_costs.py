"""What drafts in the shadow cost by a cost model: when it is asked, what it says, and what follows."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from editloop.autopilot.children import Child
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.decisions import ShadowPair, judge_shadow
from editloop.autopilot.shadow import CommandScorer, Predicted, ShadowCosts, predict_shadow
from editloop.autopilot.stages import Stage, Stages, Transition
from editloop.autopilot.watch import Watch
from editloop.cli.autopilot import child_command
from editloop.errors import AutopilotError
from editloop.offline import fit, rerank
from editloop.offline.cost_model.saved import predicted_costs
from editloop.policy import Policy, RunFolder, load_base
from editloop.store import Store, writes
from editloop.store.schema import COST
from small_log import small_log, with_cost_model

NEW, CHAMPION = "early@2", "sft@1"
SHADOW = Transition(NEW, None, Stage.SHADOW, 1000.0)

COMMAND = """
import json, os, sys, time
open("calls", "a").write(json.dumps(sys.argv[1:]) + "\\n")
while os.path.exists("hang"):
    time.sleep(0.02)
if not os.path.exists("fails"):
    out = sys.argv[sys.argv.index("--out") + 1]
    open(out, "w").write('{"costs": [{"early@2": 0.4, "sft@1": 0.3}]}')
"""


@pytest.fixture
def scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandScorer]:
    monkeypatch.chdir(tmp_path)
    Path("command.py").write_text(COMMAND)
    Path("run/cost_model").mkdir(parents=True)
    made = CommandScorer(Child([sys.executable, "command.py"], 0), "sqlite:///x.db", ["--device", "cpu"])
    yield made
    made.stop()


def predicted(scorer: CommandScorer, shadow: Transition = SHADOW) -> Predicted:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if (found := scorer.predict(shadow, Path("run"))) is not None:
            return found
        time.sleep(0.02)
    raise AssertionError("the command does not end")


def test_a_command_predicts_once_and_its_file_is_read_again(scorer: CommandScorer) -> None:
    Path("hang").touch()
    assert scorer.predict(SHADOW, Path("run")) is None
    assert scorer.predict(SHADOW, Path("run")) is None
    Path("hang").unlink()
    assert predicted(scorer) == [{NEW: 0.4, CHAMPION: 0.3}] == predicted(scorer)
    (call,) = [json.loads(line) for line in Path("calls").read_text().splitlines()]
    assert call[:3] == ["autopilot", "predict", NEW]
    assert call[3:] == [
        *["--store", "sqlite:///x.db", "--out", "run/shadow-1000.json"],
        *["--since", "1000.0", "--device", "cpu"],
    ]
    predicted(scorer, SHADOW._replace(time=2000.0))  # in the shadow once more, with other drafts
    assert len(Path("calls").read_text().splitlines()) == 2


def test_without_a_cost_model_or_after_a_failure_nothing_is_predicted(scorer: CommandScorer) -> None:
    assert scorer.predict(SHADOW, Path("another")) == ()
    Path("fails").touch()
    assert predicted(scorer) == () and predicted(scorer) == ()
    assert len(Path("calls").read_text().splitlines()) == 1
    Path("run.log").unlink()
    Path("run.log").mkdir()  # where the command would write what it prints
    assert scorer.predict(SHADOW._replace(time=3000.0), Path("run")) == ()


def in_shadow() -> Stages:
    found = Stages()
    for subject, stage in ((CHAMPION, Stage.ARM), (CHAMPION, Stage.CHAMPION), (NEW, Stage.SHADOW)):
        found.apply(Transition(subject, found.of(subject), stage, 0.0))
    return found


def test_a_policy_that_is_worse_by_either_is_rejected() -> None:
    config = AutopilotConfig(shadow_rounds=30)

    def judged(distance: float, model: float | None, n: int = 40) -> Transition | None:
        more = [] if model is None else [ShadowPair("", 0.3 + model + 0.01 * (i % 2), 0.3) for i in range(n)]
        costs = [ShadowPair(f"u{i % 5}", 0.3 + distance, 0.3) for i in range(30)]
        return judge_shadow(in_shadow(), Watch(()), costs, config, 9.0, predicted=more)

    passed = judged(0.0, 0.0)
    assert passed is not None and passed.stage is Stage.CANARY
    assert passed.evidence["cost model"]["mean"] == pytest.approx(0.005)
    assert passed.evidence["cost model"]["rounds"] == 40 and passed.evidence["cost model"]["error"] > 0
    worse = judged(0.0, 0.1)
    assert worse is not None and worse.stage is Stage.REJECTED
    assert worse.reason == "by the cost model its drafts in the shadow cost 0.105 more than the champion's"
    # The distance alone may stop it, too; a few predictions, or a small difference, stop nothing.
    for distance, model, n, stage in (
        (0.1, -0.1, 40, Stage.REJECTED),
        (0.0, 0.1, 19, Stage.CANARY),
        (0.0, 0.04, 40, Stage.CANARY),
        (0.0, None, 0, Stage.CANARY),
    ):
        found = judged(distance, model, n)
        assert found is not None and found.stage is stage
        assert ("cost model" in found.evidence) == (model is not None)


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


@pytest.fixture(scope="module")
def run(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(small_log(60), policy, tmp_path_factory.mktemp("shadow") / "run", with_cost_model())


@pytest.fixture
def store(run: RunFolder, url: str) -> Iterator[Store]:
    """A store with drafts of two policies for four requests, of which one was edited."""
    opened = Store(url)
    opened.open(claim=False)
    with opened.transaction() as connection:
        writes.set_fact(connection, COST, "levenshtein:word/longest")
        place = {"name": "sft", "run": str(run.path), "time": 1.0, "metrics": "{}", "read_until": None}
        writes.insert_policy(connection, {"arm": NEW, **place})
        for i in range(4):
            about = {"response_id": f"r{i}", "time": 1000.0 + i}
            context = json.dumps(f"mail {i}") if i else json.dumps([{"role": "user", "content": "mail 0"}])
            text = {"context": context, "request": f"digest {i}", "response": "see Ann", "finish": "stop"}
            writes.insert_draft(connection, {**about, "user": "u", "policy": CHAMPION, **text})
            for arm, response in ((NEW, f"hi! see Ann at {i}"), (CHAMPION, "see Bob")):
                writes.insert_shadow(
                    connection, {**about, "arm": arm, "response": response, "finish": "stop"}
                )
        row = {"response_id": "r1", "revision": 1, "time": 2000.0, "edit": "hi! see Ann at 1"}
        writes.insert_edit(connection, row)
    yield opened
    opened.close()


def test_the_cost_model_of_the_run_predicts_what_all_drafts_cost(
    run: RunFolder, policy: Policy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "no_reranking", lambda run: None)
    found = predict_shadow(store, NEW, 1001.0, device="cpu")
    assert found["objection"] is None and len(found["costs"]) == 3  # edited or not, since that time
    trees = [
        policy.encoder.tree(f"mail {i}", [text])
        for i in (1, 2, 3)
        for text in (f"hi! see Ann at {i}", "see Bob")
    ]
    wanted, _ = predicted_costs(run, policy, [tree for tree in trees if tree is not None], cached=False)
    assert [each[arm] for each in found["costs"] for arm in (NEW, CHAMPION)] == pytest.approx(
        wanted.tolist(), rel=1e-4
    )
    assert "r1" not in json.dumps(found)  # whose request it was is not kept
    assert len(predict_shadow(store, NEW, 0.0, device="cpu")["costs"]) == 4  # a chat is one, too
    assert predict_shadow(store, NEW, 9e9) == {"costs": [], "objection": "there are no drafts"}


def test_a_cost_model_that_predicts_nothing_is_not_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "no_reranking", lambda run: "it may predict nothing")
    assert predict_shadow(store, NEW, 0.0) == {"costs": [], "objection": "it may predict nothing"}
    with pytest.raises(AutopilotError, match="no such policy"):
        predict_shadow(store, "nobody@1", 0.0)


def test_the_real_command_writes_what_the_scorer_reads(run: RunFolder, store: Store, url: str) -> None:
    scorer = CommandScorer(Child(child_command(), 0), url, ["--device", "cpu"])
    until, found = time.monotonic() + 120, None
    while found is None and time.monotonic() < until:
        found = scorer.predict(SHADOW, run.path)
        time.sleep(0.1)
    scorer.stop()
    (file,) = run.path.glob("shadow-*.json")
    written = json.loads(file.read_text())
    file.unlink()
    assert found == written["costs"] and written == predict_shadow(store, NEW, 1000.0, device="cpu")


class FakeScorer:
    """Predicts what it is given."""

    def __init__(self, found: Predicted | None) -> None:
        self.found = found

    def predict(self, shadow: Transition, run: Path) -> Predicted | None:
        return self.found

    def stop(self) -> None:
        pass


def test_costs_of_both_kinds_are_paired_by_request(store: Store, tmp_path: Path) -> None:
    some = [{NEW: 0.4, CHAMPION: 0.3}, {NEW: 0.2}, {CHAMPION: 0.1, "other@3": 0.9}]
    costs = ShadowCosts(store, FakeScorer(some))
    (pair,) = costs.measured(SHADOW, CHAMPION, {"r1": "ada"})
    assert pair == ("ada", 0.0, pytest.approx(0.8))  # 4 of the 5 words of the edit
    assert costs.measured(SHADOW, CHAMPION, {})[0].unit == "r1"
    assert costs.predicted(SHADOW, CHAMPION, tmp_path) == [("", 0.4, 0.3)]
    assert costs.predicted(SHADOW, CHAMPION, None) == []
    assert ShadowCosts(store).predicted(SHADOW, CHAMPION, tmp_path) == []
    assert ShadowCosts(store, FakeScorer(None)).predicted(SHADOW, CHAMPION, tmp_path) is None
