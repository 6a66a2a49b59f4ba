"""The few kinds of panel that the dashboards are made of, on top of Grafana's foundation SDK.

Every panel has a title, a unit and a description that says what to see in it. Queries name metrics by ``metric()``,
so that each is bound to the dashboard's job and instance.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Colours of the three figures that are on every page: what can be reclaimed is calm, what can not is warm.
COLOURS = {
    "SUnreclaim": "#E0752D",
    "SReclaimable": "#5195CE",
    "MemTotal": "#999999",
    "active": "#E0752D",
    "expected": "#629E51",
}
_WIDTH, _HEIGHT = 12, 8

T = TypeVar("T")
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called."""

    expr: str
    legend: str = "{{instance}}"


def metric(name: str, *matchers: str, over: str = "") -> str:
    """A selector bound to the dashboard's variables; ``over`` makes a range of it: ``[1h]``."""
    labels = ",".join(['job=~"$job"', 'instance=~"$instance"', *matchers])
    return f"slabwatch_{name}{{{labels}}}{f'[{over}]' if over else ''}"


def series(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    width: int = _WIDTH,
    right: str = "",
    least: float | None = 0,
) -> timeseries.Panel:
    """Curves over time. ``right``: the legend of a series with an axis of its own on that side."""
    panel = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(common_model.VisibilityMode.NEVER)
    )
    panel = panel.legend(
        common.VizLegendOptions()
        .display_mode(common_model.LegendDisplayMode.TABLE)
        .placement(common_model.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    ).tooltip(
        common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING)
    )
    if least is not None:
        panel = panel.min(least)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    for legend, colour in COLOURS.items():
        if any(query.legend == legend for query in queries):
            properties = [_property("color", {"mode": "fixed", "fixedColor": colour})]
            if legend == right:
                properties += [
                    _property("custom.axisPlacement", "right"),
                    _property("custom.fillOpacity", 0),
                    _property("custom.stacking", {"mode": "none"}),
                    _property("custom.lineStyle", {"fill": "dash", "dash": [6, 4]}),
                ]
            panel = panel.override_by_name(legend, properties)
    return _dressed(panel, title, description, unit, queries, width)


def figure(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    red_from: float | None = None,
    width: int = 4,
    decimals: int | None = None,
) -> stat.Panel:
    """One number with its recent curve; ``red_from``: where it turns red."""
    steps = [model.Threshold(value=None, color="green")]
    if red_from is not None:
        steps.append(model.Threshold(value=red_from, color="red"))
    panel = (
        stat.Panel().graph_mode(common_model.BigValueGraphMode.AREA).color_mode(common_model.BigValueColorMode.VALUE)
    )
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel = panel.thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    if decimals is not None:
        panel = panel.decimals(decimals)
    return _dressed(panel, title, description, unit, (query,), width, height=4)


def states(title: str, description: str, *queries: Query, width: int = _WIDTH) -> statetimeline.Panel:
    """One lane a series: 1 is drawn, 0 is grey."""
    panel = statetimeline.Panel().show_value(common_model.VisibilityMode.NEVER).merge_values(True).row_height(0.8)
    panel = panel.thresholds(
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=None, color="#808080"), model.Threshold(value=1, color="green")])
    ).color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    return _dressed(panel, title, description, "bool_yes_no", queries, width)


def bars(title: str, description: str, unit: str, *queries: Query, width: int = _WIDTH) -> bargauge.Panel:
    """The newest values, as bars."""
    panel = bargauge.Panel().orientation(common_model.VizOrientation.HORIZONTAL).min(0)
    panel = panel.display_mode(common_model.BarGaugeDisplayMode.BASIC)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel = panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
    return _dressed(panel, title, description, unit, queries, width, instant=True)


def rows(title: str, description: str, unit: str, *columns: tuple[str, str], width: int = _WIDTH) -> table.Panel:
    """A table: a row for each combination of the labels that all expressions have; headings and expressions."""
    names = {f"Value #{letter}" if columns[1:] else "Value": heading for letter, (heading, _) in _lettered(columns)}
    panel = table.Panel().with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    panel = panel.with_transformation(
        model.DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": names})
    )
    queries = [Query(expr) for _, expr in columns]
    return _dressed(panel, title, description, unit, queries, width, instant=True, as_table=True)


def _dressed(
    panel: P,
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    width: int,
    *,
    height: int = _HEIGHT,
    instant: bool = False,
    as_table: bool = False,
) -> P:
    """The panel with what every panel has."""
    dressed: Any = panel
    dressed.title(title).description(description).unit(unit).datasource(DATASOURCE).span(width).height(height)
    for letter, query in _lettered(queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
        target = target.instant() if instant else target.range()
        if as_table:
            target = target.format(PromQueryFormat.TABLE)
        dressed.with_target(target)
    return panel


def _lettered(things: Sequence[T]) -> list[tuple[str, T]]:
    """With the letters by which Grafana tells the queries of a panel apart."""
    return list(zip(string.ascii_uppercase, things, strict=False))


def _property(name: str, value: object) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val=name, value=value)


class _Annotation(model.AnnotationQuery, Builder[model.AnnotationQuery]):
    """The SDK's annotation lacks what Grafana's Prometheus datasource reads beside the query."""

    def __init__(self, name: str, expr: str, colour: str, title: str, text: str, *, value_is_time: bool) -> None:
        super().__init__(name=name, datasource=DATASOURCE, icon_color=colour, expr=expr)
        self._more = {"titleFormat": title, "textFormat": text, "useValueForTime": value_is_time, "step": "1s"}

    def build(self) -> model.AnnotationQuery:
        """It is its own builder."""
        return self

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self._more}


def _annotations() -> list[_Annotation]:
    """Storms on every dashboard: their phases as regions, and each end with its verdict."""
    end = metric("storm_last_end_timestamp_seconds")
    verdict = metric("storm_last_verdict")
    return [
        _Annotation(
            "Storm phases",
            f"{metric('storm_phase')} == 1",
            "#B877D9",
            "storm: {{phase}}",
            "{{instance}}",
            value_is_time=False,
        ),
        _Annotation(
            "Verdicts",
            f"1000 * {end} * on(job, instance) group_right() ({verdict} == 1)",
            "#F2495C",
            "storm ended: {{verdict}}",
            "{{instance}}",
            value_is_time=True,
        ),
    ]


def page(uid: str, title: str, description: str, *, one_host: bool) -> dashboard.Dashboard:
    """An empty dashboard with the variables datasource, job and instance, the annotations, and links to the others."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["slabwatch"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("slabwatch")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["slabwatch"])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", "Job", "label_values(slabwatch_build_info, job)", many=True))
        .with_variable(
            _variable(
                "instance", "Host", 'label_values(slabwatch_build_info{job=~"$job"}, instance)', many=not one_host
            )
        )
    )
    for annotation in _annotations():
        board = board.annotation(annotation)
    return board


def _variable(name: str, label: str, query: str, *, many: bool) -> dashboard.QueryVariable:
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(DATASOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    return variable.multi(True).include_all(True) if many else variable


def as_json(board: dashboard.Dashboard) -> str:
    """The dashboard as Grafana imports it."""
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
