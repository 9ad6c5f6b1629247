"""Which pages may use the server from a browser: exact origins, and no header for any other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import error, key_of, run, serving, sqlite

from editloop.errors import ConfigError
from editloop.serve.api.limits import Limits
from editloop.serve.api.origins import allowed_origins

PAGE = "https://app.example"
LYING = [
    "null",
    "https://app.example.evil.test",
    "https://evil.test/https://app.example",
    "https://app.example:444",
    "http://app.example",
    "https://APP.example",
    "https://app.example/",
    "https://app.example, https://evil.test",
    "https://app.exampl\xe9",
    "*",
    "",
]


def options(**more: Any) -> dict[str, Any]:
    return {"origins": [PAGE, "http://localhost:3000"], "edit_tokens": 3600.0, **more}


def cors(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def asking(origin: str, method: str = "POST", headers: str = "authorization,content-type") -> dict[str, str]:
    """The headers by which a browser asks for permission."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return {"Origin": origin, **asked}


def test_a_page_may_ask_and_read_the_answer(tmp_path: Path) -> None:
    key = key_of(sqlite(tmp_path))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=options()) as service:
            answer = await service.http.options("/v1/chat/completions", headers=asking(PAGE))
            assert answer.status_code == 200  # without a key
            assert cors(answer) == {
                "access-control-allow-origin": PAGE,
                "access-control-allow-methods": "GET, POST",
                "access-control-allow-headers": "authorization,content-type",
                "access-control-max-age": "600",
            }
            service.http.headers.update({"Authorization": f"Bearer {key}", "Origin": PAGE})
            answer = await service.ask()
            assert answer.status_code == 200 and answer.headers["Vary"] == "Origin"
            assert cors(answer)["access-control-allow-origin"] == PAGE
            exposed = set(cors(answer)["access-control-expose-headers"].lower().split(", "))
            own = {name for name in answer.headers if name.startswith("x-editloop-")}
            assert len(own) == 3 and exposed == own | {"retry-after"}
            assert "access-control-allow-credentials" not in cors(answer)

    run(work())


def test_a_page_may_read_why_it_was_refused(tmp_path: Path) -> None:
    key = key_of(sqlite(tmp_path))
    limits = Limits(body=10_000, rate=0.01, burst=3)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=options(limits=limits)) as service:
            service.http.headers["Origin"] = PAGE
            refused = [(await service.ask(), 401, "invalid_api_key")]
            service.http.headers["Authorization"] = f"Bearer {key}"
            refused.append((await service.ask("x" * 20_000), 413, "request_too_large"))
            refused.append((await service.ask(n=9), 400, "invalid_request"))
            refused.append((await service.edit("none"), 404, "response_not_found"))
            refused.append((await service.ask(), 429, "rate_limit"))
            for answer, status, code in refused:
                error(answer, status, code)
                assert cors(answer)["access-control-allow-origin"] == PAGE
                assert "Retry-After" in cors(answer)["access-control-expose-headers"]
            assert "Retry-After" in refused[-1][0].headers

    run(work())


def test_a_page_may_read_that_the_server_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=options()) as service:
            service.backend.fails["a@1"] = service.backend.fails["b@2"] = RuntimeError("a fault")
            service.http.headers["Origin"] = PAGE
            answer = await service.ask()
            error(answer, 500, "internal_error")
            assert cors(answer)["access-control-allow-origin"] == PAGE

    run(work())


@pytest.mark.parametrize("origin", LYING)
def test_an_origin_that_lies_gets_no_header(tmp_path: Path, origin: str) -> None:
    key = key_of(sqlite(tmp_path))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=options()) as service:
            said = {"Origin": origin.encode("latin-1")}
            asked = {name: value.encode("latin-1") for name, value in asking(origin).items()}
            answer = await service.http.options("/v1/edits", headers=asked)
            assert answer.status_code in (401, 403) and cors(answer) == {}
            answer = await service.http.get("/v1/models", headers={**said, "Authorization": f"Bearer {key}"})
            assert answer.status_code == 200 and cors(answer) == {} and answer.headers["Vary"] == "Origin"
            for path in ("/", "/client.js", "/nothing", "/v1/models"):
                assert cors(await service.http.get(path, headers=said)) == {}

    run(work())


def test_other_methods_are_not_for_pages(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=options()) as service:
            answer = await service.http.options("/v1/users/ada", headers=asking(PAGE, "DELETE"))
            assert answer.status_code == 400 and "DELETE" not in cors(answer)["access-control-allow-methods"]

    run(work())


def test_a_host_that_is_not_ours_is_refused_before_all(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=options()) as service:
            headers = {**asking(PAGE), "Host": "evil.test"}
            error(await service.http.options("/v1/edits", headers=headers), 421, "unknown_host")

    run(work())


def test_without_keys_a_page_may_do_what_an_application_may(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=options()) as service:
            service.http.headers["Origin"] = PAGE
            answer = await service.ask()
            assert answer.status_code == 200
            assert (await service.edit(answer.json()["id"])).status_code == 200
            for method, path in (("GET", "/v1/edits"), ("DELETE", "/v1/users/ada"), ("GET", "/metrics")):
                error(await service.http.request(method, path), 403, "not_local")
            service.http.headers["Origin"] = "https://evil.test"
            error(await service.ask(), 403, "not_local")
            service.http.headers["Origin"] = "http://localhost"  # the dashboard's own
            assert (await service.http.get("/v1/edits")).status_code == 200

    run(work())


def test_without_origins_nothing_is_allowed(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            assert cors(await service.http.options("/v1/edits", headers=asking(PAGE))) == {}
            assert cors(await service.http.get("/healthz", headers={"Origin": PAGE})) == {}

    run(work())


@pytest.mark.parametrize(
    "text",
    ["*", "null", "", "app.example", "https://", "https://app.example/", "https://app.example/page", "https://*.example",
     "https://a b", "https://é.example", "https://u:p@app.example", "https://app.example:x", "a\0://b"],
)  # fmt: skip
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not an origin") as refused:
        allowed_origins([PAGE, text])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["https://app.example:443", "http://app.example:80"])
def test_a_port_that_browsers_leave_out_never_matches(text: str) -> None:
    with pytest.raises(ConfigError, match="leave out this port"):
        allowed_origins([text])


def test_origins_are_what_browsers_send() -> None:
    given = ["https://App.Example", "http://localhost:3000", "http://[::1]:8080", "capacitor://localhost"]
    assert allowed_origins(given) == {each.lower() for each in given}
    assert allowed_origins(["http://app.example:443", "https://app.example:80"])  # not their usual ports


def test_the_client_is_open_to_anyone(tmp_path: Path) -> None:
    key_of(sqlite(tmp_path))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=options()) as service:
            answer = await service.http.get("/client.js", headers={"Origin": PAGE})
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
            assert cors(answer)["access-control-allow-origin"] == PAGE
            assert "attach" in answer.text and answer.headers["X-Content-Type-Options"] == "nosniff"

    run(work())


def test_two_origins_are_answered_each_by_its_own_name(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=options()) as service:
            pages = [PAGE, "http://localhost:3000"]
            ask = [service.http.get("/healthz", headers={"Origin": page}) for page in pages]
            assert [cors(a)["access-control-allow-origin"] for a in await asyncio.gather(*ask)] == pages

    run(work())
