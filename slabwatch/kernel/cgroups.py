"""/proc/cgroups: the controllers of this kernel and how many cgroups each has.

Kernel document: Documentation/admin-guide/cgroup-v1/cgroups.rst, cgroups(7). A sample (tabs between the fields)::

    #subsys_name	hierarchy	num_cgroups	enabled
    memory	5	53	1

``hierarchy`` is 0 for a controller that no v1 hierarchy has. ``num_cgroups`` of memory on v1 counts dying cgroups too.

Drift: only controllers that v1 can have are listed, so there is no ``memory`` line from about 6.16, or with
CONFIG_MEMCG_V1 off (6.11); on pure v2 the numbers mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import number, whole_lines

PATH = "/proc/cgroups"


@dataclass(frozen=True, slots=True)
class Controller:
    """One controller: its v1 hierarchy (0: none), the cgroups there, and whether it is on."""

    name: str
    hierarchy: int
    num_cgroups: int
    enabled: bool


def parse_cgroups(data: bytes) -> tuple[Controller, ...]:
    """All controllers, in the file's order. Raises KernelParseError."""
    lines = whole_lines(data, PATH)
    if not lines or not lines[0].startswith("#"):
        raise KernelParseError(PATH, 1, lines[0] if lines else "", "header")
    return tuple([_controller(line_no, line) for line_no, line in enumerate(lines[1:], 2)])


def _controller(line_no: int, line: str) -> Controller:
    words = line.split()
    if len(words) != 4:
        raise KernelParseError(PATH, line_no, line, "number of fields")
    name, hierarchy, num_cgroups, enabled = words
    if enabled not in ("0", "1"):
        raise KernelParseError(PATH, line_no, line, "enabled (neither 0 nor 1)")
    return Controller(
        name,
        number(hierarchy, PATH, line_no, line, "hierarchy"),
        number(num_cgroups, PATH, line_no, line, "num_cgroups"),
        enabled == "1",
    )
