"""The dashboard's pages for admins in a real Chromium: users, keys, what admins did, periods and reasons."""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from browsing import LOADED, PAGES, SIZES, Open
from site_server import Site
from sqlalchemy import update

from editloop.edits import redline
from editloop.edits.cost import get_cost
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.problem import store_unavailable
from editloop.store.keys import create_key, revoke_key
from editloop.store.schema import drafts, events

ATTACK = "<img src=x onerror=\"document.title='owned'\"> & <b>bold</b>"


def violations(page: Any) -> list[str]:
    """What axe finds wrong with a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def overlaps(page: Any) -> int:
    """How many pairs of texts in drawings lie over each other."""
    return int(
        page.evaluate(
            """() => {
              const texts = [...document.querySelectorAll("svg text")];
              const all = texts.map((each) => each.getBoundingClientRect());
              const meet = (a, b) =>
                a.left < b.right && b.left < a.right && a.top < b.bottom - 3 && b.top < a.bottom - 3;
              return all.flatMap((a, i) => all.slice(i + 1).filter((b) => meet(a, b))).length;
            }"""
        )
    )


def spread(site: Site, ids: list[str], seconds: float) -> None:
    """Move rounds apart in time, the first one the farthest back."""
    now = time.time()
    with site.loop.store.writer.begin() as connection:
        for i, response_id in enumerate(ids):
            moment = now - seconds * (1 - (i + 0.5) / len(ids))
            for table in (drafts, events):
                which = table.c.response_id == response_id
                connection.execute(update(table).where(which).values(time=moment))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing(site: Site, open_page: Open, size: str, scheme: str) -> None:
    for i in range(3):
        site.ask(f"Letter {i}", edit=f"Hello from {'me ' * i}", user="ada", metadata={})
    site.http.put(f"/v1/edits/{site.ask(edit='Hi')}/reason", json={"reason": "#tone"})
    page = open_page(size=size, color_scheme=scheme)
    for name in PAGES:
        page.goto(f"{site.url}/#{name}")
        page.locator(LOADED[name]).first.wait_for()
        if name == "edits":
            page.locator(".row").first.click()
            page.locator(".sum").first.wait_for()
        if name == "users":
            page.get_by_role("button", name="Forget ada").click()
            assert violations(page) == []
            page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        if name in ("overview", "edits", "users"):
            page.get_by_label("Dates", exact=True).check(force=True)
        assert violations(page) == [], name


def test_users_are_searched_sorted_and_forgotten(site: Site, open_page: Open) -> None:
    site.ask("My secret", edit="Hello from", user=ATTACK)
    for i in range(30):
        site.ask(user=f"user{i:02d}", **({"edit": "Mine."} if i == 7 else {}))
    page = open_page("users")
    rows = page.locator("tbody tr")
    rows.nth(24).wait_for()
    assert rows.count() == 25 and "1 to 25 of 31 users." in page.locator("main").inner_text()
    page.get_by_role("button", name="Next").press("Enter")
    page.get_by_text("26 to 31 of 31 users.").wait_for()
    assert page.get_by_role("button", name="Next").is_disabled()
    page.get_by_label("Sorted by").select_option("Highest cost")
    page.get_by_text("1 to 25 of 31 users.").wait_for()
    assert "user07" in rows.first.inner_text() and "1.00" in rows.first.inner_text()
    page.get_by_label("Part of a name").fill("ONERROR")
    page.keyboard.press("Enter")
    page.get_by_text("1 to 1 of 1 user.").wait_for()
    assert page.url.endswith("#users?q=ONERROR&sort=high")
    assert ATTACK in rows.first.inner_text() and page.locator("main img, main b").count() == 0
    page.get_by_role("button", name=f"Forget {ATTACK}").click()
    dialog = page.get_by_role("dialog")
    assert ATTACK in dialog.inner_text()
    page.keyboard.press("Escape")
    assert site.http.get("/v1/users").json()["total"] == 31
    page.get_by_role("button", name=f"Forget {ATTACK}").click()
    dialog.get_by_role("button", name="Forget", exact=True).click()
    page.get_by_text("is forgotten: the texts of 1 round are removed.").wait_for()
    page.get_by_text("No such user").wait_for()
    assert site.http.get("/v1/users").json()["total"] == 30
    page.get_by_label("Part of a name").fill("user07")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="user07").click()
    page.get_by_text("1 draft shown").wait_for()
    assert page.url.endswith("#edits?user=user07") and "owned" not in page.title()


def test_a_key_is_shown_once_and_revoked(site: Site, open_page: Open) -> None:
    page = open_page("access", expected="409")
    page.get_by_text("No keys").wait_for()
    page.get_by_label("Name", exact=True).fill("boss")
    assert page.get_by_label("Role").locator("option").all_inner_texts() == ["admin: may do everything"]
    page.get_by_role("button", name="Make a key").click()
    key = page.get_by_label("New key").input_value()
    assert key.startswith("el-")
    assert page.evaluate("Object.values(sessionStorage)") == [key]  # the page goes on with it
    page.get_by_label("Name", exact=True).fill(ATTACK)
    page.get_by_label("Role").select_option("app")
    page.get_by_role("button", name="Make a key").click()
    page.get_by_role("button", name=f"Revoke {ATTACK}").wait_for()
    assert page.locator("main img, main b").count() == 0
    page.get_by_role("button", name="Revoke boss").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    page.get_by_text("it is the last admin key").wait_for()
    page.get_by_role("button", name=f"Revoke {ATTACK}").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    page.get_by_text(f"{ATTACK} is revoked.").wait_for()
    deeds = page.locator(".deed")
    page.get_by_text("revoked the key").first.wait_for()
    assert [re.split(" (?=boss|<img)", text)[0] for text in deeds.all_inner_texts()] == [
        "revoked the key",
        "made the key",
        "made the key",
    ]
    page.get_by_label("What", exact=True).select_option("create key")
    page.locator(".deed", has_text="revoked").wait_for(state="detached")
    assert deeds.count() == 2
    page.reload()
    page.get_by_role("button", name="Revoke boss").wait_for()
    assert page.get_by_label("New key").count() == 0 and key not in page.content()


def test_a_key_that_is_revoked_while_a_page_is_open(
    site: Site, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editloop.serve.api.authentication.REFRESH_INTERVAL", 0.02)
    site.ask(user="ada")
    keys = {name: create_key(site.loop.store, name, "admin") for name in ("old", "new")}
    while site.http.get("/v1/models").status_code != 401:
        time.sleep(0.05)
    page = open_page("users", expected="401")
    field = page.get_by_label("Key", exact=True)
    field.fill(keys["old"])
    page.keyboard.press("Enter")
    page.get_by_role("link", name="ada").wait_for()
    revoke_key(site.loop.store, "old")
    old = {"Authorization": f"Bearer {keys['old']}"}
    while site.http.get("/v1/models", headers=old).status_code != 401:
        time.sleep(0.05)
    page.get_by_label("Sorted by").select_option("Name")
    page.get_by_text("The last key was refused: an unknown or revoked key").wait_for()
    field.fill(keys["new"])
    page.keyboard.press("Enter")
    page.get_by_role("link", name="ada").wait_for()
    page.locator("#pages a[href='#access']").click()
    page.locator("tr", has_text="new").get_by_text("yours").wait_for()


def test_an_app_key_is_told_what_it_may_do(
    site: Site, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No page sends a request that this key may not send: the console would show its 403."""
    monkeypatch.setattr("editloop.serve.api.authentication.REFRESH_INTERVAL", 0.02)
    create_key(site.loop.store, "boss", "admin")
    app = create_key(site.loop.store, "shop")
    while site.http.get("/v1/models").status_code != 401:
        time.sleep(0.05)
    page = open_page("api")
    page.evaluate("key => sessionStorage.setItem('editloop-key', key)", app)
    for name in PAGES:
        page.goto(f"{site.url}/#{name}")
        page.reload()
        if name in ("try", "api"):
            continue
        page.get_by_text("This page needs an admin key.").wait_for()
        assert "The key “shop” has the role app" in page.locator("main").inner_text()
        assert violations(page) == []
    page.goto(f"{site.url}/#try")
    page.get_by_text("drafts and edits work all the same").wait_for()
    page.get_by_label("What should be written?").fill("Write.")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("Written by a@1").wait_for()
    page.get_by_label("Draft, to be edited in place").fill("Hello from me ")
    page.get_by_role("button", name="Submit edit").click()
    page.get_by_text("Edit taken: cost 0.333").wait_for()


