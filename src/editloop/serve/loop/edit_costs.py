"""The costs of edits, computed before the edits are written, so that a slow cost holds up no commit.

A finished text never changes, so a cost is still right when its edit is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from editloop.edits.cost import Cost
from editloop.online.events import Outcome
from editloop.serve.loop.edit_commands import RecordEdit
from editloop.serve.loop.unstored import Digest, text_sent_back
from editloop.serve.problem import Problem
from editloop.store import references
from editloop.store.database import Connection

__all__ = ["Known", "look_up", "priced"]


class Known(NamedTuple):
    """What the store knows of the responses that edits refer to.

    Attributes:
        texts: The `response` of each, and its `text_digest` if its text is not kept, by id.
        names: The ids of those that were referred to by another name.
    """

    texts: Mapping[str, Any]
    names: Mapping[str, str]


def look_up(connection: Connection, response_ids: Collection[str]) -> Known:
    """Return what is known of these responses."""
    texts = references.texts_of(connection, response_ids)
    others = set(response_ids) - texts.keys()
    names = references.aliased(connection, others) if others else {}
    return Known(texts | (references.texts_of(connection, names.values()) if names else {}), names)


def priced(
    given: Sequence[RecordEdit], known: Known, cost: Cost, digest: Digest
) -> list[RecordEdit | Problem]:
    """Return edits with the ids of their responses and with their costs, where the texts are known.

    Args:
        given: The edits.
        known: Of the responses that do not come with the edits.
        cost: The cost.
        digest: Makes the digests of texts that are not kept.

    Returns:
        Each edit, or the reason why it is refused, as in `text_sent_back`.
    """
    commands: list[RecordEdit | Problem] = []
    pairs: list[tuple[int, str, str]] = []
    for each in given:
        try:
            command, response, text = _with_texts(each, known, digest)
        except Problem as problem:
            commands.append(problem)
            continue
        if response is not None and text is not None:
            pairs.append((len(commands), response, text))
        commands.append(command)
    if pairs:
        rows, before, after = zip(*pairs, strict=True)
        for i, one in zip(rows, cost(before, after), strict=True):
            command = commands[i]
            assert isinstance(command, RecordEdit)
            commands[i] = replace(command, cost=float(one))
    return commands


def _with_texts(edit: RecordEdit, known: Known, digest: Digest) -> tuple[RecordEdit, str | None, str | None]:
    """Return an edit with the id of its response, and the two texts whose cost it has, if they are known."""
    response_id = known.names.get(edit.response_id, edit.response_id)
    command = replace(edit, response_id=response_id, texts=None)
    if edit.draft is not None:
        return command, edit.draft.response, edit.edit
    base = known.texts.get(response_id)
    if base is None or edit.edit is None:
        return command, None, None
    if base.text_digest is None:
        return command, base.response, edit.edit
    response = text_sent_back(response_id, edit.texts, base.text_digest, digest)
    text = edit.edit if edit.texts is None else edit.texts.edit
    # Of a response whose text is not kept, that of its edit is not, either.
    outcome: Outcome = "accepted" if text == response else "edited"
    return replace(command, edit=None, outcome=outcome), response, text
