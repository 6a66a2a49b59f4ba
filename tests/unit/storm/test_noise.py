"""How restless a host is by itself, in the baseline and in the settle time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from slabwatch.kernel.meminfo import parse_meminfo
from slabwatch.storm.noise import Noise, louder
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample
from tests.unit.storm.test_record import caches, taken


def noise(samples: Sequence[tuple[Sample, Derived]]) -> Noise:
    made = Noise()
    for sample in samples:
        made.add(*sample)
    return made


def meminfo(sunreclaim: int) -> Any:
    return parse_meminfo(b"SUnreclaim: %d kB\n" % sunreclaim)


def test_a_swing_is_from_the_lowest_to_the_highest_and_a_rise_goes_up_alone() -> None:
    made = noise(
        [
            taken(slabinfo=caches(still=5, up=1, swings=30, falls=9), meminfo=meminfo(140)),
            taken(slabinfo=caches(still=5, up=2, swings=10, falls=5), meminfo=meminfo(90)),
            taken(slabinfo=caches(swings=20, still=5, up=3, late=9, falls=1), meminfo=meminfo(100)),
        ]
    )
    assert made.swings() == ({"up": 2 * 4096, "swings": 20 * 4096, "falls": 8 * 4096}, 50 * 1024)
    assert made.rises() == ({"up": 2 * 4096, "swings": 10 * 4096}, 10 * 1024)


def test_what_was_not_read_makes_no_noise() -> None:
    for made in (noise([]), noise([taken(slabinfo=None, meminfo=None), taken()])):
        assert made.swings() == made.rises() == ({}, 0)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 1000)), max_size=6))
def test_swings_cover_every_difference_and_rises_every_later_one(sizes: list[dict[str, int]]) -> None:
    made = noise([taken(slabinfo=caches(**one), meminfo=None) for one in sizes])
    (swings, _), (rises, _) = made.swings(), made.rises()
    for place, one in enumerate(sizes):
        for other in sizes[place:]:
            for name in one.keys() & other.keys():
                assert abs(one[name] - other[name]) * 4096 <= swings.get(name, 0)
                assert (other[name] - one[name]) * 4096 <= rises.get(name, 0) <= swings.get(name, 0)


def test_the_louder_of_two() -> None:
    assert louder({"a": 1, "b": 5}, {"a": 3, "c": 2}) == {"a": 3, "b": 5, "c": 2}
    assert louder({}, {}) == {}
