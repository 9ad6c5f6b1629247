"""What the tests of other tools' formats share: importing an export, and the way there and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editloop.edits import Log, Record, export, read_log

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Invite Ada."}]

RECORDS = (
    Record(
        id="r-1",
        context="Invite Ada.",
        response="Dear Ada, come.",
        edit="Hi Ada, come!",
        user="bob",
        policy="sft@1",
        propensity=0.25,
        logprob=-12.5,
        time="2026-03-04T05:06:07Z",
        metadata={"page": 3, "revisions": ["Hi Ada."]},
    ),
    Record(id="r-2", context=CHAT, response="Yes.", edit="Yes.", user="ann", time="2026-03-05T00:00:00Z"),
    Record(id="r-3", context="q", response="a b", status="discarded", user="ann"),
    Record(id="r-4", context="q2", response="a b"),
    Record(id="r-5", context="q3", response="a b", edit="", user="José “x”"),
    Record(id="r-6", context="q4", response="a b", status="expired", policy="base"),
)


def imported(path: Path, rows: Any, format: str, **options: Any) -> Log:
    """The log that an export becomes, which is written as JSON lines if it is a list of rows."""
    if isinstance(rows, Sequence) and not isinstance(rows, str):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif rows is not None:
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows, indent=2), encoding="utf-8")
    log = read_log(path, format=format, max_bad_share=1.0, **options)
    report = log.report
    counted = report.records + report.bad_rows + report.dropped_duplicates + report.left_out.total()
    assert (
        report.rows_read
        == counted
        == len(log) + report.dropped_duplicates + report.bad_rows + (report.left_out.total())
    )
    return log


def there_and_back(tmp_path: Path, format: str, records: Sequence[Record] = RECORDS) -> tuple[Record, ...]:
    """The records that an export of these gives when it is imported again."""
    export(records, tmp_path / "there.jsonl", format)
    return read_log(tmp_path / "there.jsonl", format=format, max_bad_share=0.0).records
