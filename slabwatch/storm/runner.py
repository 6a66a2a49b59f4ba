"""One storm, from baseline to record.

The daemon measures through its sampler while the engine, a child process, loads. Whatever ends the storm, the end is
the same: tasks are killed, cgroups removed, the record made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any

from slabwatch.errors import SlabwatchError, StormAborted
from slabwatch.kernel.vmstat import reclaim_counts
from slabwatch.storm import lifecycle
from slabwatch.storm.charges import read_charges
from slabwatch.storm.engine_process import EngineProcess
from slabwatch.storm.events import EventLog
from slabwatch.storm.explain import explain
from slabwatch.storm.guard import Guard, Pulse, read_stalled_percent
from slabwatch.storm.measured import Measured
from slabwatch.storm.plan import Plan
from slabwatch.storm.preflight import Forecast, pids_limit, workers_of
from slabwatch.storm.record import FORMAT
from slabwatch.storm.setup import DRAIN_SECONDS, REMOVE_SECONDS, Setup
from slabwatch.storm.surroundings import Surroundings
from slabwatch.storm.verdict import Host, judge, judge_caches

SAMPLE_SECONDS = 1.0
# As kselftest gives them: tools/testing/selftests/cgroup/test_kmem.c
DYING_SECONDS = 8.0
CALM_SECONDS, CALM_PERCENT = 20.0, 5.0
# The engine's own deadline is later than the daemon's, which comes first unless the daemon hangs.
_ENGINE_GRACE_SECONDS = 30.0
_LIMIT_SLACK_BYTES = 256 * 1024 * 1024

# What the kernel looked through for memory, from /proc/vmstat.
RECLAIM = ("pages_scanned", "slab_objects_scanned")

log = logging.getLogger(__name__)


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
        self._measured = Measured()
        self._stop = asyncio.Event()
        self._stop_outcome = ("completed", "")
        self._engine: EngineProcess | None = None
        self._created = 0
        self._removed = 0
        self._limits: dict[str, int | None] = {}
        self._phases: list[dict[str, Any]] = []
        self._charges: dict[str, Any] | None = None
        self._stall_is_own = False

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
            outcome, reason = self._stop_outcome if self._stop.is_set() else (self._engine_outcome(), str(error))
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
            await self._snapshot("baseline")
        async with self._phase("create"):
            self._engine = await EngineProcess.start(self._setup())
            await self._unless_stopped(self._engine.order("create", until="created"))
            await self._snapshot("created")
        async with self._phase("load"):
            await self._unless_stopped(self._engine.order("load", until="loaded"))
        async with self._phase("hold"):
            self._measured.note_peak(await self._around.measure())
            if self._charges is None:
                self._charges = await asyncio.to_thread(self._read_charges)
            await self._pause(plan.hold_seconds)
            self._measured.snapshot_peak()
        async with self._phase("drain"):
            await self._unless_stopped(self._engine.order("drain", until="drained"))
            if plan.removal == "first":
                await self._unless_stopped(self._engine.order("remove_first", until="removed_first"))
            await self._snapshot("drained")
        async with self._phase("settle"):
            await self._pause(plan.settle_seconds)
            await self._snapshot("settled")
        if plan.pressure:
            async with self._phase("pressure"):
                # In the storm's own cgroup it is the storm alone that stands still for memory.
                self._stall_is_own = True
                await self._press("storm")
                await self._pause(SAMPLE_SECONDS)  # the kernel gives back in the background too
                await self._wait_for_calm()
                self._stall_is_own = False
                if plan.pressure_host:
                    await self._press("host")
                    await self._pause(SAMPLE_SECONDS)
                await self._snapshot("pressured")
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

    async def _press(self, where: str) -> None:
        """Have memory used up, and note what the kernel looked through for it."""
        assert self._engine is not None
        before = await asyncio.to_thread(self._reclaim_counts)
        await self._unless_stopped(self._engine.order(f"press_{where}", until=f"pressed_{where}"))
        after = await asyncio.to_thread(self._reclaim_counts)
        seen = {name: after[name] - before[name] if name in before and name in after else None for name in RECLAIM}
        self._measured.pressure.append({**self._engine.pressed[where], **seen})

    async def _wait_for_calm(self) -> None:
        """The kernel's figure is a mean of ten seconds: what is over must not be held against what comes."""
        until = time.monotonic() + CALM_SECONDS
        while (await asyncio.to_thread(read_stalled_percent, self._around.root) or 0) > CALM_PERCENT:
            if time.monotonic() > until:
                return
            await self._pause(SAMPLE_SECONDS / 2)

    def _reclaim_counts(self) -> dict[str, int]:
        """Blocking."""
        try:
            return reclaim_counts(self._around.root.read_vmstat())
        except SlabwatchError:
            return {}

    async def _wait_for_dying(self) -> None:
        """The kernel takes removed cgroups down in the background: what is still dying after this time is held.

        All has been done and measured before: neither a stop nor the time to live makes another storm of it.
        """
        snapshots = self._measured.snapshots
        before = snapshots["baseline"]["cgroups_dying"]
        until = min(time.monotonic() + DYING_SECONDS, self._measured.started + self.plan.ttl_seconds - SAMPLE_SECONDS)
        while (after := snapshots["removed"]["cgroups_dying"]) is not None and after > (before or 0):
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
            limit_pids=pids_limit(plan),
            pids_parent=forecast.pids_parent,
            pressure_floor_bytes=forecast.pressure_floor_bytes,
            removal=plan.removal,
            cgroups_per_second=plan.cgroups_per_second,
            ttl_seconds=plan.ttl_seconds + _ENGINE_GRACE_SECONDS,
        )

    async def _clean_up(self) -> None:
        """After any end. The engine removes everything when its stdin closes; what it can not, is tried once more."""
        if self._engine is not None:
            await self._engine.end(DRAIN_SECONDS + REMOVE_SECONDS)
            self._removed = self._engine.removed
        for parent in filter(None, dict.fromkeys((self._forecast.parent, self._forecast.pids_parent))):
            root = lifecycle.storm_root(parent, self.id)
            swept = await asyncio.to_thread(lifecycle.remove_root, root, deadline_seconds=5.0)
            self.left |= swept.left
            if parent == self._forecast.parent:
                # The root itself is not one of the storm's cgroups.
                self._removed = max(0, self._removed + swept.removed - (0 if swept.left else 1))
        if self._engine is not None:
            self._created, self._limits = self._engine.created, self._engine.limits
            self._removed = min(self._removed, self._created)  # nor is that of the pressure
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
        self.events.add("phase", t=self._measured.elapsed(), phase=name)
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
        hierarchy = self._forecast.hierarchy
        assert hierarchy is not None
        storm_root = lifecycle.storm_root(self._forecast.parent, self.id)
        pulse = await asyncio.to_thread(
            Pulse, around.root, storm_root, hierarchy.version, kept=self.plan.removal == "last"
        )
        guard = Guard(around.min_available_bytes, self.plan.total_tasks, pulse.oom_kills)
        due = time.monotonic()
        while True:
            taken = await around.measure()
            # Late is also a daemon that was kept from asking, or from feeling the pulse: nobody guarded the host.
            now = time.monotonic()
            lag, due = now - due, now + SAMPLE_SECONDS
            if self._engine is not None:
                self.counts = dict(self._engine.counts)
            phase = self.phase or "baseline"
            if phase == "load" and self.plan.kind == "shell" and self._charges is None and self._all_alive():
                # These tasks end by themselves: in the hold phase none of them is left to be charged.
                self._charges = await asyncio.to_thread(self._read_charges)
            self.events.add(
                "progress",
                **self._measured.note(taken, phase, self.counts.get("live", 0)),
                cgroups=self._engine.created if self._engine else 0,
                tasks_requested=self.plan.total_tasks,
                tasks_started=self.counts.get("started", 0),
                tasks_failed=self.counts.get("failed", 0),
                pressure_bytes=self._engine.pressing_bytes if self._engine else 0,
            )
            around.on_progress(self)
            failed, pressed = self.counts.get("failed", 0), self._measured.pressure_oom_kills()
            vitals = await asyncio.to_thread(pulse.feel, taken[0], lag, failed, pressed)
            if self._stall_is_own:
                vitals = replace(vitals, stalled_percent=None)
            if reason := guard.reason(vitals):
                self.request_stop(reason, "aborted")
            if self._engine is not None and self._engine.failure and phase != "cleanup":
                # Or a long hold would go on with nothing to hold.
                self.request_stop(self._engine.failure, self._engine_outcome())
            await asyncio.sleep(SAMPLE_SECONDS)

    def _engine_outcome(self) -> str:
        """Of an engine that can not go on: to run into its own limit is what the limit is for."""
        return "aborted" if self._engine is not None and self._engine.by_limit else "failed"

    def _all_alive(self) -> bool:
        return self.counts.get("live", 0) >= 0.9 * self.plan.live_tasks

    def _read_charges(self) -> dict[str, Any]:
        hierarchy = self._forecast.hierarchy
        assert hierarchy is not None
        root = lifecycle.storm_root(self._forecast.parent, self.id)
        return read_charges(self._around.root, root, hierarchy.version)

    async def _snapshot(self, name: str) -> None:
        self._measured.snapshot(name, await self._around.measure())

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

    def _make_record(self, outcome: str, reason: str) -> dict[str, Any]:
        counts = self._engine.counts if self._engine else dict.fromkeys(("started", "failed", "peak"), 0)
        measured, snapshots = self._measured, self._measured.snapshots
        caches: list[dict[str, Any]] = []
        verdict: dict[str, Any] | None = {"class": "inconclusive", "reason": f"the storm was {outcome}: {reason}"}
        evidence = measured.evidence(self.plan, outcome, counts["started"], self._around.reclaimable)
        if evidence is not None:
            host = Host(cpus=self._around.host["cpus"], page_size=self._around.host["page_size"])
            caches, verdict = judge_caches(evidence, host), judge(evidence, host)
            verdict["explanation"] = explain(verdict, self._around.host, self.plan.as_dict(), measured.pressure)
        return {
            "format": FORMAT,
            "id": self.id,
            "outcome": outcome,
            "reason": reason,
            "requested_by": self.requested_by,
            "started_at": self.started_at,
            "seconds": measured.elapsed(),
            "plan": self.plan.as_dict(),
            "host": dict(self._around.host),
            "tasks": {
                "requested": self.plan.total_tasks,
                "started": counts["started"],
                "failed": counts["failed"],
                "peak_live": counts["peak"],
                "forks_observed": measured.difference("settled", "baseline", "forks"),
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
            "limits": self._limits,
            "pressure": measured.pressure,
            "phases": self._phases,
            "snapshots": snapshots,
            "series": measured.series,
            "caches": caches,
            "verdict": verdict,
        }
