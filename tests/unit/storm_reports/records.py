"""Records of storms for reports: the states of a recorded host, as large as if the storm had been larger."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from slabwatch.kernel.meminfo import parse_meminfo
from slabwatch.kernel.slabinfo import parse_slabinfo
from slabwatch.storm.plan import Caps, make_plan
from slabwatch.storm.record import FORMAT, state
from slabwatch.storm.verdict import Evidence, Host, is_reclaimable, judge, judge_caches
from tests.hosts import recorded

CPUS, PAGE_SIZE = 2, 4096
STARTED_AT = 1_795_501_000.0
CAPS = Caps(2000, 250_000, 250_000, 3600.0, shrink_enabled=True)
# name, seconds, and between which states the figures move meanwhile
_PHASES = (
    ("baseline", 5.0, "idle", "idle"),
    ("create", 0.4, "idle", "idle"),
    ("load", 12.0, "idle", "storm"),
    ("hold", 2.0, "storm", "storm"),
    ("drain", 0.6, "storm", "after"),
    ("settle", 30.0, "after", "after"),
    ("pressure", 1.2, "after", "pressured"),
    ("shrink", 0.1, "after", "shrunk"),
    ("cleanup", 1.0, "shrunk", "shrunk"),
)
_STATES = {"baseline": "idle", "created": "idle", "loaded": "storm", "drained": "after", "settled": "after",
           "pressured": "pressured", "shrunk": "shrunk", "removed": "shrunk"}  # fmt: skip
# Nobody has recorded a host under memory pressure: a share of what a shrink gave back there.
_BY_PRESSURE = 0.25


def scaled_storm(
    host: str, scale: int = 1, *, shrink: bool = True, pressure: bool = False, **wishes: Any
) -> dict[str, Any]:
    """A record made of a recorded host's states: what grew from ``idle`` on is taken ``scale`` times."""
    size = {"preset": "full", "cgroups": 50 * scale, "tasks": 20, "live_tasks": 1000 * scale, "shrink": shrink,
            "pressure": pressure}  # fmt: skip
    plan = make_plan(size | wishes, CAPS)
    snapshots = {
        name: _snapshot(host, recorded_state, scale)
        for name, recorded_state in _STATES.items()
        if (shrink or name != "shrunk") and (pressure or name != "pressured")
    }
    names = [row["cache"] for row in snapshots["settled"]["caches"]]
    evidence = Evidence(
        start=state(snapshots["created"]),
        loaded=state(snapshots["loaded"]),
        settled=state(snapshots["settled"]),
        pressured=state(snapshots["pressured"]) if pressure else None,
        shrunk=state(snapshots["shrunk"]) if shrink else None,
        noise_bytes={},
        noise_sunreclaim_bytes=0,
        reclaimable=frozenset(name for name in names if is_reclaimable(name, {})),
        tasks_started=plan.total_tasks,
        forks_observed=plan.total_tasks + 40,
        outcome="completed",
    )
    judged_on = Host(cpus=CPUS, page_size=PAGE_SIZE)
    left_out = {"shrink": shrink, "pressure": pressure}
    phases, series = _course(host, scale, [name for name, there in left_out.items() if not there], plan.live_tasks)
    release, _, version = host.partition("-cgroup-")
    return {
        "format": FORMAT,
        "id": f"20261124-060000-{release.replace('.', '-')}",
        "outcome": "completed",
        "reason": "",
        "requested_by": "root",
        "started_at": STARTED_AT,
        "seconds": round(sum(phase["seconds"] for phase in phases), 2),
        "plan": plan.as_dict(),
        "host": {
            "release": release, "allocator": "slub", "cgroup_mode": version, "kmem_accounting": "on",
            "page_size": PAGE_SIZE, "cpus": CPUS, "memory_bytes": snapshots["baseline"]["meminfo"]["MemTotal"],
            "kernel_config": {"CONFIG_SLUB": "y", "CONFIG_SLUB_CPU_PARTIAL": "y", "CONFIG_MEMCG": "y"},
        },
        "tasks": {
            "requested": plan.total_tasks, "started": plan.total_tasks, "failed": 0, "peak_live": plan.live_tasks,
            "forks_observed": plan.total_tasks + 40,
        },
        "cgroups": {
            "requested": plan.cgroups, "created": plan.cgroups, "removed": plan.cgroups, "leftover": 0, "left": {},
            "dying_before": 0, "dying_after": 3,
        },
        "limits": {"memory_bytes": 400 * 2**20, "pids": 2 * plan.live_tasks + 256},
        "pressure": [PRESSURE_STEP] if pressure else [],
        "phases": phases,
        "snapshots": snapshots,
        "series": series,
        "caches": judge_caches(evidence, judged_on),
        "verdict": judge(evidence, judged_on),
    }  # fmt: skip


