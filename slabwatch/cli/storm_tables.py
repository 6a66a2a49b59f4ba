"""What storms look like to a person: the list, the forecast and the verdict. Pure: answer in, page out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slabwatch.cli.draw import Column, Grid, Kind, Note, Page, Value
from slabwatch.cli.words import clock, duration, many, mib
from slabwatch.storm.explain import by_pressure_mostly

if TYPE_CHECKING:
    from slabwatch.storm.compare import Comparison, Figure

VERDICT_WORDS = {
    "released": "What the tasks took went back by itself.",
    "retained": "It stayed when the tasks had gone, and a shrink gave it back: the allocator only held on to it.",
    "pinned": "It stayed when the tasks had gone, and a shrink did not give it back: something still refers to it.",
    "inconclusive": "The figures can not be trusted.",
}
LEFT_BEHIND = "The daemon tries again after the next storm, and when it is started next."
MOST_LEFT = 3
RETAINED_UNTIL_PRESSURE = (
    "It stayed when the tasks had gone, until memory was needed: then the kernel gave most of it back by itself."
)
RETAINED_WITHOUT_SHRINK = "It stayed when the tasks had gone. Not told apart from pinned: no shrink was run."


def storms_page(answer: Mapping[str, Any]) -> Page:
    """Newest first."""
    storms = answer["storms"]
    if not storms:
        return (Note("No storm yet: `slabwatchctl storm` runs a small one."),)
    return (storms_grid(storms),)


def storms_grid(storms: Sequence[Mapping[str, Any]]) -> Grid:
    """A line for each storm."""
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
    return Grid(columns, rows)


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
        f"{'with' if plan['shrink'] else 'without'} a shrink{_pressure(plan)}; "
        f"at most {duration(plan['ttl_seconds'])} in all."
    )


def _pressure(plan: Mapping[str, Any]) -> str:
    if not plan.get("pressure"):
        return ""
    return f", with memory pressure in the storm's own cgroup{' and on the host' if plan['pressure_host'] else ''}"


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
        texts.append(f"{many(cgroups['leftover'], 'cgroup')} could not be removed. {LEFT_BEHIND}")
        left = list(cgroups.get("left", {}).items())
        texts += [f"{path}: {why}" for path, why in left[:MOST_LEFT]]
        if len(left) > MOST_LEFT:
            texts.append(f"{len(left) - MOST_LEFT:,} more are in the report.")
    return [Note(text, "yellow") for text in texts]


def _verdict_words(verdict: Mapping[str, Any]) -> str:
    if verdict["class"] == "retained" and verdict["released_by_shrink_bytes"] is None:
        words = RETAINED_WITHOUT_SHRINK
    elif verdict["class"] == "retained" and by_pressure_mostly(verdict):
        words = RETAINED_UNTIL_PRESSURE
    else:
        words = VERDICT_WORDS.get(verdict["class"], "")
    reason = verdict.get("reason")
    return f"{words} {reason}" if reason and reason not in words else words


def _sizes(verdict: Mapping[str, Any]) -> Grid:
    names = (
        ("retained", "retained_bytes"),
        ("given back by pressure", "released_by_pressure_bytes"),
        ("given back by shrink", "released_by_shrink_bytes"),
        ("pinned", "pinned_bytes"),
    )
    rows = [(name, mib(verdict[key])) for name, key in names if verdict.get(key) is not None]
    explained = verdict.get("explained_ratio")
    if explained is not None:
        rows.append(("explained by caches", f"{100 * explained:.1f} %"))
    return Grid((Column(""), Column("", "mib")), rows, header=False)


def _grown_caches(caches: Sequence[Mapping[str, Any]]) -> Grid:
    columns = {
        "cache": Column("cache", gives="end"),
        "verdict": Column("verdict", "state"),
        "growth_bytes": Column("growth MiB", "growth"),
        "retained_bytes": Column("retained", "mib"),
        "released_by_pressure_bytes": Column("by pressure", "mib"),
        "released_by_shrink_bytes": Column("given back", "mib"),
        "pinned_bytes": Column("pinned", "mib"),
    }
    if all(cache.get("released_by_pressure_bytes") is None for cache in caches):
        del columns["released_by_pressure_bytes"]
    return Grid(tuple(columns.values()), [[cache.get(key) for key in columns] for cache in caches])


def comparison_page(comparison: Comparison) -> Page:
    """Whether the comparison is fair, what differs, and both storms' figures side by side."""
    a, b = comparison.a, comparison.b
    page: list[Grid | Note | str] = []
    if comparison.unfair:
        page.append(Note(f"Not a fair comparison: {'; '.join(comparison.unfair)}.", "yellow"))
    sides = [
        ("storm", a.id, b.id),
        ("started", clock(a.started_at), clock(b.started_at)),
        ("kernel", a.release, b.release),
        ("preset", a.preset, b.preset),
        ("outcome", a.outcome, b.outcome),
        ("verdict", a.verdict, b.verdict),
    ]
    page.append(Grid((Column(""), Column("A", "state"), Column("B", "state")), sides))
    page += [Note(f"{name}: {side.reason}") for name, side in (("A", a), ("B", b)) if side.reason]
    page += _settings_block(comparison)
    page += [
        "Unreclaimable slab (SUnreclaim)",
        _figures(
            "",
            "mib",
            comparison.verdict_bytes,
            {
                "retained": "stayed",
                "released_by_pressure": "given back by pressure",
                "released_by_shrink": "given back by shrink",
            },
        ),
        *_explained(comparison.explained_ratio),
        "Each state",
        _states(comparison),
    ]
    page += _caches_block(comparison)
    page += [
        "Tasks and cgroups",
        _figures("", "count", comparison.counts),
        "Time",
        Grid(
            (Column("phase"), Column("A", "duration"), Column("B", "duration")),
            [(figure.name, figure.a, figure.b) for figure in comparison.phase_seconds],
        ),
    ]
    return page


