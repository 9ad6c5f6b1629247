"""`POST /v1/edits:batch`: what each row answers, repetitions, bad rows, limits, bodies in pieces."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Service, error, key_of, run, serving, sqlite
from sqlalchemy import func, select

from editloop.errors import ServeError, StoreError
from editloop.serve import AsyncClient
from editloop.serve.api.limits import Limits
from editloop.serve.client_base import BATCH_ROWS, batches
from editloop.store.database import Store
from editloop.store.schema import drafts, edits


def lines_of(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


async def post(service: Service, body: Any) -> list[dict[str, Any]]:
    answer = await service.http.post("/v1/edits:batch", content=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def elsewhere(i: int, **more: Any) -> dict[str, Any]:
    return {"context": f"q{i}", "response": f"a b c d{i}", "edit": f"a b c e{i}", "user": "ada", **more}


async def counts(service: Service) -> tuple[int, int]:
    def query(c: Any) -> tuple[int, int]:
        return tuple(c.scalar(select(func.count()).select_from(table)) for table in (drafts, edits))

    return await service.loop.read(query)


def test_each_row_is_answered_in_its_order_and_a_repeated_batch_records_nothing_twice(
    url: str, tmp_path: Path
) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            draft = (await service.ask(user="bob")).json()
            rows = [
                elsewhere(0, time=1_700_000_000),
                {"response_id": draft["id"], "edit": "Hello from me"},
                elsewhere(1, time="2026-03-04T05:06:07+01:00", policy="other", metadata={"page": 1}),
                {"context": [{"role": "user", "content": "q"}], "response": "a b", "accepted": True},
                {"context": "q", "response": "a b c", "discarded": True, "response_id": "mine-1"},
            ]
            found = await post(service, lines_of(rows))
            assert [row["row"] for row in found] == [1, 2, 3, 4, 5]
            assert [row["status"] for row in found] == ["edited", "edited", "edited", "accepted", "discarded"]
            # One of four words replaced; one of three.
            assert [row["cost"] for row in found] == pytest.approx([0.25, 1 / 3, 0.25, 0.0, 1.0])
            assert [row["policy"] for row in found] == [None, "a@1", "other", None, None]
            assert found[4]["response_id"] == "mine-1" and found[1]["response_id"] == draft["id"]
            assert service.loop.bandit.state.pool("a@1").observed == 1
            again = await post(service, lines_of(rows))
            assert [row["repeated"] for row in again] == [True] * 5
            assert [row["response_id"] for row in again] == [row["response_id"] for row in found]
            assert [row["cost"] for row in again] == [row["cost"] for row in found]
            assert await counts(service) == (5, 5)
            page = (await service.http.get("/v1/edits", params={"q": "e1"})).json()["data"]
            assert [row["time"] for row in page] == [1_772_597_167.0]
            assert page[0]["metadata"] == {"page": 1}

    run(work())


def test_half_of_the_rows_bad_leaves_the_good_ones_recorded(tmp_path: Path) -> None:
    bad = {
        2: (b"{not json", "invalid_json"),
        4: (lines_of([elsewhere(9, time=time.time() + 10 * 86_400)]).strip(), "invalid_request"),
        6: (b'{"response_id": "never-heard-of", "edit": "x"}', "response_not_found"),
        8: (b"\xff\xfe", "invalid_json"),
        10: (b'{"context": "q", "response": "a", "edit": "b", "nonsense": 1}', "invalid_request"),
        12: (lines_of([elsewhere(7, response="x" * 300_000)]).strip(), "text_too_long"),
        14: (b"[1, 2]", "invalid_request"),
        16: (b'{"context": "q", "response": "a\\u0000", "edit": "b"}', "invalid_text"),
    }
    body = b"".join(
        (bad[i][0] if i in bad else lines_of([elsewhere(i)]).strip()) + b"\n" for i in range(1, 17)
    )

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            found = await post(service, body)
            assert [row["row"] for row in found] == list(range(1, 17))
            assert {r["row"]: r["error"]["code"] for r in found if "error" in r} == {
                i: code for i, (_, code) in bad.items()
            }
            assert all("\n" not in row["error"]["message"] for row in found if "error" in row)
            assert sum("cost" in row for row in found) == 8
            assert await counts(service) == (8, 8)

    run(work())


def test_a_row_that_is_refused_writes_no_draft(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            rows = [elsewhere(1, key="k"), elsewhere(2, key="k"), elsewhere(1, key="k")]
            found = await post(service, lines_of(rows))
            assert [row.get("error", {}).get("code") for row in found] == [None, "key_reused", None]
            assert found[2]["repeated"]
            assert await counts(service) == (1, 1)
            taken = lines_of([elsewhere(3, response_id="x"), elsewhere(4, response_id="x")])
            assert [row.get("error", {}).get("code") for row in await post(service, taken)] == [
                None,
                "id_reused",
            ]
            assert await counts(service) == (2, 2)

    run(work())


def test_rows_arrive_in_pieces_of_any_size_and_blank_lines_are_none(tmp_path: Path) -> None:
    body = lines_of([elsewhere(1)]) + b"\n  \r\n" + lines_of([elsewhere(2)]).rstrip()

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for size in (1, 7, len(body)):

                async def pieces(size: int = size) -> AsyncIterator[bytes]:
                    for i in range(0, len(body), size):
                        yield body[i : i + size]

                assert [row["row"] for row in await post(service, pieces())] == [1, 4]
            assert await post(service, b"") == []
            assert await counts(service) == (2, 2)

    run(work())


def test_a_batch_over_the_limit_is_refused_and_what_came_before_stays(tmp_path: Path) -> None:
    rows = lines_of(elsewhere(i) for i in range(200))

    async def pieces() -> AsyncIterator[bytes]:  # without a length in the header
        for i in range(0, len(rows), 1000):
            yield rows[i : i + 1000]

    async def work() -> None:
        limits = Limits(batch=len(rows) - 1)
        async with serving(sqlite(tmp_path), tmp_path, app_options={"limits": limits}) as service:
            refused = error(
                await service.http.post("/v1/edits:batch", content=rows), 413, "request_too_large"
            )
            assert f"{len(rows) - 1} bytes" in refused["message"]
            assert await counts(service) == (0, 0)
            answer = await service.http.post("/v1/edits:batch", content=pieces())
            assert "sent again" in error(answer, 413, "request_too_large")["message"]
            assert answer.headers["connection"] == "close"
            kept, _ = await counts(service)
            assert 64 <= kept < 200
            found = await post(service, lines_of(elsewhere(i) for i in range(kept)))
            assert all(row["repeated"] for row in found)

    run(work())


def test_a_row_longer_than_a_request_is_one_bad_row(tmp_path: Path) -> None:
    body = lines_of([elsewhere(1), elsewhere(2, edit="x " * 5000), elsewhere(3)])

    async def work() -> None:
        limits = Limits(body=4000)
        async with serving(sqlite(tmp_path), tmp_path, app_options={"limits": limits}) as service:
            found = await post(service, body)
            assert [row.get("error", {}).get("code") for row in found] == [None, "request_too_large", None]

    run(work())


def test_a_batch_that_arrives_too_slowly_is_ended(tmp_path: Path) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        yield lines_of([elsewhere(1)])
        await asyncio.sleep(60)
        yield b"never"

    async def work() -> None:
        limits = Limits(body_seconds=0.05)
        async with (
            serving(sqlite(tmp_path), tmp_path, app_options={"limits": limits}) as service,
            asyncio.timeout(20),
        ):
            answer = await service.http.post("/v1/edits:batch", content=trickle())
            error(answer, 408, "body_timeout")

    run(work())


def test_a_store_that_is_down_ends_a_batch_with_a_time_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            await post(service, lines_of([elsewhere(1)]))

            def fail(*_: object, **__: object) -> None:
                raise StoreError("the store is down")

            monkeypatch.setattr(service.loop.writer, "_commit", fail)
            answer = await service.http.post("/v1/edits:batch", content=lines_of([elsewhere(2)]))
            error(answer, 503, "store_unavailable")
            assert answer.headers["Retry-After"]
            monkeypatch.undo()

    run(work())


def test_an_app_key_may_send_a_batch_and_texts_are_redacted(tmp_path: Path) -> None:
    url = sqlite(tmp_path)
    key = key_of(url)

    async def work() -> None:
        options = {"redact": lambda text: text.replace("secret", "***")}
        async with serving(url, tmp_path, app_options=options) as service:
            body = lines_of([{"context": "a secret", "response": "one secret x", "edit": "the secret x"}])
            assert (await service.http.post("/v1/edits:batch", content=body)).status_code == 401
            service.http.headers["Authorization"] = f"Bearer {key}"
            (found,) = await post(service, body)
            assert found["cost"] == pytest.approx(1 / 3)

    run(work())
    store = Store(url)
    store.open(claim=False)
    try:
        (row,) = store.read(lambda c: c.execute(select(drafts)).all())
    finally:
        store.close()
    assert (row.context, row.response) == ('"a ***"', "one *** x")


def test_two_batches_at_once_record_each_row_once(url: str, tmp_path: Path) -> None:
    body = lines_of(elsewhere(i) for i in range(150))

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            both = await asyncio.gather(post(service, body), post(service, body))
            assert all("cost" in row for found in both for row in found)
            assert sum(row["repeated"] for found in both for row in found) == 150
            assert await counts(service) == (150, 150)

    run(work())


def test_a_client_that_goes_away_leaves_what_was_recorded(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            body, sent = lines_of(elsewhere(i) for i in range(64)), []
            messages: list[dict[str, Any]] = [
                {"type": "http.request", "body": body, "more_body": True},
                {"type": "http.disconnect"},
            ]

            async def receive() -> dict[str, Any]:
                return messages.pop(0)

            async def send(message: dict[str, Any]) -> None:
                sent.append(message)

            request = httpx.Request("POST", "http://localhost/v1/edits:batch")
            scope = {
                "type": "http",
                "method": "POST",
                "path": request.url.path,
                "headers": [(b"host", b"localhost")],
            }
            scope |= {
                "query_string": b"",
                "client": ("127.0.0.1", 1),
                "scheme": "http",
                "http_version": "1.1",
            }
            scope |= {"server": ("localhost", 80), "root_path": "", "asgi": {"version": "3.0"}}
            await service.app(scope, receive, send)
            assert await counts(service) == (64, 64)

    run(work())


def test_a_client_sends_rows_in_batches_and_counts_them_over_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editloop.serve.client_base.BATCH_ROWS", 3)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            client = AsyncClient(http=service.http)
            rows = [elsewhere(i) if i != 4 else {"edit": "of nothing"} for i in range(8)]
            found = [result async for result in client.edits(rows)]
            assert [result["row"] for result in found] == list(range(1, 9))
            assert [result["row"] for result in found if "error" in result] == [5]
            service.http.base_url = httpx.URL("http://elsewhere")  # a name that is not the server's
            with pytest.raises(ServeError, match="421"):
                async for _ in client.edits(rows):
                    pass

    run(work())


def test_batches_end_by_rows_or_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [batch.begin for batch in batches({"edit": "x"} for _ in range(BATCH_ROWS + 1))] == [0, BATCH_ROWS]
    monkeypatch.setattr("editloop.serve.client_base.BATCH_BYTES", 40)
    long, short = {"edit": "x" * 50}, {"edit": "yy"}  # 63 and 15 bytes
    assert [batch.body.count(b"\n") for batch in batches([long, short, short, short])] == [1, 2, 1]
    assert list(batches([])) == []
