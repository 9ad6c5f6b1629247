"""Google Docs. Documents are made by hand from the Docs API's reference and its guide to suggestions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools import imported


def run(text: str, inserted: bool = False, deleted: bool = False) -> dict[str, Any]:
    about = {"content": text, "textStyle": {}}
    about |= {"suggestedInsertionIds": ["suggest.1"]} if inserted else {}
    return {"textRun": about | ({"suggestedDeletionIds": ["suggest.2"]} if deleted else {})}


def paragraph(*runs: Any) -> dict[str, Any]:
    return {"startIndex": 1, "endIndex": 9, "paragraph": {"elements": list(runs), "paragraphStyle": {}}}


def document(id: str, *content: Any, **more: Any) -> dict[str, Any]:
    body = {"content": [{"sectionBreak": {}}, *content]}
    return {"documentId": id, "title": "A letter", "revisionId": "7", "body": body, **more}


def test_suggestions_are_an_edit(tmp_path: Path) -> None:
    cell = {"content": [paragraph(run("cell\n"))]}
    table = {"table": {"tableRows": [{"tableCells": [cell]}]}}
    letter = document(
        "d-1",
        paragraph(run("Dear "), run("Ada", deleted=True), run("Bob", inserted=True), run(",\n")),
        paragraph(run("never\n", inserted=True, deleted=True), {"inlineObjectElement": {}}),
        table,
    )
    log = imported(tmp_path / "letter.json", letter, "google-docs")  # indented, as curl shows it
    (record,) = log
    assert (record.id, record.context) == ("d-1", "A letter")
    assert (record.response, record.edit) == ("Dear Ada,\ncell\n", "Dear Bob,\ncell\n")
    assert record.metadata == {"document": "d-1", "revision": "7"}
    assert log.report.read_as[0] == "JSON documents"


def test_tabs_and_several_documents(tmp_path: Path) -> None:
    inner = {"documentTab": {"body": {"content": [paragraph(run("two", inserted=True))]}}}
    outer = {"documentTab": {"body": {"content": [paragraph(run("one "))]}}, "childTabs": [inner]}
    tabbed = {"documentId": "d-1", "title": "t", "tabs": [outer]}
    rows = [tabbed, document("d-2", paragraph(run("plain\n"))), {"kind": "drive#file"}]
    (tmp_path / "docs.json").write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    log = imported(tmp_path / "docs.json", None, "google-docs")
    assert [(each.response, each.edit) for each in log] == [("one ", "one two")]
    assert log.report.left_out == {"a document without suggestions": 1}
    assert log.report.reasons == {"no row of Google Docs": 1}
