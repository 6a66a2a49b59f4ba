"""/proc/self/cgroup: which cgroup of each hierarchy this process is in.

Kernel document: Documentation/admin-guide/cgroup-v2.rst ("Processes"), cgroups(7). A sample::

    5:memory:/app.slice
    3:cpu,cpuacct:/
    1:name=systemd:/
    0::/app.slice/web.service

Paths are relative to the root of this process' cgroup namespace, may hold colons, and end in `` (deleted)``
when the cgroup has been removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import is_number, whole_lines

PATH = "/proc/self/cgroup"


@dataclass(frozen=True, slots=True)
class PidCgroup:
    """The path in the unified (v2) hierarchy, and the path by controller (or ``name=...``) in those of v1."""

    unified: str | None
    by_controller: Mapping[str, str]


def parse_pid_cgroup(data: bytes) -> PidCgroup:
    """All hierarchies; an empty file is a kernel that has none mounted. Raises KernelParseError."""
    unified: str | None = None
    by_controller: dict[str, str] = {}
    for line_no, line in enumerate(whole_lines(data, PATH), 1):
        fields = line.split(":", 2)
        if len(fields) != 3 or not is_number(fields[0]) or not fields[2].startswith("/"):
            raise KernelParseError(PATH, line_no, line, "line (not of the form number:controllers:/path)")
        hierarchy, controllers, path = fields
        if int(hierarchy) == 0 and not controllers:
            unified = path
        else:
            by_controller.update(dict.fromkeys(controllers.split(","), path))
    return PidCgroup(unified, by_controller)
