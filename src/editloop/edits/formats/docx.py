"""Word: documents with tracked changes (.docx), one or a folder of them.

Without the insertions (`w:ins`, `w:moveTo`) the text is the draft, without the deletions (`w:del`,
`w:moveFrom`) the edit (ECMA-376, part 1, 17.13.5). Changes of format are no changes of text. Headers,
footers, notes and comments are not read. The file is foreign: it is measured before it is unpacked, and XML
with a DTD is refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from editloop.edits.formats.base import LogFile, LogFormat, RawRow, Source
from editloop.errors import LogError, LogFormatError
from editloop.extras import requires

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["DOCX", "LARGEST_PART"]

LARGEST_PART = 64 * 2**20
"""The most bytes of a document's XML; a bomb unpacks to more."""

WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
TITLE = "{http://purl.org/dc/elements/1.1/}title"
FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""What another program shows in place of a part that it does not know: the same text once more."""

INSERTED, DELETED = (WORD + "ins", WORD + "moveTo"), (WORD + "del", WORD + "moveFrom")
CHARACTERS = {WORD + "tab": "\t", WORD + "br": "\n", WORD + "cr": "\n", WORD + "noBreakHyphen": "-"}


class _Piece(NamedTuple):
    """A piece of text, and whether it was inserted and deleted."""

    text: str
    inserted: bool
    deleted: bool


class _Docx(LogFormat):
    name = "docx"
    suffixes = (".docx",)
    takes_folders = True

    def recognises(self, log: LogFile) -> bool:
        if log.path.is_dir():
            return any(log.path.rglob("*.docx"))
        return log.head.startswith(b"PK\x03\x04") and zipfile.is_zipfile(log.path)

    def open(self, log: LogFile) -> Source:
        """Open documents.

        Raises:
            LogFormatError: It is a file, and no Word document; or a folder without any.
        """
        requires("docx")
        if not log.path.is_dir():
            rows = iter([_row(1, log.path, log.name)])
            return Source(self, None, 1, rows)
        files = sorted(log.path.rglob("*.docx"))
        if not files:
            raise LogFormatError("no .docx file in this folder", seen=str(log.name), do="check the path")
        return Source(self, None, len(files), _rows(files))


def _rows(files: list[Path]) -> Iterator[RawRow]:
    for number, path in enumerate(files, start=1):
        try:
            yield _row(number, path, path)
        except LogError as error:  # the other documents can be read
            yield RawRow(number, number, None, error.what, path.name)


def _row(number: int, path: Path, name: Path) -> RawRow:
    """Return the row of a document.

    Raises:
        LogError: It cannot be read.
        LogFormatError: It is no Word document, or one that nobody should unpack.
    """
    authors: Counter[str] = Counter()
    times: list[str] = []
    document = _part(path, name, "word/document.xml")
    assert document is not None
    pieces = list(_pieces(document, authors, times))
    if not any(piece.inserted or piece.deleted for piece in pieces):
        return RawRow(number, number, None, "a document without tracked changes", name.name, is_draft=False)
    core = _part(path, name, "docProps/core.xml", is_needed=False)
    title = None if core is None else core.findtext(f".//{TITLE}")
    columns = {
        "context": title or name.stem,
        "response": "".join(piece.text for piece in pieces if not piece.inserted).removesuffix("\n"),
        "edit": "".join(piece.text for piece in pieces if not piece.deleted).removesuffix("\n"),
        "user": authors.most_common(1)[0][0] if authors else None,
        "time": max(times, default=None),
        "metadata": {"file": name.name, "authors": sorted(authors)},
    }
    return RawRow(number, number, columns)


def _part(path: Path, name: Path, part: str, *, is_needed: bool = True) -> Element | None:
    """Return a part of a document, parsed; None if it is not there and not needed."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        with zipfile.ZipFile(path) as archive:
            if part not in archive.namelist() and not is_needed:
                return None
            # The size that an archive states may be a lie, so it is read with a limit, too.
            with archive.open(part) as file:
                text = file.read(LARGEST_PART + 1)
        if len(text) > LARGEST_PART:
            what = f"the document unpacks to more than {LARGEST_PART // 2**20} MiB"
            raise LogFormatError(what, seen=str(name))
        found: Element = fromstring(text, forbid_dtd=True)
    except KeyError:
        raise LogFormatError("this archive is no Word document", seen=str(name)) from None
    except OSError as error:
        raise LogError(f"the document cannot be read, {error.strerror or error}", seen=str(name)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise LogFormatError("the document is damaged, or encrypted", seen=str(name), do=str(error)) from None
    except DefusedXmlException:
        raise LogFormatError(
            "the document's XML has a DTD or entities, which Word never writes", seen=str(name)
        ) from None
    except (ParseError, RecursionError) as error:
        raise LogFormatError("the document's XML is broken", seen=str(name), do=str(error)) from None
    return found


def _pieces(document: Element, authors: Counter[str], times: list[str]) -> Iterator[_Piece]:
    """Yield the text of a document, and count who changed it.

    Elements are visited by a stack and not recursively: how deep they are nested is up to whoever wrote the
    file.
    """
    stack: list[tuple[Any, bool, bool]] = [(document, False, False)]
    while stack:
        element, inserted, deleted = stack.pop()
        if isinstance(element, _Piece):
            yield element
            continue
        tag = element.tag
        if tag in INSERTED or tag in DELETED:
            inserted, deleted = inserted or tag in INSERTED, deleted or tag in DELETED
            _count(element, authors, times)
        if tag in (WORD + "t", WORD + "delText"):
            yield _Piece(element.text or "", inserted, deleted)
        elif tag in CHARACTERS:
            yield _Piece(CHARACTERS[tag], inserted, deleted)
        elif tag not in (FALLBACK, WORD + "pPr", WORD + "rPr", WORD + "sectPr"):
            if tag == WORD + "p":
                stack.append((_end_of(element, authors, times), False, False))
            stack += [(child, inserted, deleted) for child in reversed(element)]


def _end_of(paragraph: Element, authors: Counter[str], times: list[str]) -> _Piece:
    """The end of a paragraph, which is a line break that may have been inserted or deleted, too."""
    mark = paragraph.find(f"{WORD}pPr/{WORD}rPr")
    changes = [] if mark is None else [each for each in mark if each.tag in INSERTED + DELETED]
    for each in changes:
        _count(each, authors, times)
    tags = {each.tag for each in changes}
    return _Piece("\n", bool(tags & set(INSERTED)), bool(tags & set(DELETED)))


def _count(change: Element, authors: Counter[str], times: list[str]) -> None:
    if author := change.get(WORD + "author"):
        authors[author] += 1
    if time := change.get(WORD + "date"):
        times.append(time)


DOCX = _Docx()