def test_a_period_holds_for_all_pages(site: Site, open_page: Open) -> None:
    ids = [site.ask(f"Letter {i}", edit="Hello", user=f"user{i}") for i in range(6)]
    spread(site, ids, 6 * 86_400)
    page = open_page()
    page.locator(".figures").get_by_text("6", exact=True).first.wait_for()
    page.get_by_label("24 hours").check(force=True)
    page.locator(".totals .figure", has_text="Drafts").get_by_text("1", exact=True).wait_for()
    page.locator(".sheet tbody tr").wait_for()
    assert page.url.endswith("#overview?period=day")
    page.locator("#pages a[href='#edits']").click()
    page.get_by_text("1 draft shown").wait_for()
    page.locator("#pages a[href='#users']").click()
    page.get_by_text("1 to 1 of 1 user.").wait_for()
    page.get_by_label("Dates", exact=True).check(force=True)
    page.get_by_role("button", name="Show", exact=True).click()
    page.get_by_text("Give one of the two times.").wait_for()
    start = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() - 3 * 86_400))
    page.get_by_label("From").fill(start)
    page.get_by_role("button", name="Show", exact=True).click()
    page.get_by_text("1 to 3 of 3 users.").wait_for()
    page.get_by_label("Until").fill("2000-01-01T00:00")
    page.get_by_role("button", name="Show", exact=True).click()
    page.get_by_text("The period must begin before it ends.").wait_for()
    page.goto(f"{site.url}/#edits?to={start}&user=user0")
    page.reload()
    page.get_by_text("1 draft shown").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 2 and lines[1].startswith(ids[0])


