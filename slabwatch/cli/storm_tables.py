"""What storms look like to a person: the list, the forecast and the verdict. Pure: answer in, page out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slabwatch.cli.draw import Column, Grid, Note, Page, Value
from slabwatch.cli.words import duration, many, mib

VERDICT_WORDS = {
    "released": "What the tasks took went back by itself.",
    "retained": "It stayed when the tasks had gone, and a shrink gave it back: the allocator only held on to it.",
    "pinned": "It stayed when the tasks had gone, and a shrink did not give it back: something still refers to it.",
    "inconclusive": "The figures can not be trusted.",
}
RETAINED_WITHOUT_SHRINK = "It stayed when the tasks had gone. Not told apart from pinned: no shrink was run."


def storms_page(answer: Mapping[str, Any]) -> Page:
    """Newest first."""
    storms = answer["storms"]
    if not storms:
        return (Note("No storm yet: `slabwatchctl storm` runs a small one."),)
    columns = (
        Column("id"),
        Column("outcome", "state"),
        Column("verdict", "state"),
        Column("preset"),
        Column("cgroups", "count"),
        Column("tasks", "count"),
        Column("started", "time", optional=True),
        Column("took", "duration", optional=True),
        Column("by", gives="end", optional=True),
    )
    keys = ("id", "outcome", "verdict", "preset", "cgroups", "tasks", "started_at", "seconds", "requested_by")
    rows: list[list[Value]] = [[storm.get(key) for key in keys] for storm in storms]
    return (Grid(columns, rows),)


def forecast_page(answer: Mapping[str, Any]) -> Page:
    """What a storm would do, and each check with its figure and its limit."""
    plan = answer["plan"]
    rows = [("ok" if check["ok"] else "fail", check["name"], check["text"]) for check in answer["checks"]]
    columns = (Column("state", "state"), Column("check"), Column("finding", gives="wrap"))
    verdict = "This storm may run." if answer["accepted"] else "This storm may not run."
    return (plan_words(plan), Note(_timing(plan)), Grid(columns, rows), Note(verdict))


def plan_words(plan: Mapping[str, Any]) -> str:
    """The storm in one line."""
    cgroups, tasks = plan["cgroups"], plan["tasks"]
    size = f"{many(cgroups, 'cgroup')} x {tasks:,} = {many(cgroups * tasks, 'task')}"
    return f"{plan['preset']}, {size} of kind {plan['kind']}"


def _timing(plan: Mapping[str, Any]) -> str:
    phases = ", ".join(f"{name} {duration(plan[f'{name}_seconds'])}" for name in ("baseline", "hold", "settle"))
    return (
        f"{plan['kind_text']}; at most {plan['live_tasks']:,} alive at one time; {phases}, "
        f"{'with' if plan['shrink'] else 'without'} a shrink; at most {duration(plan['ttl_seconds'])} in all."
    )


def verdict_page(record: Mapping[str, Any], caches: int = 10) -> Page:
    """How a storm ended, and what it proved."""
    verdict, tasks, cgroups = record["verdict"], record["tasks"], record["cgroups"]
    title = (
        f"Storm {record['id']} {record['outcome']}: {many(tasks['started'], 'task')} "
        f"in {many(cgroups['created'], 'cgroup')}, {duration(record['seconds'])}"
    )
    page: list[Grid | Note | str] = [title]
    if record.get("reason"):
        page.append(Note(f"Reason: {record['reason']}"))
    page += _troubles(tasks, cgroups)
    if verdict is None:
        return page
    page += [f"Verdict: {verdict['class']}", Note(_verdict_words(verdict)), _sizes(verdict)]
    grown = [cache for cache in record["caches"] if cache["growth_bytes"]]
    if grown:
        page.append(_grown_caches(grown[:caches]))
    page.append(Note(f"Whole report: slabwatchctl report {record['id']}", "dim"))
    return page


def _troubles(tasks: Mapping[str, Any], cgroups: Mapping[str, Any]) -> list[Note]:
    texts = []
    if tasks["failed"]:
        texts.append(f"{many(tasks['failed'], 'task')} could not be started.")
    if cgroups["leftover"]:
        texts.append(f"{many(cgroups['leftover'], 'cgroup')} could not be removed yet; the daemon goes on trying.")
    return [Note(text, "yellow") for text in texts]


def _verdict_words(verdict: Mapping[str, Any]) -> str:
    if verdict["class"] == "retained" and verdict["released_by_shrink_bytes"] is None:
        words = RETAINED_WITHOUT_SHRINK
    else:
        words = VERDICT_WORDS.get(verdict["class"], "")
    reason = verdict.get("reason")
    return f"{words} {reason}" if reason and reason not in words else words


def _sizes(verdict: Mapping[str, Any]) -> Grid:
    names = (
        ("retained", "retained_bytes"),
        ("given back by shrink", "released_by_shrink_bytes"),
        ("pinned", "pinned_bytes"),
    )
    rows = [(name, mib(verdict[key])) for name, key in names if verdict.get(key) is not None]
    explained = verdict.get("explained_ratio")
    if explained is not None:
        rows.append(("explained by caches", f"{100 * explained:.1f} %"))
    return Grid((Column(""), Column("", "mib")), rows, header=False)


def _grown_caches(caches: Sequence[Mapping[str, Any]]) -> Grid:
    columns = (
        Column("cache", gives="end"),
        Column("verdict", "state"),
        Column("growth MiB", "growth"),
        Column("retained", "mib"),
        Column("given back", "mib"),
        Column("pinned", "mib"),
    )
    keys = ("cache", "verdict", "growth_bytes", "retained_bytes", "released_by_shrink_bytes", "pinned_bytes")
    return Grid(columns, [[cache.get(key) for key in keys] for cache in caches])
