"""What this very process uses, as the kernel counts it: always of /proc, whatever root is watched."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from slabwatch.errors import KernelParseError, SourceUnavailable
from slabwatch.host.root import KernelRoot

_DESCRIPTORS = "/proc/self/fd"


@dataclass(frozen=True, slots=True)
class Usage:
    """By the names of process_*. ``start_time_seconds`` is Unix time; ``max_fds`` None: unlimited."""

    virtual_memory_bytes: int
    resident_memory_bytes: int
    start_time_seconds: float
    cpu_seconds_total: float
    open_fds: int
    max_fds: int | None


class OwnProcess:
    """Reads it again and again."""

    def __init__(self) -> None:
        self._root = KernelRoot("/")
        self._ticks = os.sysconf("SC_CLK_TCK")
        try:
            self._boot_seconds = self._root.read_stat().boot_time_seconds
        except (SourceUnavailable, KernelParseError):
            self._boot_seconds = None

    def read(self) -> Usage | None:
        """None where /proc does not tell."""
        if self._boot_seconds is None:
            return None
        try:
            stat = self._root.read_own_stat()
            descriptors = _count_descriptors()
        except (OSError, SourceUnavailable, KernelParseError):
            return None
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return Usage(
            virtual_memory_bytes=stat.virtual_bytes,
            resident_memory_bytes=stat.resident_pages * self._root.page_size,
            start_time_seconds=self._boot_seconds + stat.start_ticks / self._ticks,
            cpu_seconds_total=(stat.user_ticks + stat.system_ticks) / self._ticks,
            open_fds=descriptors,
            max_fds=None if most == resource.RLIM_INFINITY else most,
        )


def _count_descriptors() -> int:
    # commit f1f1f2569901 ("proc: report open files as size in stat() for /proc/pid/fd") (in v6.2); 0 before. One of
    # those that are listed is the list's own.
    return os.stat(_DESCRIPTORS).st_size or len(os.listdir(_DESCRIPTORS)) - 1
