"""/proc/[pid]/stat: one process, in one line.

Kernel document: Documentation/filesystems/proc.rst ("Table 1-4: Contents of the stat fields"). A sample::

    4242 (slab) watch) S 1 4242 4242 0 -1 4194304 9120 0 3 0 151 38 0 0 20 0 4 0 90031 123904000 10533 ...

The name in the parentheses can hold anything, parentheses too: what follows is counted from the last one on.
"""

from __future__ import annotations

from dataclasses import dataclass

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import decode, number

PATH = "/proc/self/stat"

# Places behind the name; the document counts pid and name too, and from 1.
_UTIME, _STIME, _START, _VSIZE, _RSS = 11, 12, 19, 20, 21


@dataclass(frozen=True, slots=True)
class PidStat:
    """CPU time and start (since boot) in clock ticks, as of sysconf(SC_CLK_TCK); memory in bytes and in pages."""

    user_ticks: int
    system_ticks: int
    start_ticks: int
    virtual_bytes: int
    resident_pages: int


def parse_pid_stat(data: bytes) -> PidStat:
    """Raises KernelParseError."""
    line = decode(data)
    fields = line.rpartition(")")[2].split()
    if len(fields) <= _RSS:
        raise KernelParseError(PATH, 1, line, "line (too few fields)")

    def field(place: int, name: str) -> int:
        return number(fields[place], PATH, 1, line, name)

    return PidStat(
        user_ticks=field(_UTIME, "utime"),
        system_ticks=field(_STIME, "stime"),
        start_ticks=field(_START, "starttime"),
        virtual_bytes=field(_VSIZE, "vsize"),
        resident_pages=field(_RSS, "rss"),
    )
