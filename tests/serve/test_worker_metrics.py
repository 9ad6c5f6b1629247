"""Any worker shows the metrics of all of them, each series with its worker."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from editloop.serve.api.worker_metrics import WorkerMetrics


class Own:
    """The metrics of one process."""

    def __init__(self, requests: int, arm: str) -> None:
        self.registry = CollectorRegistry()
        counter = Counter("requests", "Requests.", ["arm"], registry=self.registry)
        counter.labels(arm).inc(requests)

    def text(self) -> bytes:
        return generate_latest(self.registry)


def shown(text: bytes) -> dict[tuple[str, str, str], float]:
    return {
        (sample.name, sample.labels["worker"], sample.labels["arm"]): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_each_worker_shows_all(tmp_path: Path) -> None:
    workers = []
    for number, requests in ((1, 3), (2, 4), (10, 5)):
        folder = tmp_path / f"worker-{number}"
        folder.mkdir()
        workers.append(WorkerMetrics(Own(requests, f"a@{number}"), folder))  # type: ignore[arg-type]
    (tmp_path / "worker-x").mkdir()
    assert shown(workers[0].text()) == {("requests_total", "1", "a@1"): 3}  # the others have written nothing
    for each in workers:
        each._write(each._metrics.text())
    everything = {
        ("requests_total", "1", "a@1"): 3.0,
        ("requests_total", "2", "a@2"): 4.0,
        ("requests_total", "10", "a@10"): 5.0,
    }
    assert [shown(each.text()) for each in workers] == [everything] * 3
    assert (
        workers[0].text().count(b"# TYPE requests_total counter") == 1
    )  # one family, as Prometheus wants it
    (tmp_path / "worker-2" / "metrics.prom").write_bytes(b"\xff\xfe")
    assert ("requests_total", "2", "a@2") not in shown(workers[0].text())
    assert shown(workers[1].text()) == everything  # its own it knows
