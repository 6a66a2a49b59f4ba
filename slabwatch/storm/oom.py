"""How often the OOM killer struck in cgroups of a storm: the row ``oom_kill`` (since 4.13).

v1 has it in memory.oom_control, v2 in memory.events; both count it where the victim was. Standard library only: see
``engine``. Kernel documents: admin-guide/cgroup-v1/memory.rst, admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

_FILE = {1: "memory.oom_control", 2: "memory.events"}


def oom_kills(directories: Iterable[str], version: int) -> int | None:
    """Over all these cgroups together; None when none of them tells."""
    counts = [count for path in directories if (count := event(os.path.join(path, _FILE[version]), "oom_kill")) >= 0]
    return sum(counts) if counts else None


def times(count: int) -> str:
    """In words."""
    return "once" if count == 1 else f"{count} times"


def event(path: str, key: str) -> int:
    """One row of a file of keys and numbers; -1 when the file or the row is not there."""
    try:
        with open(path, encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith(f"{key} ")), -1)
    except (OSError, ValueError, IndexError):
        return -1
