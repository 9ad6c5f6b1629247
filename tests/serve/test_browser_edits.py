"""Edits from a page of another origin, in a real Chromium: each arrives once, whatever the page does."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browsers import launched, static_site
from serving import key_of, sqlite
from site_server import Site

from editloop.serve.api import edit_tokens

PAGE = Path(__file__).parent / "edit_page.html"
EXAMPLE = Path(__file__).parents[2] / "examples" / "edits_from_a_page.html"
DRAFT = "Hello from a@1"
POST = "([url, body]) => fetch(url, { method: 'POST', mode: 'no-cors', body }).then(() => 'sent')"
"""What a page of any origin can do: send a request, whose answer it may not read."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[str]:
    """The origin of the pages."""
    folder = tmp_path / "pages"
    folder.mkdir()
    shutil.copy(PAGE, folder / "page.html")
    with static_site(folder) as origin:
        yield origin


@pytest.fixture
def site(tmp_path: Path, pages: str) -> Iterator[Site]:
    made = Site(tmp_path, origins=[pages], edit_tokens=3600.0)
    yield made
    made.close()


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    made = chromium.new_context()
    made.set_default_timeout(15_000)
    yield made
    made.close()


Open = Callable[..., Any]


@pytest.fixture
def open_page(context: Any, pages: str, site: Site) -> Open:
    def opened(element: str = "textarea", more: str = "&stay") -> Any:
        page = context.new_page()
        page.goto(f"{pages}/page.html?server={site.url}&element={element}{more}")
        page.wait_for_selector("[data-ready]")
        return page

    return opened


def response_of(page: Any) -> str:
    return str(page.get_attribute("body", "data-ready"))


def revisions(site: Site, response_id: str, number: int) -> list[tuple[str | None, bool]]:
    """The texts of the edits of a response, and whether they discarded it, once there are so many."""
    until = time.monotonic() + 15
    while True:
        found = site.http.get(f"/v1/edits/{response_id}").raise_for_status().json()["revisions"]
        if len(found) >= number or time.monotonic() > until:
            return [(each["edit"], each["discarded"]) for each in found]
        time.sleep(0.02)


def spent(site: Site, response_id: str) -> float:
    found = site.http.get(f"/v1/edits/{response_id}").json()["revisions"]
    return sum(each["seconds"] for each in found)


def left(page: Any) -> list[str]:
    """What the client keeps in the browser."""
    names: list[str] = page.evaluate("[...Object.keys(localStorage), ...Object.keys(sessionStorage)]")
    return [name for name in names if name.startswith("editloop:")]


def wait_until_sent(page: Any, number: int = 1) -> list[Any]:
    page.wait_for_function(f"said.length >= {number}")
    found: list[Any] = page.evaluate("said")
    return found


@pytest.mark.parametrize("element", ["textarea", "contenteditable"])
def test_an_edit_goes_on_after_a_reload_and_arrives_once(site: Site, open_page: Open, element: str) -> None:
    began = time.monotonic()
    page = open_page(element)
    response_id, where = response_of(page), page.locator(f"#{element}")
    where.press("End")
    where.press_sequentially(", and more")
    page.reload()
    page.wait_for_selector("[data-ready]")
    assert response_of(page) == response_id
    assert page.evaluate("attached && document.activeElement === document.body")
    where.press("Control+End")
    where.press_sequentially("!")
    page.click("text=Send")
    (receipt,) = wait_until_sent(page)
    assert receipt["status"] == "edited" and not receipt["repeated"]
    assert revisions(site, response_id, 1) == [(f"{DRAFT}, and more!", False)]
    assert 0 < spent(site, response_id) <= time.monotonic() - began
    assert left(page) == []
    page.goto("about:blank")
    time.sleep(0.2)  # whatever it would send by leaving
    assert len(revisions(site, response_id, 1)) == 1
    row = site.http.get("/v1/edits?format=ndjson").json()
    assert row["metadata"]["edit_seconds"] == spent(site, response_id)


@pytest.mark.parametrize("how", ["closed", "left"])
def test_a_page_that_is_closed_in_the_middle_sends_what_was_changed(
    site: Site, open_page: Open, how: str
) -> None:
    page = open_page("alone")
    response_id = response_of(page)
    page.fill("#alone", "Half of")
    if how == "closed":
        page.close(run_before_unload=True)
    else:
        page.goto("about:blank")
    assert revisions(site, response_id, 1) == [("Half of", False)]
    other = open_page("alone")  # which finds the outbox as the first page left it, and sends it again
    other.wait_for_function("!Object.keys(localStorage).length")
    assert revisions(site, response_id, 1) == [("Half of", False)]


