"""The domain of code: what is asked, what is wanted, what the base is taught, and what a log keeps of it."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import islice

import pytest

from editloop.errors import ConfigError
from editloop.lab import base_path, evaluate_on_user, make_log
from editloop.lab.code.behaviour import passes
from editloop.lab.code.language import STYLE, parse, render
from editloop.lab.code.tasks import STRATA, read_task
from editloop.lab.domains.code import CODE
from editloop.policy import Sample, load_base
from editloop.users import get_user

CONTEXTS = list(islice(CODE.contexts(3), 300))
RIGHT = "Fix api/pick. Sum numbers above 3, times limit; at most 9; if empty -1."
BUG = """def pick(numbers: list[int], limit: int):
    \"\"\"Take numbers.\"\"\"
    if not numbers:
        return -1
    found = 0
    for number in numbers:
        if number >= 3:
            found += number * limit
    return min(found, 9)"""


def test_a_request_is_read_as_a_person_reads_it():
    task = CODE.read(f"{RIGHT}\n{BUG}")
    assert (task.kind, task.stratum) == ("api", "modify")
    assert CODE.kind(f"{RIGHT}\n{BUG}") == "modify/api"
    assert render(task.current) == BUG
    assert render(task.wanted) == BUG.replace(">=", ">")
    assert not CODE.passes(f"{RIGHT}\n{BUG}", task.current)


@pytest.mark.parametrize("context", CONTEXTS[:150])
def test_every_context_is_read_back(context):
    task = CODE.read(context)
    assert render(task.current) == context.partition("\n")[2]
    style = CODE.styles[task.kind]
    shown = {part: value for part, value in task.wanted.items() if part in style}
    assert shown == {**style, "exits": shown["exits"]}
    works = passes(task.current, task.wanted)
    styled = render({**task.current, **{part: task.wanted[part] for part in STYLE}}) == render(task.current)
    assert (works, styled) == {"modify": (False, True), "refactor": (True, False), "mixed": (False, False)}[
        task.stratum
    ] or (task.stratum == "modify" and task.wanted["exits"] != task.current["exits"])


def test_contexts_are_of_every_stratum_and_repository_and_the_same_for_a_seed():
    seen = {CODE.kind(context) for context in CONTEXTS}
    assert seen == {f"{stratum}/{kind}" for stratum in STRATA for kind in CODE.styles}
    assert CONTEXTS[:5] == list(islice(CODE.contexts(3), 5))
    assert CONTEXTS[:5] != list(islice(CODE.contexts(3, stream="online"), 5))
    assert len(set(CONTEXTS)) == len(CONTEXTS)


@pytest.mark.parametrize(
    "context",
    [
        "",
        "Fix api/pick.",
        f"{RIGHT}",
        f"{RIGHT}\nprint(1)",
        f"Burn api/pick. Sum numbers.\n{BUG}",
        f"Fix moon/pick. Sum numbers.\n{BUG}",
        f"Fix api/tally. Sum numbers.\n{BUG}",
        f"Fix api/pick. Sum stars.\n{BUG}",
        f"Fix api/pick. Sum numbers, gladly.\n{BUG}",
        f"Fix api/pick.\n{BUG}",
        "Dear Ada",
    ],
)
def test_another_context_is_refused(context):
    with pytest.raises(ConfigError, match="not a context of the code domain"):
        CODE.read(context)


def test_the_outcome_of_a_response_is_whether_its_tests_pass():
    context = f"{RIGHT}\n{BUG}"
    assert CODE.outcomes(context, BUG) == {"pass": False}
    assert CODE.outcomes(context, BUG.replace(">=", ">")) == {"pass": True}
    other_style = render({**CODE.wanted(context), "names": "short", "form": "comprehension"})
    assert CODE.outcomes(context, other_style) == {"pass": True}
    assert CODE.outcomes(context, "print('hello')") == {"pass": False}
    # The tests call it by its name.
    for name in ("zzz", "if"):
        assert CODE.outcomes(context, other_style.replace("def pick", f"def {name}")) == {"pass": False}


class _Writer:
    def sample(self, contexts, **_):
        return [Sample(render(CODE.read(each).current), 1, True, 0) for each in contexts]


def test_a_log_keeps_the_outcome_beside_the_edit():
    log = make_log(CODE, get_user("strong", CODE), 30, 0, policy=_Writer())
    for row in log:
        stratum = row.metadata["kind"].split("/")[0]
        assert row.metadata["pass"] is (stratum == "refactor")


def test_an_evaluation_says_how_many_responses_pass():
    found = evaluate_on_user(_Writer(), CODE, get_user("strong", CODE), 30, 0)
    strata = [CODE.read(context).stratum for context in found.contexts]
    assert found.outcomes["pass"].tolist() == [float(stratum == "refactor") for stratum in strata]
    assert found.share_well_formed == 1


def test_the_base_is_taught_to_leave_bugs_and_styles_as_they_are():
    generator, right, kept = random.Random(0), [], []
    for context in CONTEXTS:
        task = CODE.read(context)
        draft = CODE.redraw(task, 0.0, generator)
        assert parse(CODE.render(draft)) == draft
        if task.stratum != "refactor":
            right.append(passes(draft, task.wanted))
        kept.append(all(draft[part] == task.current[part] for part in ("names", "form", "hints")))
    assert 0.4 < sum(right) / len(right) < 0.62  # (1 - missed) (1 - slips) = .51
    assert all(kept)


def test_a_wrong_edit_is_worse():
    generator = random.Random(0)
    for context in CONTEXTS[:100]:
        wanted = CODE.wanted(context)
        spoiled = CODE.spoiled(context, wanted, generator)
        assert render(spoiled) != render(wanted)


def test_the_shipped_base_writes_functions_of_which_about_half_work():
    asked = list(islice(CODE.contexts(0, stream="test"), 240))
    base, limit = load_base(base_path("code"), device="cpu"), CODE.max_new_tokens
    samples = base.sample(asked, max_new_tokens=limit)
    drafts = [parse(sample.text) for sample in samples]
    assert sum(draft is not None for draft in drafts) >= 0.95 * len(asked)
    passing = {stratum: [] for stratum in STRATA}
    for context, sample in zip(asked, samples, strict=True):
        passing[CODE.read(context).stratum].append(CODE.outcomes(context, sample.text)["pass"])
    # Room to improve on requests to modify, and behaviour that is mostly kept where only style is asked.
    assert 0.3 < sum(passing["modify"]) / len(passing["modify"]) < 0.6
    assert sum(passing["refactor"]) / len(passing["refactor"]) > 0.7


def test_every_token_is_in_the_vocabulary():
    known, generator = set(CODE.pieces), random.Random(5)
    for context in CONTEXTS:
        for text in (context, render(CODE.redraw(CODE.read(context), 0.5, generator, awareness=0.3))):
            pieces = re.findall(CODE.piece, text)
            assert "".join(pieces) == text
            assert set(pieces) <= known
            assert len(pieces) < CODE.max_new_tokens


def test_the_fingerprint_follows_what_texts_depend_on():
    assert replace(CODE, tuned={}, base=None).fingerprint == CODE.fingerprint
    assert replace(CODE, missed=0.1).fingerprint != CODE.fingerprint
    assert CODE.shifted().fingerprint != CODE.fingerprint


def test_a_shifted_domain_wants_the_style_of_another_repository():
    context = CONTEXTS[0]
    assert CODE.shifted().wanted(context) != CODE.wanted(context)
    assert read_task(context, tuple(CODE.styles)).current == CODE.shifted().read(context).current
