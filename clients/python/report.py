"""What the scripts here share: each tries the features of one client on a server, and reports what works.

A feature is a function that uses the client and returns the response's id as that client gives it, or None if
it shows something else. The id is good if the server takes an edit under it. Clients that ask the server to
keep no text (`store: false`) return the text, too, which is sent with the edit.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any
from uuid import uuid4

SERVER = os.environ.get("EDITLOOP_SERVER", "http://127.0.0.1:8040")
URL = f"{SERVER}/v1"
ASKED = "Invite Ada to the demo on Friday."

Feature = Callable[[], str | tuple[str, str] | None]


def post(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the server to a JSON body; it raises an error for another status than 200."""
    request = urllib.request.Request(
        SERVER + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def edit_by_key(key: str) -> str:
    """The id of the response that was asked for with this key in its metadata, and is edited by it."""
    body = {"metadata": {"editloop_key": key}, "edit": "Dear Ada,", "key": uuid4().hex}
    return post("/v1/edits", body)["response_id"]


def new_key() -> str:
    """A key that no other request has."""
    return uuid4().hex


def check(condition: bool, what: str) -> None:
    """Raise an error with this text unless the condition holds."""
    if not condition:
        raise AssertionError(what)


def check_text(text: str | None) -> None:
    """Check that a text is that of the stub model server."""
    check(bool(text) and text.startswith("Dear Ada,") and text.rstrip().endswith("Bob"), f"text: {text!r}")


def run(feature: Feature) -> str:
    """`ok`, or why a feature does not work, in one line."""
    try:
        found = feature()
        if found is not None:
            response_id, text = (found, None) if isinstance(found, str) else found
            body = {"response_id": response_id, "edit": "Dear Ada,", "key": uuid4().hex}
            edited = post("/v1/edits", body if text is None else {**body, "response": text})
            check(edited["cost"] > 0, f"the edit costs nothing: {edited}")
    except Exception as error:  # a client may raise anything
        lines = str(error).strip().split("\n")
        return f"{type(error).__name__}: {lines[0][:200]}"
    return "ok"


def report(package: str, features: Mapping[str, Feature], response_id: str) -> None:
    """Run all features, and print the result as JSON.

    Args:
        package: The client's package, whose version is reported.
        features: The features by their names in the table.
        response_id: Where the client has the response's id, as one writes it in a program.
    """
    found = {name: run(feature) for name, feature in features.items()}
    result = {"client": package, "version": version(package), "id": response_id, "features": found}
    print(json.dumps(result))
