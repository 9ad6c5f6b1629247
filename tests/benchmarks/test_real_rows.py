"""The rows of the benchmarks on people's edits: which are trained on, which are tested on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import real_rows
from benchmarks.real_edits import real_folder
from benchmarks.real_rows import lamp_folds, mlqe
from editloop.errors import ConfigError

real = pytest.mark.skipif(
    not (real_folder(None) / "lamp16.jsonl").is_file(), reason="EDITLOOP_DATA names no folder of real edits"
)


def write_lamp(folder: Path, edits: dict[str, int]) -> None:
    rows = [(user, place) for user, count in edits.items() for place in range(count)]
    lines = (
        json.dumps({"user": user, "context": f"{user} {i}", "response": f"a {user} {i}", "edit": f"b {i}"})
        for user, i in rows
    )
    (folder / "lamp16.jsonl").write_text("\n".join(lines))


def test_writers_are_dealt_to_the_smallest_fold(tmp_path: Path) -> None:
    write_lamp(tmp_path, {"w1": 1, "w2": 5, "w3": 2, "w4": 3})
    first, second = lamp_folds(tmp_path, folds=2)
    # 5 to the first, 3 and 2 to the second; at 5 and 5 the tie goes to the first.
    assert [record.user for record in first.test] == ["w1"] + ["w2"] * 5
    assert [record.user for record in second.test] == ["w3"] * 2 + ["w4"] * 3
    assert (first.train, second.train) == (second.test, first.test)
    with pytest.raises(ConfigError, match="folds"):
        lamp_folds(tmp_path, folds=5)


def test_rows_are_sampled_without_a_context_that_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, numbers in {"train": range(20), "test": range(10, 30)}.items():
        lines = [f"sursa {i}\tdraft {i}\tedit {i}\n" * 2 for i in numbers]
        (tmp_path / f"mlqe_pe.ro-en.{part}.tsv").write_text("src\tmt\tpe\n" + "".join(lines))
    monkeypatch.setattr(real_rows, "MLQE_TRAIN", 12)
    monkeypatch.setattr(real_rows, "MLQE_TEST", 14)
    fold = mlqe("ro-en", tmp_path)
    assert fold == mlqe("ro-en", tmp_path)
    contexts = [record.context for record in (*fold.train, *fold.test)]
    assert len(fold.train) == 12 and len(fold.test) == 14 == len(set(contexts)) - 12
    for record in fold.train:
        number = record.response.removeprefix("draft ")
        asked = f"Translate the following Romanian sentence into English.\n\nsursa {number}"
        assert (record.context, record.edit) == (asked, f"edit {number}")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown pair of languages"):
        mlqe("xx-en", tmp_path)
    with pytest.raises(ConfigError, match=r"lamp16\.jsonl"):
        lamp_folds(tmp_path)
    with pytest.raises(ConfigError, match=r"mlqe_pe\.et-en\.train\.tsv, mlqe_pe\.et-en\.test\.tsv"):
        mlqe("et-en", tmp_path)


@real
def test_the_real_rows_are_those_that_are_announced() -> None:
    folds = lamp_folds()
    assert [len(fold.test) for fold in folds] == [79, 78, 80]
    assert all(len(fold.train) + len(fold.test) == 237 for fold in folds)
    for fold in folds:
        for share in ("user", "context", "response"):
            parts = [{getattr(record, share) for record in part} for part in fold]
            assert not parts[0] & parts[1], share
    for pair in ("ro-en", "et-en"):
        train, test = mlqe(pair)
        assert (len(train), len(test)) == (600, 300)
        assert not {record.response for record in train} & {record.response for record in test}
