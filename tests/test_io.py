"""JSON from outside is strict, and an output never replaces an input."""

import os

import pytest

from editloop.errors import ConfigError
from editloop.io import UnsafeJSONError, guard_outputs, parse_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5e3, null, true, "é"]}', {"a": [1, -2500.0, None, True, "é"]}),
        ('{"a": {"b": 1}, "c": {"b": 1}}', {"a": {"b": 1}, "c": {"b": 1}}),  # equal keys of two objects
        (b'"\xc3\xa9"', "é"),
        ("1e-400", 0.0),  # too small is zero for every reader
        ("123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_json_that_every_reader_reads_alike_is_read(text, value):
    assert parse_json(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "the same key twice in one JSON object"),
        ('[{"x": {"a": 1, "a": 1}}]', "the same key twice in one JSON object"),
        ('{"a": 1e400}', "a number too large for JSON readers"),
        ("-1e999", "a number too large for JSON readers"),
        ("NaN", "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 5000, "a number too large for JSON readers"),
    ],
)
def test_json_that_means_two_things_or_nothing_is_refused(text, reason):
    with pytest.raises(UnsafeJSONError, match=reason):
        parse_json(text)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", b"\xff", '{"a": 1} x'])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    assert not isinstance(caught.value, UnsafeJSONError)


def test_an_output_is_not_its_input_by_whatever_name(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("x")
    (tmp_path / "soft").symlink_to(log)
    os.link(log, tmp_path / "hard")
    (tmp_path / "sub").mkdir()
    for name in ("log.jsonl", "soft", "hard", "sub/../log.jsonl"):
        with pytest.raises(ConfigError, match="replace its own input"):
            guard_outputs([None, log], [None, tmp_path / name])
    guard_outputs([log], [tmp_path / "other", tmp_path / "sub" / "log.jsonl", None])


def test_an_output_that_is_not_there_yet_counts_by_its_path(tmp_path):
    with pytest.raises(ConfigError, match="replace its own input"):
        guard_outputs([tmp_path / "a"], [str(tmp_path / "." / "a")])


def test_a_loop_of_links_is_refused_in_one_line(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="cannot be resolved"):
        guard_outputs([tmp_path / "log"], [tmp_path / "a"])
