"""The dashboard in a real Chromium, against a real server on loopback."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from browsers import launched
from fuzzing import body_requests
from serving import key_of, run, serving, sqlite
from site_server import Site, stub_runs

from editloop.autopilot.ledger import write_transitions
from editloop.autopilot.stages import Lineage, Stage, Transition
from editloop.edits import reads_as_code, redline
from editloop.serve.backends.base import BackendUnavailableError
from editloop.serve.dashboard import pages
from editloop.serve.loop.commands import StartEpoch
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.store.keys import create_key

PAGES = ("overview", "edits", "try", "policies", "learning", "api")
SIZES = {"desktop": (1280, 900), "phone": (375, 800)}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


Open = Callable[..., Any]


@pytest.fixture
def open_page(chromium: Any, site: Site) -> Iterator[Open]:
    """Opens a page at a size. At the end, no page may have written to its console."""
    said: list[str] = []
    contexts = []

    def opened(name: str = "overview", size: str = "desktop", expected: str = "") -> Any:
        width, height = SIZES[size]
        context = chromium.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()

        def hear(message: Any) -> None:
            if not (expected and re.search(expected, message.text)):
                said.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"a dialog: {dialog.message}"))
        page.goto(f"{site.url}/#{name}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


LOADED = {
    "overview": "svg .dot",
    "edits": ".edits-list .row",
    "try": ".beliefs table",
    "policies": ".promote button",
    "learning": ".empty-title",
    "api": "details",
}


def test_pages_are_open_and_sent_with_a_policy(tmp_path: Path) -> None:
    key_of(sqlite(tmp_path), "admin")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            page = await service.http.get("/")
            assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
            linked = re.findall(r'(?:src|href)="(dashboard/[^"]+)"', page.text)
            assert len(linked) >= 3 and "://" not in page.text
            script = await service.http.get("/dashboard/main.js")
            assert script.headers["content-type"] == "text/javascript; charset=utf-8"
            imported = re.findall(r'from "\./([^"]+)"', script.text)
            for path in [*linked, *(f"dashboard/{name}" for name in imported)]:
                answer = await service.http.get(f"/{path}")
                assert answer.status_code == 200, path
                for name, value in pages.HEADERS.items():
                    assert answer.headers[name] == value
            policy = page.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert "unsafe" not in policy and page.headers["x-content-type-options"] == "nosniff"
            for path in ("/dashboard/no.js", "/dashboard/..%2Fapp.py", "/dashboard/"):
                assert (await service.http.get(path)).status_code == 404, path
            for path in ("/v1/overview", "/app.py"):
                assert (await service.http.get(path)).status_code == 401, path

    run(work())


def test_the_scripts_parse_no_html() -> None:
    scripts = list((Path(pages.__file__).parent / "static").glob("*.js"))
    assert len(scripts) >= 8
    for file in scripts:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", file.read_text()
        )


@pytest.mark.parametrize("size", SIZES)
def test_each_page_loads(site: Site, open_page: Open, size: str) -> None:
    for i in range(3):
        site.ask(f"Letter {i}", edit=f"Hello from {'me ' * i}", user="ada")
    site.ask("x" * 5000, edit="y" * 5000, user="u" * 256)
    page = open_page(size=size)
    for name in PAGES:
        if size == "desktop":
            page.locator(f"#pages a[href='#{name}']").click()
        else:
            page.goto(f"{site.url}/#{name}")
        page.locator(LOADED[name]).first.wait_for()
        if name == "edits":
            page.locator(".row").first.click()
            page.locator(".redline").first.wait_for()
            cut = "all => all.filter(each => each.scrollWidth > each.clientWidth).length"
            assert page.locator(".redline, .facts dd, .prose").evaluate_all(cut) == 0
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, name
        assert page.locator("#pages a[aria-current]").get_attribute("href") == f"#{name}"
        unnamed = page.locator("input, select, textarea").evaluate_all(
            "all => all.filter(each => !each.labels.length).map(each => each.id)"
        )
        assert unnamed == []


def test_pages_render_what_hostile_requests_left(site: Site, open_page: Open) -> None:
    """All rows of all pages are opened. Nothing is written to the console, and no markup in texts runs."""
    response_id = site.ask(edit="Mine.", user="ada")
    for hostile in islice(body_requests(response_id), 0, None, 3):
        site.http.request(hostile.method, hostile.url, content=hostile.body)
    page = open_page()
    for name in PAGES:
        page.locator(f"#pages a[href='#{name}']").click()
        page.locator(LOADED[name]).first.wait_for()
    page.locator("#pages a[href='#edits']").click()
    page.locator(".row").first.wait_for()
    older = page.get_by_role("button", name="Show older ones")
    while older.count():
        shown = page.locator(".row").count()
        older.click()
        page.locator(".row").nth(shown).wait_for()
    shown = page.locator(".row").count()
    assert shown > 50
    page.evaluate("document.querySelectorAll('.row').forEach(each => each.click())")
    page.locator(".opened .facts").nth(shown - 1).wait_for(timeout=60_000)
    assert page.locator("#main img, .opened script").count() == 0


def test_empty_pages_help(chromium: Any, tmp_path: Path) -> None:
    site = Site(tmp_path, arms=())
    page = chromium.new_page()
    try:
        for name, text in (
            ("overview", "No policy is served yet"),
            ("edits", "No drafts yet"),
            ("try", "No policy is served yet"),
            ("policies", "No policies yet"),
        ):
            page.goto(f"{site.url}/#{name}")
            page.get_by_text(text).first.wait_for()
    finally:
        page.close()
        site.close()


def test_the_overview_tells_the_figures(site: Site, open_page: Open) -> None:
    site.ask(edit="Hello from me")  # a third of a@1's words
    site.http.post("/v1/edits", json={"response_id": site.ask(), "accepted": True})
    site.ask()
    page = open_page()
    figures = page.locator(".figures")
    figures.get_by_text("0.167").wait_for()
    assert "50%" in figures.inner_text() and "1 of 2 drafts" in figures.inner_text()
    rows = page.locator(".panel tbody tr")
    assert rows.count() == 2
    assert "33%" in rows.nth(0).inner_text() and "67%" in rows.nth(1).inner_text()
    chart = page.locator(".chart svg").first
    chart.focus()
    readout, shown = page.locator(".readout").first, ""
    for _ in range(28):  # the edits of a moment ago, seconds apart
        page.keyboard.press("ArrowLeft")
        shown += readout.inner_text() + "\n"
    assert re.search(r"mean cost 0\.(167|333)\b.*, [12] draft", shown), shown
    page.get_by_label("24 hours").check(force=True)
    figures.get_by_text("0.167").wait_for()


def test_a_late_answer_for_another_period_is_not_shown(site: Site, open_page: Open) -> None:
    site.ask(edit="Hello from me")
    page = open_page(expected="Failed to load resource")
    page.locator(".figures").wait_for()
    held: list[Any] = []
    page.route("**/v1/overview*", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/v1/overview*"):
        page.get_by_label("24 hours").check(force=True)
    with page.expect_response("**/v1/overview*"):
        page.get_by_label("30 days").check(force=True)
    held[0].abort()
    page.wait_for_timeout(300)
    assert page.locator(".problem").count() == 0 and page.locator(".figures").count() == 1


COUNT_OBSERVERS = """
    window.observers = 0;
    const { observe, disconnect } = ResizeObserver.prototype;
    ResizeObserver.prototype.observe = function (...given) {
        window.observers += 1;
        observe.apply(this, given);
    };
    ResizeObserver.prototype.disconnect = function () {
        window.observers -= 1;
        disconnect.call(this);
    };
