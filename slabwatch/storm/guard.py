"""While a storm runs: is the host suffering? One reason to abort, or none. ``Guard`` judges, and is pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from slabwatch.errors import KernelParseError, SourceUnavailable
from slabwatch.host.root import KernelRoot
from slabwatch.storm import lifecycle
from slabwatch.storm.oom import oom_kills, times
from slabwatch.watch.sample import Sample

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
    """Figures of one moment; None where the kernel does not tell. ``lag_seconds``: how late the sample came.

    ``oom_kills`` are the whole host's. Of these ``own_oom_kills`` were in the cgroups of the storm's tasks, and
    ``pressure_oom_kills`` of the process that uses memory up, which is meant to end so.
    """

    available_bytes: int | None
    oom_kills: int | None
    stalled_percent: float | None
    tasks_failed: int
    lag_seconds: float
    own_oom_kills: int | None = None
    pressure_oom_kills: int = 0


@dataclass(frozen=True, slots=True)
class Guard:
    """``oom_kills`` were counted by the kernel before the storm."""

    floor_bytes: int
    tasks_requested: int
    oom_kills: int | None

    def reason(self, vitals: Vitals) -> str:
        """Why the storm must end now; "" when it may go on."""
        available, stalled = vitals.available_bytes, vitals.stalled_percent
        if available is not None and available < self.floor_bytes:
            return (
                f"MemAvailable fell to {available} bytes, below the floor of {self.floor_bytes} "
                "(storm.min_available_ratio)"
            )
        if killed := self._killed(vitals):
            return killed
        if stalled is not None and stalled > MOST_STALLED_PERCENT:
            return f"all tasks of the host stood still for memory {stalled:.0f} % of the last 10 s (PSI full)"
        most_failed = max(FEW_FAILURES, int(MOST_FAILED_RATIO * self.tasks_requested))
        if vitals.tasks_failed > most_failed:
            return f"{vitals.tasks_failed} tasks could not be started; {most_failed} are tolerated"
        if vitals.lag_seconds > MOST_LAG_SECONDS:
            return f"a sample came {vitals.lag_seconds:.0f} s late: the kernel has no time for it"
        return ""

    def _killed(self, vitals: Vitals) -> str:
        if vitals.oom_kills is None or self.oom_kills is None:
            return ""
        kills = vitals.oom_kills - self.oom_kills - vitals.pressure_oom_kills
        if kills <= 0:
            return ""
        own = vitals.own_oom_kills
        if own is None:
            return f"the OOM killer struck {times(kills)} since the storm began"
        if own:
            return f"the OOM killer struck {times(own)} in the storm's own cgroups: their memory limit was reached"
        return f"the OOM killer struck {times(kills)} outside of the storm since it began"


class Pulse:
    """Reads the vitals of a storm whose root is at the kernel path ``storm_root``. Blocking, its making too.

    ``kept``: the storm's cgroups stay to its end, and what the kernel has counted in them too.
    """

    def __init__(self, root: KernelRoot, storm_root: str, version: int, *, kept: bool) -> None:
        self.oom_kills = read_oom_kills(root)
        self._root = root
        self._storm_root = root.path(storm_root)
        self._version = version
        self._kept = kept

    def feel(self, sample: Sample, lag_seconds: float, tasks_failed: int, pressure_oom_kills: int) -> Vitals:
        """Two small files of /proc, and those of the storm's cgroups once the OOM killer has struck.

        The cgroups come after the host, so that no kill in them is taken for somebody else's.
        ``pressure_oom_kills``: those that have been told already.
        """
        kills = read_oom_kills(self._root)
        own = None
        if kills != self.oom_kills:
            pressed = lifecycle.pressure_cgroup(self._storm_root)
            pressure_oom_kills = max(pressure_oom_kills, oom_kills([pressed], self._version) or 0)
            if self._kept:
                # Not the root, where no task is: on v2 it counts what is below it once more.
                children = (path for path in lifecycle.own_children(self._storm_root) if path != pressed)
                own = oom_kills(children, self._version)
        return Vitals(
            available_bytes=sample.meminfo.get("MemAvailable") if sample.meminfo else None,
            oom_kills=kills,
            stalled_percent=read_stalled_percent(self._root),
            tasks_failed=tasks_failed,
            lag_seconds=lag_seconds,
            own_oom_kills=own,
            pressure_oom_kills=pressure_oom_kills,
        )


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
