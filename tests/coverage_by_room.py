"""Report how much of each room the tests run, from the data of `make coverage`; fail below the gate."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from coverage import Coverage

GATE = 90.0
GATED = ("edits", "online", "offline", "policy")


def shares(report: dict[str, dict[str, dict[str, int]]]) -> dict[str, tuple[int, int]]:
    """Lines that were run and all lines, by room; modules outside the rooms are `ground`."""
    rooms: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for name, file in report["files"].items():
        below = Path(name).as_posix().partition("src/editloop/")[2]
        room = below.partition("/")[0] if "/" in below else "ground"
        run, lines = rooms[room]
        summary = file["summary"]
        rooms[room] = (run + summary["covered_lines"], lines + summary["num_statements"])
    return dict(rooms)


def main() -> int:
    """Print the table; 1 where a gated room is below the gate."""
    coverage = Coverage()
    coverage.load()
    path = Path("coverage.json")
    coverage.json_report(outfile=str(path))
    found = shares(json.loads(path.read_text(encoding="utf-8")))
    low = []
    for room, (run, lines) in sorted(found.items()):
        share = 100 * run / lines if lines else 100.0
        print(f"{room:10} {share:5.1f}% of {lines:5,} lines")
        if room in GATED and share < GATE:
            low.append(room)
    run, lines = (sum(each) for each in zip(*found.values(), strict=True))
    print(f"{'all':10} {100 * run / lines:5.1f}% of {lines:5,} lines")
    if low:
        print(f"below {GATE:.0f}%: {', '.join(low)}", file=sys.stderr)
    return bool(low)


if __name__ == "__main__":
    raise SystemExit(main())
