"""While a storm runs: is the host suffering? One reason to abort, or none. The judging is pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from slabwatch.errors import KernelParseError, SourceUnavailable
from slabwatch.host.root import KernelRoot

Figure = TypeVar("Figure")

# Share of the last ten seconds in which all tasks of the host stood still for memory (PSI "full").
MOST_STALLED_PERCENT = 20.0
# Of the tasks asked for; a few failures are others' use of the same limits.
MOST_FAILED_RATIO = 0.05
FEW_FAILURES = 100
# A sample that takes so long says that the kernel has no time for a read of /proc.
MOST_LAG_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """Figures of one moment; None where the kernel does not tell. ``lag_seconds``: how late the sample came."""

    available_bytes: int | None
    oom_kills: int | None
    stalled_percent: float | None
    tasks_failed: int
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class Guard:
    """``oom_kills`` were counted by the kernel before the storm."""

    floor_bytes: int
    tasks_requested: int
    oom_kills: int | None

    def reason(self, vitals: Vitals) -> str:
        """Why the storm must end now; "" when it may go on."""
        available, kills, stalled = vitals.available_bytes, vitals.oom_kills, vitals.stalled_percent
        if available is not None and available < self.floor_bytes:
            return (
                f"MemAvailable fell to {available} bytes, below the floor of {self.floor_bytes} "
                "(storm.min_available_ratio)"
            )
        if kills is not None and self.oom_kills is not None and kills > self.oom_kills:
            return f"the OOM killer struck {kills - self.oom_kills} times since the storm began"
        if stalled is not None and stalled > MOST_STALLED_PERCENT:
            return f"all tasks of the host stood still for memory {stalled:.0f} % of the last 10 s (PSI full)"
        most_failed = max(FEW_FAILURES, int(MOST_FAILED_RATIO * self.tasks_requested))
        if vitals.tasks_failed > most_failed:
            return f"{vitals.tasks_failed} tasks could not be started; {most_failed} are tolerated"
        if vitals.lag_seconds > MOST_LAG_SECONDS:
            return f"a sample came {vitals.lag_seconds:.0f} s late: the kernel has no time for it"
        return ""


def read_oom_kills(root: KernelRoot) -> int | None:
    """Times that the OOM killer struck since boot: /proc/vmstat oom_kill (since 4.13)."""
    return _known(lambda: root.read_vmstat().get("oom_kill"))


def read_stalled_percent(root: KernelRoot) -> float | None:
    """/proc/pressure/memory, full avg10 (since 4.20, with CONFIG_PSI and not off at boot)."""
    return _known(lambda: root.read_memory_pressure().full_avg10)


def _known(read: Callable[[], Figure | None]) -> Figure | None:
    try:
        return read()
    except (SourceUnavailable, KernelParseError):
        return None
