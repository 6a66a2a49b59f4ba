"""A finished storm as one HTML page that needs nothing but itself: no network, and scripts only for the curves. Pure.

Whatever stands in the record, cgroups' names and reasons included, is text on the page: it is escaped in one place
(``_text``; ``_json`` for the curves' data), and the page's own policy lets only its own scripts run.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from string import Template
from typing import Any

from slabwatch import __version__
from slabwatch.storm.explain import ENDED, WHERE, by_pressure_mostly
from slabwatch.storm.report_words import CONFIG, LABELS, MEANING, PHASES, STATES
from slabwatch.storm.verdict import CLASSES

MIB = 1024 * 1024
MOST_BARS = {False: 24, True: 8}  # unreclaimable and reclaimable; the table below has all

_BYTES = ("growth_bytes", "retained_bytes", "released_by_pressure_bytes", "released_by_shrink_bytes", "pinned_bytes")
_PARTS = {
    "back": "went back by itself",
    "pressure": "given back by memory pressure",
    "untold": "stayed (no shrink)",
    "shrink": "given back by shrink",
    "pinned": "pinned",
}
_CURVES = ("sunreclaim_bytes", "slab_bytes", "task_struct_active", "live_tasks")
_MEMINFO = ("Slab", "SReclaimable", "SUnreclaim")
_SLABINFO = ("active_objects", "objects", "object_size_bytes", "objects_per_slab", "pages_per_slab", "active_slabs",
             "slabs")  # fmt: skip
_PLAN_FIRST = ("preset", "cgroups", "tasks", "total_tasks", "kind", "kind_text")


def html_report(record: Mapping[str, Any]) -> str:
    """The page; ``record`` is a finished storm's, in whatever state it ended."""
    css = _asset("uplot/uPlot.min.css") + _asset("report.css")
    library = f"/*!\n{_asset('uplot/LICENSE')}\n*/\n{_asset('uplot/uPlot.iife.min.js')}"
    script = _asset("report.js")
    return Template(_asset("report.html")).substitute(
        policy=f"default-src 'none'; script-src {_hash(library)} {_hash(script)}; style-src {_hash(css)}; "
        "base-uri 'none'; form-action 'none'",
        title=_text(f"Storm {record['id']}: {_class(record)}"),
        css=css,
        body="\n".join(section(record) for section in (_head, _verdict, _curves, _caches, _states, _settings)),
        version=_text(__version__),
        data=_json(_curve_data(record)),
        library=library,
        script=script,
    )


@functools.cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _text(value: object) -> str:
    # ASCII alone: it passes through every locale, and a record's JSON may hold half a surrogate pair.
    return html.escape(str(value)).encode("ascii", "xmlcharrefreplace").decode()


