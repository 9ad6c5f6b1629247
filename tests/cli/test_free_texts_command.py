"""The command with users who edit free text, on a tiny base: log, fit, rounds, and the demo."""

from __future__ import annotations

import json

import pytest

from editloop.errors import ModelError
from editloop.lab import free_texts
from editloop.policy import Policy


@pytest.fixture
def tiny(base):
    return base(chat=True, max_position_embeddings=1024)


def test_free_texts_from_the_log_to_the_rounds(editloop, tiny, tmp_path):
    status, out, _ = editloop("lab", "log", "log.jsonl", "--texts", "free", "--base", tiny, "--rows", 12)
    assert status == 0 and "12 rows written to log.jsonl" in out
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    world, cut = free_texts("email"), sum(row["metadata"].get("finished") is False for row in rows)
    assert f"{cut} drafts were cut at 120 tokens" in out
    for row in rows:
        assert row["metadata"]["kind"] == world.kind(row["context"])
        assert world.stated_facts(row["context"])["name"] in row["edit"]
    fit = ["--methods", "sft", "--set", "sft.learning_rate=1e-3", "--epochs", 1, "--validation-samples", 0]
    status, _, err = editloop("fit", "log.jsonl", "--base", tiny, "--out", "run", *fit)
    assert status == 0, err
    texts = ["simulate", "run", "--texts", "free", "--rounds", 4]
    status, out, err = editloop(*texts, "--drift", 2)
    assert status == 0, err
    assert "4 of 4 rounds counted" in out
    assert json.loads((tmp_path / "run/rounds-strong/settings.json").read_text())["max_new_tokens"] == 120
    status, _, err = editloop(*texts, "--domain", "summary", "--user", "weak")
    assert status == 0, err


def test_a_log_that_was_interrupted_goes_on(editloop, tiny, tmp_path, monkeypatch):
    sample, calls = Policy.sample, []

    def gone_once(self, contexts, **options):
        calls.append(options["seed"])
        if len(calls) == 2:
            raise ModelError("the machine is gone")
        return sample(self, contexts, **options)

    monkeypatch.setattr(Policy, "sample", gone_once)
    asked = ["lab", "log", "log.jsonl", "--texts", "free", "--base", tiny, "--rows", 40]
    status, _, err = editloop(*asked)
    assert status == 1 and "the machine is gone" in err
    assert (tmp_path / "log.drafts.jsonl").is_file() and not (tmp_path / "log.jsonl").exists()
    status, out, _ = editloop(*asked)
    assert status == 0 and "40 rows written" in out
    assert calls == [0, 1, 1, 2]  # the first chunk is not drawn again
    assert not (tmp_path / "log.drafts.jsonl").exists()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 40


def test_free_texts_need_a_base_that_can_read_them(editloop):
    status, _, err = editloop("lab", "log", "x.jsonl", "--texts", "free")
    assert status == 1 and "can read the lab's texts only: 'free' (give --base smollm2 or another)" in err


def test_the_demo_on_a_real_base_shows_texts_before_and_after(editloop, tiny, tmp_path):
    sizes = ["--rows", 24, "--responses", 2, "--rounds", 3, "--methods", "sft, early"]
    status, out, err = editloop("demo-real", "--base", tiny, *sizes)
    assert status == 0, err
    assert out.count("--- base: cost ") == 2 == out.count("--- sft: cost ") + out.count("--- early: cost ")
    table = [line.split()[0] for line in out.splitlines() if "\u00b1" in line or "by round" in line]
    assert table == ["base", "sft", "early", "LateEnsemble"]
    shown = out[out.index("=====") :].splitlines()
    assert [line for line in shown if len(line) > 80] == []
    assert len((tmp_path / "demo-real/rounds/rounds.jsonl").read_text().splitlines()) == 3
    status, _, err = editloop("demo-real", "--base", tiny, "--log", "demo-real/log.jsonl", "--out", "own")
    assert status == 1 and "the log has too few contexts: 24 (give at least 32)" in err
