"""What the daemon knows about itself and its storms. A value that was never set has no series.

Rendered here as the kernel's families are, because prometheus_client's generic renderer took a tenth of a scrape's
time for these few lines, and its ProcessCollector a twentieth; names and texts of process_* are the latter's.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from slabwatch import __version__
from slabwatch.expose import metrics
from slabwatch.expose.metrics import OWN_METRICS, PROCESS_METRICS, STORM_OUTCOMES, STORM_PHASES, VERDICT_CLASSES
from slabwatch.expose.render import escape
from slabwatch.host.own_process import OwnProcess, Usage

_METRICS = {metric.name: metric for metric in OWN_METRICS}
# All of each family but its number, for OpenMetrics and not.
_PROCESS = {
    openmetrics: [
        (metric.name, f"{metric.head(openmetrics=openmetrics)}{metric.full_name} ") for metric in PROCESS_METRICS
    ]
    for openmetrics in (False, True)
}


class OwnMetrics:
    """``revision`` grows with every change that comes from here (not with process_*, which the kernel counts)."""

    def __init__(self) -> None:
        self.revision = 0
        self.interval_seconds: float | None = None
        self._values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in _METRICS}
        # For OpenMetrics and not: each family's text, in their order, and those whose values have changed since.
        self._texts = {openmetrics: dict.fromkeys(_METRICS, "") for openmetrics in (False, True)}
        self._stale: dict[bool, set[str]] = {openmetrics: set() for openmetrics in (False, True)}
        self._process = OwnProcess()
        self._set("build_info", 1, __version__, platform.python_version())
        self._set("config_last_reload_successful", 1)
        for counter in ("polls_total", "poll_overruns_total", "storm_tasks_started_total", "storm_tasks_failed_total"):
            self._set(counter, 0)
        for outcome in STORM_OUTCOMES:
            self._set("storms_total", 0, outcome)
        self.storm_progress(None, 0)
        self.set_locked(False)
        self.audit_lost(0)

    def set_kernel(self, release: str, allocator: str, cgroup_mode: str, kmem_accounting: str) -> None:
        """The host's kernel; what was said before is forgotten."""
        self._drop("kernel_info")
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

    def set_locked(self, locked: bool) -> None:
        """Whether storms and shrinks are locked for maintenance."""
        self._set("storm_locked", locked)

    def audit_lost(self, lines: int) -> None:
        """How many lines of the audit log are lost by now."""
        self._set("audit_lines_lost_total", lines)

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
        for figure in ("retained_bytes", "released_by_pressure_bytes", "released_by_shrink_bytes", "pinned_bytes"):
            self._set_or_drop(f"storm_last_{figure}", verdict.get(figure))
        self._set_or_drop("storm_last_end_timestamp_seconds", _end_of(record))
        for known in VERDICT_CLASSES:
            self._set("storm_last_verdict", known == verdict.get("class"), known)

    def set_leftover(self, count: int) -> None:
        """How many cgroups of storms are still there although no storm runs."""
        self._set("storm_leftover_cgroups", count)

    def render(self, openmetrics: bool) -> bytes:
        """All of it in the text format or in OpenMetrics, without the latter's ``# EOF``."""
        return "".join(
            [*self._current(openmetrics).values(), _process_text(self._process.read(), openmetrics)]
        ).encode()

    def render_facts(self) -> bytes:
        """build_info and kernel_info alone, in the text format: what is true of a single sample too."""
        texts = self._current(False)
        return (texts["build_info"] + texts["kernel_info"]).encode()

    def _current(self, openmetrics: bool) -> Mapping[str, str]:
        """The families' texts. Only those whose values changed are written again: from poll to poll one or two."""
        texts, stale = self._texts[openmetrics], self._stale[openmetrics]
        for name in stale:
            texts[name] = _family_text(_METRICS[name], self._values[name], openmetrics)
        stale.clear()
        return texts

    def _set(self, name: str, value: float, *labels: str) -> None:
        if self._values[name].get(labels) != value:
            self._values[name][labels] = float(value)
            self._changed(name)

    def _drop(self, name: str) -> None:
        self._values[name].clear()
        self._changed(name)

    def _changed(self, name: str) -> None:
        self.revision += 1
        for stale in self._stale.values():
            stale.add(name)

    def _set_or_drop(self, name: str, value: float | None) -> None:
        if value is None:
            self._drop(name)
        else:
            self._set(name, value)

    def _add(self, name: str, amount: float, *labels: str) -> None:
        self._set(name, self._values[name].get(labels, 0.0) + amount, *labels)


def _family_text(metric: metrics.Metric, values: Mapping[tuple[str, ...], float], openmetrics: bool) -> str:
    if not values:
        return ""
    lines = [metric.head(openmetrics=openmetrics)]
    for labels, value in values.items():
        shown = ",".join([f'{label}="{escape(text)}"' for label, text in zip(metric.labels, labels, strict=True)])
        lines.append(f"{metric.full_name}{{{shown}}} {value!r}\n" if shown else f"{metric.full_name} {value!r}\n")
    return "".join(lines)


def _process_text(usage: Usage | None, openmetrics: bool) -> str:
    if usage is None:
        return ""
    texts = []
    for name, begin in _PROCESS[openmetrics]:
        figure: float | None = getattr(usage, name)
        if figure is not None:
            texts.append(f"{begin}{float(figure)!r}\n")
    return "".join(texts)


def _end_of(record: Mapping[str, Any]) -> float | None:
    """When the last phase ended. Times are Unix seconds or ISO 8601."""
    phases = record.get("phases")
    if not phases:
        return None
    started = phases[-1]["started_at"]
    begin = datetime.fromisoformat(started).timestamp() if isinstance(started, str) else float(started)
    return begin + float(phases[-1]["seconds"] or 0.0)
