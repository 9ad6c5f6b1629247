"""Writing the results of benchmarks and claims, with the machine that they were measured on.

Each writes `NAME.json` for programs and `NAME.md` for people, with the hardware and the date.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from editloop.io import atomic_file, write_text
from editloop.parallel import cores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def hardware() -> dict[str, Any]:
    """Return the machine's processor, usable cores, memory in GB, GPUs, system and Python.

    GPUs are found only if torch is loaded. Whatever was measured on one has loaded it, and importing it here
    would take seconds and fail in an installation without it.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    torch = sys.modules.get("torch")
    gpus = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gb": round(memory / 1e9, 1),
        "gpus": gpus,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def machine_name() -> str:
    """Return the name of what computes here: the GPUs, or the processor and its usable cores."""
    machine = hardware()
    return ", ".join(machine["gpus"]) or f"{machine['cpu']} with {machine['cores']} cores"


def write_result(
    name: str,
    data: dict[str, Any],
    markdown: str,
    folder: str | Path,
    figure: Figure | None = None,
    *,
    command: str = "make bench NAME=",
) -> tuple[Path, Path]:
    """Write `NAME.json` and `NAME.md` with hardware and date, and return their paths.

    Args:
        name: The benchmark's name, as in `make bench NAME=...`.
        data: What was measured, as JSON types.
        markdown: The same for people, without a title.
        folder: Where to write; it is made if it is not there.
        figure: A plot, which is written to `NAME.png` and shown at the top of the page.
        command: The command that measures it, up to the name, for the last line of the page.
    """
    machine, date = hardware(), datetime.now(UTC).date().isoformat()
    where = ", ".join(
        [
            machine["cpu"],
            f"{machine['cores']} core{'s' * (machine['cores'] != 1)}",
            f"{machine['memory_gb']:.0f} GB",
            *machine["gpus"],
            machine["system"],
            f"Python {machine['python']}",
        ]
    )
    paths = Path(folder) / f"{name}.json", Path(folder) / f"{name}.md"
    if figure is not None:
        markdown = f"![{name}]({name}.png)\n\n{markdown}"
        with atomic_file(Path(folder) / f"{name}.png") as unfinished:
            figure.savefig(unfinished, format="png", facecolor="white")
    result = {"name": name, "date": date, "hardware": machine, **data}
    footer = f"Measured on {where}, on {date}, by `{command}{name}`."
    # Not `write_json`, which writes NaN as null: a result that is NaN is an error.
    write_text(paths[0], json.dumps(result, indent=2, allow_nan=False) + "\n")
    write_text(paths[1], f"# {name}\n\n{markdown.strip()}\n\n{footer}\n")
    return paths


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Return a Markdown table; all columns but the first `left` are aligned to the right."""
    rules = ["---"] * left + ["--:"] * (len(headings) - left)
    lines = [f"| {' | '.join(headings)} |", f"|{'|'.join(rules)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float | None]:
    """Return the mean and the standard error of values [n]; the error is None for a single value."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(values.mean()), error


def recent_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return for each value the mean of it and those before it, of at most `window` values [n]."""
    # Differences of running sums, so that the time does not grow with the window.
    total = np.concatenate([[0.0], values.cumsum()])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: NDArray[np.float64] = (total[ends] - total[starts]) / (ends - starts)
    return means


def plus_minus(mean: float, spread: float | None, digits: int = 3) -> str:
    """Return a mean as text, with its standard deviation or error if there is one."""
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
