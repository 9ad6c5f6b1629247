"""Instructor, which makes objects of responses."""

from __future__ import annotations

import instructor
import openai
from pydantic import BaseModel

from report import ASKED, URL, check, edit_by_key, new_key, report

messages = [{"role": "user", "content": ASKED}]


class Invitation(BaseModel):
    """An invitation."""

    guest: str
    seats: int


def _made(mode: instructor.Mode, **more: object) -> str:
    client = instructor.from_openai(openai.OpenAI(base_url=URL, api_key="none"), mode=mode)
    found, answer = client.create_with_completion(
        model="editloop", messages=messages, response_model=Invitation, **more
    )
    check(found.model_dump() == {"guest": "Ada", "seats": 1}, f"it is {found}")
    return answer.id


def tools() -> None:
    _made(instructor.Mode.TOOLS)  # its response is a call, which nobody edits


def structured() -> str:
    return _made(instructor.Mode.JSON_SCHEMA)


def responses_tools() -> None:
    _made(instructor.Mode.RESPONSES_TOOLS)


def key() -> str:
    mine = new_key()
    _made(instructor.Mode.JSON_SCHEMA, extra_body={"metadata": {"editloop_key": mine}})
    return edit_by_key(mine)


report(
    "instructor",
    {"tools": tools, "responses, tools": responses_tools, "structured": structured, "key": key},
    "`completion.id`, of `create_with_completion`",
)
