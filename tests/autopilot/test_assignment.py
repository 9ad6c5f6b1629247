"""Who is in a canary."""

from __future__ import annotations

from editloop.autopilot.assignment import balanced_draw, is_in_canary, user_key


def test_a_user_stays_in_a_canary_and_another_policy_gets_others():
    users = [user_key("salt", f"user {i}") for i in range(4000)]
    first = [is_in_canary("early@1", each, 0.2) for each in users]
    assert first == [is_in_canary("early@1", each, 0.2) for each in users]
    assert abs(sum(first) / 4000 - 0.2) < 0.02  # 3 standard errors
    second = [is_in_canary("early@2", each, 0.2) for each in users]
    both = sum(a and b for a, b in zip(first, second, strict=True))
    assert abs(both / 4000 - 0.04) < 0.01
    wider = [is_in_canary("early@1", each, 0.4) for each in users]
    assert all(b for a, b in zip(first, wider, strict=True) if a)  # who was in it stays in it


def test_a_draw_gives_the_canary_its_share_of_the_requests():
    activity = {f"u{i}": 1 + i * i for i in range(20)}
    total = sum(activity.values())
    for arm in ("early@1", "early@2", "sft@3"):
        draw = balanced_draw(arm, activity, 0.2)
        drawn = [key for key in activity if is_in_canary(f"{arm}#{draw}", key, 0.2)]
        assert len(drawn) >= 2 and abs(sum(activity[key] for key in drawn) / total - 0.2) < 0.02
    assert balanced_draw("early@1", {}, 0.2) == 0


def test_who_is_not_known_is_in_no_canary():
    assert not is_in_canary("early@1", "", 1.0)
    assert user_key("salt", "ada") != user_key("other", "ada")
