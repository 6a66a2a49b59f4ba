"""Evidence for the verdict: made up, or taken from a recorded host's own storm."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slabwatch.kernel.meminfo import parse_meminfo
from slabwatch.kernel.slabinfo import parse_slabinfo
from slabwatch.storm.verdict import Evidence, Host, State, is_reclaimable
from tests.hosts import recorded

PAGE = 4096
MIB = 1024 * 1024
TWO_CPUS = Host(cpus=2, page_size=PAGE)  # as the recorded hosts have
TOLERANCE = 64 * 2 * PAGE
RECORDED_TASKS = 50 * 20


def told_by_sysfs(host: str, state: str) -> dict[str, bool]:
    """Whether each name in /sys/kernel/slab is reclaimable, by the listings that were recorded beside it."""
    table = recorded(host, "idle", "META/slab-attrs.tsv").decode()
    told = {row["name"]: row["reclaim_account"] == "1" for row in csv.DictReader(io.StringIO(table), delimiter="\t")}
    for line in recorded(host, state, "META/ls-l-sys-kernel-slab.txt").decode().splitlines():
        if " -> " in line:
            name, _, target = line.split()[-3:]
            if target in told:
                told[name] = told[target]
    return told


def recorded_state(host: str, state: str) -> State:
    """A recorded host's caches and SUnreclaim."""
    slabinfo = parse_slabinfo(recorded(host, state, "proc/slabinfo"))
    meminfo = parse_meminfo(recorded(host, state, "proc/meminfo"))
    return State(dict(zip(slabinfo.names, slabinfo.size_bytes(PAGE), strict=True)), meminfo.get("SUnreclaim"))


def recorded_evidence(host: str, told: Mapping[str, bool] | None = None) -> Evidence:
    """The storm that was recorded: 50 cgroups with 20 tasks each. ``told``: flags that sysfs told, None: all."""
    settled = recorded_state(host, "after")
    flags = told_by_sysfs(host, "after") if told is None else told
    return Evidence(
        start=recorded_state(host, "idle"),
        loaded=recorded_state(host, "storm"),
        settled=settled,
        shrunk=recorded_state(host, "shrunk"),
        noise_bytes={},
        noise_sunreclaim_bytes=0,
        reclaimable=frozenset(name for name in settled.caches if is_reclaimable(name, flags)),
        tasks_started=RECORDED_TASKS,
        forks_observed=None,
        outcome="completed",
    )


def state(sunreclaim: int | None = None, **caches: int) -> State:
    """A snapshot by its caches' bytes; SUnreclaim is their sum unless it is given."""
    return State(caches, sum(caches.values()) if sunreclaim is None else sunreclaim)


def evidence(start: State, loaded: State, settled: State, shrunk: State | None = None, **changes: Any) -> Evidence:
    """A completed storm of 1,000 tasks on a quiet host."""
    made = Evidence(
        start=start,
        loaded=loaded,
        settled=settled,
        shrunk=shrunk,
        noise_bytes={},
        noise_sunreclaim_bytes=0,
        reclaimable=frozenset(),
        tasks_started=1000,
        forks_observed=1000,
        outcome="completed",
    )
    return replace(made, **changes)
