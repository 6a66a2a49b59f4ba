"""Pictures of the dashboards for the documentation: their own queries, asked of a Prometheus, drawn by matplotlib.

They stand in for screenshots where no Grafana is at hand, and are labelled as what they are.
"""

from __future__ import annotations

import json
import re
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_CELL_WIDTH, _CELL_HEIGHT = 0.62, 0.40  # inches
_LABEL = "Drawn from the dashboard's own queries on a test fleet; Grafana itself looks different."
_MOST_SERIES = 10


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Where and for which time the queries are asked. ``variables``: Grafana's, with their values."""

    url: str
    start: float
    end: float
    variables: Mapping[str, str]

    def series(self, expr: str, legend: str) -> list[tuple[str, list[datetime], list[float]]]:
        """Name, times and values of each series."""
        step = max(1.0, (self.end - self.start) / 400)
        rows = self._ask("query_range", expr, start=self.start, end=self.end, step=step)
        return [
            (_named(legend, row["metric"]), [_time(t) for t, _ in row["values"]], [float(v) for _, v in row["values"]])
            for row in rows
        ]

    def newest(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series at the end."""
        return [(row["metric"], float(row["value"][1])) for row in self._ask("query", expr, time=self.end)]

    def _ask(self, path: str, expr: str, **parameters: float) -> Any:
        for variable, value in self.variables.items():
            expr = expr.replace(variable, value)
        query = urllib.parse.urlencode({"query": expr, **{key: f"{value:.3f}" for key, value in parameters.items()}})
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as response:
            return json.load(response)["data"]["result"]


def draw(dashboard: Path, source: Prometheus, picture: Path) -> None:
    """The whole dashboard, panel by panel where Grafana would put it."""
    board = json.loads(dashboard.read_text(encoding="utf-8"))
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    mpl.rcParams.update({"font.size": 7, "axes.titlesize": 8.5, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(24 * _CELL_WIDTH, (height + 2) * _CELL_HEIGHT), facecolor="white")
    figure.text(0.01, 1 - 0.6 / (height + 2), board["title"], fontsize=13, weight="bold", va="center")
    figure.text(0.99, 1 - 0.6 / (height + 2), _LABEL, fontsize=7.5, color="#666666", ha="right", va="center")
    spans = _storms(board, source)
    for panel in board["panels"]:
        place = panel["gridPos"]
        left, width = (place["x"] + 1.1) / 24, (place["w"] - 1.5) / 24
        bottom = (height - place["y"] - place["h"] + 1.1) / (height + 2)
        axes = figure.add_axes((left, bottom, width, (place["h"] - 2.3) / (height + 2)))
        axes.set_title(panel["title"], loc="left")
        _KINDS[panel["type"]](axes, panel, source)
        if panel["type"] in ("timeseries", "state-timeline"):
            axes.set_xlim(_time(source.start), _time(source.end))  # type: ignore[arg-type]
            axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))  # type: ignore[no-untyped-call]
            for begin, end in spans:
                axes.axvspan(begin, end, color="#B877D9", alpha=0.08, linewidth=0)  # type: ignore[arg-type]
    figure.savefig(picture, dpi=110)


def _storms(board: Mapping[str, Any], source: Prometheus) -> list[tuple[datetime, datetime]]:
    """When storms ran, by the annotation's own query."""
    pause = timedelta(seconds=3 * max(1.0, (source.end - source.start) / 400))
    spans: list[tuple[datetime, datetime]] = []
    rows = source.series(board["annotations"]["list"][0]["expr"], "")
    for moment in sorted(time for _, times, _ in rows for time in times):
        if spans and moment - spans[-1][1] <= pause:
            spans[-1] = spans[-1][0], moment
        else:
            spans.append((moment, moment))
    return spans


def _curves(axes: Axes, panel: Mapping[str, Any], source: Prometheus) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    colours = {
        override["matcher"]["options"]: override["properties"] for override in panel["fieldConfig"].get("overrides", [])
    }
    found = [row for target in panel["targets"] for row in source.series(target["expr"], target["legendFormat"])]
    found.sort(key=lambda row: -max(row[2], default=0.0))
    aside = [row for row in found if _property(colours, row[0], "custom.axisPlacement") == "right"]
    found = [row for row in found if row not in aside]
    floor: dict[datetime, float] = {}
    for name, times, values in reversed(found) if stacked else found[:_MOST_SERIES]:
        colour = (_property(colours, name, "color") or {}).get("fixedColor")
        if stacked:
            below = [floor.get(time, 0.0) for time in times]
            top = [low + value for low, value in zip(below, values, strict=True)]
            floor = dict(zip(times, top, strict=True))
            axes.fill_between(times, below, top, color=colour, alpha=0.35, linewidth=0)  # type: ignore[arg-type]
        axes.plot(times, top if stacked else values, label=name, color=colour, linewidth=1.1)  # type: ignore[arg-type]
    if "min" in defaults:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_formatter(defaults["unit"]))
    axes.grid(axis="y", color="#eeeeee")
    for name, times, values in aside:
        right = axes.twinx()
        right.plot(times, values, "--", color="#999999", label=name, linewidth=1)  # type: ignore[arg-type]
        right.set_ylim(bottom=0, top=max(values) * 1.1)
        right.yaxis.set_major_formatter(_formatter(defaults["unit"]))
        axes.plot([], [], "--", color="#999999", label=name)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", fontsize=5.5, ncols=2, framealpha=0.8)