def _json(value: Any) -> str:
    """Inside a script element only ``</script`` and ``<!--`` are special: no ``<`` is left as it is."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")


def _class(record: Mapping[str, Any]) -> str:
    return str((record.get("verdict") or {}).get("class", "inconclusive"))


def _head(record: Mapping[str, Any]) -> str:
    plan, tasks, cgroups = record["plan"], record["tasks"], record["cgroups"]
    started = datetime.fromtimestamp(record["started_at"], UTC)
    what = (
        f"{plan['cgroups']:,} cgroups with {plan['tasks']:,} tasks each (preset {plan['preset']}, kind {plan['kind']}) "
        f"on Linux {record['host'].get('release', 'unknown')}."
    )
    when = (
        f"Started {started:%Y-%m-%d %H:%M:%S} UTC by {record['requested_by']}, took {record['seconds']:,.1f} s, "
        f"{record['outcome']}."
    )
    warnings = []
    if record["outcome"] != "completed":
        warnings.append(f"This storm was {record['outcome']}: {record.get('reason') or 'no reason is known'}.")
    if tasks.get("failed"):
        warnings.append(f"{tasks['failed']:,} tasks could not be started: the load was smaller than planned.")
    left = cgroups.get("left") or {}
    warnings += [f"Left over: {path}: {why}" for path, why in left.items()]
    if cgroups.get("leftover") and not left:
        warnings.append(f"{cgroups['leftover']:,} cgroups could not be removed.")
    lines = [f"<h1>Storm {_text(record['id'])}</h1>", f"<p>{_text(what)}</p>", f'<p class="quiet">{_text(when)}</p>']
    lines += [f'<p class="warning">{_text(warning)}</p>' for warning in warnings]
    return "<header>\n" + "\n".join(lines) + "\n</header>"


def _verdict(record: Mapping[str, Any]) -> str:
    word, verdict = _class(record), record.get("verdict") or {}
    grown, stayed, pressed, shrunk, pinned = (verdict.get(name) for name in _BYTES)
    known = word if word in CLASSES else "inconclusive"
    if word == "retained" and shrunk is None:
        meaning = MEANING["untold"]
    else:
        meaning = MEANING["pressed" if word == "retained" and by_pressure_mostly(verdict) else known]
    reason = str(verdict.get("reason") or "")
    share = f": {100 * stayed / grown:.0f} % of the growth" if grown and stayed is not None else ""
    without = "no shrink was run" if stayed is not None else "not measured"
    explained = verdict.get("explained_ratio")
    figures = [
        ("Growth", _mib(grown), "of unreclaimable slab (SUnreclaim), up to the peak"),
        ("Stayed", _mib(stayed), f"after the settle time{share}"),
        *([("Given back by pressure", _mib(pressed), "of what stayed")] if pressed is not None else []),
        ("Given back by shrink", _mib(shrunk), "of what stayed" if shrunk is not None else without),
        ("Pinned", _mib(pinned), "of what stayed, still there after the shrink" if pinned is not None else without),
        ("Explained", "unknown" if explained is None else f"{100 * explained:.0f} %", "of what stayed, by the caches"),
    ]
    tiles = "\n".join(
        f'<div><dt>{name}</dt><dd class="number">{number}</dd><dd class="quiet">{note}</dd></div>'
        for name, number, note in figures
    )
    whole = f"{_bar(verdict, grown)}\n{_key([verdict])}" if grown and stayed is not None else ""
    sentence = f"<p>{_text(reason[:1].upper() + reason[1:])}.</p>" if reason else ""
    if verdict.get("explanation"):
        sentence += f"\n<p>{_text(str(verdict['explanation']))}</p>"
    return (
        f'<section class="verdict {known}" aria-label="Verdict">\n'
        f'<p class="word"><svg aria-hidden="true"><use href="#mark-{known}"/></svg>{_text(word)}</p>\n'
        f'<p>{meaning}</p>\n{sentence}\n<dl class="figures">\n{tiles}\n</dl>\n{whole}\n</section>'
    )


def _curves(record: Mapping[str, Any]) -> str:
    points = record["series"]
    rows = []
    for phase in record["phases"]:
        within = [point for point in points if point["phase"] == phase["name"]]
        sunreclaim, slab, objects, live = (
            max((point[key] for point in within if point[key] is not None), default=None) for key in _CURVES
        )
        cells = (f"{phase['seconds']:,.2f}", _mib_cell(sunreclaim), _mib_cell(slab), _cell(objects), _cell(live))
        rows.append((str(phase["name"]), PHASES.get(phase["name"], ""), *cells))
    titles = ("phase", "what happens", "time|s", "highest SUnreclaim|MiB", "highest Slab|MiB",
              "most task_struct|active objects", "most live tasks|of the storm")  # fmt: skip
    return (
        f"<section>\n<h2>What happened</h2>\n{_asset('curves.html') if points else ''}\n"
        f"{_table(titles, [('', rows)], words=(1,))}\n"
        '<p class="quiet">Sampled once a second. A dash: the phase was over between two samples.</p>\n</section>'
    )


def _curve_data(record: Mapping[str, Any]) -> dict[str, Any]:
    points, snapshots = record["series"], record["snapshots"]
    start = (snapshots.get("created") or snapshots.get("baseline") or {}).get("meminfo") or {}
    columns = {key: [_finite(point[key]) for point in points] for key in _CURVES}
    levels = {"sunreclaim_bytes": start.get("SUnreclaim"), "slab_bytes": start.get("Slab")}
    times = [_finite(point["t"]) or 0 for point in points]
    phases = []
    for phase in record["phases"]:
        began = max(0.0, phase["started_at"] - record["started_at"])
        phases.append({"name": phase["name"], "start": began, "end": began + phase["seconds"]})
    return {
        "t": times,
        **columns,
        "start": {
            key: next((v for v in (level, *columns[key]) if v is not None), None) for key, level in levels.items()
        },
        "phases": phases,
        "seconds": max([1, record["seconds"], *times]),
    }


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _caches(record: Mapping[str, Any]) -> str:
    rows = record["caches"]
    if not rows:
        return "<section>\n<h2>Caches</h2>\n<p>The storm ended before the caches could be compared.</p>\n</section>"
    widest = max(row["growth_bytes"] for row in rows) or 1
    pressed = any(row.get("released_by_pressure_bytes") is not None for row in rows)
    parts = ["<section>\n<h2>Caches by growth</h2>", _key(rows)]
    groups = []
    for reclaimable, title, note in (
        (False, "Unreclaimable", "The verdict is about these."),
        (True, "Reclaimable", "The kernel gives these back when memory is short: they are no part of the verdict."),
    ):
        group = [row for row in rows if bool(row["reclaimable"]) is reclaimable]
        if not group:
            continue
        parts.append(f'<h3>{title}</h3>\n<p class="quiet">{note}</p>\n<ol class="bars">')
        parts += [
            f"<li><span>{_text(row['cache'])}</span>{_bar(row, widest)}"
            f'<span class="amount">{_mib(row["growth_bytes"], 2)}</span></li>'
            for row in group[: MOST_BARS[reclaimable]]
        ]
        parts.append("</ol>")
        if len(group) > MOST_BARS[reclaimable]:
            parts.append(f'<p class="quiet">{len(group) - MOST_BARS[reclaimable]} smaller ones are in the table.</p>')
        columns = {name: [row.get(name) for row in group] for name in _BYTES}
        sums = {name: None if None in sizes else sum(map(int, sizes)) for name, sizes in columns.items()}
        lines = [(row["cache"], *_cache_cells(row, pressed), row["verdict"]) for row in group]
        groups.append((title, [*lines, ("together", *_cache_cells(sums, pressed), "")]))
    titles = ["cache", "growth|MiB", "went back by itself|MiB", "stayed|MiB", "given back by shrink|MiB",
              "pinned|MiB", "verdict"]  # fmt: skip
    if pressed:
        titles.insert(4, "given back by pressure|MiB")
    parts.append(f"<h3>The same in figures</h3>\n{_table(titles, groups, words=(len(titles) - 1,))}\n</section>")
    return "\n".join(parts)


def _cache_cells(row: Mapping[str, Any], with_pressure: bool) -> list[str]:
    grown, stayed, pressed, shrunk, pinned = (row.get(name) for name in _BYTES)
    sizes = [grown, (grown or 0) - (stayed or 0), stayed, *([pressed] if with_pressure else []), shrunk, pinned]
    return [_mib_cell(size) for size in sizes]


def _key(rows: Sequence[Mapping[str, Any]]) -> str:
    there = {part for row in rows for part, _ in _shares(row)}
    lines = "".join(
        f'<li><svg aria-hidden="true"><rect class="fill-{part}" width="100%" height="100%"/></svg>{name}</li>'
        for part, name in _PARTS.items()
        if part in there
    )
    return f'<ul class="key">{lines}</ul>'


def _shares(row: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The parts of a bar, in bytes; together they are the growth."""
    grown, stayed, pressed, shrunk, pinned = (row.get(name) for name in _BYTES)
    grown, stayed = grown or 0, stayed or 0
    parts = [("back", grown - stayed)]
    if pressed is not None:
        parts.append(("pressure", pressed))
    if pinned is None:
        return [*parts, ("untold", stayed - (pressed or 0))]
    return [*parts, ("shrink", shrunk or 0), ("pinned", pinned)]


