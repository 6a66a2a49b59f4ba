"""One storm, from baseline to record.

The daemon measures through its sampler while the engine, a child process, loads. Whatever ends the storm, the end is
the same: tasks are killed, cgroups removed, the record made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from slabwatch.errors import SlabwatchError, StormAborted
from slabwatch.host.root import KernelRoot
from slabwatch.host.shrink import ShrinkResult
from slabwatch.storm import lifecycle, record
from slabwatch.storm.charges import read_charges
from slabwatch.storm.engine import DRAIN_SECONDS, REMOVE_SECONDS, Setup
from slabwatch.storm.engine_process import EngineProcess
from slabwatch.storm.events import EventLog
from slabwatch.storm.explain import explain
from slabwatch.storm.guard import Guard, Vitals, read_oom_kills, read_stalled_percent
from slabwatch.storm.plan import Plan
from slabwatch.storm.preflight import Forecast, workers_of
from slabwatch.storm.verdict import Evidence, Host, is_reclaimable, judge, judge_caches
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample

SAMPLE_SECONDS = 1.0
# As kselftest gives them: tools/testing/selftests/cgroup/test_kmem.c
DYING_SECONDS = 8.0
# The engine's own deadline is later than the daemon's, which comes first unless the daemon hangs.
_ENGINE_GRACE_SECONDS = 30.0
_LIMIT_SLACK_BYTES = 256 * 1024 * 1024

log = logging.getLogger(__name__)


class Measure(Protocol):
    """Gives a fresh sample (``Sampler.measure``)."""

    async def __call__(self) -> tuple[Sample, Derived]: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a storm needs from the daemon. ``host``: the record's ``host``; ``reclaimable``: flags that sysfs told."""

    root: KernelRoot
    measure: Measure
    shrink: Callable[[], Awaitable[ShrinkResult]]
    host: Mapping[str, Any]
    reclaimable: Mapping[str, bool]
    min_available_bytes: int
    on_progress: Callable[[StormRun], None]


