"""Patterns, and the largest with hysteresis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.watch.select import HYSTERESIS, Largest, pattern_filter


@pytest.mark.parametrize(
    ("include", "exclude", "shown"),
    [
        (["*"], [], ["/", "/a", "/a/b", "/new\nline"]),
        (["/a*"], [], ["/a", "/a/b"]),
        (["*"], ["/a"], ["/", "/a/b", "/new\nline"]),
        (["*"], ["*/b", "/new*"], ["/", "/a"]),
        ([], [], []),
        (["/[ab]"], [], ["/a"]),
    ],
)
def test_patterns(include: list[str], exclude: list[str], shown: list[str]) -> None:
    wanted = pattern_filter(include, exclude)
    assert [name for name in ("/", "/a", "/a/b", "/new\nline") if wanted(name)] == shown


def test_all_are_kept_while_they_fit() -> None:
    assert Largest(3).choose(["a", "b", "c"], [0, 0, 0]) == {"a", "b", "c"}


def test_the_largest_are_kept() -> None:
    assert Largest(2).choose(["a", "b", "c", "d"], [5, 9, 1, 7]) == {"b", "d"}
    assert Largest(0).choose(["a"], [5]) == frozenset()


def test_two_that_are_nearly_equal_do_not_take_turns() -> None:
    largest = Largest(1)
    assert largest.choose(["a", "b"], [100, 99]) == {"a"}
    for size in (101, 110, 124):
        assert largest.choose(["a", "b"], [100, size]) == {"a"}, "not yet larger by a quarter"
    assert largest.choose(["a", "b"], [100, 126]) == {"b"}
    assert largest.choose(["a", "b"], [110, 100]) == {"b"}, "and back only by the same margin"


def test_one_that_vanishes_makes_room_at_once() -> None:
    largest = Largest(1)
    assert largest.choose(["a", "b"], [100, 1]) == {"a"}
    assert largest.choose(["b", "c"], [1, 1]) == {"b"}


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 1000)), max_size=8), st.integers(0, 8))
def test_any_history(polls: list[dict[str, int]], most: int) -> None:
    largest = Largest(most)
    for sizes in polls:
        kept = largest.choose(list(sizes), list(sizes.values()))
        assert len(kept) == min(most, len(sizes))
        assert kept <= sizes.keys()
        if kept and len(kept) < len(sizes):
            smallest = min(sizes[name] for name in kept)
            left_out = max(size for name, size in sizes.items() if name not in kept)
            assert left_out <= smallest * HYSTERESIS
