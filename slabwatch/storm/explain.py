"""The verdict's why, in plain words: what this kernel does with the memory of tasks and cgroups that are gone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MIB = 1024 * 1024
WHERE = {"storm": "in the storm's own cgroup", "host": "on the host"}
# What ended the use of memory.
ENDED = {
    "limit": "until the kernel gave no more",
    "amount": "which was all that it was to be",
    "floor": "down to the floor of MemAvailable",
    "time": "when its time was over",
    "stopped": "when it was stopped",
}


def explain(
    verdict: Mapping[str, Any], host: Mapping[str, Any], plan: Mapping[str, Any], pressure: Sequence[Mapping[str, Any]]
) -> str:
    """One paragraph. All are the record's."""
    if host.get("kmem_accounting") == "off":
        return (
            "Kernel memory accounting is off (cgroup.memory=nokmem, or not built in): nothing was charged to the "
            "cgroups, so this storm says what many tasks leave behind, and nothing about cgroups."
        )
    parts = (_caches(host), _per_cpu(host), _meaning(verdict), _pressure(verdict, pressure), _kind(plan))
    return " ".join(part for part in parts if part)


def _caches(host: Mapping[str, Any]) -> str:
    if host.get("caches_per_cgroup"):
        return (
            "This kernel keeps slab caches of its own for each cgroup (before 5.9): a slab that holds one object of a "
            "cgroup is of use to no other, and partly filled slabs stay as long as their cgroup does."
        )
    return "This kernel's slab caches are shared by all cgroups (since 5.9): what one leaves free another can use."


def _per_cpu(host: Mapping[str, Any]) -> str:
    if host.get("sheaves"):
        return (
            "Freed objects wait in per-CPU sheaves and count as active there: what stays is bounded per CPU, "
            "not per cgroup, and goes with a shrink."
        )
    if host.get("kernel_config", {}).get("CONFIG_SLUB_CPU_PARTIAL") == "y":
        return "CPU partial lists (CONFIG_SLUB_CPU_PARTIAL) hold some slabs back on each CPU; a shrink empties them."
    return ""


def by_pressure_mostly(verdict: Mapping[str, Any]) -> bool:
    """Whether of what was given back more went under memory pressure than with the shrink."""
    return (verdict.get("released_by_pressure_bytes") or 0) > (verdict.get("released_by_shrink_bytes") or 0)


def _meaning(verdict: Mapping[str, Any]) -> str:
    if verdict["class"] == "retained" and by_pressure_mostly(verdict):
        return "Most of what had stayed the kernel gives back by itself once memory is short."
    return {
        "released": "The memory that the tasks took can be used again by everybody.",
        "retained": "No object needs the memory that stayed: the allocator holds it, and a shrink frees it.",
        "pinned": "Objects that are still in use hold the memory that stayed: look for who made them.",
    }.get(verdict["class"], "")


def _pressure(verdict: Mapping[str, Any], pressure: Sequence[Mapping[str, Any]]) -> str:
    """What stayed, and what of it went for that."""
    stayed, released = verdict.get("retained_bytes"), verdict.get("released_by_pressure_bytes")
    if not pressure or stayed is None or released is None:
        return ""
    steps = " and ".join(pressure_step(step) for step in pressure)
    of_what = f"of the {stayed / _MIB:.1f} MiB that had stayed when it began" if stayed else "as nothing had stayed"
    return f"Memory pressure ({steps}) gave back {released / _MIB:.1f} MiB {of_what}{_looked_through(pressure)}."


def pressure_step(step: Mapping[str, Any]) -> str:
    """Where, how much, and what ended it."""
    where = WHERE.get(step["where"], step["where"])
    return f"{step['consumed_bytes'] / _MIB:.0f} MiB used up {where}, {ENDED.get(step['ended'], step['ended'])}"


def _looked_through(pressure: Sequence[Mapping[str, Any]]) -> str:
    counts = [step["slab_objects_scanned"] for step in pressure if step["slab_objects_scanned"] is not None]
    if not counts:
        return ""
    return f"; for it the kernel looked through {sum(counts):,} objects of caches that it can shrink"


def _kind(plan: Mapping[str, Any]) -> str:
    if plan.get("kind") == "light":
        return "Tasks of kind light have no memory map of their own, so mm_struct and VMAs were hardly tried."
    return ""
