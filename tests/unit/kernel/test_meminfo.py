"""parse_meminfo and metric_name."""

from __future__ import annotations

import re

import pytest

from slabwatch.errors import KernelParseError
from slabwatch.kernel.meminfo import metric_name, parse_meminfo
from tests.hosts import HOSTS, STATES, recorded

# README of the recorded hosts: SUnreclaim in kB in idle, storm, after, shrunk.
SUNRECLAIM = {
    "4.19.40-cgroup-v1": (4804, 25424, 21648, 10312),
    "5.10.223-cgroup-v1": (5892, 25036, 10604, 7776),
    "5.10.223-cgroup-v2": (5604, 24004, 9708, 6968),
    "6.1.176-cgroup-v1": (7580, 26644, 11228, 9308),
    "6.1.176-cgroup-v2": (7384, 25924, 10692, 8772),
    "6.18.15-cgroup-v2": (8768, 28372, 12720, 10476),
    "7.2.13-cgroup-v2": (9320, 31228, 20312, 11396),
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("state", STATES)
def test_recorded_files_against_another_reading(host: str, state: str) -> None:
    text = recorded(host, state, "proc/meminfo").decode()
    info = parse_meminfo(text.encode())
    assert info.skipped == ()
    assert len(info.values) == len(text.splitlines())
    for key, value, unit in re.findall(r"^(\S+): +(\d+)( kB)?$", text, re.MULTILINE):
        assert info.values[key] == int(value) * (1024 if unit else 1)
        assert (key in info.counts) == (not unit)
    assert info.values["Slab"] == info.values["SReclaimable"] + info.values["SUnreclaim"]
    names = [metric_name(key) for key in info.values]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z][a-z0-9_]*[a-z0-9]", name) for name in names)
    if state in STATES[:4]:
        assert info.get("SUnreclaim") == SUNRECLAIM[host][STATES.index(state)] * 1024


def test_unknown_keys_are_kept_and_counts_have_no_unit() -> None:
    info = parse_meminfo(
        b"MemTotal:       1532616 kB\nBrandNew(thing):   7 kB\nHugePages_Total:      12\nNew_Count: 3\n"
    )
    assert info.values == {
        "MemTotal": 1532616 * 1024,
        "BrandNew(thing)": 7 * 1024,
        "HugePages_Total": 12,
        "New_Count": 3,
    }
    assert list(info.values) == ["MemTotal", "BrandNew(thing)", "HugePages_Total", "New_Count"]
    assert info.counts == {"HugePages_Total", "New_Count"}
    assert info.get("MemTotal") == 1532616 * 1024
    assert info.get("SwapTotal") is None


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (b"", "value"),
        (b"MemFree", "value"),
        (b"MemFree:", "value"),
        (b"MemFree: kB", "value"),
        (b"MemFree: -5 kB", "value"),
        (b"MemFree: 5.5 kB", "value"),
        (b"MemFree: 123456789012345678901 kB", "value"),
        (b"MemFree: \xd9\xa1 kB", "value"),
        (b"MemFree: 5 MB", "unit"),
        (b"MemFree: 5 kB more", "unit"),
        (b": 5 kB", "key"),
        (b"(): 5 kB", "key"),
        (b"\xd0\x96: 5 kB", "key"),
        (b"Slab: 5 kB", "key"),
        (b"slab: 5 kB", "key"),  # another key, but the same metric
    ],
)
def test_a_bad_line_costs_that_line(bad: bytes, field: str) -> None:
    info = parse_meminfo(b"Slab: 1 kB\n" + bad + b"\nMemTotal: 2 kB\n")
    assert info.values == {"Slab": 1024, "MemTotal": 2048}
    (error,) = info.skipped
    assert (error.path, error.line_no) == ("/proc/meminfo", 2)
    assert error.field.startswith(field)


def test_a_last_line_without_an_end() -> None:
    assert parse_meminfo(b"Slab: 1 kB\nMemTotal: 2 kB").values == {"Slab": 1024, "MemTotal": 2048}
    for cut in (b"MemTotal: 2", b"MemTotal: 2 ", b"MemTotal: 2 k", b"HugePages_Total: 1"):
        info = parse_meminfo(b"Slab: 1 kB\n" + cut)
        assert info.values == {"Slab": 1024}
        assert [error.line_no for error in info.skipped] == [2]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"nothing", b"nothing\n"])
def test_a_file_without_values_is_the_error(data: bytes) -> None:
    with pytest.raises(KernelParseError):
        parse_meminfo(data)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("SUnreclaim", "sunreclaim"),
        ("SReclaimable", "sreclaimable"),
        ("KReclaimable", "kreclaimable"),
        ("MemTotal", "mem_total"),
        ("Slab", "slab"),
        ("Active(anon)", "active_anon"),
        ("HugePages_Total", "huge_pages_total"),
        ("Hugepagesize", "hugepagesize"),
        ("AnonHugePages", "anon_huge_pages"),
        ("DirectMap4k", "direct_map4k"),
        ("DirectMap2M", "direct_map2m"),
        ("CommitLimit", "commit_limit"),
        ("Committed_AS", "committed_as"),
        ("NFS_Unstable", "nfs_unstable"),
        ("VmallocTotal", "vmalloc_total"),
        ("ShmemPmdMapped", "shmem_pmd_mapped"),
        ("a..b--(c)", "a_b_c"),
    ],
)
def test_metric_names(key: str, name: str) -> None:
    assert metric_name(key) == name
