"""Argilla: records with suggestions and responses, as `Dataset.records` exports them.

The suggestion for a question is a draft, and each response to it is what somebody made of that. Nested
records are those of `to_list` and `to_json`, flat ones those of `to_datasets` (argilla 2.8,
`argilla/records/_io`). Where several questions have suggestions of text, a map says which one is meant; see
docs/logs.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from editloop.edits.formats.carried import restored
from editloop.edits.formats.messages import context_of
from editloop.edits.formats.tool import LeftOut, Row, ToolFormat

__all__ = ["ARGILLA"]

SUGGESTION, RESPONSES = ".suggestion", ".responses"

OWN = ("id", "status", "_server_id", "vectors", "metadata", "score", "inserted_at", "updated_at")
"""Columns of a flat record that are no fields."""


class _Argilla(ToolFormat):
    name, title = "argilla", "Argilla"
    pages = ("items", "records")

    def is_row(self, row: Row) -> bool:
        nested = isinstance(row.get("fields"), dict) and ("suggestions" in row or "responses" in row)
        return nested or any(name.endswith(SUGGESTION) for name in row)

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        record = row if isinstance(row.get("fields"), dict) else _nested(row)
        suggestions = record.get("suggestions") or {}
        texts = {name: s for name, s in suggestions.items() if isinstance((s or {}).get("value"), str)}
        if len(texts) != 1:
            yield LeftOut(
                "no suggestion of text" if not texts else "suggestions of text for several questions"
            )
            return
        ((question, suggestion),) = texts.items()
        fields = {name: value for name, value in record["fields"].items() if value is not None}
        draft = {
            "id": record.get("id") or record.get("_server_id"),
            "context": context_of(next(iter(fields.values())) if len(fields) == 1 else fields),
            "response": suggestion["value"],
            "edit": None,
            "status": "pending",
            "policy": suggestion.get("agent"),
            "metadata": {},
        }
        responses = [each for each in (record.get("responses") or {}).get(question) or () if each]
        # A response that is still being written is none yet. The nested export does not say which are.
        answers = [each for each in responses if each.get("status") != "draft"]
        if not answers:
            yield restored(draft, record.get("metadata"))
        for answer in answers:
            if not isinstance(answer.get("value"), str) and answer.get("status") != "discarded":
                yield LeftOut("a response that is no text")
            else:
                yield _answered(draft, answer, record.get("metadata"), several=len(answers) > 1)


def _answered(draft: Row, answer: Row, metadata: Any, *, several: bool) -> Row:
    user = answer.get("user_id")
    columns = {**draft, "user": None if user in (None, "None") else user, "edit": answer.get("value")}
    del columns["status"]
    if answer.get("status") == "discarded":
        columns |= {"edit": None, "status": "discarded"}
    columns = restored(columns, metadata)
    return {**columns, "id": f"{columns['id']}:{user}"} if several else columns


def _nested(row: Row) -> Row:
    """Return a flat record as a nested one."""
    questions = [name.removesuffix(SUGGESTION) for name in row if name.endswith(SUGGESTION)]
    questions += [name.removesuffix(RESPONSES) for name in row if name.endswith(RESPONSES)]
    suggestions, responses = {}, {}
    for name in dict.fromkeys(questions):
        if row.get(f"{name}{SUGGESTION}") is not None:
            agent = row.get(f"{name}{SUGGESTION}.agent")
            suggestions[name] = {"value": row[f"{name}{SUGGESTION}"], "agent": agent}
        values = row.get(f"{name}{RESPONSES}") or []
        users = row.get(f"{name}{RESPONSES}.users") or [None] * len(values)
        statuses = row.get(f"{name}{RESPONSES}.status") or [None] * len(values)
        responses[name] = [
            {"value": value, "user_id": user, "status": status}
            for value, user, status in zip(values, users, statuses, strict=False)
        ]
    beside = tuple(f"{name}." for name in dict.fromkeys(questions))
    fields = {k: v for k, v in row.items() if k not in OWN and not k.startswith(beside)}
    kept = {"id": row.get("id"), "metadata": row.get("metadata")}
    return kept | {"fields": fields, "suggestions": suggestions, "responses": responses}


ARGILLA = _Argilla()