def test_a_reason_is_given_and_found(site: Site, open_page: Open) -> None:
    site.ask("Letter", edit="Hello from me", user="ada")
    page = open_page("edits")
    page.locator(".row").click()
    page.get_by_label("Why it was edited").fill(f"{ATTACK} #tone")
    page.keyboard.press("Enter")
    page.get_by_text("Saved.").wait_for()
    page.get_by_label("Words in a text").fill("#tone")
    page.keyboard.press("Enter")
    page.get_by_text(f"Why: {ATTACK} #tone").wait_for()
    assert page.locator("main img, main b").count() == 0
    page.locator(".row").click()
    assert page.get_by_label("Why it was edited").input_value() == f"{ATTACK} #tone"
    assert re.sub(r"\s+", " ", page.locator(".sum").inner_text()) == (
        "1 replaced 0.333 + 0 deleted 0.000 + 0 inserted 0.000 = 0.333"
    )


@pytest.mark.parametrize("size", SIZES)
def test_one_outlier_does_not_flatten_the_chart(site: Site, open_page: Open, size: str) -> None:
    ids = [site.ask(f"Letter {i}", edit="Hello from me") for i in range(24)]
    spread(site, ids, 6.9 * 86_400)
    with site.loop.store.writer.begin() as connection:
        which = (events.c.response_id == ids[9]) & (events.c.revision == 1)
        connection.execute(update(events).where(which).values(cost=40.0))
    page = open_page(size=size)
    page.get_by_text("1 value is above the axis, up to 40.0").wait_for()
    chart = page.locator(".chart").first
    chart.locator("path.cut").wait_for()
    labels = chart.locator("text.tick:not(.along)").all_text_contents()
    assert max(map(float, labels)) <= 1.0
    heights = chart.locator("circle.dot").evaluate_all(
        "all => all.map(each => Number(each.getAttribute('cy')))"
    )
    assert max(heights) < 190  # of 250: the other costs are far above the axis' beginning
    assert overlaps(page) == 0
    page.get_by_label("30 days").check(force=True)
    page.wait_for_timeout(500)
    assert overlaps(page) == 0