def test_a_page_that_is_left_unchanged_sends_nothing(site: Site, open_page: Open) -> None:
    page = open_page("alone")
    page.goto("about:blank")
    time.sleep(0.3)
    assert revisions(site, response_of(open_page("alone")), 0) == []
    assert site.http.get("/v1/edits?status=pending").json()["data"][0]["revision"] == 0


def test_without_a_form_a_text_is_sent_by_a_reload_and_its_end_is_a_revision(
    site: Site, open_page: Open
) -> None:
    page = open_page("alone")
    response_id = response_of(page)
    page.fill("#alone", "Half of")
    page.reload()
    page.wait_for_selector("[data-ready]")
    assert page.input_value("#alone") == "Half of"
    page.reload()  # unchanged: nothing more to send
    page.wait_for_selector("[data-ready]")
    page.fill("#alone", "Half of it, and the rest")
    page.evaluate("attached.submit()")
    wait_until_sent(page)
    assert revisions(site, response_id, 2) == [("Half of", False), ("Half of it, and the rest", False)]
    assert left(page) == []


def test_in_a_form_a_text_that_was_not_submitted_is_not_sent(site: Site, open_page: Open) -> None:
    page = open_page()
    response_id = response_of(page)
    page.fill("#textarea", "Half of")
    page.close(run_before_unload=True)
    time.sleep(0.3)
    assert revisions(site, response_id, 0) == []


def test_a_form_that_leads_elsewhere_sends_its_edit_first(site: Site, open_page: Open) -> None:
    page = open_page(more="")
    response_id = response_of(page)
    page.fill("#textarea", "Mine.")
    page.click("text=Send")  # which loads another page at once
    assert revisions(site, response_id, 1) == [("Mine.", False)]


@pytest.mark.parametrize("element", ["textarea", "contenteditable"])
def test_a_draft_that_is_left_as_it_is_was_accepted(site: Site, open_page: Open, element: str) -> None:
    page = open_page(element)
    page.click("text=Send")
    assert [each["status"] for each in wait_until_sent(page)] == ["accepted"]
    assert revisions(site, response_of(page), 1) == [(DRAFT, False)]


def test_a_draft_is_thrown_away(site: Site, open_page: Open) -> None:
    page = open_page("alone")
    page.fill("#alone", "Changed before")
    assert page.evaluate("attached.discard()")["status"] == "discarded"
    page.goto("about:blank")
    time.sleep(0.3)
    assert revisions(site, site.http.get("/v1/edits").json()["data"][0]["id"], 1) == [(None, True)]


def test_a_form_that_is_submitted_twice_at_once_sends_one_edit(site: Site, open_page: Open) -> None:
    page = open_page()
    page.fill("#textarea", "Mine.")
    page.evaluate("(form.requestSubmit(), form.requestSubmit(), attached.submit(), null)")
    wait_until_sent(page)
    # And two calls that do not know of each other: two keys, but one text.
    both = page.evaluate("Promise.all([1, 2].map(() => client.edited(options, 'Mine.')))")
    assert [each["repeated"] for each in both] == [True, True]
    assert revisions(site, response_of(page), 1) == [("Mine.", False)]


def test_an_edit_waits_while_there_is_no_connection(site: Site, open_page: Open, context: Any) -> None:
    page = open_page()
    response_id = response_of(page)
    page.fill("#textarea", "Mine.")
    context.set_offline(True)
    page.click("text=Send")
    assert len(left(page)) == 1 and page.evaluate("said") == []
    with page.expect_event("close"):
        page.close(run_before_unload=True)
    context.set_offline(False)
    assert revisions(site, response_id, 0) == []
    other = open_page()  # any page of the origin sends it
    other.wait_for_function("!Object.keys(localStorage).length")
    assert revisions(site, response_id, 1) == [("Mine.", False)]
    context.set_offline(True)
    other.fill("#textarea", "Another.")
    other.click("text=Send")
    context.set_offline(False)  # the browser says so, and the edit is sent at once
    wait_until_sent(other)
    assert revisions(site, response_of(other), 1) == [("Another.", False)]


