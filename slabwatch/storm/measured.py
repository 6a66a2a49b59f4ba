"""What a storm has measured so far: states of the host, the curve, the noise; and the evidence that comes of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from slabwatch.storm import record
from slabwatch.storm.noise import Noise, louder
from slabwatch.storm.plan import Plan
from slabwatch.storm.verdict import Evidence, is_reclaimable
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample

Taken = tuple[Sample, Derived]


class Measured:
    """Filled by the storm as it goes. ``snapshots`` are the record's, by name; ``pressure`` its steps."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.series: list[dict[str, Any]] = []
        self.pressure: list[dict[str, Any]] = []
        self._peak: Taken | None = None
        self._baseline = Noise()
        self._settle = Noise()

    def elapsed(self) -> float:
        """Seconds since the storm's start."""
        return round(time.monotonic() - self.started, 2)

    def snapshot(self, name: str, taken: Taken) -> None:
        """Keep a state of the host under its name."""
        self.snapshots[name] = record.snapshot(*taken)

    def note(self, taken: Taken, phase: str, live_tasks: int) -> dict[str, Any]:
        """One more moment of a phase; the point of the curve that it is."""
        if phase == "baseline":
            self._baseline.add(*taken)
        elif phase == "settle":
            self._settle.add(*taken)
        elif phase in ("load", "hold"):
            self.note_peak(taken)
        point = record.series_point(*taken, self.started, phase, live_tasks)
        self.series.append(point)
        return point

    def note_peak(self, taken: Taken) -> None:
        """``loaded`` is the sample with the most slab memory while the load was on."""
        if self._peak is None or _slab(taken[0]) > _slab(self._peak[0]):
            self._peak = taken

    def snapshot_peak(self) -> None:
        """Keep the state of most slab memory; there has been one."""
        assert self._peak is not None
        self.snapshot("loaded", self._peak)

    def pressure_oom_kills(self) -> int:
        """Of the process that used memory up, in the steps that are over."""
        return sum(step["oom_kills"] or 0 for step in self.pressure)

    def difference(self, later: str, earlier: str, key: str) -> int | None:
        """Of a figure of two states; None when one of them is not there."""
        after, before = self.snapshots.get(later, {}).get(key), self.snapshots.get(earlier, {}).get(key)
        return after - before if after is not None and before is not None else None

    def evidence(
        self, plan: Plan, outcome: str, tasks_started: int, reclaimable: Mapping[str, bool]
    ) -> Evidence | None:
        """For the verdict; None when the storm did not come as far as that. ``reclaimable``: what sysfs told."""
        snapshots = self.snapshots
        if "settled" not in snapshots or "loaded" not in snapshots:
            return None
        swings, swing = self._baseline.swings()
        rises, rise = self._settle.rises()
        names = {row["cache"] for row in snapshots["settled"]["caches"] or ()}
        states = {name: record.state(taken) for name, taken in snapshots.items()}
        return Evidence(
            start=states.get("created") or states["baseline"],
            loaded=states["loaded"],
            settled=states["settled"],
            pressured=states.get("pressured"),
            shrunk=states.get("shrunk"),
            noise_bytes=louder(swings, rises),
            noise_sunreclaim_bytes=swing,
            settle_rise_bytes=rise,
            reclaimable=frozenset(name for name in names if is_reclaimable(name, reclaimable)),
            tasks_requested=plan.total_tasks,
            tasks_started=tasks_started,
            scripts=plan.cgroups if plan.kind == "shell" else 0,  # one in each cgroup
            forks_observed=self.difference("settled", "baseline", "forks"),
            outcome=outcome,
        )


def _slab(sample: Sample) -> int:
    return (sample.meminfo.get("Slab") if sample.meminfo else None) or 0
