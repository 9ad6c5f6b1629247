"""Label Studio. Tasks are made by hand from labelstud.io/guide/task_format and `label-studio-sdk` 2.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools import CHAT, RECORDS, imported, there_and_back


def area(text: Any, name: str = "draft") -> dict[str, Any]:
    value = {"text": text}
    return {"id": "x", "from_name": name, "to_name": "doc", "type": "textarea", "value": value}


def task(id: int, predictions: list[Any], annotations: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "data": {"text": "Invite Ada."},
        "predictions": [
            {"id": 10 + i, "model_version": f"m{i}", "result": result} for i, result in enumerate(predictions)
        ],
        "annotations": annotations,
        "meta": {},
        **more,
    }


def annotation(id: int, *result: Any, **more: Any) -> dict[str, Any]:
    about = {"completed_by": 7, "was_cancelled": False, "created_at": "2026-03-04T05:06:07Z", **more}
    return {"id": id, "result": list(result), **about}


def test_each_annotation_is_an_edit_of_its_prediction(tmp_path: Path) -> None:
    rows = [
        task(
            1,
            [[area(["Dear Ada"])], [area(["Hello Ada"])]],
            [
                annotation(3, area(["Hi Ada"]), parent_prediction=10),
                annotation(4, area("Hello Ada"), completed_by={"id": 8, "email": "ann@x.org"}),
                annotation(5, was_cancelled=True),
                annotation(6),
            ],
        ),
        task(2, [[area(["a", "b"]), area(["t"], "title"), {"type": "choices", "value": {}}]], []),
        task(3, [], [annotation(7, area(["x"]))]),
        task(4, [[area(["x"])]], [annotation(8, area(["y"]))], data={"messages": CHAT}),
        {"id": 5, "data": {"text": "no task"}},
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(rows, indent=2))
    log = imported(tmp_path / "tasks.json", None, "label-studio")
    found = [(each.id, each.response, each.edit, each.user, each.policy) for each in log]
    assert found == [
        ("1:3:draft", "Dear Ada", "Hi Ada", "7", "m0"),
        ("1:4:draft", "Hello Ada", "Hello Ada", "ann@x.org", "m1"),
        ("2:10:draft", "a\nb", None, None, "m0"),
        ("2:10:title", "t", None, None, "m0"),
        ("4:8:draft", "x", "y", "7", "m0"),
    ]
    assert log.records[0].context == "Invite Ada." and len(log.records[4].context) == 2
    assert log.report.left_out == {"a cancelled annotation": 1}
    assert log.report.reasons == {
        "an annotation without the TextArea of its prediction": 1,
        "no prediction with the text of a TextArea": 1,
        "no row of Label Studio": 1,
    }


def test_there_and_back(tmp_path: Path) -> None:
    assert there_and_back(tmp_path, "label-studio") == RECORDS
