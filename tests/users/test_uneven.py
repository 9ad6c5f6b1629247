"""Users whose edits differ much in size."""

from __future__ import annotations

from itertools import islice

import pytest

from editloop.edits import get_cost
from editloop.errors import ConfigError
from editloop.lab import get_domain
from editloop.users import UnevenUser, get_user

EMAIL = get_domain("email")
WEAK, STRONG = get_user("weak", EMAIL), get_user("strong", EMAIL)


def drafts(n: int) -> list[tuple[str, str]]:
    """Neutral drafts, in which much is wrong."""
    contexts = islice(EMAIL.contexts(0), n)
    return [(c, EMAIL.render({**EMAIL.neutral, **EMAIL.read(c).facts})) for c in contexts]


def test_each_edit_is_that_of_one_of_the_two_and_the_rare_one_is_rare():
    someone, pairs = UnevenUser(WEAK, STRONG, 0.1), drafts(400)
    edits = [someone.edit(*pair) for pair in pairs]
    strong = [STRONG.edit(*pair) for pair in pairs]
    assert all(
        edit in (WEAK.edit(*pair), strong[i]) for i, (edit, pair) in enumerate(zip(edits, pairs, strict=True))
    )
    assert 0.05 < sum(a == b for a, b in zip(edits, strong, strict=True)) / 400 < 0.16


def test_the_sizes_vary_more_than_those_of_either():
    pairs, cost = drafts(400), get_cost("levenshtein:word/response")
    responses = [response for _, response in pairs]
    spread = {
        name: (costs := cost(responses, [user.edit(*pair) for pair in pairs])).std() / costs.mean()
        for name, user in {"weak": WEAK, "strong": STRONG, "uneven": UnevenUser(WEAK, STRONG, 0.1)}.items()
    }
    assert spread["uneven"] > spread["weak"] > spread["strong"]


def test_the_extremes_are_the_two_users():
    pair = drafts(1)[0]
    assert UnevenUser(WEAK, STRONG, 0.0).edit(*pair) == WEAK.edit(*pair)
    assert UnevenUser(WEAK, STRONG, 1.0).edit(*pair) == STRONG.edit(*pair)
    with pytest.raises(ConfigError, match=r"is a probability: -0\.1"):
        UnevenUser(WEAK, STRONG, -0.1)
