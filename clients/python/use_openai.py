"""OpenAI's own client."""

from __future__ import annotations

import json

import openai
from pydantic import BaseModel

from report import ASKED, URL, check, check_text, edit_by_key, new_key, report

client = openai.OpenAI(base_url=URL, api_key="none")
messages = [{"role": "user", "content": ASKED}]
parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
parameters["additionalProperties"] = False


class Invitation(BaseModel):
    guest: str
    seats: int


def chat() -> str:
    answer = client.chat.completions.create(model="editloop", messages=messages, user="ada")
    check_text(answer.choices[0].message.content)
    check(answer.system_fingerprint == answer.id, "the fingerprint is not the id")
    return answer.id


def streaming() -> str:
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model="editloop", messages=messages, stream=True, stream_options=options
        )
    )
    check_text("".join(each.choices[0].delta.content or "" for each in chunks if each.choices))
    check(len({each.id for each in chunks}) == 1, "the chunks have several ids")
    check(chunks[-1].usage is not None and chunks[-1].usage.total_tokens > 0, "no usage")
    return chunks[0].id


def responses() -> str:
    answer = client.responses.create(model="editloop", instructions="Be kind.", input=ASKED, user="ada")
    check_text(answer.output_text)
    check(client.responses.retrieve(answer.id).output_text == answer.output_text, "read again, it differs")
    more = client.responses.create(
        model="editloop", input="Shorter.", previous_response_id=answer.id, user="ada"
    )
    check_text(more.output_text)
    return more.id


def responses_streaming() -> str:
    # This helper puts the response together from its events, and fails where one is missing.
    with client.responses.stream(model="editloop", input=ASKED) as stream:
        numbers = [event.sequence_number for event in stream]
        answer = stream.get_final_response()
    check(numbers == list(range(len(numbers))), f"the events have the numbers {numbers}")
    check_text(answer.output_text)
    return answer.id


def models() -> None:
    names = [each.id for each in client.models.list()]
    check("editloop" in names and len(names) > 1, f"the models are {names}")
    check(client.models.retrieve(names[1]).id == names[1], "another model")
    try:
        client.models.retrieve("nobody")
    except openai.NotFoundError as error:
        check(error.code == "model_not_found", f"the code is {error.code}")
    else:
        raise AssertionError("there is a model of this name")


def tools() -> str:
    function = {"name": "weather", "parameters": parameters}
    asked = {"model": "editloop", "tools": [{"type": "function", "function": function}]}
    call = client.chat.completions.create(messages=messages, **asked).choices[0].message
    check(json.loads(call.tool_calls[0].function.arguments) == {"city": "Ada"}, "other arguments")
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "12 degrees"}
    answer = client.chat.completions.create(messages=[*messages, call, result], **asked)
    check_text(answer.choices[0].message.content)
    return answer.id


def responses_tools() -> str:
    asked = {
        "model": "editloop",
        "tools": [{"type": "function", "name": "weather", "parameters": parameters}],
    }
    with client.responses.stream(input=ASKED, **asked) as stream:
        first = list(stream)[-1].response
    (call,) = first.output
    check((call.type, json.loads(call.arguments)) == ("function_call", {"city": "Ada"}), "another call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}
    answer = client.responses.create(input=[result], previous_response_id=first.id, **asked)
    check_text(answer.output_text)
    return answer.id


def structured() -> str:
    answer = client.chat.completions.parse(model="editloop", messages=messages, response_format=Invitation)
    check(answer.choices[0].message.parsed == Invitation(guest="Ada", seats=1), "another value")
    return answer.id


def responses_structured() -> str:
    answer = client.responses.parse(model="editloop", input=ASKED, text_format=Invitation)
    check(answer.output_parsed == Invitation(guest="Ada", seats=1), "another value")
    return answer.id


def choices() -> str:
    answer = client.chat.completions.create(model="editloop", messages=messages, n=3)
    check(len({each.response_id for each in answer.choices}) == 3, "the choices share an id")
    return answer.choices[2].response_id


def key() -> str:
    mine = new_key()
    client.chat.completions.create(model="editloop", messages=messages, metadata={"editloop_key": mine})
    return edit_by_key(mine)


report(
    "openai",
    {
        "chat": chat,
        "streaming": streaming,
        "responses": responses,
        "responses, streaming": responses_streaming,
        "models": models,
        "tools": tools,
        "responses, tools": responses_tools,
        "structured": structured,
        "responses, structured": responses_structured,
        "choices": choices,
        "key": key,
    },
    "`answer.id`",
)
