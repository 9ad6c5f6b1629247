"""LiteLLM as a library."""

from __future__ import annotations

import json

import litellm
from pydantic import BaseModel

from report import ASKED, URL, check, check_text, edit_by_key, new_key, report

options = {"model": "openai/editloop", "api_base": URL, "api_key": "none"}
messages = [{"role": "user", "content": ASKED}]
function = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Invitation(BaseModel):
    guest: str
    seats: int


def chat() -> str:
    answer = litellm.completion(messages=messages, **options)
    check_text(answer.choices[0].message.content)
    return answer.id


def streaming() -> str:
    chunks = list(litellm.completion(messages=messages, stream=True, **options))
    check_text("".join(each.choices[0].delta.content or "" for each in chunks))
    return chunks[0].id


def responses() -> str:
    mine = new_key()
    answer = litellm.responses(input=ASKED, metadata={"editloop_key": mine}, **options)
    check_text(answer.output[0].content[0].text)
    return edit_by_key(mine)


def responses_streaming() -> str:
    mine = new_key()
    events = list(litellm.responses(input=ASKED, metadata={"editloop_key": mine}, stream=True, **options))
    check_text(events[-1].response.output[0].content[0].text)
    return edit_by_key(mine)


def tools() -> str:
    asked = {"tools": [{"type": "function", "function": function}], **options}
    call = litellm.completion(messages=messages, **asked).choices[0].message
    check(json.loads(call.tool_calls[0].function.arguments) == {"city": "Ada"}, "other arguments")
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "12 degrees"}
    answer = litellm.completion(messages=[*messages, call.model_dump(), result], **asked)
    check_text(answer.choices[0].message.content)
    return answer.id


def structured() -> str:
    answer = litellm.completion(messages=messages, response_format=Invitation, **options)
    found = Invitation.model_validate_json(answer.choices[0].message.content)
    check(found == Invitation(guest="Ada", seats=1), f"it is {found}")
    return answer.id


def choices() -> str:
    answer = litellm.completion(messages=messages, n=3, **options)
    check(len(answer.choices) == 3, f"{len(answer.choices)} choices")
    return answer.id


def key() -> str:
    mine = new_key()
    litellm.completion(messages=messages, extra_body={"metadata": {"editloop_key": mine}}, **options)
    return edit_by_key(mine)


report(
    "litellm",
    {
        "chat": chat,
        "streaming": streaming,
        "responses": responses,
        "responses, streaming": responses_streaming,
        "tools": tools,
        "structured": structured,
        "choices": choices,
        "key": key,
    },
    "`answer.id`; `litellm.responses` makes an id of its own, so use `editloop_key`",
)