def test_the_top_of_an_axis(open_page: Open) -> None:
    shown = open_page("api").evaluate(
        """async cases => {
          const { axisTop } = await import("/dashboard/chart.js");
          return cases.map((each) => axisTop(each));
        }""",
        [
            [],
            [0.5],
            [0.1, 9],
            [0.2, 0.3, 9],
            [0, 0, 5],
            [0.1] * 28 + [8, 9],
            [0.1] * 28 + [7, 8, 9, 9],
            [1, 2, 3],
        ],
    )
    assert [(each["top"], each["cut"]) for each in shown] == [
        (1, 0),
        (0.5, 0),
        (9, 0),  # of two values, neither is the outlier
        (0.3, 1),
        (5, 0),  # nothing is three times more than nothing
        (0.1, 2),
        (9, 0),  # more than a tenth
        (3, 0),
    ]


@pytest.mark.parametrize(
    "name", ["alignment:char", "alignment:code", "levenshtein:word/none", "levenshtein:code/none"]
)
def test_a_redline_while_typing_is_aligned_as_the_cost(open_page: Open, name: str) -> None:
    random = Random(0)
    texts = ["".join(random.choices("ab \n(_é", k=random.randrange(14))) for _ in range(400)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    breakdown = get_cost(name).breakdown
    assert breakdown is not None
    alignment = {"unit": breakdown.unit, "weights": breakdown.weights}
    shown = open_page("api").evaluate(
        """async ([pairs, alignment]) => {
          const { difference } = await import("/dashboard/redline.js");
          return pairs.map(([before, after]) => difference(before, after, alignment));
        }""",
        [pairs, alignment],
    )
    assert shown == [[list(span) for span in redline(*pair, breakdown(*pair))] for pair in pairs]


def test_a_store_that_goes_away(site: Site, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ask(user="ada", edit="Hello")
    page = open_page("users", expected="503")
    page.get_by_role("link", name="ada").wait_for()

    async def gone(*_: object, **__: object) -> None:
        raise store_unavailable("the store does not answer: gone")

    monkeypatch.setattr(FeedbackLoop, "read", gone)
    for name in ("users", "edits", "access", "policies", "learning"):
        page.goto(f"{site.url}/#{name}")
        page.reload()
        page.get_by_text("the store does not answer: gone").first.wait_for()
        assert violations(page) == []


def test_empty_pages_for_admins(site: Site, open_page: Open) -> None:
    page = open_page("users")
    page.get_by_text("No users in this period").wait_for()
    page.goto(f"{site.url}/#access")
    page.get_by_text("Nothing here").wait_for()
    page.goto(f"{site.url}/#users?sort=mood&from=yesterday&period=century")
    page.reload()
    page.get_by_text("No users in this period").wait_for()


def test_the_keyboard_alone(site: Site, open_page: Open) -> None:
    """From the top of the page to a user, who is forgotten, without a pointer."""
    site.ask(user="ada")
    page = open_page("users")
    page.get_by_role("link", name="ada").wait_for()
    page.evaluate("document.body.focus()")
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
            )
        )
        if seen[-1] == "Forget ada":
            break
    assert seen[0] == "Skip to the content" and seen[-1] == "Forget ada"
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_text("ada is forgotten").wait_for()
