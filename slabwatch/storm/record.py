"""The storm's record: plain data, ready for JSON, in the form that CONTRACT's readers rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slabwatch.storm.verdict import State
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample

FORMAT = 1  # raised when a reader of older records would misread a newer one


def snapshot(sample: Sample, derived: Derived) -> dict[str, Any]:
    """One state of the host: meminfo (bytes), processes, threads and all caches. What was not read is None."""
    process, meminfo, cgroups = sample.process, sample.meminfo, sample.cgroups
    return {
        "taken_at": sample.unix_seconds,
        "meminfo": dict(meminfo.values) if meminfo else None,
        "processes": process.processes if process else None,
        "threads": process.threads if process else None,
        "forks": process.forks if process else None,
        "cgroups_visible": cgroups.visible if cgroups else None,
        "cgroups_dying": cgroups.dying if cgroups else None,
        "caches": _caches(sample, derived),
    }


def _caches(sample: Sample, derived: Derived) -> list[dict[str, Any]] | None:
    info = sample.slabinfo
    if info is None:
        return None
    columns = (
        info.active_objects,
        info.objects,
        info.object_size_bytes,
        info.objects_per_slab,
        info.pages_per_slab,
        info.active_slabs,
        info.slabs,
    )
    keys = (
        "active_objects",
        "objects",
        "object_size_bytes",
        "objects_per_slab",
        "pages_per_slab",
        "active_slabs",
        "slabs",
    )
    return [
        {"cache": name, **dict(zip(keys, map(int, numbers), strict=True)), "size_bytes": size}
        for name, size, *numbers in zip(info.names, derived.cache_bytes, *columns, strict=True)
    ]


def state(taken: Mapping[str, Any]) -> State:
    """A snapshot as the verdict needs it."""
    meminfo = taken["meminfo"] or {}
    return State({row["cache"]: row["size_bytes"] for row in taken["caches"] or ()}, meminfo.get("SUnreclaim"))


def series_point(sample: Sample, derived: Derived, started: float, phase: str, live_tasks: int) -> dict[str, Any]:
    """One point of the record's curve; ``t`` is seconds since the storm's start."""
    meminfo, info = sample.meminfo, sample.slabinfo
    index = info.index("task_struct") if info else None
    return {
        "t": round(sample.monotonic_seconds - started, 2),
        "phase": phase,
        "slab_bytes": meminfo.get("Slab") if meminfo else None,
        "sunreclaim_bytes": meminfo.get("SUnreclaim") if meminfo else None,
        "task_struct_active": int(info.active_objects[index]) if info and index is not None else None,
        "live_tasks": live_tasks,
    }


def summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the list of storms."""
    return {
        "id": record["id"],
        "outcome": record["outcome"],
        "preset": record["plan"]["preset"],
        "requested_by": record["requested_by"],
        "started_at": record["started_at"],
        "seconds": record["seconds"],
        "verdict": (record["verdict"] or {}).get("class"),
        "cgroups": record["plan"]["cgroups"],
        "tasks": record["plan"]["total_tasks"],
    }
