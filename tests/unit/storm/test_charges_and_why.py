"""The proof of the load, and the verdict's why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slabwatch.storm.charges import read_charges
from slabwatch.storm.explain import explain
from tests.unit.host.fabricated import V1_MOUNT, V2_MOUNT, v1_files, v1_root, v2_files, v2_root

MIB = 1024 * 1024
STORM = "/slabwatch-storm-x"
HOST = {"kmem_accounting": "on", "caches_per_cgroup": False, "sheaves": False, "kernel_config": {}}


def test_charges_of_v1(tmp_path: Path) -> None:
    cgroups = {f"{STORM}/c000{index}": v1_files(usage) for index, usage in enumerate((0, 10, 30))}
    root = v1_root(tmp_path, {STORM: v1_files(40), f"{STORM}/foreign": v1_files(99), **cgroups})
    assert read_charges(root, V1_MOUNT + STORM, 1) == {
        "file": "memory.kmem.usage_in_bytes",
        "cgroups": 3,
        "charged": 2,
        "total_bytes": 40,
        "median_bytes": 10,
        "max_bytes": 30,
    }


def test_charges_of_v2_and_of_none(tmp_path: Path) -> None:
    root = v2_root(tmp_path, {STORM: v2_files(40), f"{STORM}/c0000": v2_files(10), f"{STORM}/c0001": {}})
    made = read_charges(root, V2_MOUNT + STORM, 2)
    assert (made["file"], made["cgroups"], made["total_bytes"]) == ("memory.stat", 1, 10)
    none = read_charges(root, V2_MOUNT + "/gone", 2)
    assert (none["cgroups"], none["total_bytes"], none["median_bytes"], none["max_bytes"]) == (0, 0, None, None)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"kmem_accounting": "off"}, "accounting is off"),
        ({"caches_per_cgroup": True}, "caches of its own for each cgroup (before 5.9)"),
        ({}, "shared by all cgroups (since 5.9)"),
        ({"sheaves": True}, "per-CPU sheaves"),
        ({"kernel_config": {"CONFIG_SLUB_CPU_PARTIAL": "y"}}, "CPU partial lists"),
    ],
)
def test_the_why_names_what_this_kernel_does(host: dict[str, object], words: str) -> None:
    assert words in explain({"class": "retained"}, HOST | host, {"kind": "fork"}, [])


def test_the_why_says_what_a_kind_did_not_try() -> None:
    assert "kind light" in explain({"class": "released"}, HOST, {"kind": "light"}, [])
    assert "kind light" not in explain({"class": "released"}, HOST, {"kind": "exec"}, [])


STEP: dict[str, Any] = {
    "where": "storm",
    "ended": "limit",
    "consumed_bytes": 64 * MIB,
    "oom_kills": 1,
    "slab_objects_scanned": 4000,
}
PRESSED = {"class": "retained", "retained_bytes": 40 * MIB, "released_by_pressure_bytes": MIB // 2}


def test_the_why_says_what_memory_pressure_gave_back() -> None:
    text = explain(PRESSED, HOST, {"kind": "fork"}, [STEP])
    assert text.endswith(
        "Memory pressure (64 MiB used up in the storm's own cgroup, until the kernel gave no more) gave back 0.5 MiB "
        "of the 40.0 MiB that had stayed when it began; for it the kernel looked through 4,000 objects of caches that "
        "it can shrink."
    )
    host = STEP | {"where": "host", "ended": "floor", "consumed_bytes": 1000 * MIB, "slab_objects_scanned": None}
    text = explain(PRESSED, HOST, {"kind": "fork"}, [STEP, host])
    assert "gave no more and 1000 MiB used up on the host, down to the floor of MemAvailable)" in text
    assert "looked through 4,000 objects" in text
    assert "looked through" not in explain(PRESSED, HOST, {"kind": "fork"}, [host])
    nothing = {"class": "released", "retained_bytes": 0, "released_by_pressure_bytes": 0}
    assert "gave back 0.0 MiB as nothing had stayed; for it" in explain(nothing, HOST, {"kind": "fork"}, [STEP])


def test_the_why_of_what_went_under_pressure() -> None:
    mostly = PRESSED | {"released_by_pressure_bytes": 30 * MIB, "released_by_shrink_bytes": 10 * MIB}
    assert "gives back by itself once memory is short" in explain(mostly, HOST, {"kind": "fork"}, [STEP])
    half = PRESSED | {"released_by_pressure_bytes": 20 * MIB, "released_by_shrink_bytes": 20 * MIB}
    assert "the allocator holds it, and a shrink frees it" in explain(half, HOST, {"kind": "fork"}, [STEP])


@pytest.mark.parametrize("missing", ["retained_bytes", "released_by_pressure_bytes"])
def test_the_why_is_silent_about_pressure_that_can_not_be_judged(missing: str) -> None:
    assert "pressure" not in explain(PRESSED | {missing: None}, HOST, {"kind": "fork"}, [STEP])
    assert "pressure" not in explain(PRESSED, HOST, {"kind": "fork"}, [])