def test_an_expired_token_is_an_error_that_the_page_learns(
    site: Site, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page()
    monkeypatch.setattr(edit_tokens, "time", SimpleNamespace(time=lambda: time.time() + 3601))
    page.fill("#textarea", "Late.")
    page.click("text=Send")
    assert wait_until_sent(page) == ["edit_token_expired"]
    assert left(page) == [] and revisions(site, response_of(page), 0) == []


def test_a_page_of_another_origin_is_refused(
    site: Site, open_page: Open, context: Any, tmp_path: Path
) -> None:
    draft = open_page().evaluate("draft")
    with static_site(tmp_path / "pages") as elsewhere:
        page = context.new_page()
        refused = "Access to script at .*client.js.* blocked by CORS policy"
        with page.expect_console_message(lambda message: re.search(refused, message.text)):
            page.goto(f"{elsewhere}/page.html?server={site.url}&element=textarea")
        assert page.query_selector("[data-ready]") is None  # not even the script
        body = {"response_id": draft["responseId"], "token": draft["token"], "edit": "Stolen."}
        page.evaluate(POST, [f"{site.url}/v1/edits", json.dumps(body)])
        page.close()
    time.sleep(0.2)
    assert revisions(site, draft["responseId"], 0) == []


def test_with_keys_a_page_needs_only_its_token(tmp_path: Path, pages: str, context: Any) -> None:
    key = key_of(sqlite(tmp_path), "admin")
    site = Site(tmp_path, origins=[pages], edit_tokens=3600.0)
    try:
        site.http.headers["Authorization"] = f"Bearer {key}"  # the application's
        request = {"model": "editloop", "messages": [{"role": "user", "content": "Write."}]}
        body = site.http.post("/v1/chat/completions", json=request).json()
        draft = {"responseId": body["id"], "token": body["edit_token"], "draft": DRAFT}
        context.add_init_script(f"sessionStorage.setItem('draft', {json.dumps(json.dumps(draft))})")
        page = context.new_page()
        page.goto(f"{pages}/page.html?server={site.url}&element=textarea&stay")
        page.wait_for_selector("[data-ready]")
        page.fill("#textarea", "Mine.")
        page.click("text=Send")
        assert [each["status"] for each in wait_until_sent(page)] == ["edited"]
        assert revisions(site, body["id"], 1) == [("Mine.", False)]
        for token in ("elt-x.9999999999.r", None):  # forged, and none
            send = "(token) => client.accepted({ ...options, token }).catch((e) => [e.status, e.code])"
            code = "invalid_edit_token" if token else "invalid_api_key"
            assert page.evaluate(send, token) == [401, code]
        with static_site(tmp_path / "pages") as elsewhere:
            page.goto(f"{elsewhere}/none.html")
            what = {"response_id": body["id"], "token": body["edit_token"], "edit": "Stolen."}
            page.evaluate(POST, [f"{site.url}/v1/edits", json.dumps(what)])
        assert revisions(site, body["id"], 1) == [("Mine.", False)]
        refused = 'editloop_edit_token_refusals_total{code="origin_not_allowed"} 1.0'
        assert refused in site.http.get("/metrics").text
    finally:
        site.close()


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("'x'.repeat(5e6)", 413, "request_too_large"),
        ("'x'.repeat(200001)", 413, "text_too_long"),
        ("'a\\0b'", 400, "invalid_text"),
        ("'\\ud800'", 400, "invalid_text"),
    ],
)
def test_a_text_that_the_server_refuses(
    site: Site, open_page: Open, text: str, status: int, code: str
) -> None:
    page = open_page()
    call = f"client.edited(options, {text}).catch((error) => [error.status, error.code])"
    assert page.evaluate(call) == [status, code]
    assert left(page) == []


def test_a_large_edit_arrives_though_no_closed_page_could_send_it(site: Site, open_page: Open) -> None:
    page = open_page()
    receipt = page.evaluate("client.edited(options, 'long '.repeat(30000))")
    assert receipt["status"] == "edited"


def test_an_edit_of_a_response_that_was_removed(site: Site, open_page: Open) -> None:
    page = open_page()
    site.http.delete("/v1/users/ada").raise_for_status()
    page.click("text=Send")
    assert wait_until_sent(page) == ["response_removed"]
    assert left(page) == []


@pytest.mark.parametrize(("width", "button"), [(1280, "Send"), (390, "Throw away")])
def test_the_page_of_the_examples(
    tmp_path: Path, site: Site, context: Any, pages: str, width: int, button: str
) -> None:
    shutil.copy(EXAMPLE, tmp_path / "pages")
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{pages}/{EXAMPLE.name}?server={site.url}")
    page.click("text=Write a draft")
    page.wait_for_selector("#edit:visible")
    assert page.input_value("#text") == DRAFT
    page.fill("#text", "Mine.")
    page.reload()
    page.wait_for_selector("#edit:visible")
    assert page.input_value("#text") == "Mine."
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click(f"text={button}")
    page.wait_for_selector("#edit", state="hidden")
    outcome = {"Send": "edited", "Throw away": "discarded"}[button]
    page.wait_for_function(f"document.getElementById('status').textContent.includes('{outcome}')")
    (row,) = site.http.get("/v1/edits").json()["data"]
    assert row["status"] == outcome and row["edit_seconds"] > 0
    assert left(page) == [] and said == []
