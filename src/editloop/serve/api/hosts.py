"""The host names of a server; a request for any other name is refused.

That prevents DNS rebinding: another site can make its own name resolve to this server's address. To a
browser, this server then belongs to that site, whose pages may read what it answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from editloop.errors import ConfigError
from editloop.serve.problem import Problem, answer_problem

__all__ = ["AllowedHosts", "HostMiddleware"]

NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


class AllowedHosts:
    """The hosts that requests may name.

    These are `localhost`, this machine's loopback addresses, and the address at which the request arrived.
    If that is not a loopback address, any IP address may be named: a machine behind address translation does
    not know its public address, and DNS rebinding needs a name. All other names have to be given. Ports are
    not compared, because a tunnel changes them.

    Args:
        names: Further names, such as that of a proxy.

    Raises:
        ConfigError: One is not a valid host name.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = {"localhost"}
        for name in names:
            if not (NAME.fullmatch(name) or _address(name)):
                raise ConfigError("not a host name", seen=name, do="give it without scheme and port")
            self.names.add(name.lower().strip("[]").rstrip("."))  # `a.example.` is the same name, absolute

    def check(self, scope: Scope) -> None:
        """Check the Host header of a request. A request of HTTP/1.0 may have none; browsers always send one.

        Raises:
            Problem: 421 if it is not a name of this server; 400 if there are several, or it is not valid.
        """
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if not given:
            return
        found = HOST.fullmatch(given[0])
        if len(given) > 1 or found is None:
            raise Problem(400, "not one valid Host header", code="invalid_host", seen=", ".join(given))
        name = found["name"].lower().strip("[]").rstrip(".")
        here = (scope.get("server") or ("",))[0]
        if name in self.names or _leads_here(_address(name), _address(here)):
            return
        raise Problem(
            421, "not a name of this server", code="unknown_host", seen=name, do="--host-name adds one"
        )


class HostMiddleware:
    """ASGI middleware in front of all others: it refuses requests for another host, on every path.

    Args:
        app: The application behind it.
        hosts: The names of this server.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "http":
            try:
                self.hosts.check(scope)
            except Problem as problem:
                await answer_problem(problem, send)
                return
        await self.app(scope, receive, send)


Address = IPv4Address | IPv6Address


def _address(text: str) -> Address | None:
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None


def _leads_here(asked: Address | None, here: Address | None) -> bool:
    """Whether a request that arrived at one address may name another."""
    if asked is None:  # a name, which only `AllowedHosts.names` can permit
        return False
    return asked.is_loopback or asked == here or (here is not None and not here.is_loopback)
