"""LangSmith: runs, feedback with corrections, and examples of data sets, as its API and client give them.

The fields are those of `langsmith.schemas` 0.15 (Run, Feedback, Example). An example that was made from a run
corrects it with its outputs.
"""

from __future__ import annotations

from collections.abc import Iterable

from editloop.edits.formats.carried import restored
from editloop.edits.formats.messages import context_of, text_of
from editloop.edits.formats.tool import Correction, LeftOut, Row, ToolFormat, corrected

__all__ = ["LANGSMITH"]


class _LangSmith(ToolFormat):
    name, title = "langsmith", "LangSmith"
    pages = ("runs", "data", "feedback", "examples")

    def is_row(self, row: Row) -> bool:
        return _is_run(row) or _is_feedback(row) or _is_example(row)

    def corrects(self, row: Row) -> str | None:
        if _is_feedback(row):
            return row.get("run_id") if row.get("correction") is not None else None
        return row.get("source_run_id") if _is_example(row) and row.get("outputs") else None

    def id_of(self, row: Row) -> str | None:
        return row.get("id")

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        if not _is_run(row):
            what = "feedback without a correction" if _is_feedback(row) else "an example without a run"
            yield LeftOut(what, is_bad=False)
        elif not corrections and row["run_type"] != "llm":
            yield LeftOut("a run that is no call of a model, without a correction", is_bad=False)
        elif row.get("error"):
            yield LeftOut("a run that failed", is_bad=False)
        elif (response := text_of(row.get("outputs"))) is None:
            yield LeftOut("the outputs hold no text")
        else:
            yield from self._corrected(row, response, corrections)

    def _corrected(self, run: Row, response: str, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        extra = run.get("extra") or {}
        metadata = extra.get("metadata") or {}
        draft = {
            "id": run.get("id"),
            "context": context_of(run.get("inputs")),
            "response": response,
            "user": metadata.get("user_id"),
            "policy": metadata.get("ls_model_name"),
            "time": run.get("end_time") or run.get("start_time"),
            "metadata": {"trace_id": run.get("trace_id") or run.get("id"), "name": run.get("name")},
        }
        answers = [each for each in map(_correction, corrections) if each is not None]
        if len(answers) < len(corrections):
            yield LeftOut("the correction holds no text")
        else:
            yield restored(corrected(draft, answers), metadata)


def _is_run(row: Row) -> bool:
    return "run_type" in row and "inputs" in row


def _is_feedback(row: Row) -> bool:
    return "run_id" in row and "key" in row


def _is_example(row: Row) -> bool:
    return "dataset_id" in row and "inputs" in row


def _correction(row: Row) -> Correction | None:
    text = text_of(row.get("outputs") if _is_example(row) else row.get("correction"))
    if text is None:
        return None
    source = row.get("feedback_source") or {}
    about = source.get("metadata") or {}
    user = source.get("user_name") or source.get("user_id") or about.get("user")
    return Correction(text, user, row.get("modified_at") or row.get("created_at"))


LANGSMITH = _LangSmith()