"""


def test_a_refresh_leaves_no_chart_behind(site: Site, open_page: Open) -> None:
    site.ask(edit="Hello from me")
    page = open_page()
    page.add_init_script(COUNT_OBSERVERS)
    page.reload()
    page.locator(".figures").wait_for()
    for name in ("24 hours", "30 days", "24 hours"):
        with page.expect_response("**/v1/overview*"):
            page.get_by_label(name).check(force=True)
    page.wait_for_timeout(300)
    assert page.locator(".chart").count() == page.evaluate("window.observers") == 2


def test_a_store_that_is_down_is_reported(
    site: Site, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ask(edit="Hello")
    monkeypatch.setattr(FeedbackLoop, "down", property(lambda loop: "the store does not answer: gone"))
    page = open_page()
    shown = page.get_by_role("alert").inner_text()
    assert "The store is down" in shown and "gone" in shown


def test_a_round_of_try_it(site: Site, open_page: Open) -> None:
    page = open_page("try")
    page.get_by_label("What should be written?").fill("Write to Ada.")
    page.get_by_label("User (optional)").fill("ada")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("Written by a@1").wait_for()
    draft = page.get_by_label("Draft, to be edited in place")
    assert draft.input_value() == "Hello from a@1 "
    submit = page.get_by_role("button", name="Submit edit")
    assert submit.is_disabled()
    draft.fill("Hello from me ")
    assert page.locator(".preview del").inner_text() == "a@1"
    assert page.locator(".preview ins").inner_text() == "me"
    submit.click()
    page.get_by_text("Edit taken: cost 0.333").wait_for()
    belief = page.locator(".beliefs tr.chosen")
    assert re.sub(r"\s+", " ", belief.inner_text()) in (
        "a@1 wrote this – before, now → 0.333 0 before, now → 1",
        "a@1wrote this – before, now → 0.333 0 before, now → 1",
    )
    row = site.http.get("/v1/edits").json()["data"][0]
    assert (row["edit"], row["user"], row["cost"]) == ("Hello from me ", "ada", pytest.approx(1 / 3))
    page.get_by_role("button", name="Keep as it is").click()
    page.get_by_text("Kept as it was: cost 0.000, revision 2").wait_for()
    assert draft.input_value() == "Hello from a@1 "
    assert site.http.get("/v1/edits").json()["data"][0]["status"] == "accepted"
    draft.fill("Hello from me ")  # going back to an earlier wording is an edit of its own
    submit.click()
    page.get_by_text("Edit taken: cost 0.333, revision 3").wait_for()


def test_an_answer_that_fails_is_reported(site: Site, open_page: Open) -> None:
    page = open_page("try")
    site.do(site.loop.set_arms(StartEpoch(lambda _: ("b@2",), (), time.time())))
    site.backend.fails["b@2"] = BackendUnavailableError("error", "too late")  # after the last word
    page.get_by_label("What should be written?").fill("Write.")
    page.get_by_role("button", name="Ask").click()
    page.locator(".column .problem", has_text="could not answer").wait_for()
    assert page.get_by_role("button", name="Ask").is_enabled()


def test_a_search_and_an_opened_redline(site: Site, open_page: Open) -> None:
    for i in range(30):
        site.ask(f"Letter {i}", user=f"u{i % 2}")
    site.backend.says = lambda arm, request: "Dear Ada, the demo is on Friday."
    found = site.ask("A letter to Ada", edit="Dear Ada, the demo is on Monday.", user="ada")
    site.edit(found, "Hi Ada, the demo is on Monday.")
    page = open_page("edits")
    rows = page.locator(".edits-list .row")
    rows.nth(24).wait_for()
    assert rows.count() == 25
    page.get_by_role("button", name="Show older ones").click()
    rows.nth(30).wait_for()
    assert rows.count() == 31
    page.get_by_label("Words in a text").fill("to ada")
    page.keyboard.press("Enter")
    page.get_by_text("1 draft shown").wait_for()
    assert page.url.endswith("#edits?q=to+ada")
    rows.first.focus()
    page.keyboard.press("Enter")
    redline = page.locator(".redline")
    redline.wait_for()
    assert redline.inner_text() == "DearHi Ada, the demo is on Friday.Monday."
    assert redline.locator("del").all_inner_texts() == ["Dear", "Friday."]
    assert redline.locator("ins").all_inner_texts() == ["Hi", "Monday."]
    page.get_by_text("2 replaced, 0 deleted, 0 inserted of 7 words; cost 0.286").wait_for()
    marks = redline.locator("del").first.evaluate("each => getComputedStyle(each).textDecorationLine")
    assert marks == "line-through"
    page.get_by_label("Revision (2)").select_option(index=0)
    assert redline.locator("ins").all_inner_texts() == ["Monday."]
    assert "A letter to Ada" in page.locator(".opened").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as NDJSON").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [found]
    page.get_by_label("Status").select_option("expired")
    page.get_by_text("Nothing matches").wait_for()


def test_code_is_shown_line_by_line(site: Site, open_page: Open) -> None:
    code = "def pick(xs):\n    if not xs:\n        return -1\n    return xs[0]"
    site.ask(f"Fix this.\n{code}", edit=code, user="ada")
    for size in SIZES:
        page = open_page("edits", size)
        page.locator(".edits-list .row").first.click()
        diff = page.locator(".diff")
        diff.wait_for()
        (deleted,) = diff.locator(".deleted").all_inner_texts()
        assert deleted.startswith("Hello from")
        assert diff.locator(".inserted").all_inner_texts() == code.split("\n")
        family = "each => getComputedStyle(each).fontFamily"
        assert "monospace" in diff.evaluate(family)
        assert "monospace" in page.locator(".asked .prose").first.evaluate(family)
        # Each line is one line: a long one is scrolled to, and the page keeps its width.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_reads_as_code_does_so_for_the_server_and_the_page(open_page: Open) -> None:
    random = Random(1)
    pieces = ["def f(x):", "    return 1", "Dear Ada,", "", "}", "x = (", "plain text", "\ty;", "- a point"]
    texts = ["\n".join(random.choices(pieces, k=random.randrange(8))) for _ in range(300)]
    shown = open_page("edits").evaluate(
        """async texts => {
          const { readsAsCode } = await import("/dashboard/redline.js");
          return texts.map(readsAsCode);
        }""",
        texts,
    )
    assert shown == [reads_as_code(text) for text in texts]
    assert 30 < sum(shown) < 270


def test_a_redline_while_typing_is_that_of_the_server(open_page: Open) -> None:
    """Random texts of few words have many alignments that cost the same."""
    random = Random(0)
    texts = ["".join(random.choices("ab \n", k=random.randrange(14))) for _ in range(400)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    shown = open_page("edits").evaluate(
        """async pairs => {
          const { difference } = await import("/dashboard/redline.js");
          return pairs.map(([before, after]) => difference(before, after));
        }""",
        pairs,
    )
    assert shown == [[list(span) for span in redline(*pair)] for pair in pairs]


def test_a_key_is_asked_for_and_forgotten(
    site: Site, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editloop.serve.api.authentication.REFRESH_INTERVAL", 0.02)
    response_id = site.ask("Write to Ada.", edit="Hello")
    admin = create_key(site.loop.store, "boss", "admin")
    app = create_key(site.loop.store, "app")
    while site.http.get("/v1/models").status_code != 401:  # until the keys are read again
        time.sleep(0.05)
    page = open_page("edits", expected="401|403")
    field = page.get_by_label("Key", exact=True)
    field.fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("The last key was refused").wait_for()
    field.fill(app)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("this key may not do that").wait_for()
    page.get_by_role("button", name="Forget key").click()
    field.fill(admin)
    page.keyboard.press("Enter")
    page.locator(".row").wait_for()
    assert page.evaluate("Object.values(sessionStorage)") == [admin]
    assert page.evaluate("Object.keys(localStorage)") == [] and page.context.cookies() == []
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as NDJSON").click()
    assert json.loads(Path(download.value.path()).read_text())["id"] == response_id
    page.get_by_role("button", name="Forget key").click()
    field.wait_for()
    assert page.evaluate("Object.keys(sessionStorage)") == []
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Enter a key").click()
    field.wait_for()


def with_stages(site: Site) -> None:
    """A champion, and a policy that was rolled back out of its canary, as the autopilot writes it."""
    place = {"name": "early", "run": "nowhere", "time": 1.0, "metrics": "{}", "read_until": None}
    steps = [
        Transition("a@1", None, Stage.ARM, 1.0e9),
        Transition("a@1", Stage.ARM, Stage.CHAMPION, 1.1e9, reason="the only arm"),
        Transition("early@9", None, Stage.SHADOW, 1.2e9, lineage=Lineage(1, ("a@1",), "base", 1.0, "runs/1")),
    ]
    compared = {
        "mean": -0.05,
        "error": 0.01,
        "rounds": 90,
        "other_rounds": 300,
        "units": 9,
        "other_units": 30,
    }
    evidence = {"canary": {**compared, "interval": [-0.08, -0.02]}, "champion": "a@1"}
    evidence |= {"share": 0.2, "unit": "user", "rounds": 400, "draw": 0}
    steps += [
        Transition("early@9", Stage.SHADOW, Stage.CANARY, 1.3e9, evidence=evidence),
        Transition("early@9", Stage.CANARY, Stage.ROLLED_BACK, 1.4e9, reason="it fails", evidence=evidence),
    ]
    with site.loop.store.transaction() as connection:
        write_transitions(connection, steps, [{"arm": "early@9", **place}])


def test_learning_shows_the_evidence_and_undoes(site: Site, open_page: Open) -> None:
    page = open_page("learning")
    page.get_by_text("No policy has a stage yet").wait_for()
    with_stages(site)
    page.reload()
    row = page.locator("tr", has_text="early@9")
    row.wait_for()
    assert "rolled back" in row.inner_text() and "it fails" in row.inner_text()
    page.get_by_text("Champion: a@1.").wait_for()
    step = page.locator("li", has_text="canary → rolled back")
    step.get_by_text("Evidence").click()
    assert "-0.050 (-0.080 to -0.020), 90 and 300 costs of 9 and 30 users" in step.inner_text()
    assert "runs/1" in page.locator("li", has_text="new → shadow").text_content()
    # The move that is undone was one of the last of its policy; back to the canary is not offered as undoing.
    row.get_by_label("Move early@9 to").select_option("arm")
    row.get_by_role("button", name="Do it").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert site.loop.bandit.arms == ("a@1", "b@2")
    row.get_by_role("button", name="Do it").click()
    page.get_by_role("dialog").get_by_role("button", name="Make it an arm").click()
    page.get_by_text("early@9 is now: arm.").wait_for()
    assert site.loop.bandit.arms == ("a@1", "b@2", "early@9")
    page.get_by_role("button", name="Undo: a@1 back to arm").click()
    page.get_by_role("dialog").get_by_role("button", name="Make it an arm").click()
    page.get_by_text("No champion yet.").wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("The autopilot is paused.").wait_for()
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Pause").wait_for()


def test_promote_and_retire(site: Site, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_runs(monkeypatch)
    page = open_page("policies", expected="409")
    page.get_by_text("Without a run folder").wait_for()
    page.get_by_label("Run folder").fill("/runs/one")
    page.get_by_role("button", name="Promote", exact=True).click()
    shown = page.locator(".promote .problem")
    shown.wait_for()
    assert "offline evaluation advises against it: dpo@dpodpo" in shown.inner_text()
    page.get_by_role("button", name="Promote all the same").click()
    page.get_by_text("Epoch 2 plays a@1, b@2, sft@sftsft, dpo@dpodpo.").wait_for()
    assert set(site.backend.prepared) == {"sft@sftsft", "dpo@dpodpo"}
    row = page.locator("tr", has_text="dpo@dpodpo")
    row.wait_for()
    for text in ("played", "0.750 ± 0.020", "base 0.500 ± 0.010", "likelihood falls", "no edits yet"):
        assert text in row.inner_text()
    row.get_by_role("button", name="Retire dpo@dpodpo").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    assert "dpo@dpodpo" in site.loop.bandit.arms
    row.get_by_role("button", name="Retire dpo@dpodpo").click()
    dialog.get_by_role("button", name="Retire").click()
    page.get_by_text("dpo@dpodpo is retired; epoch 3").wait_for()
    assert site.loop.bandit.arms == ("a@1", "b@2", "sft@sftsft")
    page.locator("tr.retired", has_text="dpo@dpodpo").wait_for()
    page.get_by_label("Run folder").fill("/runs/two")
    page.get_by_label("Policies (optional)").fill("early, sft")
    page.get_by_label("Retire all other policies").check()
    page.get_by_label("Even if offline evaluation").check()
    page.get_by_role("button", name="Promote", exact=True).click()
    page.get_by_text("Epoch 4 plays early@earlyearly, sft@sftsft.").wait_for()


def test_the_last_arm_stays(site: Site, open_page: Open) -> None:
    site.do(site.loop.set_arms(StartEpoch(lambda _: ("a@1",), (), time.time())))
    page = open_page("policies", expected="409")
    page.get_by_role("button", name="Retire a@1").click()
    page.get_by_role("dialog").get_by_role("button", name="Retire").click()
    page.get_by_text("no arm would be left").wait_for()


ATTACK = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>bold</b>"


def test_markup_in_texts_stays_text(site: Site, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_runs(monkeypatch)
    site.backend.says = lambda arm, request: f"{ATTACK} by {arm}"
    site.ask(ATTACK, edit=f"{ATTACK} edited", user=ATTACK)
    site.ask(ATTACK, user=ATTACK, messages=[{"role": "system", "content": ATTACK}])
    triple = {"context": ATTACK, "response": "x", "edit": ATTACK, "policy": ATTACK}
    site.http.post("/v1/edits", json=triple).raise_for_status()
    run_name = {"run": f"/runs/{ATTACK}", "policies": ["sft"]}
    site.http.post("/v1/arms", json=run_name).raise_for_status()
    page = open_page("overview")

    def check(place: str) -> None:
        assert page.locator("main img, main script, main b").count() == 0, place
        assert "owned" not in page.title(), place

    page.locator(LOADED["overview"]).first.wait_for()
    check("overview")
    page.goto(f"{site.url}/#edits?q=%3Cscript")
    rows = page.locator(".row")
    rows.nth(2).wait_for()
    for i in range(3):
        rows.nth(i).click()
        page.locator(".opened").nth(i).locator(".redline").wait_for()
    assert ATTACK in page.locator(".opened").nth(0).inner_text()
    check("edits")
    page.goto(f"{site.url}/#try")
    page.get_by_label("What should be written?").fill(ATTACK)
    page.get_by_label("User (optional)").fill(ATTACK)
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("Written by").wait_for()
    page.get_by_label("Draft, to be edited in place").fill(f"{ATTACK}!")
    page.locator(".preview ins").first.wait_for()
    page.get_by_role("button", name="Submit edit").click()
    page.locator(".result").wait_for()
    assert f"For {ATTACK}" in page.locator(".beliefs").inner_text()
    check("try")
    page.goto(f"{site.url}/#policies")
    page.get_by_text(f"/runs/{ATTACK}").first.wait_for()
    check("policies")
