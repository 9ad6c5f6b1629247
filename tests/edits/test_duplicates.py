"""The compact set of hashes, against Python's own set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from editloop.edits import Record
from editloop.edits.duplicates import Duplicates, HashSet, hash64


@given(st.lists(st.one_of(st.integers(1, 40), st.integers(1, 2**64 - 1))))
def test_hash_set_is_a_set(keys: list[int]) -> None:
    ours, theirs = HashSet(), set[int]()
    for key in keys:
        assert ours.add(key) == (key not in theirs)
        theirs.add(key)
        assert key in ours
        assert len(ours) == len(theirs)


def test_hash_set_grows() -> None:
    ours = HashSet()
    assert all(ours.add(hash64(str(i))) for i in range(5000))
    assert not any(ours.add(hash64(str(i))) for i in range(5000))
    assert len(ours) == 5000 and hash64("5000") not in ours


def test_same_content_is_a_duplicate_and_same_id_a_conflict() -> None:
    def record(response: str, id: str = "") -> Record:
        return Record(id=id, context="c", response=response, edit="e")

    seen = Duplicates()
    assert seen.see(record("a", "1")) == "new"
    assert seen.see(record("a", "2")) == "duplicate"
    assert seen.see(record("b", "1")) == "conflict"
    assert seen.see(record("b")) == "new"
    assert seen.see(record("b")) == "duplicate"
    assert seen.see(record("b", "1")) == "duplicate"
