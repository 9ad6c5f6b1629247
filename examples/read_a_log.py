"""Read an application's own table of drafts and edits, check it, and hand its pairs to another tool.

    python examples/read_a_log.py

It needs only `pip install editloop`.
"""

from __future__ import annotations

from pathlib import Path

import editloop

# The application's own table: its own column names, and one row for each draft.
Path("drafts.csv").write_text(
    """prompt;draft;final;who;at
Invite Ada.;Dear Ada, please come to the demo on Friday.;Hi Ada! The demo is on Friday.;bob;2026-03-02T09:00
Thank Grace.;Thank you for the review.;Thank you for the review.;bob;2026-03-02T10:30
Ask for the slides.;Please send me the slides.;Could you send me the slides by noon?;eve;2026-03-03T08:15
Say that it is done.;It is done.;;eve;2026-03-03T11:00
""",
    encoding="utf-8",
)

# Rows that cannot be used are counted by reason, and written to a file if `quarantine=` names one. An empty
# edit in a CSV file may mean that the user deleted everything, or that no edit was seen. Only the
# application knows which; here no edit was seen.
columns = "context=prompt,response=draft,edit=final,user=who,time=at"
log = editloop.read_log("drafts.csv", map=columns, empty="pending")
for record in log:
    print(f"{record.status:9} {record.user}: {record.response!r} -> {record.edit!r}")

# A draft without an edit is pending: nothing is known about it, so it teaches nothing. A draft that was left
# unchanged is accepted, at a cost of zero.
summary = editloop.summarize(log)
share = summary.all.share_edited
print(f"{summary.all.observed} of {summary.rows} rows are observed, {share:.0%} of them edited")

# Each row can serve as supervision, as a preference and as a cost. This writes the preferences for TRL.
print(editloop.export(log, "pairs.jsonl", "trl-dpo"))
print(Path("pairs.jsonl").read_text(encoding="utf-8").splitlines()[0])
