"""The form of a record that came from another host as a file: what all readers of records rely on."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from slabwatch.storm.record import FORMAT

_Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_YEAR_3000 = 32_503_680_000


# What the readers of a record rely on; a newer slabwatch may have written more.


class _Cache(Struct, kw_only=True):
    cache: str
    active_objects: _Int
    objects: _Int
    object_size_bytes: _Int
    objects_per_slab: _Int
    pages_per_slab: _Int
    active_slabs: _Int
    slabs: _Int
    size_bytes: _Int


class _Taken(Struct, kw_only=True):
    meminfo: dict[str, _Int] | None
    caches: list[_Cache] | None
    processes: _Int | None


class _Plan(Struct, kw_only=True):
    preset: str
    cgroups: _Int
    tasks: _Int
    kind: str
    kind_text: str
    live_tasks: _Int


class _Host(Struct, kw_only=True):
    release: str
    allocator: str
    cgroup_mode: str
    kmem_accounting: str
    memory_bytes: _Int | None
    cpus: Annotated[int, Meta(ge=1, lt=2**20)]
    page_size: Annotated[int, Meta(ge=1, lt=2**30)]
    kernel_config: dict[str, str] = {}


class _Tasks(Struct, kw_only=True):
    requested: _Int
    started: _Int
    failed: _Int
    peak_live: _Int
    forks_observed: _Int | None


class _Cgroups(Struct, kw_only=True):
    requested: _Int
    created: _Int
    removed: _Int
    leftover: _Int
    left: dict[str, str] = {}
    dying_before: _Int | None
    dying_after: _Int | None


class _Phase(Struct, kw_only=True):
    name: str
    started_at: float
    seconds: float


class _Point(Struct, kw_only=True):
    t: float
    phase: str
    slab_bytes: _Int | None
    sunreclaim_bytes: _Int | None
    task_struct_active: _Int | None
    live_tasks: _Int | None


class _Judged(Struct, kw_only=True):
    cache: str
    verdict: str
    reclaimable: bool
    growth_bytes: _Int
    retained_bytes: _Int
    released_by_pressure_bytes: _Int | None = None
    released_by_shrink_bytes: _Int | None
    pinned_bytes: _Int | None


_FIGURES = ("retained_bytes", "released_by_shrink_bytes", "pinned_bytes")


class _Verdict(Struct, kw_only=True):
    word: str = msgspec.field(name="class")
    reason: str
    growth_bytes: _Int | None = None
    retained_bytes: _Int | UnsetType | None = UNSET
    released_by_pressure_bytes: _Int | None = None
    released_by_shrink_bytes: _Int | UnsetType | None = UNSET
    pinned_bytes: _Int | UnsetType | None = UNSET
    explained_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.growth_bytes is not None and any(getattr(self, figure) is UNSET for figure in _FIGURES):
            raise ValueError(f"there is a growth_bytes, but not all of {', '.join(_FIGURES)}")


class _Limits(Struct, kw_only=True):
    memory_bytes: _Int | None = None
    pids: _Int | None = None


class _Step(Struct, kw_only=True):
    where: str
    ended: str
    consumed_bytes: _Int
    limit_hits: _Int | None
    oom_kills: _Int | None
    pages_scanned: _Int | None
    slab_objects_scanned: _Int | None
    seconds: float


class _Record(Struct, kw_only=True):
    format: Annotated[int, Meta(ge=1, le=FORMAT)]
    id: str
    outcome: str
    reason: str
    requested_by: str
    started_at: Annotated[float, Meta(ge=0, lt=_YEAR_3000)]
    seconds: float
    plan: _Plan
    host: _Host
    tasks: _Tasks
    cgroups: _Cgroups
    limits: _Limits | None = None
    pressure: list[_Step] | None = None
    phases: list[_Phase]
    snapshots: dict[str, _Taken]
    series: list[_Point]
    caches: list[_Judged]
    verdict: _Verdict


def record_of(data: bytes) -> dict[str, Any]:
    """A record that came from another host as a file: used only when it has a record's form, else ValueError."""
    try:
        record: dict[str, Any] = msgspec.json.decode(data)
        msgspec.convert(record, _Record)
    except RecursionError as error:
        raise ValueError("brackets in thousands") from error
    return record