def _number(axes: Axes, panel: Mapping[str, Any], source: Prometheus) -> None:
    axes.axis("off")
    found = source.newest(panel["targets"][0]["expr"])
    defaults = panel["fieldConfig"]["defaults"]
    value = found[0][1] if found else float("nan")
    red = any(step["value"] is not None and value >= step["value"] for step in defaults["thresholds"]["steps"])
    text = _shown(defaults["unit"])(value, None)
    axes.text(0, 0.4, text, fontsize=17, color="#C4162A" if red else "#37872D", va="center")


def _bars(axes: Axes, panel: Mapping[str, Any], source: Prometheus) -> None:
    show = _shown(panel["fieldConfig"]["defaults"]["unit"])
    rows = [
        (_named(target["legendFormat"], labels), value)
        for target in panel["targets"]
        for labels, value in source.newest(target["expr"])
    ][::-1]
    axes.axis("off")
    axes.barh(range(len(rows)), [value for _, value in rows], color="#5195CE", height=0.8, alpha=0.5)
    for place, (name, value) in enumerate(rows):
        axes.text(0.01, place, f"{name}  {show(value, None)}", transform=axes.get_yaxis_transform(), va="center")


def _lanes(axes: Axes, panel: Mapping[str, Any], source: Prometheus) -> None:
    found = [row for target in panel["targets"] for row in source.series(target["expr"], target["legendFormat"])][:24]
    pause = 3 * max(1.0, (source.end - source.start) / 400)
    for lane, (name, times, values) in enumerate(reversed(found)):
        for place, (time, value) in enumerate(zip(times, values, strict=True)):
            following = times[place + 1] if place + 1 < len(times) else time
            width = min((following - time).total_seconds(), pause)
            begin = date2num(time)  # type: ignore[no-untyped-call]
            colour = "#73BF69" if value >= 1 else "#bbbbbb"
            axes.broken_barh([(begin, width / 86400)], (lane + 0.1, 0.8), color=colour, linewidth=0.3)
        axes.text(0.005, lane + 0.5, name, transform=axes.get_yaxis_transform(), va="center", fontsize=6)
    axes.set_yticks([])
    axes.xaxis_date()


def _table(axes: Axes, panel: Mapping[str, Any], source: Prometheus) -> None:
    axes.axis("off")
    columns = [source.newest(target["expr"]) for target in panel["targets"]]
    names = panel["transformations"][-1]["options"]["renameByName"]
    keys = sorted({label for column in columns for labels, _ in column for label in labels})
    show = _shown(panel["fieldConfig"]["defaults"]["unit"])
    rows = []
    for labels, _ in columns[-1][:9]:
        values = [{tuple(sorted(one.items())): value for one, value in column} for column in columns]
        figures = [column.get(tuple(sorted(labels.items()))) for column in values]
        rows.append([*(labels.get(key, "") for key in keys), *("" if f is None else show(f, None) for f in figures)])
    if rows:
        table = axes.table(
            rows, colLabels=[*keys, *names.values()], loc="upper left", cellLoc="left", edges="horizontal"
        )
        table.auto_set_font_size(False)
        table.set_fontsize(6.5)


_KINDS: Mapping[str, Callable[[Axes, Mapping[str, Any], Prometheus], None]] = {
    "timeseries": _curves,
    "stat": _number,
    "bargauge": _bars,
    "state-timeline": _lanes,
    "table": _table,
}


def _property(colours: Mapping[str, Sequence[Mapping[str, Any]]], name: str, wanted: str) -> Any:
    return next((one["value"] for one in colours.get(name, ()) if one["id"] == wanted), None)


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return textwrap.shorten(re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend), 60)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _formatter(unit: str) -> FuncFormatter:
    return FuncFormatter(_shown(unit))


def _shown(unit: str) -> Callable[[float, object], str]:
    def show(value: float, _: object) -> str:
        if unit == "bytes":
            size = abs(value)
            for name, step in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
                if size >= step:
                    return f"{value / step:.4g} {name}"
            return f"{value:.0f} B"
        if unit == "percentunit":
            return f"{100 * value:.3g} %"
        return f"{value:,.4g} s" if unit == "s" else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"

    return show
