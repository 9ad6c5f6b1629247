"""Parameters that several routes share: a period, and where a page begins."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Query

from editloop.serve.problem import Problem

__all__ = ["LATEST", "Before", "Since", "Until", "check_text", "cursor_of", "parse_cursor"]

LATEST = 1e11
"""Seconds since 1970 at which a period may end at most: in the year 5138."""

Since = Annotated[float | None, Query(ge=0, le=LATEST, allow_inf_nan=False, description="Seconds since 1970")]
Until = Annotated[float | None, Query(ge=0, le=LATEST, allow_inf_nan=False, description="Seconds since 1970")]
Before = Annotated[str | None, Query(max_length=160, description="`next` of the previous page")]


def check_text(*texts: str | None) -> None:
    """Check filters that a database compares with its texts.

    Raises:
        Problem: 400, one of them holds what no text in the database can hold.
    """
    if any(text is not None and "\0" in text for text in texts):
        raise Problem(400, "a filter is not valid text", code="invalid_text")


def cursor_of(moment: float, row_id: str) -> str:
    """Where the next page begins, given the last row of this one.

    A cursor and not an offset: new rows at the front would shift the pages.
    """
    return f"{moment!r}:{row_id}"


def parse_cursor(text: str | None) -> tuple[float, str] | None:
    """The time and the identity of the row at which the previous page ended; None for the first page.

    Raises:
        Problem: 400, the text is not `next` of a page.
    """
    if text is None:
        return None
    moment_text, colon, row_id = text.partition(":")
    try:
        moment = float(moment_text)
        if not colon or math.isnan(moment) or "\0" in row_id:  # no row comes before or after NaN
            raise ValueError
    except ValueError:
        raise Problem(
            400, "not the end of a page", code="invalid_request", param="before", do="give a page's `next`"
        ) from None
    return moment, row_id
