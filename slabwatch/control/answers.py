"""The shapes of what the control API answers. None is "this kernel does not have it", never 0."""

from __future__ import annotations

from typing import Any, TypedDict


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
