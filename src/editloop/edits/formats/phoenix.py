"""Phoenix (Arize): spans and their annotations, as its API and its data frames give them.

Attributes are OpenInference's. Phoenix has no field for a corrected output; an annotation whose name says
that it is one (`correction`, `corrected_output` or `edit`) has it as its explanation, or else as its label.
The fields are those of the package `arize-phoenix-client` 3.5 (Span, SpanAnnotation).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from editloop.edits.columns import from_json
from editloop.edits.formats.carried import restored
from editloop.edits.formats.messages import context_of, text_of
from editloop.edits.formats.tool import Correction, LeftOut, Row, ToolFormat, corrected

__all__ = ["CORRECTIONS", "PHOENIX"]

CORRECTIONS = ("correction", "corrected_output", "edit")
"""The names of annotations whose text is what somebody made of the output."""

NUMBERED = re.compile(r"(\d+)\.message\.(role|content)")


class _Phoenix(ToolFormat):
    name, title = "phoenix", "Phoenix"

    def is_row(self, row: Row) -> bool:
        return _is_span(row) or _is_annotation(row)

    def corrects(self, row: Row) -> str | None:
        is_correction = _is_annotation(row) and _name(row).lower() in CORRECTIONS
        return row.get("span_id") if is_correction else None

    def id_of(self, row: Row) -> str | None:
        found: str | None = _at(row, "context.span_id")
        return found

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        if not _is_span(row):
            yield LeftOut("an annotation that is no correction", is_bad=False)
            return
        kind = str(row.get("span_kind") or _at(row, "attributes.openinference.span.kind") or "").upper()
        if not corrections and kind != "LLM":
            yield LeftOut("a span that is no call of a model, without a correction", is_bad=False)
        elif (response := _output(row)) is None:
            yield LeftOut("the output holds no text")
        else:
            draft = {
                "id": self.id_of(row),
                "context": _input(row),
                "response": response,
                "user": _at(row, "attributes.user.id"),
                "policy": _at(row, "attributes.llm.model_name"),
                "time": row.get("end_time") or row.get("start_time"),
                "metadata": {"trace_id": _at(row, "context.trace_id"), "name": row.get("name")},
            }
            answers = [each for each in map(_correction, corrections) if each is not None]
            if len(answers) < len(corrections):
                yield LeftOut("the correction holds no text")
            else:
                yield restored(corrected(draft, answers), _object(_at(row, "attributes.metadata")))


def _is_span(row: Row) -> bool:
    return _at(row, "context.span_id") is not None and ("attributes" in row or "span_kind" in row)


def _is_annotation(row: Row) -> bool:
    return "span_id" in row and "annotator_kind" in row


def _name(row: Row) -> str:
    return str(row.get("name") or row.get("annotation_name") or "")


def _at(row: Row, path: str) -> Any:
    """The value at a path whose dots lead into objects, or belong to a name, as in data frames."""
    if path in row:
        return row[path]
    for i, letter in enumerate(path):
        inner = row.get(path[:i]) if letter == "." else None
        if isinstance(inner, dict) and (found := _at(inner, path[i + 1 :])) is not None:
            return found
    return None


def _object(value: Any) -> Any:
    return from_json(value) if isinstance(value, str) else value


def _messages(row: Row, which: str) -> list[Row]:
    """The messages of an attribute: a list of objects, or a name for each part of each message."""
    listed = _at(row, f"attributes.llm.{which}")
    if isinstance(listed, list):
        inner = [each.get("message") if isinstance(each.get("message"), dict) else each for each in listed]
        return [{key.rpartition(".")[2]: value for key, value in each.items()} for each in inner]
    found: dict[int, Row] = {}
    for name, value in _attributes(row).items():
        prefix, _, rest = name.partition(f"llm.{which}.")
        if not prefix and (part := NUMBERED.fullmatch(rest)):
            found.setdefault(int(part[1]), {})[part[2]] = value
    return [found[i] for i in sorted(found)]


def _attributes(row: Row) -> Row:
    attributes = row.get("attributes")
    if isinstance(attributes, dict):
        return attributes
    return {name.removeprefix("attributes."): v for name, v in row.items() if name.startswith("attributes.")}


def _input(row: Row) -> str | list[Row]:
    messages = _messages(row, "input_messages")
    return context_of(messages or _object(_at(row, "attributes.input.value")) or "")


def _output(row: Row) -> str | None:
    messages = _messages(row, "output_messages")
    if messages:
        return text_of(messages)
    value = _at(row, "attributes.output.value")
    mime = _at(row, "attributes.output.mime_type")
    return text_of(_object(value) if mime == "application/json" else value)


def _correction(row: Row) -> Correction | None:
    # A data frame has the parts of the result as columns of their own.
    named = ("result.explanation", "explanation", "result.label", "label")
    said = next((text for path in named if isinstance(text := _at(row, path), str)), None)
    if said is None:
        return None
    return Correction(said, row.get("user_id"), row.get("updated_at") or row.get("created_at"))


PHOENIX = _Phoenix()
