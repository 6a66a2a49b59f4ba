"""A daemon that is only pretended: everything that the control server touches, held in memory."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slabwatch.config import Config
from slabwatch.control.audit import AuditLog
from slabwatch.control.audit_file import AuditFile
from slabwatch.control.lock import MaintenanceSwitch
from slabwatch.control.services import Services
from slabwatch.errors import StormRejected
from slabwatch.kernel.meminfo import MemInfo
from slabwatch.kernel.slabinfo import SlabInfo
from slabwatch.storm.plan import Caps, Plan, make_plan
from slabwatch.watch.derive import Derived, derive
from slabwatch.watch.sample import CgroupReadings, CollectorRun, ProcessCounts, Sample

MIB = 1024 * 1024
CAPS = Caps(2000, 250_000, 20_000, 3600.0, shrink_enabled=True)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that another task brings about."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about within 10 seconds")


def plan(**wishes: Any) -> Plan:
    return make_plan(wishes, CAPS)


# cache: active, objects, object size, per slab, pages per slab, active slabs, slabs
EARLIER = {
    "task_struct": (735, 990, 5888, 5, 8, 198, 198),
    "dentry": (330_102, 331_232, 192, 21, 1, 15_773, 15_773),
    "filp": (1600, 2048, 256, 16, 1, 128, 128),
}
LATER = {
    "task_struct": (11_404, 11_665, 5888, 5, 8, 2333, 2333),
    "dentry": (330_102, 331_232, 192, 21, 1, 15_773, 15_773),
    "filp": (1900, 2048, 256, 16, 1, 128, 128),
    "kmalloc-1k": (4096, 4096, 1024, 16, 4, 256, 256),
}


def slabinfo(rows: Mapping[str, Sequence[int]]) -> SlabInfo:
    active, objects, size, per_slab, pages, active_slabs, slabs = (
        tuple(map(str, column)) for column in zip(*rows.values(), strict=True)
    )
    return SlabInfo(tuple(rows), active, objects, size, per_slab, pages, active_slabs, slabs)


def sample(rows: Mapping[str, Sequence[int]] = LATER, **changes: Any) -> Sample:
    parts: dict[str, Any] = {
        "number": 7,
        "unix_seconds": 1_570_000_000.0,
        "monotonic_seconds": 1000.0,
        "page_size": 4096,
        "slabinfo": slabinfo(rows),
        "meminfo": MemInfo(
            {"Slab": 948_932 * 1024, "SReclaimable": 125_816 * 1024, "SUnreclaim": 823_116 * 1024}, frozenset(), ()
        ),
        "process": ProcessCounts(processes=334, threads=720, forks=99_000, allocated_files=1888, dentries=330_102),
        "cgroups": cgroups(),
        "slab_sysfs": None,
        "collectors": (
            CollectorRun("slabinfo", True, 0.0006),
            CollectorRun("meminfo", True, 0.0001),
            CollectorRun("cgroup", True, 0.0123, skipped={"vanished": 2}),
        ),
    }
    return Sample(**parts | changes)


def cgroups(**changes: Any) -> CgroupReadings:
    parts: dict[str, Any] = {
        "mode": "v2",
        "version": 2,
        "paths": ("/", "/system.slice/cron.service", "/old", "__other__"),
        "columns": {
            "kernel_bytes": ("90000000", "1048576", "3145728", "500"),
            "slab_reclaimable_bytes": (None, "524288", "1048576", None),
            "slab_unreclaimable_bytes": (None, "262144", "2097152", None),
            "memory_bytes": ("900000000", "4194304", "3145728", None),
            "populated": ("1", "1", "0", None),
        },
        "visible": 5,
        "dying": 48,
        "omitted": 2,
        "unpopulated_kernel_bytes": 3_145_728,
    }
    return CgroupReadings(**parts | changes)


@dataclass
class PretendedSampler:
    latest: Sample | None = field(default_factory=sample)
    first: Sample | None = field(default_factory=lambda: sample(EARLIER, unix_seconds=1_569_990_000.0))
    interval_seconds: float = 10.0
    polls: int = 1234
    overruns: int = 1

    @property
    def derived(self) -> Derived | None:
        return derive(self.latest) if self.latest else None

    @property
    def first_derived(self) -> Derived | None:
        return derive(self.first) if self.first else None


class PretendedEvents:
    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()

    async def add(self, *events: dict[str, Any]) -> None:
        async with self._news:
            self._events += events
            self._news.notify_all()

    async def follow(self, start: int = 0) -> AsyncIterator[dict[str, Any]]:
        for place in itertools.count(start):
            async with self._news:
                while len(self._events) <= place:
                    await self._news.wait()
            yield self._events[place]
            if self._events[place]["event"] == "end":
                return


@dataclass
class PretendedStorm:
    id: str
    plan: Plan
    requested_by: str = "root"
    phase: str | None = None
    started_at: float = 1_570_000_100.0
    outcome: str | None = None
    events: PretendedEvents = field(default_factory=PretendedEvents)
    stop_reasons: list[str] = field(default_factory=list)

    async def enter(self, phase: str, t: float) -> None:
        self.phase = phase
        await self.events.add({"event": "phase", "t": t, "phase": phase})

    async def progress(self, t: float, **figures: Any) -> None:
        event = {"cgroups": self.plan.cgroups, "tasks_started": 0, "tasks_failed": 0, "live_tasks": 0}
        event |= {"tasks_requested": self.plan.total_tasks, "slab_bytes": 400 * MIB, "sunreclaim_bytes": 300 * MIB}
        await self.events.add(
            {"event": "progress", "t": t, "phase": self.phase, "task_struct_active": 735} | event | figures
        )

    async def end(self, outcome: str = "completed", verdict: str = "retained", **changes: Any) -> dict[str, Any]:
        self.outcome = outcome
        ended = record(self.id, self.plan, outcome, verdict) | changes
        await self.events.add({"event": "end", "outcome": outcome, "reason": ended["reason"], "record": ended})
        return ended


def record(storm_id: str, done: Plan, outcome: str = "completed", verdict: str = "retained") -> dict[str, Any]:
    """A finished storm's record, with the figures of the mail that started it all."""
    return {
        "id": storm_id,
        "outcome": outcome,
        "reason": "" if outcome == "completed" else "stopped by root",
        "requested_by": "root",
        "plan": done.as_dict(),
        "host": {"release": "5.0.0-27-generic"},
        "tasks": {"requested": done.total_tasks, "started": done.total_tasks, "failed": 0, "peak_live": done.cgroups},
        "cgroups": {"requested": done.cgroups, "created": done.cgroups, "removed": done.cgroups, "leftover": 0},
        "started_at": 1_570_000_100.0,
        "seconds": 44.5,
        "phases": [{"name": "load", "started_at": 3.0, "seconds": 41.5}],
        "snapshots": {},
        "series": [],
        "caches": [
            {"cache": "task_struct", "verdict": verdict, "growth_bytes": 70_000_000, "retained_bytes": 69_959_680,
             "released_by_shrink_bytes": 68_000_000, "pinned_bytes": 1_959_680},
            {"cache": "dentry", "verdict": "released", "growth_bytes": 2_000_000, "retained_bytes": 0,
             "released_by_shrink_bytes": None, "pinned_bytes": None},
        ],
        "verdict": {"class": verdict, "retained_bytes": 540_372_992, "released_by_shrink_bytes": 500_000_000,
                    "pinned_bytes": 40_372_992, "explained_ratio": 0.964, "reason": ""},
    }  # fmt: skip


