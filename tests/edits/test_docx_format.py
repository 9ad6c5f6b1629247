"""Word: documents made by hand from ECMA-376 (w:ins, w:del and so on), and ones nobody should unpack."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tools import imported

from editloop.edits import read_log
from editloop.edits.formats import docx
from editloop.errors import LogFormatError

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
MC = "http://schemas.openxmlformats.org/markup-compatibility/2006"


def document(body: str, before: str = "") -> str:
    head = f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>{before}'
    return f'{head}<w:document xmlns:w="{W}" xmlns:mc="{MC}"><w:body>{body}</w:body></w:document>'


def saved(
    path: Path, content: str | bytes, title: str | None = None, part: str = "word/document.xml"
) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(part, content)
        if title is not None:
            core = f'<c xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></c>'
            archive.writestr("docProps/core.xml", core)
    return path


def run(text: str, kind: str = "t") -> str:
    return f'<w:r><w:rPr><w:b/></w:rPr><w:{kind} xml:space="preserve">{text}</w:{kind}></w:r>'


def by(author: str, day: int) -> str:
    return f'w:id="1" w:author="{author}" w:date="2026-03-0{day}T00:00:00Z"'


def ins(text: str, author: str = "Ann", day: int = 4) -> str:
    return f"<w:ins {by(author, day)}>{run(text)}</w:ins>"


def gone(text: str, author: str = "Ann", day: int = 4) -> str:
    return f"<w:del {by(author, day)}>{run(text, 'delText')}</w:del>"


def test_insertions_and_deletions_are_an_edit(tmp_path: Path) -> None:
    body = f"<w:p><w:pPr><w:pStyle/></w:pPr>{run('Dear ')}{gone('Ada')}{ins('Bob')}{run(',')}</w:p>"
    body += f"<w:p>{run('a')}<w:r><w:tab/><w:br/></w:r>{ins('b', 'Eve', 5)}</w:p><w:sectPr/>"
    path = saved(tmp_path / "letter.docx", document(body), title="A letter")
    (record,) = imported(path, None, "docx")
    assert record.context == "A letter"
    assert (record.response, record.edit) == ("Dear Ada,\na\t\n", "Dear Bob,\na\t\nb")
    assert (record.user, record.time) == ("Ann", datetime(2026, 3, 5, tzinfo=UTC))
    assert record.metadata == {"file": "letter.docx", "authors": ["Ann", "Eve"]}
    assert imported(path, None, "docx").report.sha256 is not None
    assert read_log(path).records == (record,)  # by its suffix


def test_moves_merged_paragraphs_nested_changes_tables_and_fallbacks(tmp_path: Path) -> None:
    merged = f"<w:p><w:pPr><w:rPr><w:del {by('Ann', 4)}/></w:rPr></w:pPr>{run('one ')}</w:p>"
    merged += f"<w:p>{run('two')}</w:p>"
    split = f"<w:p><w:pPr><w:rPr><w:ins {by('Ann', 4)}/></w:rPr></w:pPr>{run('x')}</w:p><w:p>{run('y')}</w:p>"
    moved = f"<w:p><w:moveFrom {by('Ann', 4)}>{run('from')}</w:moveFrom>"
    moved += f"<w:moveTo {by('Ann', 4)}>{run('to')}</w:moveTo></w:p>"
    nested = (
        f"<w:p><w:ins {by('Ann', 4)}><w:del {by('Eve', 4)}>{run('never', 'delText')}</w:del></w:ins></w:p>"
    )
    table = f"<w:tbl><w:tr><w:tc><w:p>{run('cell')}</w:p></w:tc></w:tr></w:tbl>"
    box = f"<w:p><mc:AlternateContent><mc:Choice>{run('z')}</mc:Choice><mc:Fallback>{run('z')}</mc:Fallback>"
    box += "</mc:AlternateContent></w:p>"
    path = saved(tmp_path / "a.docx", document(merged + split + moved + nested + table + box))
    (record,) = imported(path, None, "docx")
    assert record.context == "a"
    assert record.response == "one \ntwo\nxy\nfrom\n\ncell\nz"
    assert record.edit == "one two\nx\ny\nto\n\ncell\nz"


def test_a_folder_has_a_row_for_each_document(tmp_path: Path) -> None:
    saved(tmp_path / "a.docx", document(f"<w:p>{gone('x')}{ins('y')}{run(' z')}</w:p>"))
    saved(tmp_path / "b.docx", document(f"<w:p>{run('plain')}</w:p>"))
    (tmp_path / "c.docx").write_bytes(b"no archive")
    log = imported(tmp_path, None, "docx")
    assert [(each.response, each.edit) for each in log] == [("x z", "y z")]
    assert log.report.left_out == {"a document without tracked changes": 1}
    assert log.report.reasons == {"the document is damaged, or encrypted": 1}


BOMB = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (document("", f'<!DOCTYPE d [<!ENTITY e0 "lol">{BOMB}]>'), "a DTD or entities"),
        (document("&x;", '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), "a DTD or entities"),
        (document("", '<!DOCTYPE d SYSTEM "http://127.0.0.1:9/x.dtd">'), "a DTD or entities"),
        (document("<w:p>"), "XML is broken"),
        ("", "XML is broken"),
    ],
)
def test_xml_that_word_never_writes_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(LogFormatError, match=reason) as refused:
        read_log(saved(tmp_path / "a.docx", content))
    assert "\n" not in str(refused.value)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docx, "LARGEST_PART", 10_000)
    body = f"<w:p>{gone('x')}{run('a' * 10_000)}</w:p>"
    with pytest.raises(LogFormatError, match="unpacks to more than"):
        read_log(saved(tmp_path / "a.docx", document(body)))


def test_an_archive_that_lies_about_its_size_is_read_to_the_limit_only(tmp_path: Path) -> None:
    """A member of 70 MiB of zeros in 70 kB."""
    path = saved(tmp_path / "a.docx", b"\0" * (docx.LARGEST_PART + 6 * 2**20))
    assert path.stat().st_size < 200_000
    with pytest.raises(LogFormatError, match="unpacks to more than 64 MiB"):
        read_log(path)


def test_other_archives_and_deep_nesting(tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match="no Word document"):
        read_log(saved(tmp_path / "a.docx", "x", part="xl/workbook.xml"))
    (tmp_path / "b.docx").write_bytes(saved(tmp_path / "c.docx", document("")).read_bytes()[:-30])
    with pytest.raises(LogFormatError, match="damaged"):
        read_log(tmp_path / "b.docx")
    deep = "<w:x>" * 20_000 + gone("x") + ins("y") + "</w:x>" * 20_000
    path = saved(tmp_path / "d.docx", document(f"<w:p>{deep}</w:p>"))
    (record,) = imported(path, None, "docx")
    assert (record.response, record.edit) == ("x", "y")
