"""What the daemon knows about itself and its storms, in a registry of its own.

The families are few, so prometheus_client renders them, from the values kept here: one that was never set has no
series.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from slabwatch import __version__
from slabwatch.expose import metrics
from slabwatch.expose.metrics import OWN_METRICS, STORM_OUTCOMES, STORM_PHASES, VERDICT_CLASSES


class OwnMetrics:
    """``revision`` grows with every change that comes from here (not with process_*, which the kernel counts)."""

    def __init__(self) -> None:
        self.revision = 0
        self.interval_seconds: float | None = None
        self._values: dict[str, dict[tuple[str, ...], float]] = {metric.name: {} for metric in OWN_METRICS}
        self._rendered: dict[tuple[str, bool], tuple[dict[tuple[str, ...], float], bytes]] = {}
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._set("build_info", 1, __version__, platform.python_version())
        self._set("config_last_reload_successful", 1)
        for counter in ("polls_total", "poll_overruns_total", "storm_tasks_started_total", "storm_tasks_failed_total"):
            self._set(counter, 0)
        for outcome in STORM_OUTCOMES:
            self._set("storms_total", 0, outcome)
        self.storm_progress(None, 0)

    def set_kernel(self, release: str, allocator: str, cgroup_mode: str, kmem_accounting: str) -> None:
        """The host's kernel; what was said before is forgotten."""
        self._values["kernel_info"].clear()
        self._set("kernel_info", 1, release, allocator, cgroup_mode, kmem_accounting)

    def set_interval(self, seconds: float) -> None:
        """The configured time from one poll to the next."""
        self.interval_seconds = seconds
        self._set("poll_interval_seconds", seconds)

    def polled(self, overruns: int) -> None:
        """One more poll; ``overruns`` polls before it were left out."""
        self._add("polls_total", 1)
        self._add("poll_overruns_total", overruns)

    def set_reload(self, ok: bool) -> None:
        """How the last load of the configuration ended."""
        self._set("config_last_reload_successful", ok)

    def set_web_config(self, ok: bool) -> None:
        """How the last load of the web configuration ended."""
        self._set("web_config_last_reload_successful", ok)

    def set_connections(self, door: str, count: int, closed: Mapping[str, int]) -> None:
        """How many connections a door holds, and how many it has closed, by reason."""
        self._set("connections", count, door)
        for reason, number in closed.items():
            self._set("connections_closed_total", number, door, reason)

    def set_refused(self, refused: Mapping[str, int]) -> None:
        """How many requests the web configuration has refused, by reason."""
        for reason, number in refused.items():
            self._set("web_requests_refused_total", number, reason)

    def storm_progress(self, phase: str | None, live_tasks: int) -> None:
        """Where the running storm is; ``phase`` None: no storm runs. Raises ValueError for an unknown phase."""
        if phase is not None and phase not in STORM_PHASES:
            raise ValueError(f"unknown phase of a storm: {phase!r} (known: {', '.join(STORM_PHASES)})")
        self._set("storm_active", phase is not None)
        self._set("storm_live_tasks", live_tasks)
        for known in STORM_PHASES:
            self._set("storm_phase", known == phase, known)

    def storm_tasks(self, started: int, failed: int) -> None:
        """More tasks of a storm were started, or could not be."""
        self._add("storm_tasks_started_total", started)
        self._add("storm_tasks_failed_total", failed)

    def storm_finished(self, record: Mapping[str, Any]) -> None:
        """Counts a storm that has just ended and shows it as the last one. ``record``: the storm's JSON record."""
        self._add("storms_total", 1, str(record["outcome"]))
        self.set_last_storm(record)

    def set_last_storm(self, record: Mapping[str, Any]) -> None:
        """Shows a record as the last storm without counting it, as after a restart of the daemon."""
        verdict = record.get("verdict") or {}
        for figure in ("retained_bytes", "pinned_bytes", "released_by_shrink_bytes"):
            self._set_or_drop(f"storm_last_{figure}", verdict.get(figure))
        self._set_or_drop("storm_last_end_timestamp_seconds", _end_of(record))
        for known in VERDICT_CLASSES:
            self._set("storm_last_verdict", known == verdict.get("class"), known)

    def set_leftover(self, count: int) -> None:
        """How many cgroups of storms are still there although no storm runs."""
        self._set("storm_leftover_cgroups", count)

    def render(self, openmetrics: bool) -> bytes:
        """All of it in the text format or in OpenMetrics, without the latter's ``# EOF``.

        A family is rendered again when one of its values has changed: most polls change two of them.
        """
        texts = [self._family_text(metric, openmetrics) for metric in OWN_METRICS if self._values[metric.name]]
        return b"".join([*texts, _rendered(self._process, openmetrics)])

    def render_facts(self) -> bytes:
        """build_info and kernel_info alone, in the text format: what is true of a single sample too."""
        facts = (metric for metric in OWN_METRICS if metric.name in ("build_info", "kernel_info"))
        return b"".join(self._family_text(metric, False) for metric in facts if self._values[metric.name])

    def _family_text(self, metric: metrics.Metric, openmetrics: bool) -> bytes:
        values = self._values[metric.name]
        rendered = self._rendered.get((metric.name, openmetrics))
        if rendered is None or rendered[0] != values:
            registry = CollectorRegistry()
            registry.register(_OneFamily(_family(metric, values)))
            rendered = self._rendered[metric.name, openmetrics] = dict(values), _rendered(registry, openmetrics)
        return rendered[1]

    def _set(self, name: str, value: float, *labels: str) -> None:
        self._values[name][labels] = float(value)
        self.revision += 1

    def _set_or_drop(self, name: str, value: float | None) -> None:
        if value is None:
            self._values[name].clear()
            self.revision += 1
        else:
            self._set(name, value)

    def _add(self, name: str, amount: float, *labels: str) -> None:
        self._set(name, self._values[name].get(labels, 0.0) + amount, *labels)


class _OneFamily(Collector):
    # A family from constants, because a metric object of prometheus_client brings a _created series with it that can
    # be turned off for a whole process only.
    def __init__(self, family: Metric) -> None:
        self._family = family

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return [self._family]


def _rendered(registry: CollectorRegistry, openmetrics: bool) -> bytes:
    if openmetrics:
        page: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return page.removesuffix(b"# EOF\n")
    return generate_latest(registry)


def _family(metric: metrics.Metric, values: Mapping[tuple[str, ...], float]) -> Metric:
    if metric.kind == "info":
        info = InfoMetricFamily(metric.family_name, metric.help, labels=())
        for labels in values:
            info.add_metric((), dict(zip(metric.labels, labels, strict=True)))
        return info
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.family_name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _end_of(record: Mapping[str, Any]) -> float | None:
    """When the last phase ended. Times are Unix seconds or ISO 8601."""
    phases = record.get("phases")
    if not phases:
        return None
    started = phases[-1]["started_at"]
    begin = datetime.fromisoformat(started).timestamp() if isinstance(started, str) else float(started)
    return begin + float(phases[-1]["seconds"] or 0.0)
