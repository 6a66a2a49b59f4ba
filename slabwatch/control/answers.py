"""The shapes of what the control API answers. None is "this kernel does not have it", never 0."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class KernelFacts(TypedDict):
    release: str
    allocator: str
    cgroup_mode: str
    kmem_accounting: str


class PollState(TypedDict):
    interval_seconds: float
    polls: int
    overruns: int
    last_poll_at: float | None
    age_seconds: float | None


class CollectorState(TypedDict):
    name: str
    success: bool
    duration_seconds: float
    error: str
    skipped: dict[str, int]


class RunningStorm(TypedDict):
    id: str
    outcome: str | None  # None until it has ended
    phase: str | None
    requested_by: str
    started_at: float
    seconds: float
    plan: dict[str, Any]


class StormState(TypedDict):
    enabled: bool
    running: RunningStorm | None
    leftover_cgroups: int
    recovering: str  # what a new storm has to wait for; "" when for nothing


class ShrinkState(TypedDict):
    enabled: bool


class LockState(TypedDict):
    reason: str
    by: str | None
    since: float | None


class Locked(TypedDict):
    lock: LockState | None  # None: somebody has unlocked it meanwhile
    before: LockState | None
    stopping: str | None  # the storm that was asked to stop


class Unlocked(TypedDict):
    lock: None
    before: LockState | None


class AuditLines(TypedDict):
    path: str
    lost: int
    entries: list[dict[str, Any]]


class You(TypedDict):
    user: str
    uid: int | None  # of a local user
    door: str
    role: str
    may: list[str]


class Status(TypedDict):
    version: str
    pid: int
    started_at: float
    uptime_seconds: float
    state: str
    kernel: KernelFacts
    poll: PollState
    collectors: list[CollectorState]
    storm: StormState
    shrink: ShrinkState
    lock: LockState | None
    metrics_url: str
    socket: str
    remote_url: str
    you: You


class CacheRow(TypedDict):
    cache: str
    active_objects: int
    objects: int
    object_size_bytes: int
    size_bytes: int
    growth_bytes: int | None
    expected_objects: int | None
    unexplained_objects: int | None


class Caches(TypedDict):
    taken_at: float
    since: float | None
    interval_seconds: float
    slab_bytes: int | None
    sreclaimable_bytes: int | None
    sunreclaim_bytes: int | None
    unattributed_bytes: int | None
    caches: list[CacheRow]


class CgroupRow(TypedDict):
    cgroup: str
    kernel_bytes: int | None
    slab_bytes: int | None
    memory_bytes: int | None
    populated: bool | None


class Cgroups(TypedDict):
    taken_at: float
    mode: str
    version: int
    visible: int
    dying: int | None
    omitted: int
    unpopulated_kernel_bytes: int | None
    cgroups: list[CgroupRow]


class Finding(TypedDict):
    name: str
    state: Literal["ok", "info", "warn", "fail"]
    finding: str
    remedy: str


class Doctor(TypedDict):
    findings: list[Finding]


class StormSummary(TypedDict):
    id: str
    outcome: str | None
    preset: str | None
    requested_by: str
    started_at: float
    seconds: float
    verdict: str | None
    cgroups: int
    tasks: int


class Storms(TypedDict):
    storms: list[StormSummary]


class StormRecord(TypedDict):
    """A finished storm."""

    format: int
    id: str
    outcome: Literal["completed", "stopped", "aborted", "failed"]
    reason: str
    requested_by: str
    started_at: float
    seconds: float
    plan: dict[str, Any]
    host: dict[str, Any]
    tasks: dict[str, Any]
    cgroups: dict[str, Any]
    phases: list[dict[str, Any]]
    snapshots: dict[str, Any]
    series: list[dict[str, Any]]
    caches: list[dict[str, Any]]
    verdict: dict[str, Any]


class StormStarted(TypedDict):
    id: str
    events: str
    plan: dict[str, Any]


class ForecastCheck(TypedDict):
    name: str
    ok: bool
    code: str
    figure: int | None
    limit: int | None
    text: str


class StormForecast(TypedDict):
    plan: dict[str, Any]
    checks: list[ForecastCheck]
    accepted: bool


class Stopping(TypedDict):
    id: str
    stopping: bool
    outcome: str | None


class CacheShrunk(TypedDict):
    cache: str
    before_bytes: int | None
    after_bytes: int | None
    released_bytes: int | None
    error: str


class Shrunk(TypedDict):
    caches: list[CacheShrunk]
    slab_before_bytes: int | None
    slab_after_bytes: int | None
    sunreclaim_before_bytes: int | None
    sunreclaim_after_bytes: int | None
    seconds: float


class Reloaded(TypedDict):
    reloaded: Literal[True]
    needs_restart: list[str]  # changed keys whose old values hold on


class StormEvent(TypedDict):
    """One line of a storm's events; what else it holds depends on ``event``."""

    event: Literal["phase", "progress", "warning", "end"]


class ProblemDetails(TypedDict):
    """RFC 9457; figures of a refusal are members of their own."""

    title: str
    status: int
    code: str
    detail: str
