"""Google Docs: documents with suggestions, as `documents.get` of the Docs API gives them.

developers.google.com/docs/api/how-tos/suggestions: with the view SUGGESTIONS_INLINE a run of text has
`suggestedInsertionIds` or `suggestedDeletionIds`. Without the insertions it is the draft, without the
deletions the edit. The API does not say who suggested what.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from editloop.edits.formats.tool import LeftOut, Row, ToolFormat

__all__ = ["GOOGLE_DOCS"]


class _GoogleDocs(ToolFormat):
    name, title = "google-docs", "Google Docs"

    def is_row(self, row: Row) -> bool:
        return "documentId" in row and ("body" in row or "tabs" in row)

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        runs = [run for body in _bodies(row) for run in _runs(body.get("content"))]
        if not any(inserted or deleted for _, inserted, deleted in runs):
            yield LeftOut("a document without suggestions", is_bad=False)
            return
        yield {
            "id": row["documentId"],
            "context": row.get("title") or "",
            "response": "".join(text for text, inserted, _ in runs if not inserted),
            "edit": "".join(text for text, _, deleted in runs if not deleted),
            "metadata": {"document": row["documentId"], "revision": row.get("revisionId")},
        }


def _bodies(document: Row) -> Iterator[Row]:
    """The bodies of a document: one, or that of each tab and of the tabs below it."""
    if isinstance(document.get("body"), dict):
        yield document["body"]
    for tab in document.get("tabs") or document.get("childTabs") or ():
        yield from _bodies(tab.get("documentTab") or {})
        yield from _bodies({"tabs": tab.get("childTabs")})


def _runs(content: Any) -> Iterator[tuple[str, bool, bool]]:
    """The runs of text of paragraphs and tables: the text, and whether it was inserted and deleted."""
    for element in content or ():
        paragraph = element.get("paragraph") or {}
        for part in paragraph.get("elements") or ():
            run = part.get("textRun") or {}
            inserted, deleted = run.get("suggestedInsertionIds"), run.get("suggestedDeletionIds")
            yield str(run.get("content") or ""), bool(inserted), bool(deleted)
        for row in (element.get("table") or {}).get("tableRows") or ():
            for cell in row.get("tableCells") or ():
                yield from _runs(cell.get("content"))


GOOGLE_DOCS = _GoogleDocs()
