"""Preference data sets, by hand from TRL's page on dataset formats and the forms that are on the hub."""

from __future__ import annotations

from pathlib import Path

from tools import CHAT, imported, there_and_back

from editloop.edits import Record

HI, DEAR = ({"role": "assistant", "content": text} for text in ("Hi Ada", "Dear Ada"))


def test_texts_and_conversations_with_and_without_a_prompt(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Invite Ada.", "chosen": "Hi Ada", "rejected": "Dear Ada"},
        {"prompt": CHAT, "chosen": [HI], "rejected": [DEAR]},
        {"chosen": [*CHAT, HI], "rejected": [*CHAT, DEAR]},
        {"prompt": "Invite Ada.", "chosen": [*CHAT[1:], HI], "rejected": [*CHAT[1:], DEAR], "score": 3},
        {
            "chosen": "\n\nHuman: Invite Ada.\n\nAssistant: Hi Ada",
            "rejected": "\n\nHuman: Invite Ada.\n\nAssistant: Dear Ada",
        },
        {"chosen": [*CHAT, HI, {"role": "user", "content": "more"}, HI], "rejected": [*CHAT, DEAR]},
        {"chosen": "Hi Ada", "rejected": "Dear Ada"},
        {"chosen": [HI], "rejected": [DEAR]},
        {"prompt": "q", "chosen": 3, "rejected": "Dear Ada"},
    ]
    log = imported(tmp_path / "pairs.jsonl", rows, "trl-dpo", keep_duplicates=True)
    assert [(record.response, record.edit) for record in log] == [("Dear Ada", "Hi Ada")] * 5
    contexts = [record.context for record in log]
    assert contexts[0] == contexts[3] == "Invite Ada." and contexts[1] == contexts[2]
    assert contexts[4] == "\n\nHuman: Invite Ada.\n\nAssistant:"
    assert log.report.reasons == {
        "chosen or rejected is not one answer of text": 2,
        "no prompt, and none that both conversations begin with": 2,
    }


def test_parquet_and_folders_of_datasets(tmp_path: Path) -> None:
    import datasets

    rows = [{"prompt": CHAT, "chosen": [HI], "rejected": [DEAR]}]
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(str(tmp_path / "pairs.parquet"))
    table.save_to_disk(str(tmp_path / "pairs"))
    wanted = (Record(context=CHAT, response="Dear Ada", edit="Hi Ada"),)
    assert imported(tmp_path / "pairs.parquet", None, "trl-dpo").records == wanted
    assert imported(tmp_path / "pairs", None, "trl-dpo").records == wanted


def test_there_and_back(tmp_path: Path) -> None:
    records = [Record(context=context, response="a b", edit="a x") for context in ("q", CHAT)]
    assert list(there_and_back(tmp_path, "trl-dpo", records)) == records
