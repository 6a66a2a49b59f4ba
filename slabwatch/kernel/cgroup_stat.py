"""cgroup.stat (v2): the cgroups below this one, living and dying.

Kernel document: Documentation/admin-guide/cgroup-v2.rst ("cgroup.stat"). A sample::

    nr_descendants 52
    nr_subsys_memory 53
    nr_dying_descendants 50
    nr_dying_subsys_memory 50

A dying cgroup has been removed, but something is still charged to it. ``nr_subsys_memory`` counts this cgroup's own
state too, so it is one more than the descendants that have memory.

Drift: two lines up to 6.1; the lines by controller are there in 6.12.
"""

from __future__ import annotations

from dataclasses import dataclass

from slabwatch.errors import KernelParseError
from slabwatch.kernel.flat_keyed import parse_flat_keyed

PATH = "cgroup.stat"


@dataclass(frozen=True, slots=True)
class CgroupStat:
    """Descendants; and the states of the memory controller below and at this cgroup (None: not told)."""

    descendants: int
    dying_descendants: int
    memory: int | None
    dying_memory: int | None


def parse_cgroup_stat(data: bytes) -> CgroupStat:
    """The counts of cgroup.stat. Raises KernelParseError, also when a count of descendants is missing."""
    values = {key: int(value) for key, value in parse_flat_keyed(data, PATH).items()}
    for key in ("nr_descendants", "nr_dying_descendants"):
        if key not in values:
            raise KernelParseError(PATH, 0, "", f"file (no {key})")
    return CgroupStat(
        descendants=values["nr_descendants"],
        dying_descendants=values["nr_dying_descendants"],
        memory=values.get("nr_subsys_memory"),
        dying_memory=values.get("nr_dying_subsys_memory"),
    )
