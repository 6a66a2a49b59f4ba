"""What each answer of the control API looks like to a person. Pure: answer in, page out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slabwatch.cli.draw import PAIRS, Column, Grid, Note, Page
from slabwatch.cli.words import clock, duration, many, mib

if TYPE_CHECKING:
    from slabwatch.control.answers import (
        CacheRow,
        Caches,
        CgroupRow,
        Cgroups,
        CollectorState,
        LockState,
        RunningStorm,
        Status,
        You,
    )


UNEXPLAINED = (
    "unexplained: active objects beyond the kernel's own count of what is in use. The allocator holds on to them "
    "(per-CPU slabs, sheaves), which is not a leak by itself. `slabwatchctl shrink` gives back what it only holds; "
    "`slabwatchctl storm` shows whether this kernel keeps it after a burst."
)


def status_page(status: Status) -> Page:
    """Everything on one screen, a line a subject."""
    kernel, poll, storm = status["kernel"], status["poll"], status["storm"]
    age = poll["age_seconds"]
    last = "none yet" if age is None else f"last one {duration(age)} ago"
    accounting = f"kernel memory accounting {kernel['kmem_accounting']}"
    rows: list[tuple[str, str]] = [
        ("kernel", ", ".join((kernel["release"], kernel["allocator"], f"cgroup {kernel['cgroup_mode']}", accounting))),
        ("polls", f"{poll['polls']:,}, one every {poll['interval_seconds']:g} s, {last}{_overruns(poll['overruns'])}"),
        *_collector_rows(status["collectors"]),
        ("storm", _storm_words(storm["enabled"], storm["running"])),
    ]
    if storm["recovering"]:
        rows.append(("recovering", f"no storm can begin yet: the daemon sees to {storm['recovering']}"))
    if storm["leftover_cgroups"]:
        rows.append(
            ("leftover", f"{many(storm['leftover_cgroups'], 'cgroup')} of earlier storms could not be removed yet")
        )
    rows += [
        *([("locked", _lock_words(lock))] if (lock := status["lock"]) else []),
        ("shrink", "allowed" if status["shrink"]["enabled"] else "off: shrink.enabled in the daemon's configuration"),
        ("metrics", status["metrics_url"]),
        ("socket", status["socket"]),
        ("remote", status["remote_url"] or "off: remote.listen in the daemon's configuration"),
        ("you", _you_words(status["you"])),
    ]
    up = f"up {duration(status['uptime_seconds'])}"
    title = "  ".join((f"slabwatch {status['version']}", status["state"], f"pid {status['pid']}", up))
    return (title, Grid(PAIRS, rows, header=False))


def _lock_words(lock: LockState) -> str:
    who = f" (by {lock['by']})" if lock["by"] else ""
    when = f", since {clock(lock['since'])}" if lock["since"] is not None else ""
    return f"{lock['reason']}{who}{when}"


def _you_words(you: You) -> str:
    who = you["user"] if you["uid"] is None else f"{you['user']} (uid {you['uid']})"
    return f"{who}, {you['role']}, by {you['door']}; you may {', '.join(you['may'])}"


def _overruns(overruns: int) -> str:
    return f", {many(overruns, 'poll')} skipped because one took too long" if overruns else ""


def _collector_rows(collectors: Sequence[CollectorState]) -> list[tuple[str, str]]:
    well = [f"{run['name']} {duration(run['duration_seconds'])}" for run in collectors if run["success"]]
    rows = [("collectors", ", ".join(well) or "none has succeeded yet")]
    rows += [("failed", f"{run['name']}: {run['error']}") for run in collectors if not run["success"]]
    skipped = [
        f"{run['name']} {count:,} {reason}" for run in collectors for reason, count in run["skipped"].items() if count
    ]
    return rows + ([("left out", ", ".join(skipped))] if skipped else [])


def _storm_words(enabled: bool, running: RunningStorm | None) -> str:
    if running is not None:
        plan = running["plan"]
        return (
            f"{running['id']} in phase {running['phase'] or 'starting'} for {duration(running['seconds'])} in all: "
            f"{plan['preset']}, {plan['cgroups']:,} x {plan['tasks']:,} {plan['kind']}, by {running['requested_by']}"
        )
    return "allowed, none is running" if enabled else "off: storm.enabled in the daemon's configuration"


def sorted_caches(caches: Caches, sort: str) -> Caches:
    """Largest first; what has no figure comes last, and names decide between equals."""
    key = {
        "size": "size_bytes",
        "growth": "growth_bytes",
        "active": "active_objects",
        "unexplained": "unexplained_objects",
    }[sort]

    def order(row: Mapping[str, Any]) -> tuple[bool, int, str]:
        value = row[key]
        return value is None, -(value or 0), row["cache"]

    return {**caches, "caches": sorted(caches["caches"], key=order)}


def caches_page(caches: Caches, limit: int, sort: str) -> Page:
    """The sums, then the caches. ``limit`` 0: all of them."""
    by_gap = sort == "unexplained"
    known = [row for row in caches["caches"] if row["expected_objects"] is not None or not by_gap]
    rows = known[: limit or None]
    page: list[Grid | Note | str] = [Note(_sums(caches)), caches_grid(rows, sort)]
    if by_gap:
        page.insert(1, Note(UNEXPLAINED))
        page.append(
            Note(f"For {many(len(caches['caches']) - len(known), 'cache')} the kernel has no such count.", "dim")
        )
    return (*page, *rest(len(rows), len(known), "cache"))


def caches_grid(rows: Sequence[CacheRow], sort: str) -> Grid:
    """A line for each cache."""
    by_gap = sort == "unexplained"
    columns = (
        Column("cache", gives="end"),
        Column("size MiB", "mib"),
        Column("growth MiB", "growth", optional=by_gap),
        Column("active", "count"),
        Column("objects", "count", optional=True),
        Column("used %", "percent", optional=True),
        Column("object B", "count", optional=True),
        Column("expected", "count", optional=not by_gap),
        Column("unexplained", "count"),
    )
    cells = [
        (
            row["cache"],
            row["size_bytes"],
            row["growth_bytes"],
            row["active_objects"],
            row["objects"],
            100 * row["active_objects"] / row["objects"] if row["objects"] else None,
            row["object_size_bytes"],
            row["expected_objects"],
            row["unexplained_objects"],
        )
        for row in rows
    ]
    return Grid(columns, cells)


def _sums(caches: Caches) -> str:
    since = f", growth since {clock(caches['since'])}" if caches["since"] is not None else ""
    return (
        f"Slab {mib(caches['slab_bytes'])}: {mib(caches['sreclaimable_bytes'])} reclaimable, "
        f"{mib(caches['sunreclaim_bytes'])} unreclaimable; {mib(caches['unattributed_bytes'])} are in no cache. "
        f"As of {clock(caches['taken_at'])}{since}."
    )


def rest(shown: int, known: int, thing: str) -> list[Note]:
    """What a limit has left out."""
    if shown == known:
        return []
    return [Note(f"{shown:,} of {many(known, thing)}; --limit 0 shows all.", "dim")]


def sorted_cgroups(cgroups: Cgroups, sort: str) -> Cgroups:
    """Largest first; ``dying``: those without any task first, by kernel memory. The sum of the rest stays last."""

    def order(row: Mapping[str, Any]) -> tuple[bool, bool, bool, int, str]:
        first_by_slab = sort == "slab" and row["slab_bytes"] is not None
        value = row["slab_bytes"] if first_by_slab else row["kernel_bytes"]
        has_task = sort == "dying" and row["populated"] is not False
        rest = row["cgroup"] == "__other__"
        return rest, has_task, sort == "slab" and not first_by_slab, -(value or 0), row["cgroup"]

    return {**cgroups, "cgroups": sorted(cgroups["cgroups"], key=order)}


def cgroups_page(cgroups: Cgroups, limit: int, sort: str) -> Page:
    """What can be seen and what only lingers, then the cgroups. ``limit`` 0: all of them."""
    rows = cgroups["cgroups"][: limit or None]
    page: list[Grid | Note | str] = [Note(_cgroup_sums(cgroups)), cgroups_grid(rows)]
    if sort == "slab" and all(row["slab_bytes"] is None for row in cgroups["cgroups"]):
        page.insert(1, Note("This kernel has no slab figure for a cgroup (cgroup v1): sorted by kernel memory."))
    return (*page, *rest(len(rows), len(cgroups["cgroups"]), "cgroup"))


def cgroups_grid(rows: Sequence[CgroupRow]) -> Grid:
    """A line for each cgroup."""
    columns = (
        Column("cgroup", gives="start"),
        Column("kernel MiB", "mib"),
        Column("slab MiB", "mib"),
        Column("memory MiB", "mib"),
        Column("tasks", "state"),
    )
    tasks = {True: "yes", False: "no", None: None}
    cells = [
        (row["cgroup"], row["kernel_bytes"], row["slab_bytes"], row["memory_bytes"], tasks[row["populated"]])
        for row in rows
    ]
    return Grid(columns, cells)


def _cgroup_sums(cgroups: Cgroups) -> str:
    parts = [f"{many(cgroups['visible'], 'memory cgroup')} (v{cgroups['version']})"]
    if cgroups["dying"] is not None:
        dying = f"{cgroups['dying']:,} more are" if cgroups["dying"] else "none is"
        parts.append(f"{dying} dying (removed, but still held by objects charged to them)")
    if cgroups["unpopulated_kernel_bytes"] is not None:
        parts.append(f"{mib(cgroups['unpopulated_kernel_bytes'])} of kernel memory in cgroups without a task")
    if cgroups["omitted"]:
        parts.append(f"{cgroups['omitted']:,} beyond the cap are summed as __other__")
    return "; ".join(parts) + f". As of {clock(cgroups['taken_at'])}."


def doctor_page(answer: Mapping[str, Any]) -> Page:
    """What was found."""
    return (findings_grid(answer["findings"]),)


def findings_grid(findings: Sequence[Mapping[str, Any]]) -> Grid:
    """A line for each finding, and the remedy where there is something to mend."""
    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        text = str(finding["finding"])
        remedy = finding.get("remedy")
        rows.append((str(finding["state"]), str(finding["name"]), f"{text}. To do: {remedy}" if remedy else text))
    columns = (Column("state", "state"), Column("what"), Column("finding", gives="wrap"))
    return Grid(columns, rows)


def shrink_page(result: Mapping[str, Any], named: bool) -> Page:
    """What each cache gave back; without names, only those that gave something."""
    caches = sorted(result["caches"], key=lambda cache: (-(cache["released_bytes"] or 0), cache["cache"]))
    shown = caches if named else [cache for cache in caches if cache["released_bytes"] or cache["error"]]
    sums = (
        f"SUnreclaim {mib(result['sunreclaim_before_bytes'])} -> {mib(result['sunreclaim_after_bytes'])}, "
        f"Slab {mib(result['slab_before_bytes'])} -> {mib(result['slab_after_bytes'])}, "
        f"in {duration(result['seconds'])}."
    )
    page: list[Grid | Note | str] = [Note(sums)]
    if shown:
        columns = (
            Column("cache", gives="end"),
            Column("before MiB", "mib"),
            Column("after MiB", "mib"),
            Column("given back MiB", "mib"),
            Column("error", gives="wrap"),
        )
        failed = any(cache["error"] for cache in shown)
        keys = ("cache", "before_bytes", "after_bytes", "released_bytes", "error")[: 5 if failed else 4]
        page.append(Grid(columns[: len(keys)], [[cache[key] for key in keys] for cache in shown]))
    quiet = len(caches) - len(shown)
    if quiet:
        page.append(Note(f"{many(quiet, 'cache')} had nothing to give back.", "dim"))
    return page
