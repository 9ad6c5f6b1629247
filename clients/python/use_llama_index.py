"""LlamaIndex's `OpenAILike`; by the Responses API it sends `store: false`."""

from __future__ import annotations

import asyncio

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses
from pydantic import BaseModel

from report import ASKED, URL, check, check_text, edit_by_key, new_key, report

options = {"model": "editloop", "api_base": URL, "api_key": "none", "is_function_calling_model": True}
messages = [ChatMessage(role="user", content=ASKED)]


class Invitation(BaseModel):
    """An invitation."""

    guest: str
    seats: int


def model(**more: object) -> OpenAILike:
    return OpenAILike(**options, is_chat_model=True, **more)


def chat() -> str:
    answer = model().chat(messages)
    check_text(answer.message.content)
    return answer.raw.id


def streaming() -> str:
    *_, last = model().stream_chat(messages)
    check_text(last.message.content)
    return last.raw.id


def responses() -> tuple[str, str]:
    answer = OpenAILikeResponses(**options).chat(messages)
    check_text(answer.message.content)
    return answer.raw.id, answer.message.content


def responses_streaming() -> tuple[str, str]:
    *_, last = OpenAILikeResponses(**options).stream_chat(messages)
    check_text(last.message.content)
    return last.raw.response.id, last.message.content


def tools() -> None:
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"12 degrees in {city}"

    found = asyncio.run(model().apredict_and_call([FunctionTool.from_defaults(weather)], user_msg=ASKED))
    check(found.response == "12 degrees in Ada", f"the tool gave {found.response}")


def structured() -> None:
    answer = model().as_structured_llm(Invitation).chat(messages)
    check(answer.raw == Invitation(guest="Ada", seats=1), f"it is {answer.raw}")


def key() -> str:
    mine = new_key()
    model(additional_kwargs={"extra_body": {"metadata": {"editloop_key": mine}}}).chat(messages)
    return edit_by_key(mine)


report(
    "llama-index-llms-openai-like",
    {
        "chat": chat,
        "streaming": streaming,
        "responses": responses,
        "responses, streaming": responses_streaming,
        "tools": tools,
        "structured": structured,
        "key": key,
    },
    "`answer.raw.id`; by the Responses API with the text, because it sends `store: false`",
)
