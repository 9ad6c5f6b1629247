"""OpenAI's files for fine-tuning. Rows are made by hand from its guides on fine-tuning and on DPO."""

from __future__ import annotations

from pathlib import Path

from tools import CHAT, imported

from editloop.edits import Record, export, read_log

SAID = {"role": "assistant", "content": "Hi Ada"}


def test_a_chat_is_an_accepted_draft(tmp_path: Path) -> None:
    rows = [
        {"messages": [*CHAT, SAID]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {**SAID, "weight": 1}]},
        {"messages": [*CHAT, {**SAID, "weight": 0}]},
        {"messages": CHAT},
        {"messages": [*CHAT, {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}]},
        {"messages": [*CHAT, SAID], "tools": [{"type": "function"}]},
        {"messages": []},
    ]
    log = imported(tmp_path / "chats.jsonl", rows, "openai-chat")
    chat, text = log
    assert (chat.response, chat.edit, chat.status, len(chat.context)) == ("Hi Ada", "Hi Ada", "accepted", 2)
    assert text.context == "q"
    assert log.report.reasons == {
        "the last message is no text of the assistant": 3,
        "the last message has the weight 0": 1,
        "it has tools": 1,
    }


def test_a_preference_is_an_edit(tmp_path: Path) -> None:
    def row(**more: object) -> dict[str, object]:
        given = {"messages": CHAT, "tools": [], "parallel_tool_calls": True}
        dear = {"role": "assistant", "content": "Dear Ada"}
        return {"input": given, "preferred_output": [SAID], "non_preferred_output": [dear], **more}

    rows = [row(), row(preferred_output=[]), row(input={}), row(input={"messages": CHAT, "tools": [{}]})]
    log = imported(tmp_path / "pairs.jsonl", rows, "openai-preference")
    (record,) = log
    assert (record.response, record.edit, record.status) == ("Dear Ada", "Hi Ada", "edited")
    assert sorted(log.report.reasons) == [
        "an output is no text of the assistant",
        "it has tools",
        "the input has no messages",
    ]


def test_there_and_back_keeps_the_texts(tmp_path: Path) -> None:
    records = [
        Record(context=context, response="a b", edit=edit)
        for context in ("q", CHAT)
        for edit in ("a x", "a b")
    ]
    export(records, tmp_path / "chats.jsonl", "openai-chat")
    kept = read_log(tmp_path / "chats.jsonl", format="openai-chat", keep_duplicates=True)
    assert [(r.context, r.edit) for r in kept] == [(r.context, r.edit) for r in records]
    assert {record.status for record in kept} == {"accepted"}
    done = export(records, tmp_path / "pairs.jsonl", "openai-preference")
    assert (done.rows, done.dropped) == (2, {"unedited": 2})
    edited = [record for record in records if record.edit != record.response]
    assert list(read_log(tmp_path / "pairs.jsonl", format="openai-preference")) == edited
