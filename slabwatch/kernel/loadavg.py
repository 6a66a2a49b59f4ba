"""/proc/loadavg: load, and how many threads the kernel has.

Kernel document: Documentation/filesystems/proc.rst ("loadavg"), proc_loadavg(5). A sample::

    0.08 0.02 0.01 1/1084 1144

The number after the slash counts every kernel thread and every thread of a process, in all pid namespaces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import whole_lines

PATH = "/proc/loadavg"

_FORM = re.compile(
    r"([0-9]{1,20}\.[0-9]{2}) ([0-9]{1,20}\.[0-9]{2}) ([0-9]{1,20}\.[0-9]{2}) "
    r"([0-9]{1,20})/([0-9]{1,20}) ([0-9]{1,20})"
)


@dataclass(frozen=True, slots=True)
class LoadAvg:
    """Load over 1, 5 and 15 minutes; runnable and existing threads; the pid given out last."""

    one: float
    five: float
    fifteen: float
    runnable: int
    threads: int
    last_pid: int


def parse_loadavg(data: bytes) -> LoadAvg:
    """The one line of /proc/loadavg. Raises KernelParseError."""
    lines = whole_lines(data, PATH)
    line = lines[0] if lines else ""
    found = _FORM.fullmatch(line)
    if found is None or len(lines) != 1:
        raise KernelParseError(PATH, 1, line, "line (not of the form 0.00 0.00 0.00 runnable/threads pid)")
    one, five, fifteen, runnable, threads, last_pid = found.groups()
    return LoadAvg(float(one), float(five), float(fifteen), int(runnable), int(threads), int(last_pid))
