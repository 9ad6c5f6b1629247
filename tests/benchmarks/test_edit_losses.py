"""Losses that read the edit: logs with revisions, figures by hand, and that nothing is measured twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import edit_losses, edit_losses_logs, row_figures
from benchmarks.edit_losses import PARENTS, _figures
from benchmarks.edit_losses_logs import EditedLog, Size, half_way, in_visits
from benchmarks.edit_losses_page import page
from benchmarks.real_rows import Fold
from benchmarks.row_figures import resampled_rows
from editloop.edits import Record
from editloop.offline import METHODS
from editloop.policy import Policy
from small_log import small_log


class Appending:
    """A user who puts the number of the visit behind a text, until it has a certain length."""

    name, settings = "appending", {}

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        return response if len(response) > 4 else response + str(round)


def test_every_visit_that_changes_something_is_a_revision() -> None:
    row = Record(id="a", context="x", response="ab", edit="ab0", metadata={"kind": "k"})
    once, *others = (in_visits(row, Appending(), visits) for visits in (1, 2, 3, 4, 6))
    assert once == row and once.revisions == ()
    assert [each.edit for each in others] == ["ab01", "ab012", "ab012", "ab012"]
    assert [each.revisions for each in others] == [("ab0",), *(3 * [("ab0", "ab01")])]
    assert others[0].metadata["kind"] == "k" and others[0].status == "edited"


def test_a_late_first_change_is_no_revision_of_the_draft() -> None:
    row = Record(id="a", context="x", response="abcd", edit="abcd")
    later = in_visits(row, Appending(), 3)
    assert (later.edit, later.revisions, later.status) == ("abcd1", (), "edited")
    left = in_visits(Record(id="a", context="x", response="abcde", edit="abcde"), Appending(), 3)
    assert (left.edit, left.revisions, left.status) == ("abcde", (), "accepted")


@pytest.mark.parametrize(
    ("response", "edit", "between"),
    [
        ("a b c d", "A b c D", "A b c d"),  # two changes: the first
        ("a b c d e", "A b C d E", "A b c d e"),  # of three the first
        ("a b c d e f g", "A b C d E f G", "A b C d e f g"),
        ("a b c d", "a c d e", "a c d"),  # deleted, then inserted
        ("a b", "a B", None),  # one change has no half
        ("a b", "a b", None),
        ("a b", "", None),
    ],
)
def test_half_way_are_the_first_half_of_the_changes(response: str, edit: str, between: str | None) -> None:
    row = half_way(Record(id="a", context="x", response=response, edit=edit))
    assert row.edit == edit
    assert row.revisions == (() if between is None else (between,))


def rows(log_prob: list[float], cost: list[float], user_cost: list[float] | None = None) -> dict[str, Any]:
    found = {
        "context": ["a", "b"],
        "edit": ["x", "x"],
        "log_prob": log_prob,
        "tokens": [2, 6],
        "margin": [1.0, None],
        "sample": ["y", "y"],
        "cost": cost,
        "finished": [True, False],
        "ratio": [1.0, 1.0],
    }
    return found | ({} if user_cost is None else {"user_cost": user_cost})


def test_the_figures_by_hand() -> None:
    base, parent = rows([-4.0, -6.0], [0.9, 0.9], [1.0, 2.0]), rows([-3.0, -8.0], [0.5, 0.7], [0.6, 0.8])
    own = rows([-2.0, -7.0], [0.4, 0.4], [0.5, 0.5])
    found = {name: figure(slice(None)) for name, figure in _figures(own, base, parent).items()}
    assert found == pytest.approx(
        {
            "test_cost": 0.5,
            "saved": 0.2,
            "cost": 0.4,
            "log_prob_per_token": -9 / 8,
            "gain_per_token": 1 / 8,
            "fallen": 0.5,
            "reference_accuracy": 1.0,
            "finished": 0.5,
        }
    )
    # People's edits have no test cost: the comparison is by the cost against the row's edit.
    plain = _figures(rows([-2.0, -7.0], [0.4, 0.4]), base, rows([-3.0, -8.0], [0.5, 0.7]))
    assert "test_cost" not in plain and plain["saved"](slice(None)) == pytest.approx(0.2)
    assert "saved" not in _figures(own, base, None)
    assert all(set(draw) <= {0, 1} for draw in resampled_rows(own["context"])[:5])


def test_every_loss_that_reads_the_edit_has_a_loss_that_it_changes() -> None:
    for name, parent in PARENTS.items():
        assert isinstance(METHODS.get(name), type(METHODS.get(parent)))
    assert {*PARENTS, *PARENTS.values()} <= set(edit_losses.METHODS) <= set(METHODS)


CHAINED = [
    Record(**row.model_dump(exclude={"metadata"}), metadata={"revisions": [f"hi {row.response}"]})
    for row in small_log(48)
]


@pytest.fixture
def small(base: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_process: None) -> dict[str, Any]:
    """Arguments of a run on a lab log of a few rows and on made-up translations, of short fits."""
    monkeypatch.setattr(edit_losses_logs, "mlqe", lambda *_: Fold(tuple(CHAINED[:40]), tuple(CHAINED[40:])))
    monkeypatch.setattr(edit_losses_logs, "half_way", lambda record: record)
    monkeypatch.setattr(row_figures, "RESAMPLES", 50)
    monkeypatch.setattr(edit_losses, "RATES", dict.fromkeys(("dpo", "chain_dpo"), (1e-3, 2e-3)))
    changes = {"epochs": 0.5, "evaluations": 1, "validation": 0.25, "validation_samples": 2}
    size = Size(16, 6, 16, 24, 6, str(base(chat=True)), "float32", tuple(changes.items()))
    return {
        "work": tmp_path / "work",
        "logs": (EditedLog("email", "weak", 3), EditedLog("ro-en")),
        "seeds": (1,),
        "methods": ("dpo", "chain_dpo"),
        "size": size,
    }


def test_each_method_is_measured_once(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = edit_losses.run(tmp_path, **small)
    assert list(found["logs"]) == ["email, weak, 3 visits", "ro-en"]
    for title, log in found["logs"].items():
        assert list(log["policies"]) == ["base", "dpo", "chain_dpo"]
        assert log["policies"]["base"]["gain_per_token"]["value"] == 0
        assert log["policies"]["dpo"]["gain_per_token"]["value"] != 0
        assert ("test_cost" in log["policies"]["dpo"]) == (title != "ro-en")
        assert "saved" in log["policies"]["chain_dpo"] and "saved" not in log["policies"]["dpo"]
        assert sum(log["revised"]) > 0
    assert [each["method"] for each in found["rates"]] == ["dpo", "chain_dpo"]
    assert len(found["rates"][0]["trials"]) == 2
    figures = [trial["validation_loss"] for trial in found["rates"][1]["trials"]]
    assert found["chosen_rates"]["chain_dpo"] == [(1e-3, 2e-3)[figures.index(min(figures))]]
    text = (tmp_path / "edit-losses.md").read_text(encoding="utf-8")
    assert "## ro-en" in text and "## Learning rates" in text and "| chain_dpo |" in text
    assert CHAINED[40].context not in text

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(Policy, "sample", never)
    monkeypatch.setattr(edit_losses, "fit", never)
    again = edit_losses.run(tmp_path, **small)
    assert again == found


def test_without_revisions_the_chain_is_not_trained() -> None:
    strong, weak = EditedLog("email", "strong"), EditedLog("email", "weak", 3)
    assert not edit_losses._differs("chain_dpo", strong) and edit_losses._differs("dpo", strong)
    assert edit_losses._differs("chain_dpo", weak) and edit_losses._differs("chain_dpo", EditedLog("ro-en"))


def test_a_page_names_alarms_and_leaves_out_what_is_not_there() -> None:
    figure = {"value": 0.5, "interval": [0.25, 0.75]}
    nothing = {"value": None, "interval": [None, None]}
    fits = {"chosen": "lr 1", "steps": [1, 2], "trials": [{"seconds": 3.0}], "alarms": ["it fell"]}
    measured = {
        **Size()._asdict(),
        "costs": {"test": "one", "sampled": "two"},
        "seeds": [1, 2],
        "machines": {"a machine": 2},
        "rates": [],
        "chosen_rates": {},
        "logs": {
            "ro-en": {
                "rows": 3,
                "seeds": [1],
                "train": 2,
                "revised": [0],
                "policies": {
                    "base": {"cost": figure, "fallen": figure},
                    "dpo": {"cost": figure, "saved": nothing},
                },
                "by_seed": {},
                "fits": [{"method": "dpo", "seed": 1, **fits}],
            }
        },
    }
    text = page(measured, PARENTS)
    assert "| base |  |  | 0.500 [0.250, 0.750] |  |  |  |  |  |" in text
    assert "| dpo |  | – | 0.500 [0.250, 0.750] |" in text
    assert "- alarm, dpo, seed 1: it fell" in text and "none with revisions" in text
    assert "## Learning rates" not in text and "Test cost by seed" not in text
