"""Readers that remember the last content: for any sequence of contents they give what the pure parsers give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slabwatch.errors import KernelParseError
from slabwatch.kernel.meminfo import MeminfoReader, parse_meminfo
from slabwatch.kernel.slabinfo import SlabinfoReader, parse_slabinfo
from tests.hosts import HOSTS, recorded

Parse = Callable[[bytes], Any]
READERS: dict[str, tuple[Callable[[], SlabinfoReader | MeminfoReader], Parse]] = {
    "slabinfo": (SlabinfoReader, parse_slabinfo),
    "meminfo": (MeminfoReader, parse_meminfo),
}
# What may become of one line between two reads. Digits and fields are what usually changes.
EDITS = st.sampled_from(
    [
        "more",
        "other digits",
        "gone",
        "twice",
        "garbage",
        "emptied",
        "renamed",
        "moved up",
        "cut",
        "comment",
        "unit off",
        "doubled",
    ]
)


def outcome(parse: Parse, data: bytes) -> Any:
    """The record with its errors as texts (errors are equal to themselves alone), or the text of the one error."""
    try:
        record = parse(data)
        return replace(record, skipped=tuple(map(str, record.skipped)))
    except KernelParseError as error:
        return str(error)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("host", HOSTS)
def test_the_states_of_a_host_one_after_the_other(host: str, name: str) -> None:
    make, parse = READERS[name]
    reader = make()
    states = [recorded(host, state, f"proc/{name}") for state in ("idle", "storm", "after", "dying")]
    for data in (*states, *reversed(states), *states):
        assert outcome(reader.parse, data) == parse(data)


@pytest.mark.parametrize("name", READERS)
@example(steps=[[], [(30, "twice"), (1, "cut")]])
@example(steps=[[], [(30, "doubled")]])
@given(steps=st.lists(st.lists(st.tuples(st.integers(0, 400), EDITS), max_size=4), max_size=6))
def test_any_sequence_of_edits(name: str, steps: list[list[tuple[int, str]]]) -> None:
    make, parse = READERS[name]
    first = recorded("6.18.15-cgroup-v2", "idle", f"proc/{name}")
    reader, data = make(), first
    for edits in steps:
        for place, edit in edits:
            data = edited(data, place, edit)
        assert outcome(reader.parse, data) == outcome(parse, data)
    assert outcome(reader.parse, first) == parse(first)


def edited(data: bytes, place: int, edit: str) -> bytes:
    lines = data.split(b"\n")
    place %= len(lines)
    line = lines[place]
    match edit:
        case "more":
            lines[place] = line.replace(b"1", b"23").replace(b"0", b"7", 1)
        case "other digits":
            lines[place] = line.replace(b"0", "\u0663".encode(), 1)
        case "gone":
            del lines[place]
        case "twice":
            lines.insert(place, line)
        case "garbage":
            lines[place] = b"\xff\x00 : tunables x"
        case "emptied":
            lines[place] = b""
        case "renamed":
            lines[place] = b"x" + line
        case "moved up":
            lines.insert(0, lines.pop(place))
        case "cut":
            return data[: len(data) - place]
        case "comment":
            lines[place] = b"# " + line
        case "doubled":
            # Another line's name, so that the number of lines stays but not that of names.
            first = lines[place - 1].split(b" ", 1)[0]
            lines[place] = b" ".join([first, *line.split(b" ", 1)[1:]])
        case "unit off":
            lines[place] = line.removesuffix(b" kB")
    return b"\n".join(lines)


def test_columns_without_a_change_stay_the_same_objects() -> None:
    data = recorded("6.18.15-cgroup-v2", "idle", "proc/slabinfo")
    reader = SlabinfoReader()
    before = reader.parse(data)
    row = next(line for line in data.splitlines() if line.startswith(b"task_struct "))
    active = row.split()[1]
    now = reader.parse(data.replace(row, row.replace(active, b"%d" % (int(active) + 1), 1)))
    assert now.names is before.names
    assert now.slabs is before.slabs
    assert now.active_objects[now.names.index("task_struct")] == str(int(active) + 1)
