"""The page of a report: the verdict stands above all, and drafts are redlines with their costs."""

from __future__ import annotations

from pathlib import Path

from editloop.offline.page import Comparison, Draft, Section, write_report
from editloop.offline.plots import training_curves
from editloop.offline.verdict import Verdict
from editloop.policy.manifest import PolicyRecord, TrialRecord


def test_the_verdict_comes_before_every_section(tmp_path: Path) -> None:
    sections = [Section("The policies", table=[["policy", "cost"], ["sft", "0.1"]])]
    verdict = Verdict("Serve sft: .69 to .10.", ("Because it is cheap.",))
    text = write_report(tmp_path / "report.html", "title", "lead", sections, verdict).read_text("utf-8")
    assert text.index("Serve sft: .69 to .10.") < text.index("Because it is cheap.") < text.index("<h2>")
    plain = write_report(tmp_path / "plain.html", "title", "lead", sections).read_text("utf-8")
    assert 'class="verdict"' not in plain


def test_a_draft_is_shown_as_a_redline_with_its_cost(tmp_path: Path) -> None:
    drafts = [
        Draft("base", "Dear <Ada>, hello", "Hi <Ada>, hello", 0.25),
        Draft("sft", "Hi <Ada>", "Hi <Ada>", 0.0),
        Draft("dpo", "Hi", "Hello"),
        Draft("rl", "Hi there", "Hi", 1.0, finished=False),
    ]
    section = Section("Before and after", comparisons=[Comparison("a <context>", drafts)])
    text = write_report(tmp_path / "report.html", "title", "lead", [section]).read_text("utf-8")
    assert "a &lt;context&gt;" in text
    assert "<del>Dear</del><ins>Hi</ins> &lt;Ada&gt;, hello" in text
    assert "base <span>cost 0.25; 1 replaced, 0 deleted, 0 inserted of 3 words</span>" in text
    assert "sft <span>cost 0, left unchanged</span>" in text
    assert "cost 1.00, as it is unfinished; 0 replaced, 1 deleted, 0 inserted of 2 words" in text
    assert "dpo <span></span>" in text  # a run of an older version does not know the cost


def test_a_training_without_a_history_has_an_empty_plot() -> None:
    """`history` may be missing in a `run.json`, and so may the loss before the training."""
    (axes,) = training_curves({"sft": PolicyRecord(trials=[TrialRecord()])}).axes
    assert [len(line.get_xdata()) for line in axes.lines[:2]] == [0, 1]
