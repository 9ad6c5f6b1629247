"""LangChain's `ChatOpenAI`."""

from __future__ import annotations

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from report import ASKED, URL, check, check_text, edit_by_key, new_key, report


def model(**options: object) -> ChatOpenAI:
    return ChatOpenAI(model="editloop", base_url=URL, api_key="none", **options)


class Invitation(BaseModel):
    """An invitation."""

    guest: str
    seats: int


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"12 degrees in {city}"


def chat() -> str:
    message = model().invoke(ASKED)
    check_text(message.content)
    return message.response_metadata["id"]


def streaming() -> str:
    whole = None
    for chunk in model().stream(ASKED):
        whole = chunk if whole is None else whole + chunk
    check_text(whole.content)
    return whole.response_metadata["system_fingerprint"]


def responses() -> str:
    message = model(use_responses_api=True).invoke(ASKED)
    check_text(message.text)
    return message.response_metadata["id"]


def responses_streaming() -> str:
    whole = None
    for chunk in model(use_responses_api=True).stream(ASKED):
        whole = chunk if whole is None else whole + chunk
    check_text(whole.text)
    return whole.response_metadata["id"]


def _with_tools(chat: ChatOpenAI) -> str:
    bound = chat.bind_tools([weather])
    call = bound.invoke(ASKED)
    check(call.tool_calls[0]["args"] == {"city": "Ada"}, f"the calls are {call.tool_calls}")
    result = ToolMessage("12 degrees", tool_call_id=call.tool_calls[0]["id"])
    message = bound.invoke([HumanMessage(ASKED), call, result])
    check_text(message.text)
    return message.response_metadata["id"]


def tools() -> str:
    return _with_tools(model())


def responses_tools() -> str:
    return _with_tools(model(use_responses_api=True))


def _structured(chat: ChatOpenAI) -> str:
    found = chat.with_structured_output(Invitation, include_raw=True).invoke(ASKED)
    check(found["parsed"] == Invitation(guest="Ada", seats=1), f"it is {found['parsed']}")
    return found["raw"].response_metadata["id"]


def structured() -> str:
    return _structured(model())


def responses_structured() -> str:
    return _structured(model(use_responses_api=True))


def choices() -> None:
    (found,) = model(n=3).generate([[HumanMessage(ASKED)]]).generations
    check(len(found) == 3, f"{len(found)} choices")


def key() -> str:
    mine = new_key()
    model(extra_body={"metadata": {"editloop_key": mine}}).invoke(ASKED)
    return edit_by_key(mine)


report(
    "langchain-openai",
    {
        "chat": chat,
        "streaming": streaming,
        "responses": responses,
        "responses, streaming": responses_streaming,
        "tools": tools,
        "responses, tools": responses_tools,
        "structured": structured,
        "responses, structured": responses_structured,
        "choices": choices,
        "key": key,
    },
    '`message.response_metadata["id"]`; of a streamed chat completion, `["system_fingerprint"]`',
)
