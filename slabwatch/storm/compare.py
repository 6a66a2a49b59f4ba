"""Two storms side by side: two kernels, two dates, two settings. Pure.

Every difference is B minus A. Caches are shown where what stayed differs by more than the verdict's own tolerance
(64 pages x CPUs, of the host where that is more): less than that is noise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from slabwatch.storm.verdict import Host

Number = int | float

# A plan's settings that make a storm neither larger nor other. Any setting that is not named here does.
_HARMLESS = frozenset(
    ("preset", "kind_text", "total_tasks", "concurrency", "baseline_seconds", "hold_seconds", "shrink", "ttl_seconds",
     "on_disconnect", "shell", "pressure", "pressure_host")
)  # fmt: skip
# In the order of time: either storm may have taken some of them only.
_STATES = ("baseline", "created", "loaded", "drained", "settled", "pressured", "shrunk", "removed")
_LARGE_KMALLOC = re.compile(r"(?P<kind>(?:\w+-)?kmalloc-(?:\w+-)?)(?P<size>[1-9][0-9]{3,6})")


@dataclass(frozen=True, slots=True)
class Side:
    """Which storm it is, and what it found."""

    id: str
    started_at: float
    release: str
    preset: str
    outcome: str
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of both; None: not measured. ``difference`` is None where one of them is."""

    name: str
    a: Number | None
    b: Number | None
    difference: Number | None


@dataclass(frozen=True, slots=True)
class Setting:
    """Something of plan or host that differs; None: not there."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class CacheFigure:
    """What stayed in one cache. None: that kernel has no such cache, which counts as 0 in the difference."""

    cache: str
    reclaimable: bool
    a: int | None
    b: int | None
    difference: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """``unfair``: why the two can not be compared as they are. Each list's name carries its unit."""

    a: Side
    b: Side
    unfair: tuple[str, ...]
    settings: tuple[Setting, ...]
    verdict_bytes: tuple[Figure, ...]
    explained_ratio: Figure
    sunreclaim_bytes: tuple[Figure, ...]  # by state
    task_struct_active: tuple[Figure, ...]  # by state
    cache_retained_bytes: tuple[CacheFigure, ...]
    caches_alike: int  # those that are not shown
    tolerance_bytes: int
    counts: tuple[Figure, ...]
    phase_seconds: tuple[Figure, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Compare two records of finished storms."""
    tolerance = max(_tolerance(a), _tolerance(b))
    caches = tuple(_caches(a, b))
    shown = tuple(row for row in caches if abs(row.difference) > tolerance)
    either_pressed = any(_verdict(record).get("released_by_pressure_bytes") is not None for record in (a, b))
    pressed = ("released_by_pressure",) if either_pressed else ()
    return Comparison(
        a=_side(a),
        b=_side(b),
        unfair=tuple(_unfair(a, b)),
        settings=tuple(_settings(a, b)),
        verdict_bytes=tuple(
            _figure(name, _verdict(a).get(f"{name}_bytes"), _verdict(b).get(f"{name}_bytes"))
            for name in ("growth", "retained", *pressed, "released_by_shrink", "pinned")
        ),
        explained_ratio=_figure(
            "explained_ratio", _verdict(a).get("explained_ratio"), _verdict(b).get("explained_ratio")
        ),
        sunreclaim_bytes=_by_state(a, b, _sunreclaim),
        task_struct_active=_by_state(a, b, _task_struct),
        cache_retained_bytes=tuple(sorted(shown, key=lambda row: (-abs(row.difference), row.cache))),
        caches_alike=len(caches) - len(shown),
        tolerance_bytes=tolerance,
        counts=tuple(
            _figure(f"{of}.{name}", a[of].get(name), b[of].get(name))
            for of in ("tasks", "cgroups")
            for name in _in_order(a[of], b[of])
            if _is_number(a[of].get(name)) and _is_number(b[of].get(name))
        ),
        phase_seconds=_phase_seconds(a, b),
    )


def _side(record: Mapping[str, Any]) -> Side:
    verdict = _verdict(record)
    return Side(
        id=record["id"],
        started_at=record["started_at"],
        release=record["host"]["release"],
        preset=record["plan"]["preset"],
        outcome=record["outcome"],
        verdict=verdict.get("class", "inconclusive"),
        reason=verdict.get("reason") or record.get("reason") or "",
    )


def _verdict(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record["verdict"] or {}


def _figure(name: str, a: Number | None, b: Number | None) -> Figure:
    return Figure(name, a, b, None if a is None or b is None else round(b - a, 3))


def _is_number(value: Any) -> bool:
    """Or not measured. What one storm was too short for (the charges of its cgroups) may be a table in the other."""
    return isinstance(value, int | float | None)


def _tolerance(record: Mapping[str, Any]) -> int:
    return Host(cpus=record["host"]["cpus"], page_size=record["host"]["page_size"]).tolerance_bytes


def _unfair(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    plan_a, plan_b = deciding(a["plan"]), deciding(b["plan"])
    for key in _in_order(plan_a, plan_b):
        if key == "shell" and plan_a["kind"] != plan_b["kind"]:
            continue  # that has been said
        if plan_a.get(key) != plan_b.get(key):
            yield f"{key} is {_word(plan_a.get(key))} in A and {_word(plan_b.get(key))} in B"
    for name, record in (("A", a), ("B", b)):
        if record["outcome"] != "completed":
            yield f"{name} was {record['outcome']}"
        elif record["tasks"].get("failed"):
            yield f"{record['tasks']['failed']:,} tasks of {name} could not be started"
        elif _verdict(record).get("class") == "inconclusive":
            yield f"{name} is inconclusive"


def deciding(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that make a storm larger or other: two storms can be compared when they are the same."""
    shell = {"shell": plan.get("shell")} if plan["kind"] == "shell" else {}
    return {key: value for key, value in plan.items() if key not in _HARMLESS} | shell


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "not set" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Setting]:
    flat_a, flat_b = _flat(a), _flat(b)
    for name in _in_order(flat_a, flat_b):
        if flat_a.get(name) != flat_b.get(name):
            yield Setting(name, flat_a.get(name), flat_b.get(name))


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """plan.cgroups, host.release, CONFIG_SLUB and so on; what only says again what another setting says is left out."""
    host = {f"host.{key}": value for key, value in record["host"].items() if key != "kernel_config"}
    plan = {f"plan.{key}": value for key, value in record["plan"].items() if key not in ("kind_text", "total_tasks")}
    return host | (record["host"].get("kernel_config") or {}) | plan


