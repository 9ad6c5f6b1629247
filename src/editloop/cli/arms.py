"""`editloop promote` and `editloop retire`: change the arms of a running server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from editloop.cli.console import console
from editloop.cli.flags import Config
from editloop.cli.places import Place
from editloop.errors import ServeError
from editloop.io import resolved

Server = Annotated[str, typer.Option(help="Address of the server.")]
KeyFlag = Annotated[str | None, typer.Option(help="An admin key [$EDITLOOP_KEY].")]


def promote(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder, which the server must see, too."),
        Place.READ,
    ],
    policies: Annotated[
        str | None,
        typer.Option(help="The policies, such as sft,dpo,mixture,base,retrieval:base [all trained]."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Retire all other arms; those of `serve --in-context` stay."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote policies even if their evaluation advises against it.")
    ] = False,
    user: Annotated[
        str | None,
        typer.Option(help="Whose arms they are, in place of those that this user had [everybody's]."),
    ] = None,
    server: Server = "http://127.0.0.1:8040",
    key: KeyFlag = None,
    config: Config = None,
) -> None:
    """Run the verb."""
    body: dict[str, Any] = {"run": str(resolved(run)), "replace": replace, "force": force}
    if user is not None:
        body["user"] = user
    if policies:
        body["policies"] = [name.strip() for name in policies.split(",")]
    _show_epoch(_ask(server, key, "POST", "/v1/arms", body))


def retire(
    arm: Annotated[str, typer.Argument(metavar="ARM", help="The arm's full name: sft@1a2b3c4d.")],
    server: Server = "http://127.0.0.1:8040",
    key: KeyFlag = None,
    config: Config = None,
) -> None:
    """Run the verb."""
    _show_epoch(_ask(server, key, "DELETE", f"/v1/arms/{quote(arm, safe='')}"))


def _ask(server: str, key: str | None, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Send a request, and return the server's answer.

    Raises:
        ServeError: The server does not answer, or rejects the request.
    """
    import httpx

    key = key or os.environ.get("EDITLOOP_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(method, server.rstrip("/") + path, json=body, headers=headers, timeout=600)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServeError("the server does not answer", seen=str(error), do="check --server") from error
    try:
        found: dict[str, Any] = answer.json()
    except ValueError as error:  # a proxy's page, or another server's
        what = f"the answer is not that of `editloop serve` (status {answer.status_code})"
        raise ServeError(what, seen=answer.text, do="check --server") from error
    if answer.is_error:
        raise ServeError(found.get("error", {}).get("message", str(found)))
    return found


def _show_epoch(epoch: dict[str, Any]) -> None:
    console.print(f"epoch {epoch['epoch']}: {', '.join(epoch['arms'])}")
    for arm, reason in epoch.get("against", {}).items():
        console.print(f"forced: {arm}: {reason}")