PRESSURE_STEP = {
    "where": "storm", "ended": "limit", "consumed_bytes": 67_108_864, "limit_bytes": 78_643_200, "floor_bytes": None,
    "limit_hits": 92, "oom_kills": 1, "seconds": 0.14, "pages_scanned": 0, "slab_objects_scanned": 4321,
}  # fmt: skip


def _course(
    host: str, scale: int, left_out: list[str], most_live: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    phases: list[dict[str, Any]] = []
    series: list[dict[str, Any]] = []
    t = 0.0
    for name, seconds, before, after in _PHASES:
        if name in left_out:
            continue
        phases.append({"name": name, "started_at": STARTED_AT + t, "seconds": seconds})
        points = max(1, round(seconds))
        for point in range(points):
            share = (point + 0.5) / points
            live = {"load": share, "hold": 1.0, "drain": 1 - share}.get(name, 0.0)
            series.append(
                {
                    "t": round(t + share * seconds, 2),
                    "phase": name,
                    "slab_bytes": _between(host, scale, before, after, share, "Slab"),
                    "sunreclaim_bytes": _between(host, scale, before, after, share, "SUnreclaim"),
                    "task_struct_active": _between(host, scale, before, after, share, "task_struct"),
                    "live_tasks": round(live * most_live),
                }
            )
        t += seconds
    return phases, series


def _between(host: str, scale: int, before: str, after: str, share: float, figure: str) -> int:
    start, end = (_figure(_snapshot(host, name, scale), figure) for name in (before, after))
    return round(start + share * (end - start))


def _figure(snapshot: Mapping[str, Any], figure: str) -> int:
    if figure == "task_struct":
        return next(int(row["active_objects"]) for row in snapshot["caches"] if row["cache"] == figure)
    return int(snapshot["meminfo"][figure])


@functools.cache
def _snapshot(host: str, name: str, scale: int) -> dict[str, Any]:
    if name == "pressured":
        return _between_snapshots(_snapshot(host, "after", scale), _snapshot(host, "shrunk", scale))
    idle, now = _rows(host, "idle"), _rows(host, name)

    def grown(before: int, after: int) -> int:
        return max(0, before + scale * (after - before))

    caches = []
    for cache, row in now.items():
        before = idle.get(cache, row)
        counts = {key: grown(before[key], row[key]) for key in ("active_objects", "objects", "active_slabs", "slabs")}
        caches.append(
            {"cache": cache, **row, **counts, "size_bytes": counts["slabs"] * row["pages_per_slab"] * PAGE_SIZE}
        )
    meminfo, at_idle = _meminfo(host, name), _meminfo(host, "idle")
    for key in ("SReclaimable", "SUnreclaim"):
        meminfo[key] = grown(at_idle[key], meminfo[key])
    meminfo["Slab"] = meminfo["SReclaimable"] + meminfo["SUnreclaim"]
    return {
        "taken_at": STARTED_AT, "meminfo": meminfo, "processes": 62, "threads": 66, "forks": 1000, "cgroups_visible": 9,
        "cgroups_dying": 0, "caches": caches,
    }  # fmt: skip


def _between_snapshots(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    later = {row["cache"]: row for row in after["caches"]}

    def moved(old: int, new: int) -> int:
        return round(old + _BY_PRESSURE * (new - old))

    caches = []
    for row in before["caches"]:
        to = later.get(row["cache"], row)
        counts = {key: moved(row[key], to[key]) for key in ("active_objects", "objects", "active_slabs", "slabs")}
        caches.append({**row, **counts, "size_bytes": counts["slabs"] * row["pages_per_slab"] * PAGE_SIZE})
    meminfo = {key: moved(size, after["meminfo"].get(key, size)) for key, size in before["meminfo"].items()}
    return {**before, "meminfo": meminfo, "caches": caches}


def _rows(host: str, name: str) -> dict[str, dict[str, int]]:
    info = parse_slabinfo(recorded(host, name, "proc/slabinfo"))
    keys = ("active_objects", "objects", "object_size_bytes", "objects_per_slab", "pages_per_slab", "active_slabs",
            "slabs")  # fmt: skip
    columns = zip(*(map(int, getattr(info, key)) for key in keys), strict=True)
    return {cache: dict(zip(keys, numbers, strict=True)) for cache, numbers in zip(info.names, columns, strict=True)}


def _meminfo(host: str, name: str) -> dict[str, int]:
    return dict(parse_meminfo(recorded(host, name, "proc/meminfo")).values)
