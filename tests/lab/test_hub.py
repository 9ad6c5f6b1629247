"""Real texts, read by the same code from folders that stand for datasets of the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from editloop.edits import Record
from editloop.errors import ConfigError
from editloop.lab import DOMAINS, HubTexts, Source, base_path, get_domain, make_log, stream_log
from editloop.policy import load_base
from editloop.users import StyleUser, edit_all

LONG = " ".join(f"word{i}" for i in range(30))


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Source]:
    for kind in ("news", "movie"):
        folder = tmp_path / kind
        folder.mkdir()
        rows = [{"title": f"{kind} {i}", "parts": [LONG, "end"], "none": None} for i in range(60)]
        rows.append({"title": "short", "parts": [], "none": None})
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "news": Source(str(tmp_path / "news"), ("title", "parts", "none"), "brief"),
        "movie": Source(str(tmp_path / "movie"), ("title", "parts", "none"), "as questions"),
    }


def test_texts_become_contexts_with_a_kind_and_a_style(sources: dict[str, Source]) -> None:
    world = HubTexts("summary", sources)
    first = list(islice(world.contexts(0), 20))
    assert {world.kind(context) for context in first} == {"news", "movie"}
    for context in first:
        assert f"{world.kind(context)} " in context
        assert LONG in context
        assert context.endswith("Summarise this article.")
        assert world.describe(context) == sources[world.kind(context)].style
    assert first == list(islice(HubTexts("summary", sources).contexts(0), 20))
    assert first != list(islice(world.contexts(1), 20))
    with pytest.raises(ConfigError, match="not a context of the summary texts"):
        world.kind("something else")
    other = HubTexts("summary", sources)  # that never drew them, but reads the log
    logged = [Record(context=c, response="x", edit="y", metadata={"kind": world.kind(c)}) for c in first]
    other.remember([*logged, Record(context="odd", response="x", edit="y", metadata={"kind": "poem"})])
    assert [other.describe(context) for context in first] == [world.describe(context) for context in first]
    with pytest.raises(ConfigError, match="not a context"):
        other.kind("odd")


def test_no_text_is_in_two_streams_and_short_ones_are_in_none(sources: dict[str, Source]) -> None:
    world = HubTexts("summary", sources)
    parts = [set(world.contexts(0, stream=stream)) for stream in ("log", "evaluation", "online")]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts)) <= 120
    assert not any("short" in context for context in set.union(*parts))
    assert len(parts[0]) > len(parts[1]) + len(parts[2])


def test_the_kinds_are_those_of_the_lab() -> None:
    for name in DOMAINS.built_in:
        domain = get_domain(name)
        assert set(domain.hub) in (set(), set(domain.styles)) and "{text}" in domain.task
    with pytest.raises(ConfigError, match="unknown domain"):
        HubTexts("poems")
    DOMAINS.register("letters", replace(get_domain("email"), name="letters", hub={}))
    with pytest.raises(ConfigError, match="names no texts on the hub: 'letters'"):
        HubTexts("letters")


def test_what_cannot_be_downloaded_is_one_line(tmp_path: Path) -> None:
    gone = {"news": Source(str(tmp_path / "gone"), ("title",), "brief")}
    with pytest.raises(ConfigError, match="cannot be read") as failure:
        next(HubTexts("summary", gone).contexts(0))
    assert "\n" not in str(failure.value)
    assert "hub" in str(failure.value)


def test_a_column_that_is_gone_is_reported(sources: dict[str, Source]) -> None:
    changed = {"news": sources["news"]._replace(fields=("article",))}
    with pytest.raises(ConfigError, match="KeyError: 'article'"):
        next(HubTexts("summary", changed).contexts(0))


class Shouting:
    """Edits at once."""

    name = "shouting"
    settings: Mapping[str, object] = {}

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        return response.upper()

    def edit_many(self, contexts: list[str], responses: list[str]) -> list[str]:
        self.at_once = len(contexts)
        return [response.upper() + "!" for response in responses]


def test_users_who_can_edit_at_once_do() -> None:
    user = Shouting()
    assert edit_all(user, ["x", "y"], ["a", "b"]) == ["A!", "B!"]
    email = get_domain("email")
    weak = StyleUser(email, repair=0.0, name="none")
    (context,) = islice(email.contexts(0), 1)
    response = email.render(email.wanted(context))
    assert edit_all(weak, [context], [response]) == [response]
    made = make_log(email, user, 3, 0, policy=load_base(base_path("email"), device="cpu"))
    assert [record.edit for record in made] == [record.response.upper() + "!" for record in made]
    assert user.at_once == 3


def test_a_log_ends_with_the_texts(sources: dict[str, Source]) -> None:
    world = HubTexts(
        "summary", {kind: source._replace(fields=("title",)) for kind, source in sources.items()}
    )
    with pytest.raises(ConfigError, match="the summary texts are used up"):  # titles alone are too short
        list(stream_log(world, Shouting(), 3, 0, policy=load_base(base_path("email"), device="cpu")))
