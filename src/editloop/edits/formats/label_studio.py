"""Label Studio: tasks with predictions and annotations, as its JSON export has them.

The text of a TextArea in a prediction is a draft, and the text of the same TextArea in an annotation is what
somebody made of it (labelstud.io/guide/task_format; the fields are those of the package `label-studio-sdk`
2.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from editloop.edits.formats.carried import restored
from editloop.edits.formats.messages import context_of
from editloop.edits.formats.tool import LeftOut, Row, ToolFormat

__all__ = ["LABEL_STUDIO"]


class _LabelStudio(ToolFormat):
    name, title = "label-studio", "Label Studio"
    pages = ("tasks", "results")

    def is_row(self, row: Row) -> bool:
        return isinstance(row.get("data"), dict) and ("annotations" in row or "predictions" in row)

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        predictions = _objects(row.get("predictions"))
        if not (written := [each for each in predictions if _texts(each)]):
            yield LeftOut("no prediction with the text of a TextArea")
            return
        annotations = _objects(row.get("annotations") or row.get("completions"))
        if not annotations:
            for name, text in _texts(written[-1]).items():
                yield self._draft(row, written[-1], name, text, None)
        for annotation in annotations:
            if annotation.get("was_cancelled"):
                yield LeftOut("a cancelled annotation", is_bad=False)
                continue
            texts = _texts(annotation)
            prediction = _origin(annotation, written)
            for name, text in _texts(prediction).items():
                if name in texts:
                    yield self._draft(row, prediction, name, text, (annotation, texts[name]))
                else:
                    yield LeftOut("an annotation without the TextArea of its prediction")

    def _draft(self, task: Row, prediction: Row, name: str, text: str, answer: tuple[Row, str] | None) -> Row:
        """Return the columns of a record.

        Args:
            task: The task.
            prediction: The one with the draft.
            name: The TextArea's.
            text: The draft.
            answer: The annotation and its text; None if there is none.
        """
        annotation, edit = answer or ({}, None)
        parts = [task.get("id"), annotation.get("id") or prediction.get("id"), name]
        draft = {
            "id": ":".join(str(part) for part in parts if part is not None),
            "context": context_of(task["data"]),
            "response": text,
            "edit": edit,
            "user": _user(annotation.get("completed_by")),
            "policy": prediction.get("model_version") or None,
            "time": annotation.get("updated_at") or annotation.get("created_at"),
            "metadata": {"task": task.get("id"), "field": name},
        }
        return restored(draft, task.get("meta"))


def _objects(value: Any) -> list[Row]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _texts(part: Row) -> dict[str, str]:
    """The texts of a prediction or an annotation by their TextArea; several entries are lines of one."""

    def entries() -> Iterator[tuple[str, str]]:
        for each in _objects(part.get("result")):
            value = each.get("value")
            text = value.get("text") if isinstance(value, dict) else None
            if str(each.get("type")).lower() == "textarea" and text is not None:
                lines = text if isinstance(text, list) else [text]
                yield str(each.get("from_name")), "\n".join(str(line) for line in lines)

    return dict(entries())


def _origin(annotation: Row, written: list[Row]) -> Row:
    """The prediction that an annotation began with: the one that it names, or the last."""
    parent = annotation.get("parent_prediction") or (annotation.get("prediction") or {}).get("id")
    named = [each for each in written if parent is not None and each.get("id") == parent]
    return (named or written)[-1]


def _user(completed_by: Any) -> str | None:
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return None if completed_by is None else str(completed_by)


LABEL_STUDIO = _LabelStudio()
