"""The answer of a storm: what grew, what went back by itself, what a shrink gave back, what stayed. Pure.

Sizes are bytes of slabs (slabs x pages x page size), because whole slabs are what the host has lost. They are
counted from the ``created`` snapshot (the cgroups are there, no task yet) where there is one, so that what the
cgroups themselves take is not laid at the tasks' door; it goes when they go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLASSES = ("released", "retained", "pinned", "inconclusive")
# kselftest tolerates as much between kernel memory counters: tools/testing/selftests/cgroup/test_kmem.c
TOLERANCE_PAGES_PER_CPU = 64
# What stays beyond the tolerance counts for the whole verdict from this share of the growth on, or from so many caches'
# tolerances on: what sheaves keep is bounded per CPU, and a larger storm must not hide it (docs/kernels.md, 7.3).
MATERIAL_RATIO = 0.10
MATERIAL_TOLERANCES = 8
# Baseline noise, or other processes' forks, beyond this share of the storm's own make its figures untrustworthy.
NOISE_RATIO = 0.5
# A storm of which less than this share of the tasks came into being proves nothing.
STARTED_RATIO = 0.9
# Reclaimable where sysfs does not tell, by the names that they have had in every kernel; and what only looks so.
RECLAIMABLE_NAMES = ("dentry", "inode_cache", "_inode_cache", "radix_tree_node", "buffer_head", "kmalloc-rcl-")
UNRECLAIMABLE_NAMES = frozenset(
    ("bpf_fs_inode_cache", "hugetlbfs_inode_cache", "lsm_inode_cache", "mqueue_inode_cache", "shmem_inode_cache")
)


# Of the verdict, in its order.
FIGURES = ("growth_bytes", "retained_bytes", "released_by_pressure_bytes", "released_by_shrink_bytes", "pinned_bytes",
           "explained_ratio")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Host:
    """What the tolerance depends on."""

    cpus: int
    page_size: int

    @property
    def tolerance_bytes(self) -> int:
        """For one cache, without noise."""
        return TOLERANCE_PAGES_PER_CPU * self.cpus * self.page_size


@dataclass(frozen=True, slots=True)
class State:
    """One snapshot, as the verdict needs it: bytes by cache, and meminfo's SUnreclaim."""

    caches: Mapping[str, int]
    sunreclaim_bytes: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is judged. ``loaded`` is the peak.

    ``noise_bytes``: how much each cache swung in the baseline, or rose in the settle time. Of SUnreclaim the former is
    ``noise_sunreclaim_bytes``, the latter ``settle_rise_bytes``. ``scripts`` are the shells that started the tasks.
    """

    start: State
    loaded: State
    settled: State
    shrunk: State | None
    noise_bytes: Mapping[str, int]
    noise_sunreclaim_bytes: int
    reclaimable: frozenset[str]
    tasks_started: int
    forks_observed: int | None
    outcome: str
    tasks_requested: int = 0
    pressured: State | None = None
    settle_rise_bytes: int = 0
    scripts: int = 0


def is_reclaimable(cache: str, told: Mapping[str, bool]) -> bool:
    """Whether the shrinkers can free the cache's objects (SReclaimable): such growth is no finding."""
    if cache in told:
        return told[cache]
    return cache not in UNRECLAIMABLE_NAMES and any(
        cache == name or cache.endswith(name) or cache.startswith(name) for name in RECLAIMABLE_NAMES
    )


def judge_caches(evidence: Evidence, host: Host) -> list[dict[str, Any]]:
    """One row a cache that grew or stayed, by growth, as in the record's ``caches``.

    ``retained_bytes`` is what stayed after the settle time: the sum of what went back under memory pressure
    (``released_by_pressure_bytes``, None without pressure), with the shrink (``released_by_shrink_bytes``) and not
    at all (``pinned_bytes``; both None without a shrink).
    """
    rows = [
        _judge_cache(cache, evidence, host) for cache in evidence.loaded.caches.keys() | evidence.settled.caches.keys()
    ]
    rows = [row for row in rows if row["growth_bytes"] > 0 or row["retained_bytes"] > 0]
    return sorted(rows, key=lambda row: (-row["growth_bytes"], -row["retained_bytes"], row["cache"]))


def _judge_cache(cache: str, evidence: Evidence, host: Host) -> dict[str, Any]:
    start = evidence.start.caches.get(cache, 0)
    settled = evidence.settled.caches.get(cache, 0)
    growth = max(evidence.loaded.caches.get(cache, 0), settled) - start
    stayed = max(0, settled - start)
    shares = _shares(start, stayed, *(_size(state, cache) for state in (evidence.pressured, evidence.shrunk)))
    tolerance = host.tolerance_bytes + evidence.noise_bytes.get(cache, 0)
    pinned = shares["pinned_bytes"]
    if stayed <= tolerance:
        verdict = "released"
    elif pinned is not None and pinned > max(tolerance, stayed - pinned):
        verdict = "pinned"
    else:
        verdict = "retained"
    return {
        "cache": cache,
        "verdict": verdict,
        "reclaimable": cache in evidence.reclaimable,
        "growth_bytes": growth,
        "retained_bytes": stayed,
        **shares,
    }


def _size(state: State | None, cache: str) -> int | None:
    return state.caches.get(cache, 0) if state is not None and state.caches else None


def _shares(start: int, stayed: int, pressured: int | None, shrunk: int | None) -> dict[str, int | None]:
    """Where what stayed went, from its sizes after the pressure and after the shrink; None: there was none."""
    left = stayed if pressured is None else min(stayed, max(0, pressured - start))
    pinned = None if shrunk is None else min(left, max(0, shrunk - start))
    return {
        "released_by_pressure_bytes": None if pressured is None else stayed - left,
        "released_by_shrink_bytes": None if pinned is None else left - pinned,
        "pinned_bytes": pinned,
    }