def _explained(ratio: Figure) -> list[Note]:
    shares = [f"{100 * share:.0f} % in {name}" for name, share in (("A", ratio.a), ("B", ratio.b)) if share is not None]
    return [Note(f"The caches explain what stayed: {', '.join(shares)}.")] if shares else []


def _settings_block(comparison: Comparison) -> list[Grid | Note | str]:
    if not comparison.settings:
        return [Note("Plan and host are the same.")]
    columns = (Column("differs"), Column("A", gives="end"), Column("B", gives="end"))
    rows = [(row.name, _setting(row.name, row.a), _setting(row.name, row.b)) for row in comparison.settings]
    return ["What differs in plan and host", Grid(columns, rows)]


def _setting(name: str, value: object) -> Value:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith("_bytes"):
        return mib(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def _figures(title: str, kind: Kind, figures: Sequence[Figure], words: Mapping[str, str] | None = None) -> Grid:
    unit = " MiB" if kind == "mib" else ""
    columns = (
        Column(title),
        Column(f"A{unit}", kind),
        Column(f"B{unit}", kind),
        Column(f"difference{unit}", "growth" if kind == "mib" else kind),
    )
    known = words or {}
    return Grid(columns, [(known.get(row.name, row.name), row.a, row.b, row.difference) for row in figures])


def _states(comparison: Comparison) -> Grid:
    columns = (
        Column("state"),
        Column("SUnreclaim A MiB", "mib"),
        Column("B MiB", "mib"),
        Column("difference MiB", "growth"),
        Column("task_struct A", "count"),
        Column("B", "count"),
        Column("difference", "count"),
    )
    rows = [
        (size.name, size.a, size.b, size.difference, objects.a, objects.b, objects.difference)
        for size, objects in zip(comparison.sunreclaim_bytes, comparison.task_struct_active, strict=True)
    ]
    return Grid(columns, rows)


def _caches_block(comparison: Comparison) -> list[Grid | Note | str]:
    tolerance = mib(comparison.tolerance_bytes)
    block: list[Grid | Note | str] = []
    if comparison.cache_retained_bytes:
        columns = (
            Column("cache", gives="end"),
            Column("A MiB", "mib"),
            Column("B MiB", "mib"),
            Column("difference MiB", "growth"),
            Column("reclaimable", optional=True),
        )
        rows = [
            (row.cache, row.a, row.b, row.difference, "yes" if row.reclaimable else "no")
            for row in comparison.cache_retained_bytes
        ]
        block += ["What stayed in the caches", Grid(columns, rows)]
    if comparison.caches_alike:
        other = "other " if block else ""
        block.append(
            Note(
                f"In {many(comparison.caches_alike, f'{other}cache')} what stayed differs by no more than {tolerance}, "
                "the tolerance.",
                "dim",
            )
        )
    elif not block:
        block.append(Note("The caches can not be compared: one of the storms did not come as far as that."))
    return block
