"""A small record made by hand, with the seed's own figures in it: a storm of one cache on an affected kernel."""

from __future__ import annotations

from typing import Any

MIB = 1024 * 1024


def snapshot(
    active: int, objects: int, slabs: int, slab: int, sreclaimable: int, processes: int | None
) -> dict[str, Any]:
    """meminfo's figures are in kB here, as the mail has them."""
    kib = 1024
    return {
        "taken_at": 1_569_500_000.0,
        "meminfo": {"Slab": slab * kib, "SReclaimable": sreclaimable * kib, "SUnreclaim": (slab - sreclaimable) * kib},
        "processes": processes,
        "threads": 420,
        "forks": 12_345,
        "cgroups_visible": 12,
        "cgroups_dying": 0,
        "caches": [
            {
                "cache": "task_struct",
                "active_objects": active,
                "objects": objects,
                "object_size_bytes": 5888,
                "objects_per_slab": 5,
                "pages_per_slab": 8,
                "active_slabs": slabs,
                "slabs": slabs,
                "size_bytes": slabs * 8 * 4096,
            }
        ],
    }


def made_record(storm_id: str = "20190926-120000-abcd", **changes: Any) -> dict[str, Any]:
    """The whole record."""
    record: dict[str, Any] = {
        "format": 1,
        "id": storm_id,
        "outcome": "completed",
        "reason": "",
        "requested_by": "root",
        "started_at": 1_569_499_200.0,
        "seconds": 262.34,
        "plan": {
            "preset": "seed",
            "cgroups": 1000,
            "tasks": 100,
            "total_tasks": 100_000,
            "kind": "shell",
            "kind_text": "`sleep 1` started by a shell script, one at a time in each cgroup",
            "live_tasks": 1000,
        },
        "host": {
            "release": "5.0.0-27-generic",
            "allocator": "slub",
            "cgroup_mode": "hybrid",
            "kmem_accounting": "on",
            "cpus": 8,
            "memory_bytes": 16 * 1024 * MIB,
            "page_size": 4096,
            "kernel_config": {"CONFIG_SLUB": "y"},
        },
        "tasks": {
            "requested": 100_000,
            "started": 99_999,
            "failed": 1,
            "peak_live": 1000,
            "forks_observed": None,
        },
        "cgroups": {
            "requested": 1000,
            "created": 1000,
            "removed": 999,
            "leftover": 1,
            "left": {"/sys/fs/cgroup/memory/slabwatch-storm-20190926-120000-abcd/c0007": "still busy"},
            "dying_before": 0,
            "dying_after": None,
        },
        "phases": [
            {"name": "baseline", "started_at": 1_569_499_200.0, "seconds": 5.0},
            {"name": "create", "started_at": 1_569_499_205.0, "seconds": 2.31},
        ],
        "snapshots": {
            "baseline": snapshot(735, 990, 198, 419_196, 123_788, 334),
            "settled": snapshot(11_404, 11_665, 2333, 948_932, 125_816, 334),
            "shrunk": {**snapshot(740, 990, 198, 419_200, 123_788, None), "caches": None},
        },
        "series": [
            {
                "t": 0.0,
                "phase": "baseline",
                "slab_bytes": 5,
                "sunreclaim_bytes": 4,
                "task_struct_active": 735,
                "live_tasks": 0,
            },
            {
                "t": 1.0,
                "phase": "load",
                "slab_bytes": 9,
                "sunreclaim_bytes": None,
                "task_struct_active": None,
                "live_tasks": 3,
            },
        ],
        "caches": [
            {
                "cache": "task_struct",
                "verdict": "retained",
                "reclaimable": False,
                "growth_bytes": 2135 * 8 * 4096,
                "retained_bytes": 2135 * 8 * 4096,
                "released_by_shrink_bytes": None,
                "pinned_bytes": None,
            },
            {
                "cache": "dentry",
                "verdict": "released",
                "reclaimable": True,
                "growth_bytes": 2 * MIB,
                "retained_bytes": 0,
                "released_by_shrink_bytes": 0,
                "pinned_bytes": 0,
            },
        ],
        "verdict": {
            "class": "retained",
            "growth_bytes": 527_708 * 1024,
            "retained_bytes": 527_708 * 1024,
            "released_by_shrink_bytes": 527_000 * 1024,
            "pinned_bytes": 708 * 1024,
            "explained_ratio": 0.129,
            "reason": "515.3 MiB stayed, most of it in task_struct; a shrink gave back 514.6 MiB",
        },
    }
    return record | changes
