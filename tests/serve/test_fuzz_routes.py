"""Whatever is sent to any route, there is no 500, and all later requests get valid answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
from fuzzing import METHODS, Hostile, body_requests, routes_of, url_requests, valid
from site_server import Site

from editloop.io import parse_json


@pytest.fixture
def site(tmp_path: Path) -> Iterable[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def send(site: Site, requests: Iterable[Hostile]) -> Counter[int]:
    """Send requests as they are, and count the statuses of their answers."""
    statuses: Counter[int] = Counter()
    for method, url, body in requests:
        headers = {"Content-Type": "application/json"}
        request = httpx.Request(method, httpx.URL(site.url + url), content=body, headers=headers)
        answer = site.http.send(request)
        shown = f"{method} {url[:80]} {(body or b'')[:200]!r}: {answer.text[:300]}"
        assert answer.status_code < 500, shown
        if method != "HEAD" and answer.headers.get("content-type") == "application/json":
            parse_json(answer.content)
            assert answer.is_success or answer.json()["error"]["message"], shown
        statuses[answer.status_code] += 1
    return statuses


def check_all(site: Site) -> int:
    """Check that all pages and answers are valid; return how many responses are kept."""
    for path in ("/", "/dashboard/main.js", "/healthz", "/readyz", "/metrics"):
        assert site.http.get(path).status_code == 200, path
    shown = ("overview", "arms", "models", "users", "usage", "saving", "keys", "me", "audit", "stages")
    for path in (*(f"/v1/{name}" for name in shown), "/openapi.json"):
        answer = site.http.get(path)
        assert answer.status_code == 200, path
        parse_json(answer.content)
    kept: list[str] = []
    url = "/v1/edits?limit=500"
    while url:
        answer = site.http.get(url)
        assert answer.status_code == 200
        page = parse_json(answer.content)
        kept += [row["id"] for row in page["data"]]
        following = page["next"] and httpx.QueryParams(limit=500, before=page["next"])
        url = f"/v1/edits?{following}" if following else ""
    assert len(set(kept)) == len(kept)
    for response_id in kept:
        answer = site.http.get(f"/v1/edits/{response_id}")
        assert answer.status_code == 200
        parse_json(answer.content)
    exported = site.http.get("/v1/edits?format=ndjson")
    lines = exported.content.splitlines()
    assert exported.status_code == 200 and sorted(parse_json(each)["id"] for each in lines) == sorted(kept)
    return len(kept)


def test_every_route_is_known_here(site: Site) -> None:
    """Every route that takes a body has an example, so a new route needs one."""
    routes = routes_of(site)
    assert {"/v1/edits/{response_id}", "/dashboard/{name}", "/openapi.json"} < {each.path for each in routes}
    assert {each.path for each in routes if "POST" in (each.methods or ())} == set(valid("x"))
    assert {method for each in routes for method in each.methods or ()} <= set(METHODS)


def test_no_body_breaks_anything(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    response_id = site.ask(edit="Mine.", user="ada")
    statuses = send(site, body_requests(response_id))
    assert statuses.keys() >= {200, 400} and sum(statuses.values()) > 2000, statuses
    assert check_all(site) > 100
    assert "Traceback" not in capfd.readouterr().err


def test_no_url_breaks_anything(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    response_id = site.ask(edit="Mine.", user="ada")
    statuses = send(site, url_requests(routes_of(site), response_id))
    assert statuses.keys() >= {200, 400, 404, 405} and sum(statuses.values()) > 2000, statuses
    assert check_all(site) >= 1
    assert "Traceback" not in capfd.readouterr().err