def judge(evidence: Evidence, host: Host) -> dict[str, Any]:
    """The record's ``verdict``: about unreclaimable slab as a whole, from SUnreclaim and the caches that explain it."""
    rows = [row for row in judge_caches(evidence, host) if not row["reclaimable"]]
    start = evidence.start.sunreclaim_bytes
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    if start is not None and evidence.settled.sunreclaim_bytes is not None:
        stayed = max(0, evidence.settled.sunreclaim_bytes - start)
        figures["growth_bytes"] = max((evidence.loaded.sunreclaim_bytes or 0) - start, stayed)
        figures["retained_bytes"] = stayed
        after = (state.sunreclaim_bytes if state else None for state in (evidence.pressured, evidence.shrunk))
        figures |= _shares(start, stayed, *after)
        if stayed:
            explained = sum(
                evidence.settled.caches.get(row["cache"], 0) - evidence.start.caches.get(row["cache"], 0)
                for row in rows
            )
            figures["explained_ratio"] = round(explained / stayed, 3)
    doubt = _doubt(evidence, figures, host)
    if doubt:
        return {"class": "inconclusive", **figures, "reason": doubt}
    verdict, reason = _conclude(rows, figures, evidence, host)
    return {"class": verdict, **figures, "reason": reason}


def _doubt(evidence: Evidence, figures: Mapping[str, Any], host: Host) -> str:
    """Why the figures can not be trusted; "" when they can."""
    if evidence.outcome != "completed":
        return f"the storm did not run to its end: it was {evidence.outcome}"
    for when, state in (
        ("before the load", evidence.start),
        ("at its peak", evidence.loaded),
        ("after the settle time", evidence.settled),
        ("after the memory pressure", evidence.pressured),
        ("after the shrink", evidence.shrunk),
    ):
        if state is not None and state.sunreclaim_bytes is None:
            return f"SUnreclaim could not be read {when}"
        if state is not None and not state.caches:
            return f"the caches could not be read {when}: no /proc/slabinfo"
    if evidence.tasks_started < STARTED_RATIO * evidence.tasks_requested:
        return f"only {evidence.tasks_started} of {evidence.tasks_requested} tasks could be started"
    growth = figures["growth_bytes"]
    noise = evidence.noise_sunreclaim_bytes
    if noise > max(host.tolerance_bytes, NOISE_RATIO * growth):
        return (
            f"SUnreclaim moved by {_mib(noise)} in the baseline, before the storm, which made it grow by {_mib(growth)}"
        )
    rise = evidence.settle_rise_bytes
    if rise > max(host.tolerance_bytes, NOISE_RATIO * growth):
        return (
            f"other load: SUnreclaim rose by {_mib(rise)} during the settle time, when the storm asked for nothing "
            f"more; it had made it grow by {_mib(growth)}"
        )
    if evidence.forks_observed is not None:
        own = evidence.tasks_started + evidence.scripts
        if evidence.forks_observed - own > max(2000, NOISE_RATIO * own):
            return (
                f"other load: the kernel counted {evidence.forks_observed} forks from start to settled, "
                f"{own} of them the storm's"
            )
    return ""


def _conclude(rows: list[dict[str, Any]], figures: dict[str, Any], evidence: Evidence, host: Host) -> tuple[str, str]:
    growth, stayed = figures["growth_bytes"], figures["retained_bytes"]
    beyond = [row for row in rows if row["verdict"] != "released"]
    in_caches = sum(row["retained_bytes"] for row in beyond)
    noise = max(evidence.noise_sunreclaim_bytes, evidence.settle_rise_bytes)
    much = MATERIAL_TOLERANCES * host.tolerance_bytes
    spread = stayed - noise > max(much, growth / 3)  # no cache stands out, but together they do
    if not spread and in_caches <= max(host.tolerance_bytes, min(much, MATERIAL_RATIO * growth)):
        rest = f"; {_mib(in_caches)} stayed beyond the tolerance in {_names(beyond)}" if beyond else ""
        return "released", (
            f"{_mib(growth - stayed)} of the {_mib(growth)} by which SUnreclaim grew went back by themselves "
            f"within the settle time{rest}"
        )
    where = f", most of it in {_names(beyond)}" if beyond else ", spread thinly over many caches"
    by_pressure = figures["released_by_pressure_bytes"]
    pressed = "" if by_pressure is None else f"; memory pressure gave back {_mib(by_pressure)}"
    if evidence.shrunk is None:
        return "retained", f"{_mib(stayed)} stayed{where}{pressed}; not told apart from pinned: no shrink was run"
    # What stayed need not be in any cache: large kmallocs are not.
    counted = beyond or [figures]
    pinned = sum(row["pinned_bytes"] or 0 for row in counted)
    if sum(row["retained_bytes"] for row in counted) - pinned >= pinned:
        by_shrink = figures["released_by_shrink_bytes"]
        return "retained", f"{_mib(stayed)} stayed{where}{pressed}; a shrink gave back {_mib(by_shrink)}"
    by_shrink = sum(row["released_by_shrink_bytes"] or 0 for row in counted)
    return "pinned", (
        f"{_mib(stayed)} stayed{where}{pressed}; a shrink gave back {_mib(by_shrink)}, and {_mib(pinned)} did not go"
    )


def _names(rows: list[dict[str, Any]]) -> str:
    largest = sorted(rows, key=lambda row: -row["retained_bytes"])
    return ", ".join(row["cache"] for row in largest[:3])


def _mib(size: int) -> str:
    return f"{size / (1024 * 1024):.1f} MiB"
