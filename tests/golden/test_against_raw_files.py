"""Every state of every recorded host, read a second time by the shortest means, against the program's output.

What both sides say was worked out twice. All series are compared, so that one too many is found like one too few.
"""

from __future__ import annotations

import platform
import re
import time

import pytest

from tests.golden.program import Run, Runs
from tests.golden.raw_files import V1_MOUNT, Series, expected_series, key, number
from tests.hosts import HOSTS, STATES

ALL = [f"{host}/{state}" for host in HOSTS for state in STATES]
# Figures that no recorded host has: limits and failures, sockets' buffers, processes.
MADE = [
    "made/plain-v1",
    "made/plain-v2",
    "made/v2-before-5-18",
    "made/v2-cgroup-without-memory",
    "made/v2-memory-in-root-alone",
]
OWN = re.compile(r"slabwatch_(collector_.*|build_info|kernel_info|cgroup_kept_descriptors)")


@pytest.mark.parametrize("case", ALL + MADE)
def test_output_says_what_the_files_say(case: str, runs: Runs) -> None:
    root = runs.root(case)
    told = {series: value for series, value in runs.of(case).series.items() if not OWN.fullmatch(series[0])}
    assert told == expected_series(root)


@pytest.mark.parametrize("case", ALL + MADE)
def test_collectors_succeed_and_skip_nothing(case: str, runs: Runs) -> None:
    begin = time.time()
    result = runs.of(case)
    assert set(result.labelled("collector_success", "collector").values()) == {1}
    assert set(result.labelled("collector_success", "collector")) == {"slabinfo", "meminfo", "process", "cgroup"}
    assert all(0 < seconds < 30 for seconds in result.labelled("collector_duration_seconds", "collector").values())
    last = result.labelled("collector_last_success_timestamp_seconds", "collector").values()
    assert all(begin - 600 < moment <= time.time() for moment in last)
    # No process was recorded, which is not the same as there being none.
    no_process = {} if case in MADE else {key("collector_skipped_total", collector="process", reason="absent_file"): 1}
    assert result.of("collector_skipped_total") == no_process
    assert result.log == ""


@pytest.mark.parametrize("case", ALL)
def test_kernel_and_build_are_told(case: str, runs: Runs) -> None:
    (((_, labels), value),) = runs.of(case).of("kernel_info").items()
    # What does not change was recorded with the first state only.
    release = runs.root(case) / "proc/sys/kernel/osrelease"
    assert dict(labels) == {
        "release": release.read_text().strip() if case.endswith("/idle") else "unknown",
        "allocator": "slub",
        "cgroup_mode": "hybrid" if "-v1/" in case else "v2",
        "kmem_accounting": "on" if case.endswith("/idle") else "unknown",
    }
    assert value == 1
    (((_, labels), value),) = runs.of(case).of("build_info").items()
    assert dict(labels)["python"] == platform.python_version()
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", dict(labels)["version"])
    assert value == 1


def cgroup_slabs(result: Run) -> dict[Series, float]:
    return result.of("cgroup_slab_objects", "cgroup_slab_active_objects")


def test_slabinfo_of_each_cgroup(runs: Runs) -> None:
    case = "4.19.40-cgroup-v1/storm-cgroup-slabinfo"
    mount = runs.root(case) / V1_MOUNT
    expected = {}
    for file in mount.rglob("memory.kmem.slabinfo"):
        cgroup = "/" + "/".join(file.parent.relative_to(mount).parts)
        for line in file.read_text().splitlines()[2:]:
            cache, active, objects, *_ = line.split()
            if int(objects):
                expected[key("cgroup_slab_active_objects", cgroup=cgroup, cache=cache)] = float(active)
                expected[key("cgroup_slab_objects", cgroup=cgroup, cache=cache)] = float(objects)
    assert len(expected) > 50
    assert cgroup_slabs(runs.of(case)) == expected
    assert cgroup_slabs(runs.of("4.19.40-cgroup-v1/storm")) == {}


def test_aliases_and_flags_of_each_cache(runs: Runs) -> None:
    case = "6.18.15-cgroup-v2/idle-slab-sysfs"
    directory = runs.root(case) / "sys/kernel/slab"
    names: dict[str, set[str]] = {path.name: set() for path in directory.iterdir() if not path.is_symlink()}
    for path in directory.iterdir():
        if path.is_symlink():
            names[path.readlink().name].add(path.name)
    told = {}
    for (_, labels), value in runs.of(case).of("slab_info").items():
        info = dict(labels)
        assert value == 1
        told[frozenset([info["cache"], *filter(None, info["aliases"].split(","))])] = info["reclaimable"]
    expected = {}
    for target, links in names.items():
        shown = frozenset(links | (set() if target.startswith(":") and links else {target}))
        expected[shown] = "true" if number(directory / target / "reclaim_account") else "false"
    assert told == expected
