"""/proc/stat: the kernel's counts since boot.

Kernel document: Documentation/filesystems/proc.rst ("Miscellaneous kernel statistics in /proc/stat"). A sample::

    btime 1795419545
    processes 1145
    procs_running 1
    procs_blocked 0

``processes`` counts forks and clones, threads included, since boot; it is not the number of processes that exist.
Of the lines about CPUs only their number is taken; those about interrupts and softirqs are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import number, whole_lines

PATH = "/proc/stat"

_WANTED = ("processes", "btime", "procs_running", "procs_blocked")


@dataclass(frozen=True, slots=True)
class Stat:
    """Forks since boot, the time of boot (Unix time), the tasks that run or wait for I/O now, and the CPUs online."""

    processes: int | None
    boot_time_seconds: int | None
    procs_running: int | None
    procs_blocked: int | None
    cpus: int = 0


def parse_stat(data: bytes) -> Stat:
    """The four figures, None for one that is not there. Raises KernelParseError when none is."""
    values: dict[str, int] = {}
    cpus = 0
    for line_no, line in enumerate(whole_lines(data, PATH), 1):
        key, _, value = line.partition(" ")
        cpus += key.startswith("cpu") and key != "cpu"
        if key in _WANTED:
            values[key] = number(value, PATH, line_no, line, key)
    if not values:
        raise KernelParseError(PATH, 0, "", "file (no line that is known)")
    return Stat(
        processes=values.get("processes"),
        boot_time_seconds=values.get("btime"),
        procs_running=values.get("procs_running"),
        procs_blocked=values.get("procs_blocked"),
        cpus=cpus,
    )
