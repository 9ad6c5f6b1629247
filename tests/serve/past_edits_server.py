"""A server whose arms put past edits into their prompts, for the tests of in-context policies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from serving import Service, serving, sqlite

from editloop.serve.in_context.base import InContextOptions
from small_run import make_run

RETRIEVAL, PREFERENCE = "retrieval-4:base", "preference-5:base"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def kept(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@asynccontextmanager
async def served(
    folder: Path, *names: str, url: str | None = None, backend: Any = None, **options: Any
) -> AsyncIterator[Service]:
    """A server of the policies of a run, and of in-context policies that stand on them."""
    where = folder / "run"
    made = where if where.exists() else make_run(where).path
    characters = options.pop("characters", 6000)
    about = {"runs": [made], "past_edits": InContextOptions(names, characters=characters)}
    about |= options.pop("app_options", {})
    async with serving(
        url or sqlite(folder), folder / "state", arms=(), backend=backend, app_options=about, **options
    ) as service:
        yield service


async def edited(service: Service, text: str, edit: str | None, user: str = "ada", arm: str = "sft") -> str:
    """Ask, and send what the user made of the draft; returns the response's id."""
    done = await service.ask(text, user=user, model=arm)
    assert done.status_code == 200, done.text
    response_id: str = done.json()["id"]
    assert (await service.edit(response_id, edit)).status_code == 200
    return response_id


def last_asked(service: Service) -> tuple[str, list[dict[str, Any]]]:
    """The arm that the backend was asked last, by its name alone, and the messages that it got."""
    arm, request = service.backend.asked[-1]
    return arm.partition("@")[0], list(request["messages"])


async def tally(service: Service, name: str) -> Mapping[str, Any]:
    rows = (await service.http.get("/v1/arms")).json()["data"]
    (row,) = [each for each in rows if each["policy"] == name]
    return row["in_context"] or {}


def paragraph(*texts: str) -> str:
    listed = "\n".join(f"- {text}" for text in texts)
    start = "I changed earlier drafts. From that, my preferences seem to be:"
    return f"\n\n{start}\n{listed}\nPlease write accordingly."
