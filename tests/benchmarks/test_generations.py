"""The benchmark of generations: small games, what they share, and the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.generations import STRATEGIES, Game, Settings, page, play, summary

SMALL = {"generations": 2, "rounds": 40, "steps": 4, "changes": (("validation_samples", 4),)}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict[Game, dict]]:
    settings = Settings(folder=tmp_path_factory.mktemp("games"), **SMALL)
    games = [Game("email", "mixed", 1, strategy) for strategy in STRATEGIES]
    return settings, {game: play(game, settings) for game in games}


def test_all_strategies_begin_with_the_same_rounds_of_the_base(played) -> None:
    _, games = played
    first = [each["costs"][:40] for each in games.values()]
    assert first[0] == first[1] == first[2] and all(0 <= cost <= 1 for cost in first[0])
    assert all(len(each["costs"]) == 80 for each in games.values())


def test_a_game_is_kept_and_read_again(played) -> None:
    settings, games = played
    for game, found in games.items():
        assert play(game, settings) == found
        assert (settings.folder / game.folder / "costs.json").is_file()


def test_the_autopilot_says_what_happened_and_the_oracle_is_no_dearer_than_the_base(played) -> None:
    _, games = played
    found = games[Game("email", "mixed", 1, "autopilot")]
    assert found["happened"][:2] == [
        "0 base@0: new → arm (it was an arm before)",
        "40 base@0: arm → champion (the only arm)",
    ]
    assert any("early@1: new → " in each for each in found["happened"])
    assert len(found["oracle"]) == 2


def test_the_page_has_a_line_for_each_strategy(played) -> None:
    settings, games = played
    data = summary(games, settings, ("email",), (1,))
    text = page(data)
    assert text.count("\n| autopilot |") == 1 and "| oracle |" in text and "**email, mixed users**" in text
    assert "| email, mixed |" in text


def test_a_game_of_other_settings_is_refused(played, tmp_path: Path) -> None:
    from editloop.errors import RunError

    settings, games = played
    with pytest.raises(RunError):
        play(next(iter(games)), settings._replace(rounds=50))
