"""The form of a record that came from another host as a file: what all readers of records rely on."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from slabwatch.storm.record import FORMAT

_Int = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_YEAR_3000 = 32_503_680_000


class _Form(BaseModel):
    """What the readers of a record rely on; a newer slabwatch may have written more."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Cache(_Form):
    cache: str
    active_objects: _Int
    objects: _Int
    object_size_bytes: _Int
    objects_per_slab: _Int
    pages_per_slab: _Int
    active_slabs: _Int
    slabs: _Int
    size_bytes: _Int


class _Taken(_Form):
    meminfo: dict[str, _Int] | None
    caches: list[_Cache] | None
    processes: _Int | None


class _Plan(_Form):
    preset: str
    cgroups: _Int
    tasks: _Int
    kind: str
    kind_text: str
    live_tasks: _Int


class _Host(_Form):
    release: str
    allocator: str
    cgroup_mode: str
    kmem_accounting: str
    memory_bytes: _Int | None
    cpus: int = Field(ge=1, lt=2**20)
    page_size: int = Field(ge=1, lt=2**30)
    kernel_config: dict[str, str] = {}


class _Tasks(_Form):
    requested: _Int
    started: _Int
    failed: _Int
    peak_live: _Int
    forks_observed: _Int | None


class _Cgroups(_Form):
    requested: _Int
    created: _Int
    removed: _Int
    leftover: _Int
    left: dict[str, str] = {}
    dying_before: _Int | None
    dying_after: _Int | None


class _Phase(_Form):
    name: str
    started_at: float
    seconds: float


class _Point(_Form):
    t: float
    phase: str
    slab_bytes: _Int | None
    sunreclaim_bytes: _Int | None
    task_struct_active: _Int | None
    live_tasks: _Int | None


class _Judged(_Form):
    cache: str
    verdict: str
    reclaimable: bool
    growth_bytes: _Int
    retained_bytes: _Int
    released_by_pressure_bytes: _Int | None = None
    released_by_shrink_bytes: _Int | None
    pinned_bytes: _Int | None


_FIGURES = ("retained_bytes", "released_by_shrink_bytes", "pinned_bytes")


class _Verdict(_Form):
    word: str = Field(alias="class")
    reason: str
    growth_bytes: _Int | None = None
    retained_bytes: _Int | None = None
    released_by_pressure_bytes: _Int | None = None
    released_by_shrink_bytes: _Int | None = None
    pinned_bytes: _Int | None = None
    explained_ratio: float | None = None

    @model_validator(mode="after")
    def _all_figures_or_none(self) -> Self:
        if self.growth_bytes is not None and not set(_FIGURES) <= self.model_fields_set:
            raise ValueError(f"there is a growth_bytes, but not all of {', '.join(_FIGURES)}")
        return self


class _Limits(_Form):
    memory_bytes: _Int | None = None
    pids: _Int | None = None


class _Step(_Form):
    where: str
    ended: str
    consumed_bytes: _Int
    limit_hits: _Int | None
    oom_kills: _Int | None
    pages_scanned: _Int | None
    slab_objects_scanned: _Int | None
    seconds: float


class _Record(_Form):
    format: int = Field(ge=1, le=FORMAT)
    id: str
    outcome: str
    reason: str
    requested_by: str
    started_at: float = Field(ge=0, lt=_YEAR_3000)
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
        _Record.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    record: dict[str, Any] = json.loads(data)
    return record
