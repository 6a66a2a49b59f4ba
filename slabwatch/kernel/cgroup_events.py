"""cgroup.events (v2): whether any process lives in this cgroup or below it.

Kernel document: Documentation/admin-guide/cgroup-v2.rst ("cgroup.events"). A sample::

    populated 1
    frozen 0
"""

from __future__ import annotations

from dataclasses import dataclass

from slabwatch.errors import KernelParseError
from slabwatch.kernel.flat_keyed import parse_flat_keyed

PATH = "cgroup.events"


@dataclass(frozen=True, slots=True)
class CgroupEvents:
    """``frozen`` is None where this kernel has no freezer in v2."""

    populated: bool
    frozen: bool | None


def parse_cgroup_events(data: bytes) -> CgroupEvents:
    """Both states. Raises KernelParseError."""
    values = parse_flat_keyed(data, PATH)
    for key in ("populated", "frozen"):
        if key in values and values[key] not in ("0", "1"):
            raise KernelParseError(PATH, 0, f"{key} {values[key]}", f"{key} (neither 0 nor 1)")
    if "populated" not in values:
        raise KernelParseError(PATH, 0, "", "file (no populated)")
    return CgroupEvents(values["populated"] == "1", values["frozen"] == "1" if "frozen" in values else None)
