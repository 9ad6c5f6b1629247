"""Langfuse: traces, observations, scores and dataset items, as its API and its exports give them.

A corrected output is a score of the type CORRECTION (langfuse.com/docs/observability/features/corrections),
of a trace or of an observation. The `expectedOutput` of a dataset item that was made from one corrects it,
too. Field names are those of the models of the package `langfuse` 5.0; an export to a bucket has them in
snake case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from editloop.edits.formats.carried import restored
from editloop.edits.formats.messages import context_of, text_of
from editloop.edits.formats.tool import Correction, LeftOut, Row, ToolFormat, corrected

__all__ = ["LANGFUSE"]

CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


class _Langfuse(ToolFormat):
    name, title = "langfuse", "Langfuse"

    def is_row(self, row: Row) -> bool:
        fields = _snake(row)
        return _is_score(fields) or _is_item(fields) or _is_observation(fields) or _is_trace(fields)

    def corrects(self, row: Row) -> str | None:
        fields = _snake(row)
        if _is_score(fields):
            return _subject(fields) if fields["data_type"] == "CORRECTION" else None
        if _is_item(fields) and fields.get("expected_output") is not None:
            return fields.get("source_observation_id") or fields.get("source_trace_id")
        return None

    def id_of(self, row: Row) -> str | None:
        return row.get("id")

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        fields = _snake(row)
        if _is_score(fields):
            yield LeftOut("a score that is no correction", is_bad=False)
        elif _is_item(fields):
            yield LeftOut("a dataset item without an expected output, or without a source", is_bad=False)
        elif not corrections and fields.get("type", "TRACE") != "GENERATION":
            yield LeftOut("a trace or a step that is no generation, without a correction", is_bad=False)
        elif (response := text_of(fields.get("output"))) is None:
            yield LeftOut("the output holds no text")
        else:
            draft = {
                "id": fields.get("id"),
                "context": context_of(fields.get("input")),
                "response": response,
                "user": fields.get("user_id"),
                "policy": fields.get("model") or fields.get("provided_model_name"),
                "time": fields.get("end_time") or fields.get("start_time") or fields.get("timestamp"),
                "metadata": {"trace_id": fields.get("trace_id") or fields.get("id")},
            }
            answers = [each for each in map(_correction, corrections) if each is not None]
            if len(answers) < len(corrections):
                yield LeftOut("the correction holds no text")
            else:
                yield restored(corrected(draft, answers), fields.get("metadata"))


def _snake(row: Row) -> Row:
    return {CAPITAL.sub("_", name).lower(): value for name, value in row.items()}


def _is_score(fields: Row) -> bool:
    return "data_type" in fields and "name" in fields and ("trace_id" in fields or "subject" in fields)


def _is_item(fields: Row) -> bool:
    return "expected_output" in fields and ("dataset_id" in fields or "source_trace_id" in fields)


def _is_observation(fields: Row) -> bool:
    return "trace_id" in fields and "type" in fields and "start_time" in fields


def _is_trace(fields: Row) -> bool:
    return "timestamp" in fields and {"id", "name", "input", "output"} <= fields.keys()


def _subject(fields: Row) -> str | None:
    """The id of what a score is about; version 3 of the API says it in an object."""
    subject = fields.get("subject")
    found = subject.get("id") if isinstance(subject, Mapping) else None
    return found or fields.get("observation_id") or fields.get("trace_id")


def _correction(row: Row) -> Correction | None:
    fields = _snake(row)
    text = fields.get("expected_output") if _is_item(fields) else fields.get("string_value")
    if text is None:
        text = fields.get("long_string_value") or fields.get("value")
    said = text_of(text)
    if said is None:
        return None
    return Correction(said, fields.get("author_user_id"), fields.get("updated_at") or fields.get("timestamp"))


LANGFUSE = _Langfuse()
