"""Simon Willison's `llm`, which finds the server in its file `extra-openai-models.yaml`.

By the Responses API it sends `store: false`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from report import ASKED, URL, check, check_text, report

FOLDER = tempfile.mkdtemp()
os.environ["LLM_USER_PATH"] = FOLDER
Path(FOLDER, "extra-openai-models.yaml").write_text(
    "\n".join(
        f"- model_id: {name}\n"
        "  model_name: editloop\n"
        f"  api_base: {URL}\n"
        "  supports_schema: true\n"
        "  supports_tools: true\n"
        f"  {more}"
        for name, more in (("editloop", ""), ("editloop-responses", "responses: true"))
    )
)

import llm  # noqa: E402  it reads the variable


def _id_and_text(answer: llm.Response) -> tuple[str, str]:
    return answer.response_json["id"], answer.text()


def _whole(name: str) -> tuple[str, str]:
    answer = llm.get_model(name).prompt(ASKED, stream=False)
    check_text(answer.text())
    return _id_and_text(answer)


def _stream(name: str) -> tuple[str, str]:
    answer = llm.get_model(name).prompt(ASKED, stream=True)
    check_text("".join(answer))
    return _id_and_text(answer)


def _tools(name: str) -> tuple[str, str]:
    cities = []

    def weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return "12 degrees"

    *_, answer = llm.get_model(name).chain(ASKED, tools=[weather]).responses()
    check_text(answer.text())
    check(cities == ["Ada"], f"the tool was called for {cities}")
    return _id_and_text(answer)


def _structured(name: str) -> tuple[str, str]:
    answer = llm.get_model(name).prompt(ASKED, schema=llm.schema_dsl("guest, seats int"), stream=False)
    check(answer.text() == '{"guest": "Ada", "seats": 1}', f"it is {answer.text()}")
    return _id_and_text(answer)


report(
    "llm",
    {
        "chat": lambda: _whole("editloop"),
        "streaming": lambda: _stream("editloop"),
        "responses": lambda: _whole("editloop-responses"),
        "responses, streaming": lambda: _stream("editloop-responses"),
        "tools": lambda: _tools("editloop"),
        "responses, tools": lambda: _tools("editloop-responses"),
        "structured": lambda: _structured("editloop"),
        "responses, structured": lambda: _structured("editloop-responses"),
    },
    '`response.response_json["id"]`; by the Responses API with the text, because it sends `store: false`',
)
