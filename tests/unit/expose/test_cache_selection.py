"""Which caches are shown, and that sums stay exact."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slabwatch.expose.cache_selection import OTHER, CacheSelection
from slabwatch.kernel.slabinfo import SlabInfo


def slabinfo(**objects: int) -> SlabInfo:
    column = tuple(str(count) for count in objects.values())
    return SlabInfo(tuple(objects), column, column, column, column, column, column, column)


def shown(selection: CacheSelection, **sizes: int) -> dict[str, str | int | None]:
    made = selection.of(slabinfo(**sizes), tuple(sizes.values()))
    return dict(zip(made.names, made.columns["size_bytes"], strict=True))


def test_all_by_default() -> None:
    assert shown(CacheSelection(), a=1, b=2) == {"a": 1, "b": 2}


def test_what_is_excluded_is_in_no_sum() -> None:
    assert shown(CacheSelection(exclude=["b*"]), a=1, b=2, bb=3) == {"a": 1}
    assert shown(CacheSelection(include=["b*"], max_count=1), a=1, b=2, bb=3) == {"bb": 3, OTHER: 2}


def test_what_can_not_be_summed_has_no_value_in_the_rest() -> None:
    made = CacheSelection(max_count=1).of(slabinfo(a=5, b=3, c=1), (5, 3, 1))
    assert made.names == ("a", OTHER)
    rest = {column: values[-1] for column, values in made.columns.items()}
    assert rest["active_objects"] == rest["objects"] == rest["slabs"] == rest["size_bytes"] == 4
    assert rest["object_size_bytes"] is rest["objects_per_slab"] is rest["pages_per_slab"] is None


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 10**12), max_size=8), st.integers(0, 9))
def test_sums_are_exact(sizes: dict[str, int], most: int) -> None:
    made = shown(CacheSelection(max_count=most), **sizes)
    assert sum(int(value or 0) for value in made.values()) == sum(sizes.values())
    assert (OTHER in made) == (len(sizes) > most)
