"""What the kernel itself holds a storm to, even if the engine fails: memory and pids of the storm's root.

On v2 both are of one cgroup. On v1 the pids controller has a hierarchy of its own, in which the storm gets a root of
the same name, unless both share one. Standard library only: see ``engine``. Kernel documents:
admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/memory.rst, admin-guide/cgroup-v1/pids.rst.
"""

from __future__ import annotations

import contextlib
import os
import sys


def set_limits(root: str, pids_root: str, version: int, memory_bytes: int, pids: int) -> dict[str, int | None]:
    """Set both (0: none); those that hold now, ``memory_bytes`` and ``pids``, None where one could not be set.

    ``pids_root`` is the directory whose pids.max counts, "" where there is none.
    """
    if version == 2:
        offer_controllers(root)
        memory = "memory.max"
    else:
        # Before 5.11 a root's figures hold those of its children only with use_hierarchy; later it can't be off.
        with contextlib.suppress(FileNotFoundError):
            write(os.path.join(root, "memory.use_hierarchy"), "1")
        memory = "memory.limit_in_bytes"
    return {
        "memory_bytes": _set(os.path.join(root, memory), memory_bytes),
        "pids": _set(os.path.join(pids_root, "pids.max"), pids) if pids_root else None,
    }


def offer_controllers(directory: str) -> None:
    """v2: have memory and pids in the children of a cgroup. Raises OSError where memory can not be had."""
    # pids is a bonus, memory the point.
    with open(os.path.join(directory, "cgroup.subtree_control"), encoding="ascii") as file:
        enabled = file.read().split()
    for controller in ("memory", "pids"):
        if controller in enabled:
            continue
        try:
            write(os.path.join(directory, "cgroup.subtree_control"), f"+{controller}")
        except OSError:
            if controller == "memory":
                raise


def _set(path: str, value: int) -> int | None:
    if not value:
        return None
    try:
        write(path, str(value))
    except OSError as error:
        print(f"engine: {path} not set: {error.strerror}", file=sys.stderr, flush=True)
        return None
    return value


def write(path: str, text: str) -> None:
    """Write a kernel file whole. Raises OSError."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
