"""Edit tokens: what they permit, for how long, and each way in which one is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from serving import Service, error, key_of, run, serving, sqlite

from editloop.edits import read_log
from editloop.serve.api import edit_tokens, quotas
from editloop.serve.api.edit_tokens import EditTokens
from editloop.serve.api.limits import Limits
from editloop.serve.api.quotas import RateLimit
from editloop.serve.problem import Problem

PAGE = "https://app.example"
OTHER_ROUTES = [
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/edits"),
    ("GET", "/v1/models"),
    ("PUT", "/v1/edits"),
    ("DELETE", "/v1/users/ada"),
]
ON = {"edit_tokens": 3600.0, "origins": [PAGE]}


async def drafted(service: Service, key: str, **more: Any) -> tuple[str, str]:
    """A response and its token, as an application with a key gets them. The client has no key afterwards."""
    answer = await service.http.post(
        "/v1/chat/completions",
        json={"model": "editloop", "messages": [{"role": "user", "content": "Write."}], **more},
        headers={"Authorization": f"Bearer {key}"},
    )
    body = answer.raise_for_status().json()
    assert answer.headers["X-EditLoop-Edit-Token"] == body["edit_token"]
    return body["id"], body["edit_token"]


async def send(service: Service, response_id: str, token: str | None, **what: Any) -> httpx.Response:
    """The edit as the script in a page sends it: a text, with the token in it."""
    body = json.dumps({"response_id": response_id, **({"token": token} if token else {}), **what})
    headers = {"Content-Type": "text/plain;charset=UTF-8", "Origin": PAGE}
    return await service.http.post("/v1/edits", content=body, headers=headers)


async def refusals(service: Service, key: str) -> dict[str, float]:
    metrics = await service.http.get("/metrics", headers={"Authorization": f"Bearer {key}"})
    lines = [
        line for line in metrics.text.splitlines() if line.startswith("editloop_edit_token_refusals_total")
    ]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def test_a_page_sends_the_edit_of_its_response_and_nothing_else(url: str, tmp_path: Path) -> None:
    key = key_of(url, "admin")

    async def work() -> None:
        async with serving(url, tmp_path, app_options=ON) as service:
            response_id, token = await drafted(service, key)
            answer = await send(service, response_id, token, edit="Mine.", seconds=12.5, key="k")
            assert answer.status_code == 200 and answer.json()["status"] == "edited", answer.text
            # The same edit again changes nothing; another text is a revision, with the same token.
            again = await send(service, response_id, token, edit="Mine.", seconds=12.5, key="k")
            assert again.json() | {"repeated": False} == answer.json() and again.json()["repeated"]
            bearer = {"Authorization": f"Bearer {token}"}
            later = {"response_id": response_id, "edit": "Mine, too.", "seconds": 3}
            answer = await service.http.post("/v1/edits", json=later, headers=bearer)
            assert answer.json()["revision"] == 2
            other, _ = await drafted(service, key)
            error(await send(service, other, token, accepted=True), 403, "edit_token_mismatch")
            elsewhere = {"context": "Write.", "response": "So.", "accepted": True, "token": token}
            error(await service.http.post("/v1/edits", json=elsewhere), 403, "edit_token_mismatch")
            for method, path in OTHER_ROUTES:
                refused = await service.http.request(method, path, headers=bearer)
                error(refused, 403, "permission_denied")
            error(await send(service, response_id, None, edit="Without."), 401, "invalid_api_key")
            assert await refusals(service, key) == {
                "edit_token_mismatch": 2, "permission_denied": 5, "invalid_api_key": 1
            }  # fmt: skip
            admin = {"Authorization": f"Bearer {key}"}
            shown = (await service.http.get(f"/v1/edits/{response_id}", headers=admin)).json()
            assert [(r["edit"], r["seconds"]) for r in shown["revisions"]] == [
                ("Mine.", 12.5),
                ("Mine, too.", 3),
            ]
            exported = await service.http.get("/v1/edits?format=ndjson&status=edited", headers=admin)
            assert json.loads(exported.text)["metadata"] == {"edit_seconds": 15.5}

    run(work())
    (record,) = [each for each in read_log(url) if each.edit]
    assert record.metadata == {"edit_seconds": 15.5, "revisions": ["Mine."]}


@pytest.mark.parametrize("outcome", [{"accepted": True}, {"discarded": True}])
def test_a_page_also_sends_what_has_no_text(tmp_path: Path, outcome: dict[str, bool]) -> None:
    key = key_of(sqlite(tmp_path))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            response_id, token = await drafted(service, key)
            assert (await send(service, response_id, token, **outcome)).json()["status"] in outcome

    run(work())


def test_a_token_that_was_changed_is_refused(tmp_path: Path) -> None:
    key = key_of(sqlite(tmp_path), "admin")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            response_id, token = await drafted(service, key)
            head, end, rest = token.split(".", 2)
            flipped = head[:10] + ("A" if head[10] != "A" else "B") + head[11:]
            forged = [
                f"{flipped}.{end}.{rest}",
                f"{head}.{int(end) + 1}.{rest}",
                f"{head}.{end}.{rest}x",
                f"{head}=.{end}.{rest}",
                token.removeprefix("elt-"),
                f" {token}",
                "elt-",
                "elt-..",
                f"elt-.{end}.{response_id}",
                "x",
                "\0",
                "é" * 100,
            ]
            for each in forged:
                error(await send(service, response_id, each, edit="Forged."), 401, "invalid_edit_token")
            for each in (forged[0], "elt-", "elt-x.y.z"):
                answer = await service.http.post(
                    "/v1/edits",
                    json={"response_id": response_id, "edit": "Forged."},
                    headers={"Authorization": f"Bearer {each}"},
                )
                error(answer, 401, "invalid_edit_token")
                assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert await refusals(service, key) == {"invalid_edit_token": len(forged) + 3}
            for each in ("x" * 301, "\ud800"):
                error(await send(service, response_id, each, edit="Forged."), 400, "invalid_request")

    run(work())


def test_a_token_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of(sqlite(tmp_path))
    now = [1_000_000.0]
    monkeypatch.setattr(edit_tokens, "time", SimpleNamespace(time=lambda: now[0]))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            response_id, token = await drafted(service, key)
            assert token.split(".")[1] == "1003600"
            now[0] = 1_003_600.0
            assert (await send(service, response_id, token, edit="In time.")).status_code == 200
            now[0] = 1_003_601.0
            error(await send(service, response_id, token, edit="Late."), 401, "edit_token_expired")
            # A replica whose clock is behind takes a token of one whose clock is ahead.
            now[0] = 999_000.0
            assert (await send(service, response_id, token, edit="Early.")).status_code == 200

    run(work())


def test_all_replicas_and_later_starts_accept_a_token(url: str, tmp_path: Path) -> None:
    key, made = key_of(url), {}

    async def issue() -> None:
        async with serving(url, tmp_path / "one", app_options=ON) as service:
            made["draft"] = await drafted(service, key)

    async def use() -> None:
        async with serving(url, tmp_path / "two", app_options=ON) as service:
            assert (await send(service, *made["draft"], edit="Mine.")).status_code == 200

    run(issue())
    run(use())


def test_another_store_has_another_secret(tmp_path: Path) -> None:
    made = {}

    async def issue() -> None:
        async with serving(sqlite(tmp_path), tmp_path / "one", app_options=ON) as service:
            answer = (await service.ask()).json()
            made["draft"] = (answer["id"], answer["edit_token"])

    async def use() -> None:
        url = f"sqlite:///{tmp_path}/other.db"
        async with serving(url, tmp_path / "two", app_options=ON) as service:
            error(await send(service, *made["draft"], edit="Mine."), 401, "invalid_edit_token")

    run(issue())
    run(use())


def test_the_texts_of_a_user_who_is_forgotten_take_no_edits(tmp_path: Path) -> None:
    key = key_of(sqlite(tmp_path), "admin")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            response_id, token = await drafted(service, key, user="ada")
            await service.http.delete("/v1/users/ada", headers={"Authorization": f"Bearer {key}"})
            error(await send(service, response_id, token, edit="Late."), 410, "response_removed")
            assert await refusals(service, key) == {"response_removed": 1}

    run(work())


def test_a_token_adds_so_many_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editloop.serve.api.edits.MAX_REVISIONS", 2)
    key = key_of(sqlite(tmp_path))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            draft = await drafted(service, key)
            for text in ("one", "two", "two", "one"):  # two revisions, and two repetitions
                assert (await send(service, *draft, edit=text)).status_code == 200
            error(await send(service, *draft, edit="three"), 409, "too_many_revisions")
            with_key = {"response_id": draft[0], "edit": "three"}
            bearer = {"Authorization": f"Bearer {key}"}
            assert (await service.http.post("/v1/edits", json=with_key, headers=bearer)).status_code == 200

    run(work())


def test_a_page_that_sends_twice_at_once_is_counted_once(url: str, tmp_path: Path) -> None:
    key = key_of(url)

    async def work() -> None:
        async with serving(url, tmp_path, app_options=ON) as service:
            draft = await drafted(service, key)
            both = [send(service, *draft, edit="Mine.", key="k", seconds=2) for _ in range(2)]
            answers = [(await each).json() for each in asyncio.as_completed(both)]
            assert {each["revision"] for each in answers} == {1}
            assert sorted(each["repeated"] for each in answers) == [False, True]
            error(await send(service, *draft, edit="Other.", key="k"), 409, "key_reused")

    run(work())


def test_the_rate_of_a_token_is_its_own(tmp_path: Path) -> None:
    key = key_of(sqlite(tmp_path))
    limits = Limits(rate=0.001, burst=3)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options={**ON, "limits": limits}) as service:
            first, second = await drafted(service, key), await drafted(service, key)
            for _ in range(3):
                assert (await send(service, *first, edit="Mine.")).status_code == 200
            for _ in range(3):
                forged = (first[0], first[1][:-1] + "x")
                error(await send(service, *forged, edit="Forged."), 401, "invalid_edit_token")
            answer = await send(service, *first, edit="Mine.")
            error(answer, 429, "rate_limit")
            assert answer.headers["Retry-After"] == "1000"
            assert (await send(service, *second, edit="Mine.")).status_code == 200
            await drafted(service, key)  # the third of the key's own

    run(work())


def test_a_server_gives_no_tokens_unless_it_is_asked_to(tmp_path: Path) -> None:
    key = key_of(sqlite(tmp_path))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            bearer = {"Authorization": f"Bearer {key}"}
            body = {"model": "editloop", "messages": [{"role": "user", "content": "Write."}]}
            answer = await service.http.post("/v1/chat/completions", json=body, headers=bearer)
            assert "X-EditLoop-Edit-Token" not in answer.headers and "edit_token" not in answer.json()
            tokens = EditTokens(60.0, Limits())
            tokens.secret = service.loop.token_secret
            token = tokens.issue(answer.json()["id"])
            error(await send(service, answer.json()["id"], token, edit="Mine."), 401, "invalid_api_key")
            as_key = {"Authorization": f"Bearer {token}"}
            edit = {"response_id": answer.json()["id"], "edit": "Mine."}
            error(await service.http.post("/v1/edits", json=edit, headers=as_key), 401, "invalid_api_key")

    run(work())


def test_a_stream_has_its_token_in_the_header_and_in_the_first_chunk(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            answer = await service.ask(stream=True)
            chunks = [
                json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")
            ]
            token = answer.headers["X-EditLoop-Edit-Token"]
            assert [chunk.get("edit_token") for chunk in chunks] == [token, *[None] * (len(chunks) - 1)]
            assert (await send(service, chunks[0]["id"], token, edit="Mine.")).status_code == 200

    run(work())


def test_a_page_of_another_origin_is_refused_with_its_token(tmp_path: Path) -> None:
    """Its browser would send the request all the same, and only hide the answer."""
    key = key_of(sqlite(tmp_path), "admin")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            response_id, token = await drafted(service, key)
            body = {"response_id": response_id, "edit": "Mine.", "token": token}
            for origin in ("https://evil.test", "null", f"{PAGE}.evil.test"):
                answer = await service.http.post("/v1/edits", json=body, headers={"Origin": origin})
                error(answer, 403, "origin_not_allowed")
            assert await refusals(service, key) == {"origin_not_allowed": 3}
            own = {"Origin": "http://localhost"}
            assert (await service.http.post("/v1/edits", json=body, headers=own)).status_code == 200

    run(work())


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [
        ({"edit": "x" * 5_000_000}, 413, "request_too_large"),
        ({"edit": "x" * 200_001}, 413, "text_too_long"),
        ({"edit": "a\0b"}, 400, "invalid_text"),
        ({"edit": "\ud800"}, 400, "invalid_text"),
        ({"edit": "x", "seconds": -1}, 400, "invalid_request"),
        ({"edit": "x", "seconds": 1e300}, 400, "invalid_request"),
        ({"edit": "x", "seconds": "long"}, 400, "invalid_request"),
        ({"edit": "x", "accepted": True}, 400, "invalid_request"),
        ({}, 400, "invalid_request"),
    ],
)
def test_what_a_page_must_not_send(tmp_path: Path, what: dict[str, Any], status: int, code: str) -> None:
    key = key_of(sqlite(tmp_path))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            draft = await drafted(service, key)
            answer = await send(service, *draft, **what)
            error(answer, status, code)
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE

    run(work())


def test_a_token_before_the_secret_is_known() -> None:
    tokens = EditTokens(60.0, Limits())
    assert tokens.issue("r") is None
    forged = EditTokens(60.0, Limits())
    forged.secret = "x"
    token = forged.issue("r")
    assert token is not None and forged.check(token) == "r"
    with pytest.raises(Problem, match="not an edit token"):
        tokens.check(token)
    empty = tokens._sign("9999999999.r")  # what anyone can compute while the secret is empty
    with pytest.raises(Problem, match="not an edit token"):
        tokens.check(empty)


def test_a_response_id_may_have_dots() -> None:
    tokens = EditTokens(60.0, Limits())
    tokens.secret = "x"
    token = tokens.issue("a.b:c-d_e.1")
    assert token is not None and tokens.check(token) == "a.b:c-d_e.1"


def test_rates_that_are_not_needed_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "MAX_BUCKETS", 4)
    now = [0.0]
    monkeypatch.setattr(quotas, "time", SimpleNamespace(monotonic=lambda: now[0]))
    rate = RateLimit(1.0, 2)
    for key in "aabc":
        rate.take(key)
    now[0] = 1.0
    rate.take("d")  # the fourth: nothing is dropped yet
    rate.take("e")  # a had used two and has one, b and c are full again
    assert set(rate._buckets) == {"a", "d", "e"}
    rate.take("a")
    with pytest.raises(Problem, match="too many requests"):
        rate.take("a")
