"""The script for pages by itself, in a real Chromium with a clock of the test's own; the server is played."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from browsers import launched, static_site

SCRIPT = files("editloop.serve.api").joinpath("static", "client.js")
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>A page</title>
<textarea id="text"></textarea><div id="free" contenteditable></div><input id="line">
<script type="module">
  import * as client from "./client.js";
  const target = { server: "https://server.test/", responseId: "r1", token: "elt-x.1.r1" };
  const errors = [];
  Object.assign(window, { client, target, errors, attach: (id, draft, more) =>
    (window.attached = client.attach(document.getElementById(id), { ...target, draft, ...more })) });
  document.body.dataset.ready = "";
</script>"""

RECEIPT = {
    "response_id": "r1",
    "revision": 1,
    "status": "edited",
    "cost": 0.5,
    "policy": "a",
    "repeated": False,
}


def test_the_script_is_small() -> None:
    assert len(SCRIPT.read_bytes()) < 5000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "page.html").write_text(PAGE, encoding="utf-8")
    shutil.copy(str(SCRIPT), folder / "client.js")
    with static_site(folder) as origin:
        yield origin


class Played:
    """A page, and what its server was sent; `answers` are given in their order, the last one for ever."""

    def __init__(self, context: Any, address: str) -> None:
        self.context, self.address = context, address
        self.received: list[dict[str, Any]] = []
        self.requests: list[Any] = []
        self.answers: list[tuple[int, dict[str, Any]]] = [(200, RECEIPT)]
        context.route("https://server.test/**", self._answer)
        self.page = self.open()

    def open(self) -> Any:
        page = self.context.new_page()
        page.clock.install(time=1_700_000_000)
        page.clock.pause_at(1_700_000_001)
        page.goto(self.address)
        page.wait_for_selector("[data-ready]")
        # The pauses of the script in milliseconds: the clock is moved on only once it is waited for.
        page.evaluate(
            """() => {
              const { setTimeout } = window;
              window.pauses = [];
              window.setTimeout = (run, pause) => setTimeout(run, pause, pauses.push(pause));
            }"""
        )
        self.page = page
        return page

    def wait_for_pauses(self, number: int) -> list[float]:
        self.page.wait_for_function(f"pauses.length >= {number}")
        found: list[float] = self.page.evaluate("pauses")
        return found

    def _answer(self, route: Any) -> None:
        self.requests.append(route.request)
        self.received.append(json.loads(route.request.post_data))
        status, body = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if not status:
            route.abort("connectionrefused")
            return
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
        wait = body.pop("wait", None)
        headers |= {"Retry-After": wait} if wait else {}
        route.fulfill(status=status, json=body, headers=headers)

    def pass_time(self, seconds: float) -> None:
        self.page.clock.run_for(round(1000 * seconds))

    def work(self, where: str = "#text") -> None:
        self.page.dispatch_event(where, "keydown")

    def type(self, text: str, where: str = "#text") -> None:
        self.page.fill(where, text)

    def submit(self) -> Any:
        return self.page.evaluate("attached.submit()")

    def hide(self, hidden: bool) -> None:
        self.page.evaluate(
            """(hidden) => {
              Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    def left(self) -> list[str]:
        found: list[str] = self.page.evaluate(
            "[...Object.keys(localStorage), ...Object.keys(sessionStorage)]"
        )
        return found


@pytest.fixture
def played(chromium: Any, pages: str) -> Iterator[Played]:
    context = chromium.new_context()
    context.set_default_timeout(15_000)
    yield Played(context, f"{pages}/page.html")
    context.close()


def test_what_is_sent(played: Played) -> None:
    played.page.evaluate("attach('text', 'The draft.')")
    assert played.page.input_value("#text") == "The draft."
    played.type("Mine.")
    assert played.submit() == RECEIPT
    (body,), (request,) = played.received, played.requests
    key = body.pop("key")
    assert len(key) == 32 and int(key, 16) > 0
    assert body == {"response_id": "r1", "token": "elt-x.1.r1", "edit": "Mine.", "seconds": 0}
    assert request.url == "https://server.test/v1/edits" and request.method == "POST"
    # A request that no browser asks permission for first: a text, without a header of its own.
    assert request.headers["content-type"] == "text/plain;charset=UTF-8"
    assert "authorization" not in request.headers
    assert played.left() == []


@pytest.mark.parametrize(
    ("draft", "where"),
    [
        ("One.\r\nTwo.", "text"),
        ("Two  spaces,\n\na line,\tand a tab ", "free"),
        ("a\n", "free"),
        ("<b>no markup</b> &amp;", "free"),
        ("", "free"),
        ("One line", "line"),
    ],
)
def test_what_a_browser_does_to_a_draft_is_no_edit(played: Played, draft: str, where: str) -> None:
    played.page.evaluate("([where, draft]) => { attach(where, draft) }", [where, draft])
    played.submit()
    assert played.received[0]["accepted"] is True and "edit" not in played.received[0]


def test_an_editor_that_was_emptied_has_no_text(played: Played) -> None:
    played.page.evaluate("attach('free', 'The draft.') && null")
    played.page.click("#free")
    played.page.keyboard.press("Control+A")
    played.page.keyboard.press("Delete")
    played.submit()
    assert played.received[0]["edit"] == ""


def test_lines_of_an_editor_are_lines_of_the_edit(played: Played) -> None:
    played.page.evaluate("attach('free', 'One.') && null")
    played.page.click("#free")
    for keys in ("Control+End", "Enter", "T", "w", "o", "Enter", "Enter", "3"):
        played.page.keyboard.press(keys)
    played.submit()
    assert played.received[0]["edit"] == "One.\nTwo\n\n3"


def test_the_time_of_work(played: Played) -> None:
    played.page.evaluate("attach('text', 'The draft.') && null")
    played.pass_time(10)
    played.work()  # 10 s of reading
    played.pass_time(100)
    played.work()  # of a long pause 30 s
    played.pass_time(2.5)
    played.hide(True)  # 2.5 s
    played.pass_time(500)
    played.hide(False)
    played.pass_time(1)
    played.type("Mine.")  # 1 s
    played.submit()
    assert played.received[0]["seconds"] == 43.5
    played.pass_time(4)
    played.type("Mine, too.")
    played.submit()
    assert played.received[1]["seconds"] == 4  # since the revision before


def test_the_time_goes_on_after_a_reload(played: Played) -> None:
    played.page.evaluate("attach('text', 'The draft.') && null")
    played.pass_time(7)
    played.type("Mine")
    played.pass_time(1)  # within which the text is kept
    assert played.left() == ["editloop:draft:r1"]
    played.page.reload()
    played.page.wait_for_selector("[data-ready]")
    played.page.evaluate("attach('text', 'The draft.') && null")
    # A textarea without a form: the reload has put it into the outbox, with the time up to then.
    wait_for(played, 1)
    assert (played.received[0]["edit"], played.received[0]["seconds"]) == ("Mine", 8)
    assert played.page.input_value("#text") == "Mine"
    played.pass_time(3)
    played.type("Mine.")
    played.submit()
    assert (played.received[-1]["edit"], played.received[-1]["seconds"]) == ("Mine.", 3)
    assert played.left() == []


def test_kept_instead_of_sent(played: Played) -> None:
    played.page.evaluate("attach('text', 'The draft.', { onLeave: 'keep' }) && null")
    played.pass_time(7)
    played.type("Mine")
    played.page.reload()
    played.page.wait_for_selector("[data-ready]")
    played.page.evaluate("attach('text', 'The draft.', { onLeave: 'keep' }) && null")
    assert played.page.input_value("#text") == "Mine" and played.received == []
    played.pass_time(3)
    played.submit()
    assert (played.received[0]["edit"], played.received[0]["seconds"]) == ("Mine", 10)


def test_a_text_that_returns_to_the_draft_after_it_was_sent_is_accepted(played: Played) -> None:
    played.page.evaluate("attach('text', 'The draft.') && null")
    played.type("Mine.")
    played.page.evaluate("attached.detach()")
    played.page.evaluate("attach('text', 'The draft.') && null")
    played.type("The draft.")
    played.page.evaluate("attached.detach()")
    played.page.wait_for_function("!localStorage.length")
    assert ["edit" in each or each["accepted"] for each in played.received] == [True, True]
    assert played.received[1]["accepted"] is True


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("One.<div>Two.</div><div><br></div><div>Three.</div>", "One.\nTwo.\n\nThree."),
        ("<div>One.</div><div>Two.</div>", "One.\nTwo."),
        ("One.<br>Two.<br><br>Three.", "One.\nTwo.\n\nThree."),
        ("One.<br>", "One."),
        ("<p>One <b>bold</b> word.</p>and more", "One bold word.\nand more"),
        ("<ul><li>a</li><li>b<br>c</li></ul>", "a\nb\nc"),
        ("<br>", ""),
        ("<div><br></div>", ""),
        ("One\nTwo  &lt;b&gt;", "One\nTwo  <b>"),
    ],
)
def test_the_text_of_an_editor(played: Played, markup: str, text: str) -> None:
    played.page.evaluate("attach('free', 'The draft.') && null")
    played.page.evaluate("(markup) => (document.getElementById('free').innerHTML = markup)", markup)
    played.submit()
    assert played.received[0]["edit"] == text


@pytest.mark.parametrize("status", [0, 404, 408, 429, 500, 503])
def test_what_may_pass_is_tried_again_ever_more_rarely(played: Played, status: int) -> None:
    problem = {"error": {"message": "Come again.", "code": "x"}}
    played.answers = [(status, problem)] * 4 + [(200, RECEIPT)]
    played.page.evaluate("(client.accepted(target, 2).then((receipt) => (window.done = receipt)), null)")
    for number, pause in enumerate((1, 2, 4, 8), start=1):
        assert played.wait_for_pauses(number)[-1] == 1000 * pause
        played.pass_time(pause - 0.01)
        assert len(played.received) == number
        played.pass_time(0.02)
    played.page.wait_for_function("window.done")
    assert len({each["key"] for each in played.received}) == 1 and len(played.received) == 5
    assert played.left() == []


def wait_for(played: Played, number: int) -> None:
    """Wait until the server has received so many requests."""
    for _ in range(1000):
        if len(played.received) >= number:
            return
        played.page.wait_for_timeout(10)
    raise AssertionError(f"{len(played.received)} requests")


def test_the_server_says_when_to_come_again(played: Played) -> None:
    played.answers = [(429, {"wait": "20"}), (200, RECEIPT)]
    played.page.evaluate("(client.accepted(target), null)")
    assert played.wait_for_pauses(1) == [20_000]
    played.pass_time(20)
    wait_for(played, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 409, 410, 413])
def test_what_is_refused_for_good_is_not_sent_again(played: Played, status: int) -> None:
    played.answers = [(status, {"error": {"message": "No.", "code": "refused"}})]
    said = "client.discarded(target).catch((error) => [error.message, error.status, error.code])"
    assert played.page.evaluate(said) == ["No.", status, "refused"]
    played.pass_time(1000)
    assert len(played.received) == 1 and played.left() == []


def test_an_answer_that_is_not_the_servers(played: Played) -> None:
    played.context.route("https://server.test/**", lambda route: route.fulfill(
        status=403, body="<h1>A proxy</h1>", headers={"Access-Control-Allow-Origin": "*"}
    ))  # fmt: skip
    said = "client.accepted(target).catch((error) => [error.message, error.status])"
    assert played.page.evaluate(said) == ["The server answered with status 403.", 403]


def test_revisions_of_a_response_arrive_in_their_order(played: Played) -> None:
    played.answers = [(503, {}), (200, RECEIPT)]
    played.page.evaluate("(client.edited(target, 'first'), client.edited(target, 'second'), null)")
    other = "client.edited({ ...target, responseId: 'r2' }, 'other')"
    played.page.evaluate(other)  # of another response, which does not wait
    played.wait_for_pauses(1)
    played.pass_time(1.1)
    played.page.wait_for_function("!localStorage.length")
    assert [each["edit"] for each in played.received] == ["first", "other", "first", "second"]


def test_an_old_edit_is_given_up(played: Played) -> None:
    played.answers = [(404, {"error": {"code": "response_not_found", "message": "no such response"}})]
    letter = {"server": "https://server.test", "body": {"response_id": "r1", "key": "k", "accepted": True}}
    for hours, kept in ((0.9, 1), (1.1, 0)):
        old = {**letter, "time": 1_700_000_001_000 - 3_600_000 * hours}
        played.page.evaluate(
            "(letter) => localStorage.setItem('editloop:send:k', JSON.stringify(letter))", old
        )
        played.page.evaluate("client.resend()")
        if kept:
            played.wait_for_pauses(1)
        else:
            played.page.wait_for_function("!localStorage.length")
        assert len(played.left()) == kept
        played.open()


def test_without_storage_an_edit_is_sent_all_the_same(played: Played) -> None:
    played.page.evaluate(
        """() => {
          const refuse = { get() { throw new DOMException("no", "SecurityError"); } };
          for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, refuse);
        }"""
    )
    played.page.evaluate("attach('text', 'The draft.') && null")
    played.type("Mine.")
    played.pass_time(1)
    assert played.submit() == RECEIPT


def test_what_is_in_the_outbox_may_be_nonsense(played: Played) -> None:
    played.page.evaluate("localStorage.setItem('editloop:send:x', '{')")
    played.page.evaluate("sessionStorage.setItem('editloop:draft:r1', 'no JSON')")
    played.page.evaluate("attach('text', 'The draft.') && null")
    played.submit()
    assert played.received[0]["accepted"] is True


def test_a_detached_element_is_not_watched(played: Played) -> None:
    played.page.evaluate("attach('text', 'The draft.', { onLeave: 'keep' }) && attached.detach()")
    played.type("Mine.")
    played.pass_time(1)
    kept = json.loads(played.page.evaluate("sessionStorage.getItem('editloop:draft:r1')"))
    assert kept["text"] == "The draft." and played.received == []
