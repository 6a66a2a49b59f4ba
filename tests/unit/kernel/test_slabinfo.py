"""parse_slabinfo and parse_kmem_slabinfo."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.errors import KernelParseError
from slabwatch.kernel.kmem_slabinfo import parse_kmem_slabinfo
from slabwatch.kernel.slabinfo import SlabInfo, parse_slabinfo
from tests.hosts import HOSTS, STATES, recorded, recorded_all
from tests.unit.kernel.parsers import CGROUP, V1, V2

VERSION = b"slabinfo - version: 2.1\n"
HEADER = (
    b"# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount>"
    b" <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
)
TASK = b"task_struct         1397   1410   2112   15    8 : tunables    0    0    0 : slabdata     93     94      0\n"
CRED = b"cred_jar              42     42    192   21    1 : tunables    0    0    0 : slabdata      2      2      0\n"


def table(*rows: bytes) -> bytes:
    return VERSION + HEADER + b"".join(rows)


def row(info: SlabInfo, name: str) -> tuple[str, ...]:
    place = info.index(name)
    assert place is not None
    return (
        info.active_objects[place],
        info.objects[place],
        info.object_size_bytes[place],
        info.objects_per_slab[place],
        info.pages_per_slab[place],
        info.active_slabs[place],
        info.slabs[place],
    )


# README of the recorded hosts: task_struct's active objects in idle, storm, after, shrunk.
TASK_STRUCTS = {
    "4.19.40-cgroup-v1": (66, 1397, 958, 34),
    "5.10.223-cgroup-v1": (60, 1100, 84, 51),
    "5.10.223-cgroup-v2": (55, 1100, 78, 48),
    "6.1.176-cgroup-v1": (75, 1115, 86, 56),
    "6.1.176-cgroup-v2": (70, 1115, 86, 56),
    "6.18.15-cgroup-v2": (99, 1120, 100, 66),
    "7.2.13-cgroup-v2": (84, 1116, 120, 65),
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("state", STATES)
def test_recorded_files_against_another_reading(host: str, state: str) -> None:
    data = recorded(host, state, "proc/slabinfo")
    info = parse_slabinfo(data)
    assert info.skipped == ()
    lines = data.decode().splitlines()[2:]
    assert len(lines) == len(info.names)
    for place, line in enumerate(lines):
        assert line.split()[0] == info.names[place]
        numbers = [int(text) for text in re.findall(r"(?<=\s)\d+", line)]
        assert len(numbers) == 11
        assert [int(text) for text in row(info, info.names[place])] == numbers[:5] + numbers[8:10]
        assert info.size_bytes(4096)[place] == numbers[9] * numbers[4] * 4096
    if state in STATES[:4]:
        assert row(info, "task_struct")[0] == str(TASK_STRUCTS[host][STATES.index(state)])


def test_one_row() -> None:
    info = parse_slabinfo(table(TASK))
    assert info.names == ("task_struct",)
    assert row(info, "task_struct") == ("1397", "1410", "2112", "15", "8", "93", "94")
    assert info.size_bytes(4096) == (94 * 8 * 4096,)
    assert info.size_bytes(65536) == (94 * 8 * 65536,)
    assert info.index("cred_jar") is None


def test_repeated_names_are_summed_and_keep_the_first_ones_sizes() -> None:
    other = b"mlx5_fs_ftes 10 20 300 5 2 : tunables 0 0 0 : slabdata 3 4 0\n"
    info = parse_slabinfo(table(other, TASK, other.replace(b"300 5 2", b"600 7 1"), other))
    assert info.names == ("mlx5_fs_ftes", "task_struct")
    assert row(info, "mlx5_fs_ftes") == ("30", "60", "300", "5", "2", "9", "12")
    # Exact though the slabs of one name have different sizes, so that the sum over all caches is right.
    assert info.size_bytes(4096) == ((4 * 2 + 4 * 1 + 4 * 2) * 4096, 94 * 8 * 4096)
    assert info.pages == (20, 94 * 8)
    assert info.skipped == ()


def test_repeated_names_beside_a_bad_line() -> None:
    info = parse_slabinfo(table(CRED, b"bad\n", CRED))
    assert row(info, "cred_jar") == ("84", "84", "192", "21", "1", "4", "4")
    assert len(info.skipped) == 1


def test_names_with_spaces() -> None:
    info = parse_slabinfo(table(TASK, CRED.replace(b"cred_jar", b"my odd cache 12"), b" " + CRED))
    assert info.names == ("task_struct", "my odd cache 12", "cred_jar")
    assert row(info, "my odd cache 12") == row(info, "cred_jar") == ("42", "42", "192", "21", "1", "2", "2")


def test_statistics_of_the_old_allocator() -> None:
    more = b" : globalstat     123     45     6    7    0    0    0    0    0 : cpustat   1   2   3   4\n"
    rows = [line.rstrip(b"\n") + more for line in (TASK, CRED)]
    data = VERSION.replace(b"\n", b" (statistics)\n") + HEADER + b"".join(rows)
    info = parse_slabinfo(data)
    plain = parse_slabinfo(table(TASK, CRED))
    assert info == plain


@pytest.mark.parametrize(
    "bad",
    [
        b"\n",
        b"task_struct\n",
        b"task_struct 1 2 3 4 5\n",
        TASK.replace(b"1397", b"-1"),
        TASK.replace(b"1397", b"1e3"),
        TASK.replace(b"1397", "\u0661".encode()),
        TASK.replace(b" 94 ", b" x "),
        TASK.replace(b" : tunables", b" ; tunables"),
        TASK.replace(b"slabdata", b"slabdate"),
        TASK.replace(b"tunables    0", b"tunables    0 0"),
        TASK.replace(b"     94      0", b""),
        TASK.replace(b"task_struct  ", b"  "),
        TASK.replace(b"task_struct", b"x" * 5000),
    ],
)
def test_a_bad_line_costs_that_line(bad: bytes) -> None:
    info = parse_slabinfo(table(CRED, bad, TASK))
    assert info.names == ("cred_jar", "task_struct")
    (error,) = info.skipped
    assert (error.path, error.line_no) == ("/proc/slabinfo", 4)
    assert error.line == bad.decode().rstrip("\n")[:120]
    assert error.__traceback__ is None  # it would keep the whole file in memory with the sample


@pytest.mark.parametrize("place", [1, 2, 3, 4, 5, 8, 9, 10, 13, 14, 15])
@pytest.mark.parametrize("bad", [b"x", b"-1", b"1.5", b"0x1"])
def test_each_number_is_checked(place: int, bad: bytes) -> None:
    words = TASK.split()
    words[place] = bad
    info = parse_slabinfo(table(CRED, b" ".join(words) + b"\n"))
    assert info.names == ("cred_jar",)
    assert len(info.skipped) == 1


def test_a_name_that_is_not_utf8() -> None:
    info = parse_slabinfo(table(CRED.replace(b"cred", b"\xffcred"), TASK.replace(b"task", "tâsk".encode())))
    assert info.names == ("\\xffcred_jar", "tâsk_struct")
    assert info.skipped == ()


@pytest.mark.parametrize(
    "header", [HEADER, b"", b"#\n", b"# name\n", b"# name <active_objs>\n# a second one\n", b"#name\n", HEADER.upper()]
)
def test_the_header_may_vary(header: bytes) -> None:
    info = parse_slabinfo(VERSION + header + TASK + CRED)
    assert info.names == ("task_struct", "cred_jar")
    assert info.skipped == ()


@pytest.mark.parametrize("version", [b"2.0", b"2.1", b"2.1 (statistics)", b"2.2", b"2.10"])
def test_other_minor_versions_are_taken(version: bytes) -> None:
    assert parse_slabinfo(b"slabinfo - version: " + version + b"\n" + HEADER + TASK).names == ("task_struct",)


@pytest.mark.parametrize(
    "first", [b"slabinfo - version: 1.1\n", b"slabinfo - version: 3.0\n", b"\n", b"", HEADER, TASK]
)
def test_a_foreign_first_line_is_the_error(first: bytes) -> None:
    with pytest.raises(KernelParseError, match="/proc/slabinfo:1: bad version"):
        parse_slabinfo(first + TASK)


def test_no_end_of_the_last_line() -> None:
    info = parse_slabinfo(table(CRED, TASK).rstrip(b"\n"))
    assert info == parse_slabinfo(table(CRED, TASK))


def test_a_last_line_that_was_cut_off_costs_that_line() -> None:
    whole = table(CRED, TASK)
    # Up to here the number of slabs may lack digits; after it only a number follows that is not kept.
    for length in range(len(table(CRED)) + 1, len(whole) - len(b"      0\n")):
        info = parse_slabinfo(whole[:length])
        assert info.names == ("cred_jar",)
        assert len(info.skipped) == 1


@pytest.mark.parametrize(
    "data", [VERSION, VERSION + HEADER, VERSION + HEADER + b"nothing that fits\n", VERSION.strip()]
)
def test_a_table_without_caches_is_the_error(data: bytes) -> None:
    with pytest.raises(KernelParseError):
        parse_slabinfo(data)


@pytest.mark.parametrize("spoilt", [b"", b"bad\n", TASK, b"a b" + TASK], ids=["good", "bad", "repeated", "spaces"])
def test_fifty_thousand_caches(spoilt: bytes) -> None:
    rows = [TASK.replace(b"task_struct", b"cache_%05d" % number) for number in range(50_000)]
    begin = time.process_time()
    info = parse_slabinfo(table(TASK, *rows, spoilt))
    info.size_bytes(4096)
    assert time.process_time() - begin < 5
    assert len(info.names) == 50_001 + (spoilt[:3] == b"a b")
    assert len(info.skipped) == (spoilt == b"bad\n")


def test_fifty_thousand_bad_lines() -> None:
    begin = time.process_time()
    info = parse_slabinfo(table(TASK, *[b"bad line %d\n" % number for number in range(50_000)]))
    assert time.process_time() - begin < 5
    assert len(info.skipped) == 50_000


NAMES = st.lists(
    st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=20), min_size=1, max_size=8
)


@given(
    names=NAMES.filter(lambda names: not any(name.startswith("#") for name in names)),
    numbers=st.lists(st.integers(0, 2**64 - 1), min_size=11, max_size=11),
)
def test_one_odd_line_changes_nothing_for_the_others(names: list[str], numbers: list[int]) -> None:
    form = "%-17s %6d %6d %6d %4d %4d : tunables %4d %4d %4d : slabdata %6d %6d %6d\n"
    rows = [(form % (name, *numbers)).encode() for name in names]
    whole, odd = parse_slabinfo(table(*rows)), parse_slabinfo(table(*rows, b"odd\n"))
    assert whole.skipped == ()
    assert [error.line for error in odd.skipped] == ["odd"]
    assert odd.names == whole.names == tuple(dict.fromkeys(names))
    for name in names:
        assert row(odd, name) == row(whole, name)
        count = names.count(name)
        assert [int(text) for text in row(whole, name)] == [
            numbers[0] * count, numbers[1] * count, *numbers[2:5], numbers[8] * count, numbers[9] * count
        ]  # fmt: skip
    assert odd.size_bytes(4096) == whole.size_bytes(4096)
    assert sum(whole.size_bytes(1)) == numbers[9] * numbers[4] * len(names)


@pytest.mark.parametrize("host", sorted(V1))
def test_kmem_slabinfo_has_rows_before_5_9_only(host: str) -> None:
    files = recorded_all(host, "storm", CGROUP, "memory.kmem.slabinfo").values()
    assert files
    tables = [table for table in (parse_kmem_slabinfo(data) for data in files) if table]
    if host.startswith("4.19"):
        assert any("task_struct" in table.names for table in tables)
        assert all(not table.skipped for table in tables)
    else:
        assert tables == []


def test_kmem_slabinfo_of_a_cgroup_without_caches() -> None:
    assert parse_kmem_slabinfo(b"") is None
    assert parse_kmem_slabinfo(VERSION + HEADER) is None
    whole = parse_kmem_slabinfo(table(TASK))
    assert whole == parse_slabinfo(table(TASK))
    with pytest.raises(KernelParseError, match=r"memory\.kmem\.slabinfo:3"):
        parse_kmem_slabinfo(table(b"nothing that fits\n"))
    with pytest.raises(KernelParseError, match=r"memory\.kmem\.slabinfo:1"):
        parse_kmem_slabinfo(b"\n")


def test_v2_hosts_have_no_such_file() -> None:
    for host in V2:
        assert recorded_all(host, "idle", CGROUP, "memory.kmem.slabinfo") == {}
        assert parse_slabinfo(recorded(host, "idle", "proc/slabinfo")).names
