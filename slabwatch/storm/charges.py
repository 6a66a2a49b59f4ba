"""What the kernel charged to the storm's cgroups: the proof that the load was real and where it belonged.

v1: memory.kmem.usage_in_bytes of each; v2: kernel memory of memory.stat. Blocking.
"""

from __future__ import annotations

import os
from typing import Any

from slabwatch.errors import KernelParseError, SourceUnavailable
from slabwatch.host.root import KernelRoot
from slabwatch.kernel.memory_stat import kernel_bytes, parse_memory_stat
from slabwatch.storm import lifecycle


def read_charges(root: KernelRoot, storm_root: str, version: int) -> dict[str, Any]:
    """For the record: the file, how many cgroups were read and charged, and bytes: total, median, largest.

    ``storm_root`` is the kernel path of the storm's root.
    """
    name = "memory.kmem.usage_in_bytes" if version == 1 else "memory.stat"
    charges: list[int] = []
    for directory in lifecycle.own_children(root.path(storm_root)):
        try:
            charge = _read(root, os.path.join(storm_root, os.path.basename(directory), name), version)
        except (SourceUnavailable, KernelParseError):
            continue
        if charge is not None:
            charges.append(charge)
    return {
        "file": name,
        "cgroups": len(charges),
        "charged": sum(charge > 0 for charge in charges),
        "total_bytes": sum(charges),
        "median_bytes": _median(charges) if charges else None,
        "max_bytes": max(charges, default=None),
    }


def _median(charges: list[int]) -> int:
    """By hand: ``statistics`` and what it imports would be in every daemon, for one line of a storm's record."""
    ordered = sorted(charges)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2


def _read(root: KernelRoot, path: str, version: int) -> int | None:
    return root.read_counter(path) if version == 1 else kernel_bytes(parse_memory_stat(root.read(path)))
