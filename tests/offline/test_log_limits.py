"""How long sampled responses may be, and how many are drawn: as asked, or from the edits of the log."""

from __future__ import annotations

from typing import Any

from editloop.edits import Record
from editloop.offline import FitConfig, make_examples
from editloop.offline.data import FitData, with_log_limits
from editloop.policy import load_base
from editloop.progress import ProgressCallback


class Messages(ProgressCallback):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def test_it_is_the_length_that_nearly_all_edits_have_at_most(base: Any) -> None:
    encoder = load_base(base(), device="cpu").encoder  # one token a character, and one for the end
    records = [Record(context="c", response="r", edit="e" * n) for n in range(1, 201)]
    data = FitData(make_examples(records[:150], encoder), make_examples(records[150:], encoder))
    seen = Messages()
    config = with_log_limits(FitConfig(), data, seen)
    # The lengths are 2 to 201. The .99 quantile of 200 numbers is at place .99 * 199 = 197.01: the 199th.
    assert config.longest_response == 200
    assert seen.lines == ["responses of at most 200 tokens: 99% of the edits are no longer"]
    asked = FitConfig(max_new_tokens=7, num_samples=0)
    assert with_log_limits(asked, data, seen) is asked and len(seen.lines) == 1


def test_completions_are_as_many_as_a_hundred_thousand_tokens_allow(base: Any) -> None:
    encoder = load_base(base(), device="cpu").encoder
    records = [Record(context="c", response="r", edit="e" * 9) for _ in range(100)]
    data = FitData(make_examples(records[:80], encoder), make_examples(records[80:], encoder))

    def draws(**given: int) -> int:
        return with_log_limits(FitConfig(**given), data, Messages()).draws

    # 100 rows of at most 10 tokens: 1,000 tokens for one completion of each.
    assert draws() == 4
    assert draws(max_new_tokens=333) == 3
    assert draws(max_new_tokens=334) == 2
    assert draws(max_new_tokens=5000) == 1
    assert draws(max_new_tokens=5000, num_samples=6) == 6
