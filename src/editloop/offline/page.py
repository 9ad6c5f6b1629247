"""The HTML page of a report: one file with its images inside, readable on a desktop and on a phone.

A page has a title, a verdict and sections. This module does not know what they report.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editloop.edits import count_changes, diff_lines, reads_as_code, redline
from editloop.errors import RunError
from editloop.io import write_text
from editloop.offline.verdict import Verdict

__all__ = ["Comparison", "Draft", "Section", "write_report"]


@dataclass(frozen=True)
class Draft:
    """A draft and its edit, shown as a redline.

    Attributes:
        label: The name of the policy that wrote the draft.
        response: The draft.
        edit: The edit.
        cost: The cost of the edit; None if it is not known.
        finished: Whether the draft came to its end; one that was cut is priced as such.
    """

    label: str
    response: str
    edit: str
    cost: float | None = None
    finished: bool = True


@dataclass(frozen=True)
class Comparison:
    """Drafts for one context, shown side by side."""

    context: str
    drafts: Sequence[Draft]


@dataclass(frozen=True)
class Section:
    """A part of a report. Whatever is given is shown, in the order of the fields.

    Attributes:
        title: The heading.
        paragraphs: Paragraphs of plain text.
        alarms: Warnings, set off from the text.
        table: Rows of cells, the header first.
        notes: The meaning of the table's words, by word.
        images: PNG files, or their bytes.
        comparisons: Drafts as redlines.
        code: A command, or other fixed-width text.
    """

    title: str
    paragraphs: Sequence[str] = ()
    alarms: Sequence[str] = ()
    table: Sequence[Sequence[str]] = ()
    notes: Mapping[str, str] | None = None
    images: Sequence[Path | bytes] = ()
    comparisons: Sequence[Comparison] = ()
    code: str = ""


def write_report(
    path: Path, title: str, lead: str, sections: Sequence[Section], verdict: Verdict | None = None
) -> Path:
    """Write a report.

    Args:
        path: The file.
        title: The title of the page.
        lead: The line below the title.
        sections: The sections, in order.
        verdict: The verdict, which is shown above all sections.

    Raises:
        RunError: The file cannot be written.
    """
    from jinja2 import Environment, PackageLoader

    # Contexts, drafts and edits come from users and models, so everything is escaped.
    environment = Environment(loader=PackageLoader("editloop.offline", "."), autoescape=True)
    shown = [_shown(section) for section in sections]
    page = environment.get_template("page.html").render(
        title=title, lead=lead, verdict=verdict, sections=shown
    )
    write_text(path, page, RunError)
    return path


def _shown(section: Section) -> dict[str, Any]:
    """A section for the template: images in base64, drafts as the spans of their redlines."""

    def encoded(image: Path | bytes) -> str:
        return base64.b64encode(image if isinstance(image, bytes) else image.read_bytes()).decode("ascii")

    comparisons = [
        {
            "context": comparison.context,
            "is_code": reads_as_code(comparison.context),
            "drafts": [
                {
                    "label": d.label,
                    "cost": _cost(d),
                    "lines": diff_lines(d.response, d.edit),
                    "spans": redline(d.response, d.edit),
                }
                for d in comparison.drafts
            ],
        }
        for comparison in section.comparisons
    ]
    return {
        **vars(section),
        "images": [encoded(image) for image in section.images],
        "comparisons": comparisons,
    }


def _cost(draft: Draft) -> str:
    """What an edit cost and changed, in a line."""
    if draft.cost is None:
        return ""
    cut = "" if draft.finished else ", as it is unfinished"
    if draft.response == draft.edit:
        return f"cost {draft.cost:.2f}{cut}; text left unchanged" if draft.cost else "cost 0, left unchanged"
    return f"cost {draft.cost:.2f}{cut}; {count_changes(draft.response, draft.edit).in_words()}"
