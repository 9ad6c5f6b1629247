"""`python -m benchmarks NAME`: the benchmark it runs, and what it refuses."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import train_speed
from benchmarks.__main__ import BENCHMARKS, bench
from editloop.errors import ConfigError


def test_sizes_are_stripped(monkeypatch, tmp_path, capsys):
    def run(out: Path, *, sizes: list[str], callback: Any) -> None:
        (out / "train-speed.md").write_text(str(sizes))

    monkeypatch.setattr(train_speed, "run", run)
    bench("train-speed", out=tmp_path, sizes="0.5b, 3b,")
    assert "['0.5b', '3b']" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "sizes", "word"),
    [
        ("everything", None, "unknown benchmark: 'everything'"),
        ("cost-speed", "3b", "cost-speed takes no --sizes: ['3b']"),
        ("postedit", None, "mlqe_pe.ro-en.train.tsv, mlqe_pe.ro-en.test.tsv, mlqe_pe.et-en.train.tsv"),
    ],
)
def test_a_benchmark_that_cannot_run_is_refused_in_one_line(monkeypatch, tmp_path, name, sizes, word):
    monkeypatch.setenv("EDITLOOP_DATA", "nowhere")
    with pytest.raises(ConfigError) as refused:
        bench(name, out=tmp_path, sizes=sizes)
    assert word in str(refused.value)


@pytest.mark.parametrize("where", BENCHMARKS.values())
def test_every_benchmark_of_the_table_exists(where):
    module, _, function = where.partition(":")
    assert callable(getattr(import_module(f"benchmarks.{module}"), function))
