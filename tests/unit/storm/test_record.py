"""The record's parts: snapshots and the curve; and that all of it survives JSON."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from slabwatch.config import Config
from slabwatch.host.root import KernelRoot
from slabwatch.kernel.meminfo import parse_meminfo
from slabwatch.kernel.slabinfo import SlabInfo, parse_slabinfo
from slabwatch.storm import record
from slabwatch.storm.verdict import State
from slabwatch.watch.collect import Collectors
from slabwatch.watch.derive import Derived, derive
from slabwatch.watch.sample import CgroupReadings, ProcessCounts, Sample
from tests.hosts import HOSTS, host_root
from tests.unit.storm.records import made_record

SLABINFO = parse_slabinfo(
    b"slabinfo - version: 2.1\n# name ...\n"
    b"task_struct 735 990 5888 5 8 : tunables 0 0 0 : slabdata 197 198 0\n"
    b"dentry 100 210 192 21 1 : tunables 0 0 0 : slabdata 9 10 0\n"
)
MEMINFO = parse_meminfo(b"MemTotal: 1000 kB\nSlab: 900 kB\nSUnreclaim: 800 kB\nHugePages_Total: 3\n")
PROCESS = ProcessCounts(processes=334, threads=420, forks=12_345, allocated_files=None, dentries=None)
CGROUPS = CgroupReadings("v1", 1, ("/",), {}, visible=12, dying=3, omitted=0, unpopulated_kernel_bytes=None)


def taken(**parts: Any) -> tuple[Sample, Derived]:
    values: dict[str, Any] = {"slabinfo": SLABINFO, "meminfo": MEMINFO, "process": PROCESS, "cgroups": CGROUPS}
    values |= {"number": 1, "unix_seconds": 1_700_000_000.5, "monotonic_seconds": 1042.123456, "page_size": 4096}
    sample = Sample(**{**values, "slab_sysfs": None, "collectors": (), **parts})
    return sample, derive(sample)


def caches(**sizes: int) -> SlabInfo:
    """Slabs of one page."""
    ones = ("1",) * len(sizes)
    return SlabInfo(tuple(sizes), ones, ones, ones, ones, ones, ones, tuple(map(str, sizes.values())))


def test_a_snapshot() -> None:
    assert record.snapshot(*taken()) == {
        "taken_at": 1_700_000_000.5,
        "meminfo": {
            "MemTotal": 1000 * 1024,
            "Slab": 900 * 1024,
            "SUnreclaim": 800 * 1024,
            "HugePages_Total": 3,
        },
        "processes": 334,
        "threads": 420,
        "forks": 12_345,
        "cgroups_visible": 12,
        "cgroups_dying": 3,
        "caches": [
            {
                "cache": "task_struct",
                "active_objects": 735,
                "objects": 990,
                "object_size_bytes": 5888,
                "objects_per_slab": 5,
                "pages_per_slab": 8,
                "active_slabs": 197,
                "slabs": 198,
                "size_bytes": 198 * 8 * 4096,
            },
            {
                "cache": "dentry",
                "active_objects": 100,
                "objects": 210,
                "object_size_bytes": 192,
                "objects_per_slab": 21,
                "pages_per_slab": 1,
                "active_slabs": 9,
                "slabs": 10,
                "size_bytes": 10 * 4096,
            },
        ],
    }


def test_what_was_not_read_is_none() -> None:
    snapshot = record.snapshot(*taken(slabinfo=None, meminfo=None, process=None, cgroups=None))
    assert snapshot.pop("taken_at") == 1_700_000_000.5
    assert set(snapshot.values()) == {None}
    assert record.state(snapshot) == State({}, None)


def test_the_keys_are_the_columns_of_slabinfo() -> None:
    rows = record.snapshot(*taken())["caches"]
    columns = {field.name for field in fields(SlabInfo)} - {"names", "skipped", "pages"}
    assert set(rows[0]) == columns | {"cache", "size_bytes"}


@pytest.mark.parametrize("host", HOSTS)
def test_a_recorded_hosts_snapshot_survives_json_and_is_what_the_verdict_needs(host: str) -> None:
    sample = Collectors(KernelRoot(str(host_root(host, "after"))), Config()).collect()
    derived = derive(sample)
    snapshot = record.snapshot(sample, derived)
    again = json.loads(json.dumps(snapshot, allow_nan=False))
    assert again == snapshot
    assert sample.slabinfo is not None
    assert sample.meminfo is not None
    assert record.state(again) == State(
        dict(zip(sample.slabinfo.names, derived.cache_bytes, strict=True)), sample.meminfo.get("SUnreclaim")
    )


def test_a_point_of_the_curve() -> None:
    assert record.series_point(*taken(), started=1000.0, phase="load", live_tasks=7) == {
        "t": 42.12,
        "phase": "load",
        "slab_bytes": 900 * 1024,
        "sunreclaim_bytes": 800 * 1024,
        "task_struct_active": 735,
        "live_tasks": 7,
    }


@pytest.mark.parametrize(
    "parts", [{"slabinfo": None, "meminfo": None}, {"slabinfo": caches(dentry=1), "meminfo": None}]
)
def test_a_point_without_figures(parts: dict[str, Any]) -> None:
    point = record.series_point(*taken(**parts), started=1000.0, phase="load", live_tasks=0)
    assert point["slab_bytes"] is point["sunreclaim_bytes"] is point["task_struct_active"] is None


def test_a_line_of_the_list() -> None:
    assert record.summary(made_record()) == {
        "id": "20190926-120000-abcd",
        "outcome": "completed",
        "preset": "seed",
        "requested_by": "root",
        "started_at": 1_569_499_200.0,
        "seconds": 262.34,
        "verdict": "retained",
        "cgroups": 1000,
        "tasks": 100_000,
    }
    assert record.summary(made_record(verdict=None))["verdict"] is None
