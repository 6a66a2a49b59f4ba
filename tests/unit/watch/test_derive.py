"""What follows from a sample."""

from __future__ import annotations

from typing import Any

import pytest

from slabwatch.kernel.meminfo import parse_meminfo
from slabwatch.kernel.slabinfo import parse_slabinfo
from slabwatch.watch.derive import Derived, derive
from slabwatch.watch.sample import CollectorRun, ProcessCounts, Sample

SLABINFO = parse_slabinfo(
    b"slabinfo - version: 2.1\n# name ...\n"
    b"task_struct 735 990 5888 5 8 : tunables 0 0 0 : slabdata 198 198 0\n"
    b"filp 900 1000 256 16 1 : tunables 0 0 0 : slabdata 60 63 0\n"
)
PROCESS = ProcessCounts(processes=334, threads=500, forks=12_345, allocated_files=640, dentries=90)


def sample(**parts: Any) -> Sample:
    values: dict[str, Any] = dict.fromkeys(("slabinfo", "meminfo", "process", "cgroups", "slab_sysfs"))
    values |= {"number": 1, "unix_seconds": 0.0, "monotonic_seconds": 0.0, "page_size": 4096, "collectors": ()}
    return Sample(**values | parts)


def test_bytes_by_cache_and_what_no_cache_explains() -> None:
    slab_kilobytes = 8000
    derived = derive(sample(slabinfo=SLABINFO, meminfo=parse_meminfo(b"Slab: %d kB\n" % slab_kilobytes)))
    assert derived.cache_bytes == (198 * 8 * 4096, 63 * 4096)
    assert derived.unattributed_bytes == slab_kilobytes * 1024 - sum(derived.cache_bytes)


def test_what_is_not_explained_can_be_below_zero_on_a_busy_host() -> None:
    derived = derive(sample(slabinfo=SLABINFO, meminfo=parse_meminfo(b"Slab: 1 kB\n")))
    assert derived.unattributed_bytes is not None
    assert derived.unattributed_bytes < 0


@pytest.mark.parametrize("reused", [False, True])
def test_growth_since_an_old_reading_is_not_what_no_cache_explains(reused: bool) -> None:
    run = CollectorRun("slabinfo", True, 2.0, reused=reused)
    derived = derive(sample(slabinfo=SLABINFO, meminfo=parse_meminfo(b"Slab: 8000 kB\n"), collectors=(run,)))
    assert (derived.unattributed_bytes is None) == reused
    assert len(derived.cache_bytes) == 2


def test_the_page_size_is_the_samples() -> None:
    assert derive(sample(slabinfo=SLABINFO, page_size=65536)).cache_bytes[1] == 63 * 65536


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"slabinfo": SLABINFO},
        {"slabinfo": SLABINFO, "meminfo": parse_meminfo(b"MemTotal: 5 kB\n")},
        {"meminfo": parse_meminfo(b"Slab: 5 kB\n")},
    ],
)
def test_absent_is_not_zero(parts: dict[str, Any]) -> None:
    assert derive(sample(**parts)).unattributed_bytes is None


def test_populations_that_the_kernel_counts_itself() -> None:
    assert derive(sample(slabinfo=SLABINFO, process=PROCESS)).expected_objects == {"task_struct": 500, "filp": 640}


def test_a_count_that_is_not_known_is_no_population() -> None:
    process = ProcessCounts(processes=None, threads=500, forks=None, allocated_files=None, dentries=None)
    assert derive(sample(slabinfo=SLABINFO, process=process)).expected_objects == {"task_struct": 500}


def test_nothing_follows_from_nothing() -> None:
    assert derive(sample()) == Derived((), None, {})
    assert derive(sample(process=PROCESS)).expected_objects == {}
