"""The host names that a server answers to, on every path; and no answer redirects to another host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import error, key_of, run, serving, sqlite

from editloop.errors import ConfigError
from editloop.serve.api.hosts import AllowedHosts
from editloop.serve.problem import Problem

PATHS = ("/", "/docs", "/healthz", "/readyz", "/dashboard/main.js", "/openapi.json", "/metrics", "/v1/models")
PATHS += ("/v1/edits/", "/v1/arms/", "/nothing", "/v1/overview?bins=x", "/favicon.ico")


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:8040", "localhost.evil.test", "1.2.3.4", "[::2]:80"]
)
def test_a_name_that_is_not_ours_is_refused_on_every_path(tmp_path: Path, host: str) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for path in PATHS:
                for method in ("GET", "POST", "HEAD"):
                    answer = await service.http.request(method, path, headers={"Host": host})
                    assert answer.status_code == 421 and "location" not in answer.headers, path
                    if method != "HEAD":
                        error(answer, 421, "unknown_host")

    run(work())


def test_no_answer_leads_elsewhere(tmp_path: Path) -> None:
    """A redundant slash once led to a redirect to the Host that the request had named."""
    key = key_of(sqlite(tmp_path), "admin")
    headers = {"Authorization": f"Bearer {key}", "Host": "proxy.test"}

    async def work() -> None:
        options = {"hosts": ["proxy.test"]}
        async with serving(sqlite(tmp_path), tmp_path, app_options=options) as service:
            for path in PATHS:
                answer = await service.http.get(path, headers=headers)
                assert answer.headers.get("location", "/#api") == "/#api", path
            for path in ("/v1/edits/", "/v1/arms/", "/v1/models/"):
                assert (await service.http.get(path, headers=headers)).status_code in (404, 405), path

    run(work())


def scope(*hosts: str, server: str | None = "127.0.0.1") -> dict[str, Any]:
    return {
        "headers": [(b"accept", b"*/*"), *((b"host", each.encode()) for each in hosts)],
        "server": None if server is None else (server, 8040),
    }


@pytest.mark.parametrize(
    ("host", "server", "is_ours"),
    [
        ("localhost", "127.0.0.1", True),
        ("LocalHost.:1234", "127.0.0.1", True),
        ("127.0.0.1:8040", "127.0.0.1", True),
        ("127.8.8.8", "127.0.0.1", True),
        ("[::1]:8040", "::1", True),
        ("proxy.test", "127.0.0.1", True),
        ("PROXY.test:443", "10.0.0.5", True),
        ("10.0.0.9", "127.0.0.1", True),  # was given
        ("10.0.0.5:8040", "10.0.0.5", True),
        ("192.0.2.1", "10.0.0.5", True),  # behind address translation
        ("192.0.2.1", "127.0.0.1", False),
        ("192.0.2.1", None, False),
        ("other.test", "10.0.0.5", False),
        ("10.0.0.5.nip.test", "10.0.0.5", False),
        ("proxy.test.evil.test", "127.0.0.1", False),
        ("sub.proxy.test", "127.0.0.1", False),
        ("localhost", None, True),
    ],
)
def test_whose_names_are_ours(host: str, server: str | None, is_ours: bool) -> None:
    hosts = AllowedHosts(["proxy.test", "10.0.0.9"])
    if is_ours:
        hosts.check(scope(host, server=server))
    else:
        with pytest.raises(Problem, match="not a name of this server") as refused:
            hosts.check(scope(host, server=server))
        assert refused.value.status == 421


@pytest.mark.parametrize(
    "hosts", [("localhost", "localhost"), ("",), ("localhost@evil.test",), ("a b",), ("localhost:x",), ("é",)]
)
def test_what_is_not_one_host_is_refused(hosts: tuple[str, ...]) -> None:
    with pytest.raises(Problem, match="not one valid Host") as refused:
        AllowedHosts().check(scope(*hosts))
    assert refused.value.status == 400


def test_a_request_of_old_names_no_host() -> None:
    AllowedHosts().check(scope())


def test_names_have_no_scheme_and_no_port() -> None:
    for name in ("http://proxy.test", "proxy.test:443", "*", "", "a b"):
        with pytest.raises(ConfigError, match="not a host name"):
            AllowedHosts([name])


def test_a_prefix_is_no_way_around(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            outer = Starlette(routes=[Mount("/editloop", app=service.app)])
            transport = httpx.ASGITransport(outer)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                answer = await http.get("/editloop/healthz", headers={"Host": "evil.test"})
                error(answer, 421, "unknown_host")

    run(work())
