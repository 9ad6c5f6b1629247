"""Free texts: tasks that are read back, and rules under which a text that was repaired is left alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.errors import ConfigError
from editloop.lab import FreeTexts, evaluate_on_user, get_domain, stream_log
from editloop.policy import Sample, load_base
from editloop.users import DriftingUser, RuleUser, get_user

EMAIL, SUMMARY = get_domain("email").free, get_domain("summary").free
assert EMAIL is not None and SUMMARY is not None
WORLDS = (EMAIL, SUMMARY)
CONTEXTS = {world.name: list(islice(world.contexts(0), 40)) for world in WORLDS}
DRAFTS = [
    *("Sure, here it is:\n\n", "Subject: Your paper\n\n", "Dear Ada,\n\n", "Hi Chen, ", "Hey [Name]!\n"),
    *("I hope this email finds you well. ", "I don't know. ", "It is due on Monday", "See you on Sunday! "),
    *("The plan is ready, but the report is late. ", "The plan was approved. ", "- The test is missing.\n"),
    *("In summary, the crowd was calm. ", "A flood in Rome! ", "The river was full", "It is not the flood. "),
    *("\n", "\n\n", "Best regards,\nJane", "Thanks", "1. ", "I am stuck with trains: ", "Good night!"),
]


def sure(world: FreeTexts) -> RuleUser:
    user = RuleUser(world, name="strong")
    user.repair = 1.0
    return user


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_tasks_are_read_back_and_every_kind_has_rules(world: FreeTexts) -> None:
    contexts = list(islice(world.contexts(1), 200))
    assert {world.kind(context) for context in contexts} == set(world.rules_by_kind) == set(world.sources)
    for context in contexts:
        assert set(world.stated_facts(context)) == set(world.facts)
        assert all(fact in context for fact in world.stated_facts(context).values())
        assert world.describe(context).startswith("no ")
    with pytest.raises(ConfigError, match=f"not a context of the {world.name} domain"):
        world.rules("Write a poem.")


@given(
    st.sampled_from(WORLDS), st.integers(0, 39), st.lists(st.sampled_from(DRAFTS), max_size=10).map("".join)
)
def test_what_was_repaired_breaks_no_rule_and_says_what_the_notes_say(
    world: FreeTexts, place: int, draft: str
) -> None:
    context, user = CONTEXTS[world.name][place], sure(world)
    edit = user.edit(context, draft)
    facts = world.stated_facts(context)
    assert [name for name, rule in world.rules(context).items() if rule(edit, facts) != edit] == []
    assert user.edit(context, edit) == edit
    for name in {"first", "first_state", "second", "second_state", "day", "place"} & set(facts):
        assert facts[name] in edit


def test_a_draft_of_a_real_model_edited_by_hand() -> None:
    context = (
        "Write a short email to Tomas, who wrote a draft on travel. The schedule is ready and the report is "
        "late. Ask for the changes by Friday."
    )
    draft = (
        "Dear Thomas,\n\nI hope this message finds you well. I am sure the schedule is ready, but the report "
        "is late. I met Sarah in 2021.\n\nI would appreciate your help with the draft and I am sure there"
    )
    assert sure(EMAIL).edit(context, draft) == (
        "Hi Tomas,\n\nI've enjoyed your draft on travel! I'm sure the schedule is ready, but the report is "
        "late. Please send me the changes by Friday.\n\nCheers,\nAlex"
    )


def test_users_of_free_texts_are_named_as_all_users() -> None:
    context = CONTEXTS["free-email"][0]
    strong, weak = get_user("strong", EMAIL), get_user("weak", EMAIL)
    assert isinstance(strong, RuleUser) and strong.name == "strong"
    changed = [
        user.edit(context, "Hello.", round=i) != "Hello." for user in (strong, weak) for i in range(50)
    ]
    assert sum(changed[:50]) == 50 > sum(changed[50:])
    drifting = DriftingUser(strong, get_user("strong", EMAIL.shifted()), start=1)
    greetings = [drifting.edit(context, "Hello.", round=i).split()[0] for i in (0, 30)]
    assert greetings[0] != greetings[1]
    assert strong.settings != get_user("strong", EMAIL.shifted()).settings
    with pytest.raises(ConfigError, match="only the llm user can read real texts"):
        get_user("strong", object())


class Scripted:
    """A policy that answers in turn with these samples, and says how it was asked."""

    def __init__(self, *samples: Sample) -> None:
        self.samples = samples
        self.asked: list[tuple[int, int]] = []

    def sample(self, contexts: list[str], *, max_new_tokens: int, **_: object) -> list[Sample]:
        self.asked.append((len(contexts), max_new_tokens))
        return [self.samples[i % len(self.samples)] for i in range(len(contexts))]


def test_a_draft_that_was_cut_is_logged_as_such_and_is_not_completed() -> None:
    whole, cut = Sample("All is well.", 3, True, 0), Sample("All is well. I am not", 9, False, 0)
    policy = Scripted(whole, cut)
    rows = list(stream_log(EMAIL, sure(EMAIL), 20, 0, policy=policy))  # type: ignore[arg-type]
    assert policy.asked == [(16, 120), (16, 120)]  # as many as are drawn well together, and as long
    for i, row in enumerate(rows):
        assert row.metadata.get("finished", True) is (i % 2 == 0)
        assert "not" not in (row.edit or "").split()
    found = evaluate_on_user(Scripted(whole, cut), EMAIL, sure(EMAIL), 4, 0)  # type: ignore[arg-type]
    assert found.well_formed.tolist() == [True, False, True, False]


def test_any_base_can_be_logged(base: Callable[..., Path]) -> None:
    policy = load_base(base(chat=True, max_position_embeddings=1024), device="cpu")
    rows = list(stream_log(EMAIL, get_user("strong", EMAIL), 3, 0, policy=policy, max_new_tokens=10, chunk=4))
    assert [row.id for row in rows] == ["free-email-0-0", "free-email-0-1", "free-email-0-2"]
    assert all((row.edit and "Alex" in row.edit) or row.metadata["kind"] == "problem" for row in rows)
