"""The storms of this daemon: at most one runs, finished ones are on disk, and what earlier daemons left is removed."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from slabwatch.config import Config
from slabwatch.errors import KernelParseError, SourceUnavailable, StormRejected
from slabwatch.expose.own import OwnMetrics
from slabwatch.host.facts import has_sheaves, read_facts, relevant_config
from slabwatch.host.hierarchy import find_memory_hierarchy
from slabwatch.host.root import KernelRoot
from slabwatch.host.shrink import ShrinkResult
from slabwatch.host.slab_sysfs import SlabSysfs
from slabwatch.storm import lifecycle, place, preflight
from slabwatch.storm.plan import Plan, caps_of, make_plan
from slabwatch.storm.record import summary
from slabwatch.storm.runner import StormRun
from slabwatch.storm.store import RecordStore
from slabwatch.storm.surroundings import Measure, Surroundings

# So long a storm waits for the recovery before it is refused.
_PATIENCE_SECONDS = 1.0
_REMEMBERED_KEYS = 64

log = logging.getLogger(__name__)


class StormRegistry:
    """Starts, finds, stops and lists storms. ``config`` gives the configuration that holds now."""

    def __init__(
        self,
        root: KernelRoot,
        config: Callable[[], Config],
        measure: Measure,
        shrink: Callable[[], Awaitable[ShrinkResult]],
        metrics: OwnMetrics,
        locked: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.running: StormRun | None = None
        self.recovering = ""  # what a new storm has to wait for, in words
        self._left: dict[str, str] = {}
        self._root = root
        self._config = config
        self._measure = measure
        self._shrink = shrink
        self._metrics = metrics
        self._locked = locked
        self._store = RecordStore(config().state_directory(), config().storm.keep_records)
        self._last: StormRun | None = None
        self._task: asyncio.Task[None] | None = None
        self._by_key: OrderedDict[tuple[str, str], tuple[Mapping[str, Any], StormRun]] = OrderedDict()
        self._starting = asyncio.Lock()
        self._recovered = asyncio.Event()
        self._closed = False
        self._summaries: list[dict[str, Any]] = []
        self._told = (0, 0)  # tasks started and failed of the running storm, as counted in the metrics

    async def recover(self) -> None:
        """At the daemon's start: list the records, and remove what is left of storms that nobody runs any more.

        No storm begins before it is done: the engine of a killed daemon may still be cleaning up.
        """
        try:
            await self._recover()
        finally:
            self.recovering = ""
            self._recovered.set()

    @property
    def leftover_cgroups(self) -> int:
        """Directories of storms that are still there although no storm runs."""
        return len(self._left)

    async def _recover(self) -> None:
        self._summaries = await asyncio.to_thread(self._store.summaries)
        if self._summaries and (record := await asyncio.to_thread(self._store.load, self._summaries[0]["id"])):
            self._metrics.set_last_storm(record)
        if not self._root.live:
            return
        try:
            found = await asyncio.to_thread(self._find_roots)
            if found:
                self.recovering = f"what is there of earlier storms ({', '.join(found[:3])})"
                fields = {"paths": found, "deadline": lifecycle.ORPHANS_SECONDS}
                log.warning("storm_leftovers_found", extra={"fields": fields})
            swept = await asyncio.to_thread(self._sweep, lifecycle.ORPHANS_SECONDS)
        except (SourceUnavailable, KernelParseError, OSError) as error:
            log.info("storm_recovery_impossible", extra={"fields": {"error": str(error)}})
            return
        self._note_left(swept.left)
        if swept.removed or swept.killed or swept.left:
            what = {"removed": swept.removed, "killed": swept.killed, "left": swept.left}
            log.warning("storm_leftovers_removed", extra={"fields": what})

    def _find_roots(self) -> list[str]:
        return [
            root
            for parent in preflight.storm_parents(self._root, self._config().storm.parent)
            for root in lifecycle.find_roots(parent)
        ]

    def _sweep(self, seconds: float, known: Iterable[str] = ()) -> lifecycle.Swept:
        """Below the parent that is configured now, and where directories that are known to be left were made."""
        parents = preflight.storm_parents(self._root, self._config().storm.parent)
        parents += filter(os.path.isdir, (path.rpartition(f"/{lifecycle.PREFIX}")[0] for path in known))
        # A thread can not be cancelled: it looks whether the daemon stops.
        return lifecycle.remove_orphans(
            *dict.fromkeys(parents),
            deadline_seconds=seconds,
            give_up=lambda: self._closed,
        )

    async def start(
        self, wishes: Mapping[str, Any], *, requested_by: str, idempotency_key: str | None
    ) -> tuple[StormRun, bool]:
        """Begin a storm; or, True, the one that the same caller has begun with this key. Raises StormRejected."""
        await self._wait_for_recovery()
        async with self._starting:
            key = None if idempotency_key is None else (requested_by, idempotency_key)
            if key is not None and key in self._by_key:
                before, run = self._by_key[key]
                if before != wishes:
                    text = f"Idempotency-Key: storm {run.id} was begun with it and other wishes: take a new one"
                    raise StormRejected("bad_request", text, storm_id=run.id)
                return run, True
            if self.running is not None:
                text = f"storm {self.running.id} is running, in phase {self.running.phase}: wait for it, or stop it"
                raise StormRejected("storm_running", text, running=self.running.id)
            if self._config().storm.enabled:
                await asyncio.to_thread(place.make_room, self._root, self._config().storm.parent)
            plan, forecast = await self._examine(wishes)
            forecast.refuse()
            around = await self._surroundings()
            if self._closed:  # after all that takes time: ``close`` waits for no storm that begins behind its back
                raise StormRejected("stopping", "the daemon is stopping")
            if (why := self._locked()) is not None:
                raise StormRejected("locked", why)
            run = StormRun(_new_id(), plan, forecast, requested_by, around)
            self.running = run
            self._told = (0, 0)
            self._task = asyncio.create_task(self._carry_out(run), name=f"storm {run.id}")
            if key is not None:
                self._by_key[key] = wishes, run
                while len(self._by_key) > _REMEMBERED_KEYS:
                    self._by_key.popitem(last=False)
            log.info("storm_started", extra={"fields": {"storm": run.id, "plan": plan.as_dict(), "by": requested_by}})
            return run, False

    async def _wait_for_recovery(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._recovered.wait()
        except TimeoutError:
            does = f"sees to {self.recovering}" if self.recovering else "reads the records of earlier storms"
            seconds = lifecycle.ORPHANS_SECONDS
            text = f"the daemon has just started, and first {does}: try again in {seconds:g} s at most"
            raise StormRejected("recovering", text, retry_seconds=seconds) from None

    async def forecast(self, wishes: Mapping[str, Any]) -> dict[str, Any]:
        """Plan and checks, without a storm. Raises StormRejected for a plan that is refused as such."""
        plan, forecast = await self._examine(wishes)
        checks = [check.as_dict() for check in forecast.checks]
        return {"plan": plan.as_dict(), "checks": checks, "accepted": all(check.ok for check in forecast.checks)}

    def find(self, storm_id: str) -> StormRun | None:
        """The running storm or the last one, by id."""
        return next((run for run in (self.running, self._last) if run is not None and run.id == storm_id), None)

    def summaries(self) -> list[dict[str, Any]]:
        """One line a storm, newest first, the running one included."""
        run = self.running
        if run is None:
            return list(self._summaries)
        seconds = round(time.time() - run.started_at, 1)
        now: dict[str, Any] = {
            "id": run.id,
            "outcome": "running",
            "preset": run.plan.preset,
            "requested_by": run.requested_by,
        }
        now |= {"started_at": run.started_at, "seconds": seconds, "verdict": None}
        return [now | {"cgroups": run.plan.cgroups, "tasks": run.plan.total_tasks}, *self._summaries]

    def record(self, storm_id: str) -> dict[str, Any] | None:
        """A finished storm's record; also that of a storm that could not be written to disk. Blocking."""
        if self._last is not None and self._last.id == storm_id and self._last.record is not None:
            return self._last.record
        return self._store.load(storm_id)

    def request_stop(self, storm_id: str | None, reason: str) -> StormRun | None:
        """Ask the running storm (None: whichever runs) to stop; None when it does not run."""
        run = self.running
        if run is None or (storm_id is not None and run.id != storm_id):
            return None
        run.request_stop(reason)
        return run

    async def close(self, seconds: float) -> None:
        """The daemon stops: end the running storm, and wait for its cleanup up to the deadline."""
        self._closed = True
        if self.running is None or self._task is None:
            return
        self.running.request_stop("the daemon stops")
        await asyncio.wait((self._task,), timeout=seconds)

    async def _examine(self, wishes: Mapping[str, Any]) -> tuple[Plan, preflight.Forecast]:
        config = self._config()
        if not config.storm.enabled:
            raise StormRejected(
                "storm_disabled", "storms are off: set storm.enabled = true in the daemon's configuration"
            )
        plan = make_plan(wishes, caps_of(config))
        storm = config.storm
        arguments = (self._root, plan, storm.parent, storm.min_available_ratio, storm.pressure_floor_ratio)
        return plan, await asyncio.to_thread(preflight.examine, *arguments)

    async def _surroundings(self) -> Surroundings:
        host, reclaimable = await asyncio.to_thread(_describe_host, self._root)
        floor = int(host["memory_bytes"] * self._config().storm.min_available_ratio)
        return Surroundings(self._root, self._measure, self._shrink, host, reclaimable, floor, self._progress)

    async def _carry_out(self, run: StormRun) -> None:
        try:
            record = await run.run()
        except Exception:
            log.exception("storm_defect", extra={"fields": {"storm": run.id}})
            run.events.add("end", outcome="failed", reason="defect in slabwatch: see the daemon's log", record=None)
            return
        finally:
            try:
                await self._look_for_leftovers(run.left)
            finally:
                self._last, self.running = run, None
                self._progress(run)
                self._metrics.storm_progress(None, 0)
        self._metrics.storm_finished(record)
        self._summaries.insert(0, summary(record))
        del self._summaries[self._config().storm.keep_records :]
        log.info("storm_ended", extra={"fields": {**summary(record), "reason": record["reason"], "left": run.left}})
        try:
            await asyncio.to_thread(self._store.save, record)
        except OSError as error:
            text = f"the record could not be written: {error}. It is kept in memory until the next storm"
            run.events.add("warning", message=text)
            log.error(
                "record_not_written", extra={"fields": {"storm": run.id, "error": str(error), **record["verdict"]}}
            )
        run.events.add("end", outcome=record["outcome"], reason=record["reason"], record=record)

    def _progress(self, run: StormRun) -> None:
        started, failed = run.counts.get("started", 0), run.counts.get("failed", 0)
        self._metrics.storm_tasks(started - self._told[0], failed - self._told[1])
        self._told = (started, failed)
        self._metrics.storm_progress(run.phase, run.counts.get("live", 0))

    async def _look_for_leftovers(self, left: dict[str, str]) -> None:
        """Of this storm and of earlier ones; what was busy then may be free now."""
        left = self._left | left
        if left:
            try:
                left = (await asyncio.to_thread(self._sweep, 0.0, left)).left
            except (SourceUnavailable, KernelParseError, OSError) as error:
                log.warning("storm_leftovers_unseen", extra={"fields": {"error": str(error)}})
        self._note_left(left)

    def _note_left(self, left: dict[str, str]) -> None:
        self._left = left
        self._metrics.set_leftover(len(left))


def _new_id() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def _describe_host(root: KernelRoot) -> tuple[dict[str, Any], dict[str, bool]]:
    """The record's ``host``, and which caches are reclaimable as far as sysfs tells. Blocking."""
    meminfo = root.read_meminfo()
    host: dict[str, Any] = {
        **read_facts(root).as_dict(),
        "page_size": root.page_size,
        "cpus": os.cpu_count() or 1,
        "memory_bytes": meminfo.get("MemTotal") or 0,
        "kernel_config": relevant_config(root),
        "caches_per_cgroup": preflight.keeps_caches_per_cgroup(root, find_memory_hierarchy(root)),
        "sheaves": has_sheaves(root),
    }
    try:
        caches = SlabSysfs(root).caches(root.read_slabinfo().names)
    except (SourceUnavailable, KernelParseError):
        return host, {}
    return host, {cache.name: cache.reclaimable for cache in caches if cache.reclaimable is not None}
