"""Rule users: how much they repair, and that their edits are a function of what they are given."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from editloop.errors import ConfigError
from editloop.users.rule import RuleUser
from editloop.users.text_rules import Facts, Rule, closing, contracted, greeting


class Letters:
    """A world with three rules, whatever the context."""

    name = "letters"
    fingerprint = "three rules"

    def stated_facts(self, context: str) -> Facts:
        return {"name": context}

    def rules(self, context: str) -> Mapping[str, Rule]:
        return {"greeting": greeting("Dear {name},"), "short": contracted, "closing": closing("")}


WRONG = "Hi,\n\nI am here. It is late.\n\nCheers,\nBea"
RIGHT = "Dear Ada,\n\nI'm here. It's late."


def test_a_user_who_repairs_everything_applies_all_rules() -> None:
    user = RuleUser(Letters(), name="strong")
    user.repair = 1.0
    assert user.edit("Ada", WRONG) == RIGHT
    assert user.edit("Ada", RIGHT) == RIGHT


def test_a_rule_is_applied_at_the_users_rate() -> None:
    for name, rate in (("strong", 0.95), ("weak", 0.12), ("medium", 0.6)):
        user = RuleUser(Letters(), name=name, seed=3)
        edits = [user.edit("Ada", WRONG, round=i) for i in range(400)]
        for broken in ("Hi,", "I am", "Cheers"):
            kept = sum(broken in edit for edit in edits) / len(edits)
            assert kept == pytest.approx(1 - rate, abs=0.08), (name, broken)  # 3.3 standard errors at .6


def test_edits_are_repeated_and_a_stronger_user_repairs_what_a_weaker_one_does() -> None:
    weak, strong = (RuleUser(Letters(), name=name, seed=1) for name in ("light", "heavy"))
    for i in range(50):
        assert weak.edit("Ada", WRONG, round=i) == weak.edit("Ada", WRONG, round=i)
        if "Hi," not in weak.edit("Ada", WRONG, round=i):
            assert "Hi," not in strong.edit("Ada", WRONG, round=i)
    assert len({weak.edit("Ada", WRONG, round=i) for i in range(50)}) > 3


def test_a_tolerant_user_leaves_two_wrong_rules_alone() -> None:
    user = RuleUser(Letters(), name="other")
    assert user.edit("Ada", WRONG) == RIGHT  # three are broken
    two = "Dear Ada,\n\nI am here.\n\nCheers,\nBea"
    assert user.edit("Ada", two) == two


def test_an_unknown_user_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no such user: 'mild'"):
        RuleUser(Letters(), name="mild")