def _bar(row: Mapping[str, Any], widest: int) -> str:
    rects, at = "", 0.0
    for part, size in _shares(row):
        width = 100 * size / widest
        if size > 0:
            rects += f'<rect class="fill-{part}" x="{at:.3f}%" width="{width:.3f}%" height="100%"/>'
        at += width
    return f'<svg class="bar" aria-hidden="true">{rects}</svg>'


def _states(record: Mapping[str, Any]) -> str:
    snapshots = record["snapshots"]
    rows = []
    for name in [*(name for name in STATES if name in snapshots), *(snapshots.keys() - STATES.keys())]:
        taken = snapshots[name]
        meminfo = taken["meminfo"] or {}
        task = next((row for row in taken["caches"] or () if row["cache"] == "task_struct"), dict[str, Any]())
        cells = [_cell(meminfo[key] // 1024 if key in meminfo else None) for key in _MEMINFO]
        cells += [_cell(task.get(key)) for key in _SLABINFO]
        cells += [_cell(taken.get(key)) for key in ("processes", "cgroups_dying")]
        rows.append((STATES.get(name, name), *cells))
    titles = ("state", *(f"{key}|kB" for key in _MEMINFO), "task_struct active|objects", "all|objects",
              "object size|bytes", "in a slab|objects", "a slab|pages", "active|slabs", "all|slabs",
              "running|processes", "dying|cgroups")  # fmt: skip
    return (
        "<section>\n<h2>The host in each state</h2>\n"
        '<p class="quiet">Lines of /proc/meminfo, the row task_struct of /proc/slabinfo, and what ps counts.</p>\n'
        f"{_table(titles, [('', rows)])}\n</section>"
    )


def _settings(record: Mapping[str, Any]) -> str:
    # What explains another line comes next to it.
    plan = {key: record["plan"][key] for key in _PLAN_FIRST if key in record["plan"]} | record["plan"]
    host = {key: value for key, value in record["host"].items() if key != "kernel_config"}
    cgroups = {key: value for key, value in record["cgroups"].items() if key not in ("left", "charges")}
    tables = [("Plan", plan), ("Tasks", record["tasks"]), ("Cgroups", cgroups)]
    tables.append(("Kernel memory charged to them at the peak", record["cgroups"].get("charges") or {}))
    limits = {key: "none" if value is None else value for key, value in (record.get("limits") or {}).items()}
    tables.append(("Limits, set in the kernel", limits))
    tables += [_pressure(step) for step in record.get("pressure") or ()]
    tables.append(("Host", host))
    parts = [
        _pairs(title, [(_label(key), _value(key, value)) for key, value in values.items()])
        for title, values in tables
        if values
    ]
    options = record["host"].get("kernel_config") or {}
    if options:
        parts.append(_pairs("Kernel options", [(_option(key), str(value)) for key, value in options.items()]))
    return '<section>\n<h2>Plan and host</h2>\n<div class="lists">\n' + "\n".join(parts) + "\n</div>\n</section>"


def _pressure(step: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    figures = {key: value for key, value in step.items() if key != "where" and (key, value) != ("floor_bytes", None)}
    title = f"Memory pressure {WHERE.get(step['where'], step['where'])}"
    return title, figures | {"ended": ENDED.get(step["ended"], step["ended"])}


def _pairs(title: str, pairs: Iterable[tuple[str, str]]) -> str:
    rows = "\n".join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>' for name, value in pairs)
    return f'<div><h3>{_text(title)}</h3>\n<table class="pairs">\n{rows}\n</table></div>'


def _option(key: str) -> str:
    return key.removeprefix("CONFIG_") + (f" ({CONFIG[key]})" if key in CONFIG else "")


def _label(key: str) -> str:
    return LABELS.get(key) or key.removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")


def _value(key: str, value: Any) -> str:
    """One value of the record in words; its key names its unit."""
    match value:
        case None:
            return "unknown"
        case bool():
            return "yes" if value else "no"
        case int() | float() if key.endswith("_bytes"):
            return _mib(value)
        case int() | float() if key.endswith("_seconds"):
            return f"{value:,g} s"
        case int() | float():
            return f"{value:,}"
    return str(value)


def _table(
    titles: Sequence[str],
    groups: Sequence[tuple[str, Sequence[Sequence[str]]]],
    words: Sequence[int] = (),
) -> str:
    """Numbers stand right, the columns of ``words`` left. A title is ``name|unit``; a group may have a title too."""
    left = [' class="words"' if place in words else "" for place in range(len(titles))]
    heads = []
    for place, title in enumerate(titles):
        name, _, unit = title.partition("|")
        heads.append(f'<th scope="col"{left[place]}>{name}<span class="unit">{unit}</span></th>')
    lines = []
    for title, rows in groups:
        if title:
            lines.append(f'<tr class="group"><th scope="rowgroup" colspan="{len(titles)}">{title}</th></tr>')
        for row in rows:
            cells = "".join(f"<td{left[place]}>{_text(cell)}</td>" for place, cell in enumerate(row) if place)
            lines.append(f'<tr><th scope="row">{_text(row[0])}</th>{cells}</tr>')
    head, body = "".join(heads), "\n".join(lines)
    return (
        f'<div class="scroll" tabindex="0"><table class="data">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _mib(size: float | None, digits: int = 1) -> str:
    return "unknown" if size is None else f"{size / MIB:,.{digits}f} MiB"


def _mib_cell(size: float | None) -> str:
    return "-" if size is None else f"{size / MIB:,.2f}"


def _cell(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
