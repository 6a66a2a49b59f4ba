"""The verdict's why, in plain words: what this kernel does with the memory of tasks and cgroups that are gone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def explain(verdict: str, host: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """One paragraph. ``host`` and ``plan`` are the record's."""
    if host.get("kmem_accounting") == "off":
        return (
            "Kernel memory accounting is off (cgroup.memory=nokmem, or not built in): nothing was charged to the "
            "cgroups, so this storm says what many tasks leave behind, and nothing about cgroups."
        )
    return " ".join(part for part in (_caches(host), _per_cpu(host), _meaning(verdict), _kind(plan)) if part)


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


def _meaning(verdict: str) -> str:
    return {
        "released": "The memory that the tasks took can be used again by everybody.",
        "retained": "No object needs the memory that stayed: the allocator holds it, and a shrink frees it.",
        "pinned": "Objects that are still in use hold the memory that stayed: look for who made them.",
    }.get(verdict, "")


def _kind(plan: Mapping[str, Any]) -> str:
    if plan.get("kind") == "light":
        return "Tasks of kind light have no memory map of their own, so mm_struct and VMAs were hardly tried."
    return ""
