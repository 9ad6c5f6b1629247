"""`editloop theory`: a claim is measured and shown, and a wrong flag is one line."""

from __future__ import annotations

from pathlib import Path

from calling import fails
from editloop.theory.claims import contraction


def test_a_claim_is_measured_and_shown(editloop, tmp_path: Path, monkeypatch) -> None:
    whole = contraction.run
    monkeypatch.setattr(contraction, "run", lambda *a, **k: whole(*a, worlds=30, **k))
    status, out, _ = editloop("theory", "contraction", "--out", tmp_path / "found", "--seed", 3)
    assert status == 0 and "violations" in out
    assert (tmp_path / "found" / "contraction.png").is_file()


def test_bad_flags_are_told(editloop) -> None:
    fails(editloop("theory", "everything"), "unknown claim: 'everything'", "choose one of contraction,")
    fails(editloop("theory", "contraction", "--seed", -1), "--seed", status=2)
