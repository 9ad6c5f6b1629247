"""The metrics of several workers: any one answers for all, because each writes its own into a file.

So whoever scrapes sees all workers at each scrape, whichever has answered; every series has the label
`worker`. Of the other workers, it is what they had counted a moment ago.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from editloop.serve.api.metrics import Metrics

__all__ = ["WorkerMetrics"]

log = logging.getLogger("editloop.serve")

WRITE_INTERVAL = 2.0
"""Seconds between two writings of the file."""

FILE = "metrics.prom"


class WorkerMetrics(Collector):
    """The metrics of a worker and of those beside it.

    Args:
        metrics: Those of this process.
        folder: The state folder of this worker, `worker-N`; the others' are beside it.
    """

    def __init__(self, metrics: Metrics, folder: Path) -> None:
        self._metrics, self._folder = metrics, folder

    async def _keep_writing(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._write, self._metrics.text())
            except OSError as error:
                log.warning("the metrics could not be written: %s", error)
            await asyncio.sleep(WRITE_INTERVAL)

    def _write(self, text: bytes) -> None:
        # Replaced as a whole, so that nobody reads half of it; it need not survive a loss of power.
        new = self._folder / f"{FILE}.new"
        new.write_bytes(text)
        new.replace(self._folder / FILE)

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Write the file periodically within the block."""
        task = asyncio.create_task(self._keep_writing())
        try:
            yield
        finally:
            task.cancel()

    def text(self) -> bytes:
        """The metrics of all workers, in Prometheus' text format."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with the samples of all workers."""
        found: dict[str, Metric] = {}
        for worker, text in self._texts():
            for family in text_string_to_metric_families(text):
                metric = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    metric.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
        yield from found.values()

    def _texts(self) -> Iterator[tuple[str, str]]:
        """The number of each worker, and its metrics."""
        for path in sorted(self._folder.parent.glob("worker-*")):
            number = re.fullmatch(r"worker-(\d+)", path.name)
            if number is None:
                continue
            if path == self._folder:
                yield number[1], self._metrics.text().decode()
                continue
            with suppress(OSError, UnicodeDecodeError):  # it has not begun yet
                yield number[1], (path / FILE).read_text(encoding="utf-8")
