"""The answers of the control API, built from samples and storms. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slabwatch.control.answers import CacheRow, Caches, CgroupRow, Cgroups, CollectorState, PollState, RunningStorm
from slabwatch.control.services import Samples, Storm
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import CgroupReadings, Sample


def poll_state(samples: Samples, monotonic_seconds: float) -> PollState:
    """How the sampler is doing; the age is by the monotonic clock, so a step of the wall clock does not change it."""
    latest = samples.latest
    return {
        "interval_seconds": samples.interval_seconds,
        "polls": samples.polls,
        "overruns": samples.overruns,
        "last_poll_at": latest.unix_seconds if latest else None,
        "age_seconds": max(0.0, monotonic_seconds - latest.monotonic_seconds) if latest else None,
    }


def collector_states(sample: Sample | None) -> list[CollectorState]:
    """How each collector fared in the last poll."""
    return [
        {
            "name": run.name,
            "success": run.success,
            "duration_seconds": run.duration_seconds,
            "error": run.error,
            "skipped": dict(run.skipped),
        }
        for run in (sample.collectors if sample else ())
    ]


def storm_view(storm: Storm, unix_seconds: float) -> RunningStorm:
    """A storm that has no record yet."""
    return {
        "id": storm.id,
        "outcome": storm.outcome,
        "phase": storm.phase,
        "requested_by": storm.requested_by,
        "started_at": storm.started_at,
        "seconds": max(0.0, unix_seconds - storm.started_at),
        "plan": storm.plan.as_dict(),
    }


def caches_view(samples: Samples, sample: Sample, derived: Derived) -> Caches:
    """Every cache, in the kernel's order, and the sums of /proc/meminfo."""
    meminfo = sample.meminfo
    first = samples.first
    return {
        "taken_at": sample.unix_seconds,
        "since": first.unix_seconds if first and first.slabinfo else None,
        "interval_seconds": samples.interval_seconds,
        "slab_bytes": meminfo.get("Slab") if meminfo else None,
        "sreclaimable_bytes": meminfo.get("SReclaimable") if meminfo else None,
        "sunreclaim_bytes": meminfo.get("SUnreclaim") if meminfo else None,
        "unattributed_bytes": derived.unattributed_bytes,
        "caches": _cache_rows(sample, derived, _sizes(first, samples.first_derived)),
    }


def _sizes(sample: Sample | None, derived: Derived | None) -> Mapping[str, int] | None:
    if sample is None or sample.slabinfo is None or derived is None:
        return None
    return dict(zip(sample.slabinfo.names, derived.cache_bytes, strict=True))


def _cache_rows(sample: Sample, derived: Derived, before: Mapping[str, int] | None) -> list[CacheRow]:
    info = sample.slabinfo
    if info is None:
        return []
    rows: list[CacheRow] = []
    columns = (info.names, info.active_objects, info.objects, info.object_size_bytes, derived.cache_bytes)
    for name, active, objects, object_size, size in zip(*columns, strict=True):
        expected = derived.expected_objects.get(name)
        rows.append(
            {
                "cache": name,
                "active_objects": int(active),
                "objects": int(objects),
                "object_size_bytes": int(object_size),
                "size_bytes": size,
                # A cache that was made since the first sample has grown from nothing.
                "growth_bytes": None if before is None else size - before.get(name, 0),
                "expected_objects": expected,
                "unexplained_objects": None if expected is None else int(active) - expected,
            }
        )
    return rows


def cgroups_view(sample: Sample, readings: CgroupReadings) -> Cgroups:
    """Every cgroup that was read; the last row may be "__other__", the sum of those beyond the cap."""
    columns = readings.columns
    absent = (None,) * len(readings.paths)
    kernel, memory, populated, reclaimable, unreclaimable = (
        columns.get(name, absent)
        for name in ("kernel_bytes", "memory_bytes", "populated", "slab_reclaimable_bytes", "slab_unreclaimable_bytes")
    )
    rows: list[CgroupRow] = [
        {
            "cgroup": path,
            "kernel_bytes": _int(kernel[row]),
            "slab_bytes": _sum(reclaimable[row], unreclaimable[row]),
            "memory_bytes": _int(memory[row]),
            "populated": _flag(populated[row]),
        }
        for row, path in enumerate(readings.paths)
    ]
    return {
        "taken_at": sample.unix_seconds,
        "mode": readings.mode,
        "version": readings.version,
        "visible": readings.visible,
        "dying": readings.dying,
        "omitted": readings.omitted,
        "unpopulated_kernel_bytes": readings.unpopulated_kernel_bytes,
        "cgroups": rows,
    }


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)


def _flag(text: str | None) -> bool | None:
    return None if text is None else text != "0"


def _sum(*texts: str | None) -> int | None:
    known = [int(text) for text in texts if text is not None]
    return sum(known) if known else None


def end_event(record: Mapping[str, Any]) -> dict[str, Any]:
    """The one event that is left of a storm whose events are no longer in memory."""
    return {"event": "end", "outcome": record.get("outcome"), "reason": record.get("reason"), "record": dict(record)}
