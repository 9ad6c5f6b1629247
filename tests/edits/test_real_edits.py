"""Edits that people made: their figures are those that the description of the data gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from editloop.edits import get_cost, iter_records, read_log, summarize
from editloop.edits.cost import PAPER_COST

LAMP = "context=instruction,response=preedit,edit=postedit,user=writer,policy=source"
MLQE = {"map": "context=src,response=mt,edit=pe,metadata.hter=hter", "quote": '"'}


@pytest.mark.parametrize(("writer", "cost", "shared"), [("w12", 0.30, 0.25), ("w16", 0.44, 0.14)])
def test_lamp(data: Path, writer: str, cost: float, shared: float) -> None:
    summary = summarize(iter_records(data / f"lamp.{writer}.jsonl", map=LAMP), cost=get_cost(PAPER_COST))
    assert (summary.rows, summary.n_users, summary.users[0].name) == (50, 1, writer.upper())
    assert summary.all.mean_cost == pytest.approx(cost, abs=0.005)
    assert summary.shared == pytest.approx(shared, abs=0.01)


@pytest.mark.parametrize(
    ("pair", "unedited", "hter", "shared"), [("ro-en", 0.10, 0.35, 0.57), ("et-en", 0.14, 0.27, 0.56)]
)
def test_mlqe(data: Path, pair: str, unedited: float, hter: float, shared: float) -> None:
    log = read_log(data / f"mlqe_pe.{pair}.train.tsv", **MLQE)
    assert (len(log), log.report.bad_rows, log.report.duplicates) == (7000, 0, 0)
    assert np.mean([float(record.metadata["hter"]) for record in log]) == pytest.approx(hter, abs=0.005)
    summary = summarize(log)
    assert 1 - (summary.all.share_edited or 0) == pytest.approx(unedited, abs=0.005)
    assert summary.shared == pytest.approx(shared, abs=0.005)


def test_our_cost_ranks_edits_as_the_shared_task_does(data: Path) -> None:
    log = read_log(data / "mlqe_pe.ro-en.test.tsv", **MLQE)
    hter = [float(record.metadata["hter"]) for record in log]
    ours = summarize(log).sample["cost"]
    assert np.corrcoef(hter, np.minimum(ours, 1))[0, 1] > 0.9