@dataclass
class PretendedStorms:
    """``refusal`` is raised by the next start and forecast."""

    running: PretendedStorm | None = None
    leftover_cgroups: int = 0
    recovering: str = ""
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusal: StormRejected | None = None
    keys: list[str | None] = field(default_factory=list)
    may_start: asyncio.Event | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(
        self, wishes: Mapping[str, Any], *, requested_by: str, idempotency_key: str | None
    ) -> tuple[PretendedStorm, bool]:
        if self.refusal:
            raise self.refusal
        if self.running and idempotency_key in self.keys:
            return self.running, True
        self.keys.append(idempotency_key)
        if self.may_start:
            await self.may_start.wait()
        self.running = PretendedStorm("storm-1", make_plan(wishes, CAPS), requested_by)
        self.started.set()
        return self.running, False

    async def forecast(self, wishes: Mapping[str, Any]) -> dict[str, Any]:
        if self.refusal:
            raise self.refusal
        text = "1,024 MiB are needed, 6,120 MiB may be used"
        check = {"name": "memory", "ok": True, "figure": 1024 * MIB, "limit": 6120 * MIB, "text": text}
        return {"plan": make_plan(wishes, CAPS).as_dict(), "checks": [check], "accepted": True}

    def find(self, storm_id: str) -> PretendedStorm | None:
        return self.running if self.running and self.running.id == storm_id else None

    def summaries(self) -> list[dict[str, Any]]:
        known = [self._summary(self.running.id, "running", None, self.running.plan.as_dict())] if self.running else []
        return known + [
            self._summary(old["id"], old["outcome"], old["verdict"]["class"], old["plan"])
            for old in self.ended.values()
        ]

    @staticmethod
    def _summary(storm_id: str, outcome: str, verdict: str | None, plan: Mapping[str, Any]) -> dict[str, Any]:
        numbers = {"cgroups": plan["cgroups"], "tasks": plan["tasks"], "preset": plan["preset"]}
        times = {"started_at": 1_570_000_100.0, "seconds": 44.5, "requested_by": "root"}
        return {"id": storm_id, "outcome": outcome, "verdict": verdict, **numbers, **times}

    def record(self, storm_id: str) -> dict[str, Any] | None:
        return self.ended.get(storm_id)

    def request_stop(self, storm_id: str | None, reason: str) -> PretendedStorm | None:
        storm = self.running
        if storm is None or storm_id not in (None, storm.id) or storm.outcome is not None:
            return None
        storm.stop_reasons.append(reason)
        return storm


