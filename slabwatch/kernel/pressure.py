"""/proc/pressure/memory, and cpu, io and <cgroup>/memory.pressure: time lost to a lack of the resource (PSI).

Kernel document: Documentation/accounting/psi.rst. A sample::

    some avg10=0.00 avg60=0.00 avg300=0.00 total=0
    full avg10=0.00 avg60=0.00 avg300=0.00 total=0

``avg10`` is a percentage over the last 10 seconds, ``total`` microseconds since boot. Some kernels have no ``full``
line for cpu.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import whole_lines

PATH = "/proc/pressure/memory"

_FORM = re.compile(
    r"(some|full) avg10=([0-9]{1,20}\.[0-9]{2}) avg60=[0-9]{1,20}\.[0-9]{2} avg300=[0-9]{1,20}\.[0-9]{2}"
    r" total=([0-9]{1,20})"
)


@dataclass(frozen=True, slots=True)
class Pressure:
    """``some``: at least one task was stalled; ``full``: all of them. Percent, and microseconds in all."""

    some_avg10: float | None
    some_total_us: int | None
    full_avg10: float | None
    full_total_us: int | None


def parse_pressure(data: bytes, path: str = PATH) -> Pressure:
    """Both lines, None for one that is not there. Raises KernelParseError."""
    found: dict[str, tuple[float, int]] = {}
    for line_no, line in enumerate(whole_lines(data, path), 1):
        match = _FORM.fullmatch(line)
        if match is None:
            raise KernelParseError(path, line_no, line, "line (not of the form some|full avg10= ... total=)")
        found[match[1]] = float(match[2]), int(match[3])
    if not found:
        raise KernelParseError(path, 0, "", "file (empty)")
    some, full = found.get("some", (None, None)), found.get("full", (None, None))
    return Pressure(some[0], some[1], full[0], full[1])