class StormRun:
    """A storm that runs or has run. ``outcome`` and ``record`` are None until it has ended."""

    def __init__(self, storm_id: str, plan: Plan, forecast: Forecast, requested_by: str, around: Surroundings) -> None:
        self.id = storm_id
        self.plan = plan
        self.requested_by = requested_by
        self.started_at = time.time()
        self.phase: str | None = None
        self.outcome: str | None = None
        self.record: dict[str, Any] | None = None
        self.events = EventLog()
        self.left: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._forecast = forecast
        self._around = around
        self._started = time.monotonic()
        self._stop = asyncio.Event()
        self._stop_outcome = ("completed", "")
        self._engine: EngineProcess | None = None
        self._created = 0
        self._removed = 0
        self._phases: list[dict[str, Any]] = []
        self._snapshots: dict[str, dict[str, Any]] = {}
        self._series: list[dict[str, Any]] = []
        self._baseline: list[tuple[Sample, Derived]] = []
        self._charges: dict[str, Any] | None = None
        self._loaded: tuple[Sample, Derived] | None = None

    def request_stop(self, reason: str, outcome: str = "stopped") -> None:
        """Have it end early; the first request's reason stands."""
        if not self._stop.is_set():
            self._stop_outcome = (outcome, reason)
            self._stop.set()

    async def run(self) -> dict[str, Any]:
        """Go through all phases; the record. Never raises but for a defect, and then too nothing is left behind."""
        watcher = asyncio.create_task(self._watch(), name=f"storm {self.id} watch")
        watcher.add_done_callback(self._watch_ended)
        outcome, reason = "failed", "defect in slabwatch: see the daemon's log"
        try:
            async with asyncio.timeout(self.plan.ttl_seconds):
                await self._all_phases()
            outcome, reason = "completed", ""
        except TimeoutError:
            outcome, reason = (
                "aborted",
                f"its time to live, {self.plan.ttl_seconds:g} s, was over in phase {self.phase}",
            )
        except StormAborted as error:
            outcome, reason = self._stop_outcome if self._stop.is_set() else ("failed", str(error))
        except SlabwatchError as error:
            outcome, reason = "failed", str(error)
        finally:
            try:
                await self._clean_up()
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
        self.outcome = outcome
        self.record = self._make_record(outcome, reason)
        return self.record

    async def _all_phases(self) -> None:
        plan = self.plan
        async with self._phase("baseline"):
            await self._pause(plan.baseline_seconds)
            self._baseline.append(await self._around.measure())
            self._snapshots["baseline"] = record.snapshot(*self._baseline[-1])
        async with self._phase("create"):
            self._engine = await EngineProcess.start(self._setup())
            await self._unless_stopped(self._engine.order("create", until="created"))
            await self._snapshot("created")
        async with self._phase("load"):
            await self._unless_stopped(self._engine.order("load", until="loaded"))
        async with self._phase("hold"):
            self._note_peak(await self._around.measure())
            if self._charges is None:
                self._charges = await asyncio.to_thread(self._read_charges)
            await self._pause(plan.hold_seconds)
            assert self._loaded is not None
            self._snapshots["loaded"] = record.snapshot(*self._loaded)
        async with self._phase("drain"):
            await self._unless_stopped(self._engine.order("drain", until="drained"))
            if plan.removal == "first":
                await self._unless_stopped(self._engine.order("remove_first", until="removed_first"))
            await self._snapshot("drained")
        async with self._phase("settle"):
            await self._pause(plan.settle_seconds)
            await self._snapshot("settled")
        if plan.shrink:
            async with self._phase("shrink"):
                await self._around.shrink()
                await self._snapshot("shrunk")
        # The cgroups have been kept until here: on kernels with caches for each cgroup, removal frees the residue.
        async with self._phase("cleanup"):
            await self._engine.order("remove", until="removed")
            await self._engine.end(5.0)
            await self._snapshot("removed")
            await self._wait_for_dying()

    async def _wait_for_dying(self) -> None:
        """The kernel takes removed cgroups down in the background: what is still dying after this time is held.

        All has been done and measured before: neither a stop nor the time to live makes another storm of it.
        """
        before = self._snapshots["baseline"]["cgroups_dying"]
        until = min(time.monotonic() + DYING_SECONDS, self._started + self.plan.ttl_seconds - SAMPLE_SECONDS)
        while (after := self._snapshots["removed"]["cgroups_dying"]) is not None and after > (before or 0):
            if time.monotonic() > until or self._stop.is_set():
                return
            with contextlib.suppress(StormAborted):
                await self._pause(SAMPLE_SECONDS / 2)
            await self._snapshot("removed")

    def _setup(self) -> Setup:
        plan, forecast = self.plan, self._forecast
        assert forecast.hierarchy is not None
        return Setup(
            storm_id=self.id,
            parent=forecast.parent,
            home=forecast.home,
            version=forecast.hierarchy.version,
            cgroups=plan.cgroups,
            tasks=plan.tasks,
            kind=plan.kind,
            workers=workers_of(plan),
            live_tasks=plan.live_tasks,
            at_once=plan.live_tasks,
            shell=f"/bin/{plan.shell}",
            limit_bytes=2 * forecast.memory_bytes + _LIMIT_SLACK_BYTES,
            limit_pids=2 * plan.live_tasks + 256,
            removal=plan.removal,
            cgroups_per_second=plan.cgroups_per_second,
            ttl_seconds=plan.ttl_seconds + _ENGINE_GRACE_SECONDS,
        )

    async def _clean_up(self) -> None:
        """After any end. The engine removes everything when its stdin closes; what it can not, is tried once more."""
        if self._engine is not None:
            await self._engine.end(DRAIN_SECONDS + REMOVE_SECONDS)
            self._removed, self.left = self._engine.removed, self._engine.left
        root = lifecycle.storm_root(self._forecast.parent, self.id)
        swept = await asyncio.to_thread(lifecycle.remove_root, root, deadline_seconds=5.0)
        # The root itself is not one of the storm's cgroups.
        self._removed = max(0, self._removed + swept.removed - (0 if swept.left else 1))
        self.left = swept.left
        if self._engine is not None:
            self._created = self._engine.created
            self.counts = dict(self._engine.counts)  # the last second's tasks count too
        if self.plan.removal == "each":  # the workers made them, and removed all but what is left
            self._created = self.counts.get("cgroups", 0)
            self._removed = max(0, self._created - len(self.left))

    @contextlib.asynccontextmanager
    async def _phase(self, name: str) -> AsyncIterator[None]:
        if self._stop.is_set():
            raise StormAborted(self._stop_outcome[1])
        self.phase = name
        started_at, started = time.time(), time.monotonic()
        self.events.add("phase", t=self._elapsed(), phase=name)
        self._around.on_progress(self)
        try:
            yield
        finally:
            seconds = round(time.monotonic() - started, 3)
            self._phases.append({"name": name, "started_at": started_at, "seconds": seconds})

    def _watch_ended(self, watcher: asyncio.Task[None]) -> None:
        """Nobody guards the host any more: the storm must not go on."""
        if not watcher.cancelled() and (defect := watcher.exception()) is not None:
            log.error("storm_watch_failed", exc_info=defect, extra={"fields": {"storm": self.id}})
            self.request_stop("defect in slabwatch: the storm's watch failed, see the daemon's log", "failed")

    async def _watch(self) -> None:
        """Sample about once a second, for the curve, the followers and the guard."""
        around = self._around
        oom_kills = await asyncio.to_thread(read_oom_kills, around.root)
        guard = Guard(around.min_available_bytes, self.plan.total_tasks, oom_kills)
        while True:
            asked = time.monotonic()
            sample, derived = await around.measure()
            lag = time.monotonic() - asked
            if self._engine is not None:
                self.counts = dict(self._engine.counts)
            phase = self.phase or "baseline"
            if phase == "baseline":
                self._baseline.append((sample, derived))
            if phase in ("load", "hold"):
                self._note_peak((sample, derived))
            if phase == "load" and self.plan.kind == "shell" and self._charges is None and self._all_alive():
                # These tasks end by themselves: in the hold phase none of them is left to be charged.
                self._charges = await asyncio.to_thread(self._read_charges)
            point = record.series_point(sample, derived, self._started, phase, self.counts.get("live", 0))
            self._series.append(point)
            self.events.add(
                "progress",
                **point,
                cgroups=self._engine.created if self._engine else 0,
                tasks_requested=self.plan.total_tasks,
                tasks_started=self.counts.get("started", 0),
                tasks_failed=self.counts.get("failed", 0),
            )
            around.on_progress(self)
            if reason := guard.reason(await asyncio.to_thread(self._vitals, sample, lag)):
                self.request_stop(reason, "aborted")
            if self._engine is not None and self._engine.failure and phase != "cleanup":
                self.request_stop(self._engine.failure, "failed")  # or a long hold would go on with nothing to hold
            await asyncio.sleep(SAMPLE_SECONDS)

    def _all_alive(self) -> bool:
        return self.counts.get("live", 0) >= 0.9 * self.plan.live_tasks

    def _vitals(self, sample: Sample, lag_seconds: float) -> Vitals:
        """Blocking: two small files of /proc."""
        return Vitals(
            available_bytes=sample.meminfo.get("MemAvailable") if sample.meminfo else None,
            oom_kills=read_oom_kills(self._around.root),
            stalled_percent=read_stalled_percent(self._around.root),
            tasks_failed=self.counts.get("failed", 0),
            lag_seconds=lag_seconds,
        )

    def _read_charges(self) -> dict[str, Any]:
        hierarchy = self._forecast.hierarchy
        assert hierarchy is not None
        root = lifecycle.storm_root(self._forecast.parent, self.id)
        return read_charges(self._around.root, root, hierarchy.version)

    def _note_peak(self, taken: tuple[Sample, Derived]) -> None:
        """``loaded`` is the sample with the most slab memory while the load was on."""
        if self._loaded is None or _slab(taken[0]) > _slab(self._loaded[0]):
            self._loaded = taken

    async def _snapshot(self, name: str) -> None:
        self._snapshots[name] = record.snapshot(*await self._around.measure())

    async def _pause(self, seconds: float) -> None:
        await self._unless_stopped(asyncio.sleep(seconds))

    async def _unless_stopped(self, work: Awaitable[None]) -> None:
        """Wait for ``work``, or raise StormAborted as soon as a stop is asked for."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise StormAborted(self._stop_outcome[1])
            working.result()
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.gather(stopping, working, return_exceptions=True)

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._started, 2)

    def _make_record(self, outcome: str, reason: str) -> dict[str, Any]:
        counts = self._engine.counts if self._engine else dict.fromkeys(("started", "failed", "peak"), 0)
        snapshots = self._snapshots
        forks = _difference(snapshots, "settled", "baseline", "forks")
        caches: list[dict[str, Any]] = []
        verdict: dict[str, Any] | None = {"class": "inconclusive", "reason": f"the storm was {outcome}: {reason}"}
        if "settled" in snapshots and "loaded" in snapshots:
            evidence = self._evidence(outcome, counts["started"], forks)
            host = Host(cpus=self._around.host["cpus"], page_size=self._around.host["page_size"])
            caches, verdict = judge_caches(evidence, host), judge(evidence, host)
            verdict["explanation"] = explain(verdict["class"], self._around.host, self.plan.as_dict())
        return {
            "format": record.FORMAT,
            "id": self.id,
            "outcome": outcome,
            "reason": reason,
            "requested_by": self.requested_by,
            "started_at": self.started_at,
            "seconds": self._elapsed(),
            "plan": self.plan.as_dict(),
            "host": dict(self._around.host),
            "tasks": {
                "requested": self.plan.total_tasks,
                "started": counts["started"],
                "failed": counts["failed"],
                "peak_live": counts["peak"],
                "forks_observed": forks,
            },
            "cgroups": {
                "requested": self.plan.cgroups,
                "created": self._created,
                "removed": self._removed,
                "leftover": len(self.left),
                "left": self.left,
                "charges": self._charges,
                "dying_before": snapshots.get("baseline", {}).get("cgroups_dying"),
                "dying_after": snapshots.get("removed", {}).get("cgroups_dying"),
            },
            "phases": self._phases,
            "snapshots": snapshots,
            "series": self._series,
            "caches": caches,
            "verdict": verdict,
        }

    def _evidence(self, outcome: str, started: int, forks: int | None) -> Evidence:
        snapshots = self._snapshots
        noise, noise_sunreclaim = record.noise(self._baseline)
        told = self._around.reclaimable
        names = {row["cache"] for row in snapshots["settled"]["caches"] or ()}
        return Evidence(
            start=record.state(snapshots.get("created", snapshots["baseline"])),
            loaded=record.state(snapshots["loaded"]),
            settled=record.state(snapshots["settled"]),
            shrunk=record.state(snapshots["shrunk"]) if "shrunk" in snapshots else None,
            noise_bytes=noise,
            noise_sunreclaim_bytes=noise_sunreclaim,
            reclaimable=frozenset(name for name in names if is_reclaimable(name, told)),
            tasks_requested=self.plan.total_tasks,
            tasks_started=started,
            forks_observed=forks,
            outcome=outcome,
        )


def _slab(sample: Sample) -> int:
    return (sample.meminfo.get("Slab") if sample.meminfo else None) or 0


def _difference(snapshots: Mapping[str, Any], later: str, earlier: str, key: str) -> int | None:
    after, before = snapshots.get(later, {}).get(key), snapshots.get(earlier, {}).get(key)
    return after - before if after is not None and before is not None else None