def _in_order(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys((*a, *b)))


def _by_state(a: Mapping[str, Any], b: Mapping[str, Any], of: Any) -> tuple[Figure, ...]:
    snapshots_a, snapshots_b = a["snapshots"], b["snapshots"]
    names = [name for name in _STATES if name in snapshots_a or name in snapshots_b]
    names += [name for name in _in_order(snapshots_a, snapshots_b) if name not in _STATES]
    return tuple(_figure(name, of(snapshots_a.get(name)), of(snapshots_b.get(name))) for name in names)


def _sunreclaim(taken: Mapping[str, Any] | None) -> int | None:
    return ((taken or {}).get("meminfo") or {}).get("SUnreclaim")


def _task_struct(taken: Mapping[str, Any] | None) -> int | None:
    rows = (taken or {}).get("caches") or ()
    return next((row["active_objects"] for row in rows if row["cache"] == "task_struct"), None)


def _caches(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[CacheFigure]:
    stayed_a, stayed_b = _stayed(a), _stayed(b)
    if not stayed_a or not stayed_b:
        return  # a storm that did not come so far has nothing to be compared with
    reclaimable = {_present_name(row["cache"]) for record in (a, b) for row in record["caches"] if row["reclaimable"]}
    for cache in _in_order(stayed_a, stayed_b):
        in_a, in_b = stayed_a.get(cache), stayed_b.get(cache)
        yield CacheFigure(cache, cache in reclaimable, in_a, in_b, (in_b or 0) - (in_a or 0))


def _stayed(record: Mapping[str, Any]) -> dict[str, int]:
    settled = record["snapshots"].get("settled") or {}
    none = dict.fromkeys((_present_name(row["cache"]) for row in settled.get("caches") or ()), 0)
    return none | {_present_name(row["cache"]): row["retained_bytes"] for row in record["caches"]}


def _present_name(cache: str) -> str:
    """kmalloc-1024 as it is called since "mm, slab: shorten kmalloc cache names for large sizes" (in v4.20)."""
    large = _LARGE_KMALLOC.fullmatch(cache)
    if large is None:
        return cache
    kilobytes = int(large["size"]) // 1024
    return f"{large['kind']}{kilobytes // 1024}M" if kilobytes >= 1024 else f"{large['kind']}{kilobytes}k"


def _phase_seconds(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Figure, ...]:
    seconds_a, seconds_b = ({phase["name"]: phase["seconds"] for phase in record["phases"]} for record in (a, b))
    phases = [_figure(name, seconds_a.get(name), seconds_b.get(name)) for name in _in_order(seconds_a, seconds_b)]
    return (*phases, _figure("in all", a["seconds"], b["seconds"]))
