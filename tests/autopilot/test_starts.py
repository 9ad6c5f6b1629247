"""Where a fit of the autopilot begins: at the champion's adapter, where there is one that may be used."""

from __future__ import annotations

import shutil

import pytest

from editloop.autopilot.starts import first_weights, run_of, start_path
from editloop.errors import AutopilotError
from editloop.policy import RunFolder, arm_name
from editloop.serve.testing import make_run
from editloop.store import Store, writes
from editloop.store.schema import FORGOTTEN


@pytest.fixture
def store(tmp_path):
    opened = Store(f"sqlite:///{tmp_path}/edits.db")
    opened.open(claim=False)
    yield opened
    opened.close()


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", ("sft", "early"))


def known(store: Store, run, name: str = "sft", read_until: float | None = 100.0, arm: str = "") -> str:
    """Put a policy of a run into the store, and return its arm."""
    arm = arm or arm_name(RunFolder(run), name)
    row = {"arm": arm, "name": name, "run": str(run), "time": 1.0, "metrics": "{}", "read_until": read_until}
    with store.transaction() as connection:
        writes.insert_policy(connection, row)
    return arm


def begins(store: Store, champion: str) -> str:
    return store.read(lambda connection: first_weights(connection, champion))


def test_a_fit_begins_at_the_champion_whose_adapter_is_there(store, run):
    arm = known(store, run)
    assert begins(store, arm) == arm
    assert store.read(lambda c: start_path(c, arm)) == run / "sft"
    assert store.read(lambda c: run_of(c, arm)) == run


def test_at_the_base_if_the_champion_is_the_base_or_has_no_adapter(store, run):
    assert begins(store, known(store, run, "base")) == "base"
    (run / "policies" / "early" / "adapter_config.json").unlink()
    assert begins(store, known(store, run, "early", arm="early@11111111")) == "base"
    assert begins(store, "retrieval-4:base") == "base"  # no policy of a run at all
    assert (
        store.read(lambda c: start_path(c, "base")) is None
        and store.read(lambda c: start_path(c, "")) is None
    )


def test_at_the_base_if_the_run_is_gone_or_has_other_weights_by_now(store, run):
    assert begins(store, known(store, run, arm="sft@99999999")) == "base"
    arm = known(store, run)
    shutil.rmtree(run)
    assert begins(store, arm) == "base"
    assert store.read(lambda c: run_of(c, arm)) is None
    # A fit that began there goes on from there, or says that it cannot.
    assert store.read(lambda c: start_path(c, arm)) == run / "sft"
    with pytest.raises(AutopilotError, match="not known"):
        store.read(lambda c: start_path(c, "never@11111111"))


@pytest.mark.parametrize(("moment", "is_free"), [(99.0, True), (100.0, False), (500.0, False)])
def test_at_the_base_if_somebody_was_forgotten_since_its_rows_were_read(store, run, moment, is_free):
    arm, own = known(store, run), known(store, run, "early", read_until=None)
    with store.transaction() as connection:
        writes.set_fact(connection, FORGOTTEN, repr(moment))
    assert begins(store, arm) == (arm if is_free else "base")
    assert begins(store, own) == own  # it read no row of this store
