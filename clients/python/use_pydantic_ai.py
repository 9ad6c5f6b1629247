"""Pydantic AI, which by default asks the Responses API."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from report import ASKED, URL, check, check_text, edit_by_key, new_key, report

provider = OpenAIProvider(base_url=URL, api_key="none")
MODELS = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}


class Invitation(BaseModel):
    """An invitation."""

    guest: str
    seats: int


def agent(kind: str, **options: object) -> Agent:
    return Agent(MODELS[kind]("editloop", provider=provider), **options)


async def _whole(kind: str) -> str:
    found = await agent(kind, instructions="Be kind.").run(ASKED)
    check_text(found.output)
    return found.response.provider_response_id


async def _stream(kind: str) -> str:
    async with agent(kind).run_stream(ASKED) as stream:
        check_text(await stream.get_output())
        return stream.response.provider_response_id


async def _tools(kind: str) -> str:
    mine = agent(kind)
    cities = []

    @mine.tool_plain
    def weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return "12 degrees"

    found = await mine.run(ASKED)
    check_text(found.output)
    check(cities == ["Ada"], f"the tool was called for {cities}")
    return found.response.provider_response_id


async def _structured(kind: str) -> str | None:
    wanted = Invitation(guest="Ada", seats=1)
    found = await agent(kind, output_type=NativeOutput(Invitation)).run(ASKED)
    check(found.output == wanted, f"it is {found.output}")
    by_tool = await agent(kind, output_type=Invitation).run(ASKED)
    check(by_tool.output == wanted, f"it is {by_tool.output}")
    return found.response.provider_response_id


async def _key() -> str:
    mine = new_key()
    await agent("responses", model_settings={"extra_body": {"metadata": {"editloop_key": mine}}}).run(ASKED)
    return edit_by_key(mine)


report(
    "pydantic-ai-slim",
    {
        "chat": lambda: asyncio.run(_whole("chat")),
        "streaming": lambda: asyncio.run(_stream("chat")),
        "responses": lambda: asyncio.run(_whole("responses")),
        "responses, streaming": lambda: asyncio.run(_stream("responses")),
        "tools": lambda: asyncio.run(_tools("chat")),
        "responses, tools": lambda: asyncio.run(_tools("responses")),
        "structured": lambda: asyncio.run(_structured("chat")),
        "responses, structured": lambda: asyncio.run(_structured("responses")),
        "key": lambda: asyncio.run(_key()),
    },
    "`result.response.provider_response_id`",
)