@dataclass
class PretendedShrink:
    caches: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        rows = [
            {"cache": name, "before_bytes": 76 * MIB, "after_bytes": 8 * MIB, "released_bytes": 68 * MIB, "error": None}
            for name in self.caches or ("task_struct",)
        ]
        rows.append(
            {"cache": "inode_cache", "before_bytes": MIB, "after_bytes": MIB, "released_bytes": 0, "error": None}
        )
        sums = {"sunreclaim_before_bytes": 804 * MIB, "sunreclaim_after_bytes": 300 * MIB}
        sums |= {"slab_before_bytes": 927 * MIB, "slab_after_bytes": 420 * MIB}
        return {"caches": rows, **sums, "seconds": 0.842}


@dataclass
class PretendedShrinker:
    failure: Exception | None = None
    may_finish: asyncio.Event | None = None
    asked: list[Sequence[str]] = field(default_factory=list)

    async def shrink(self, caches: Sequence[str]) -> PretendedShrink:
        self.asked.append(caches)
        if self.failure:
            raise self.failure
        if self.may_finish:
            await self.may_finish.wait()
        return PretendedShrink(caches)


FINDINGS: list[dict[str, Any]] = [
    {"name": "slabinfo", "state": "ok", "finding": "readable, 235 caches", "remedy": None},
    {
        "name": "accounting",
        "state": "warn",
        "finding": "cgroup.memory=nokmem is on the command line: no cgroup is charged for kernel memory",
        "remedy": "remove it and reboot, to see figures for cgroups",
    },
]


@dataclass
class Pretended:
    """A daemon's parts; ``services()`` is what the server gets."""

    config: Config = field(
        default_factory=lambda: Config.read({"storm": {"enabled": True}, "shrink": {"enabled": True}})
    )
    sampler: PretendedSampler = field(default_factory=PretendedSampler)
    storms: PretendedStorms = field(default_factory=PretendedStorms)
    shrinker: PretendedShrinker = field(default_factory=PretendedShrinker)
    reload_failure: Exception | None = None
    reloads: int = 0
    needs_restart: list[str] = field(default_factory=list)
    state: Path = Path("/nonexistent/slabwatch")
    locked: bool = False
    audit: AuditLog = field(init=False)
    switch: MaintenanceSwitch = field(init=False)

    def __post_init__(self) -> None:
        self.audit = AuditLog(AuditFile(self.state, lambda: self.config.audit))
        self.switch = MaintenanceSwitch(self.state, self._tell)

    def _tell(self, locked: bool) -> None:
        self.locked = locked

    async def reload(self) -> list[str]:
        if self.reload_failure:
            raise self.reload_failure
        self.reloads += 1
        return self.needs_restart

    def facts(self) -> dict[str, Any]:
        kernel = {"release": "5.0.0-27-generic", "allocator": "SLUB", "cgroup_mode": "v2", "kmem_accounting": "on"}
        return {
            "state": "READY",
            "started_at": 1_569_990_000.0,
            "metrics_url": "http://127.0.0.1:9934/metrics",
            "remote_url": "",
            "socket": f"/run/user/{os.geteuid()}/slabwatch/slabwatch.sock",
            "kernel": kernel,
        }

    def services(self) -> Services:
        return Services(
            config=lambda: self.config,
            sampler=self.sampler,
            storms=self.storms,
            shrinker=self.shrinker,
            examine=lambda: FINDINGS,
            reload=self.reload,
            facts=self.facts,
            audit=self.audit,
            switch=self.switch,
        )
