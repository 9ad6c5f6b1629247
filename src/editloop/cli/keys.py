"""`editloop keys`: the bearer keys of a server."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from editloop.cli.console import console, show_table
from editloop.cli.flags import Config, StoreUrl
from editloop.cli.stores import opened_store

if TYPE_CHECKING:
    pass

keys = typer.Typer(help="Who may use a server.", no_args_is_help=True, rich_markup_mode=None)


@keys.command("create", help="Make a new key, which is shown once.")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name by which it is revoked.")],
    store: StoreUrl = "edits.db",
    role: Annotated[
        str, typer.Option(help="app may request drafts and send edits; admin may do everything.")
    ] = "app",
    config: Config = None,
) -> None:
    """Run the verb."""
    with closing(opened_store(store)) as opened:
        from editloop.store import create_key

        print(create_key(opened, name, role))  # type: ignore[arg-type]  # a wrong role is reported there


@keys.command("list", help="List names, roles and dates.")
def list_all(store: StoreUrl = "edits.db", config: Config = None) -> None:
    """Run the verb."""
    rows = [["name", "role", "created", "last used", "revoked"]]
    with closing(opened_store(store)) as opened:
        from editloop.store import list_keys

        found = list_keys(opened)
    for key in found:
        dates = [_date(each) if each else "" for each in (key.created, key.last_used, key.revoked)]
        rows.append([key.name, key.role, *dates])
    show_table(rows)


@keys.command("revoke", help="Revoke a key, also for a running server.")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the key.")],
    store: StoreUrl = "edits.db",
    config: Config = None,
) -> None:
    """Run the verb."""
    with closing(opened_store(store)) as opened:
        from editloop.store import revoke_key

        revoke_key(opened, name)
    console.print(f"{name} is revoked")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
