"""The YAML files, as text, from what is declared."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter

from deploy.prometheus.rules.daemon_alerts import DAEMON_ALERTS, STORM_ALERTS
from deploy.prometheus.rules.declared import CLASS, Alert, Group, Record, Threshold, indented
from deploy.prometheus.rules.memory_alerts import GROWTH_ALERTS, HOST_ALERTS
from deploy.prometheus.rules.recording import QUIET, RECORDING
from deploy.prometheus.rules.thresholds import THRESHOLDS

ALERTING: tuple[Group, ...] = (
    Group("slabwatch-host-alerts", "1m", HOST_ALERTS),
    Group("slabwatch-growth-alerts", "2m", GROWTH_ALERTS),
    Group("slabwatch-daemon-alerts", "1m", DAEMON_ALERTS),
    Group("slabwatch-storm-alerts", "1m", STORM_ALERTS),
)

_WIDTH = 120

_THRESHOLDS_HEAD = f"""\
The thresholds of slabwatch's alerts: the one file to change, and to keep when the others are replaced by newer ones.

Each applies to all hosts. For some hosts, give their targets the label {CLASS} in Prometheus' scrape configuration,
and put a line for that class before the general one:

    expr: |-
      0.3 * group by ({CLASS}) (slabwatch_build_info{{{CLASS}="database"}})
      or 0.15 * group by ({CLASS}) (slabwatch_build_info)
"""
_RECORDING_HEAD = """\
What slabwatch's alerts and dashboards need to have computed beforehand. Do not change this file: thresholds are in
slabwatch-thresholds.yml.
"""
_ALERTS_HEAD = """\
slabwatch's alerts. Do not change this file: thresholds are in slabwatch-thresholds.yml.
"""


def files() -> dict[str, str]:
    """Name and text of each rules file."""
    thresholds = "".join(map(_threshold, THRESHOLDS))
    return {
        "slabwatch-thresholds.yml": _file(
            _THRESHOLDS_HEAD, f"{_group_head(Group('slabwatch-thresholds', '1m', ()))}{thresholds}"
        ),
        "slabwatch-recording.yml": _file(_RECORDING_HEAD, *map(_group, RECORDING)),
        "slabwatch-alerts.yml": _file(_ALERTS_HEAD, *map(_group, ALERTING)),
    }


def alerts() -> list[Alert]:
    """All alerts, in the order of the file."""
    return [rule for group in ALERTING for rule in group.rules if isinstance(rule, Alert)]


def records() -> list[Record]:
    """All recording rules but the thresholds, in the order of the file."""
    return [rule for group in RECORDING for rule in group.rules if isinstance(rule, Record)]


def table_of_alerts() -> str:
    """Markdown for the README."""
    lines = ["| alert | severity | for | says |", "|---|---|---|---|"]
    for alert in alerts():
        link = f"[{alert.name}](../../docs/runbooks/{alert.page}.md#{alert.name.lower()})"
        lines.append(f"| {link} | {alert.severity} | {alert.hold} | {_plain(alert.summary)} |")
    return "\n".join(lines) + "\n"


def table_of_series() -> str:
    """Markdown for the README: what the recording rules add."""
    each = Counter(record.per for record in records())
    rows = (
        ("host", f"{each['host']}, and `{QUIET}` at times"),
        ("slab cache of a host with more than 0.1 % of its memory", str(each["large cache of a host"])),
        ("cgroup of a host with more than 0.1 % of its memory in the kernel", str(each["large cgroup of a host"])),
        ("kernel release (and class)", str(each["release"])),
        ("kernel release and slab cache", str(each["release and cache"])),
        ("class of hosts", f"{len(THRESHOLDS)} thresholds"),
    )
    return "| for each | series recorded |\n|---|---|\n" + "".join(f"| {what} | {count} |\n" for what, count in rows)


def _plain(summary: str) -> str:
    # What a template says of all hosts or of one is left out; other labels are named.
    summary = re.sub(r" ?(on )?(\{\{ with .*\{\{ end \}\}|\{\{ \$labels\.instance \}\})", "", summary)
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"`\1`", summary)


def _file(head: str, *groups: str) -> str:
    comment = "".join(f"# {line}".rstrip() + "\n" for line in head.splitlines())
    return f"{comment}# Written by: python -m deploy.prometheus.rules\n\ngroups:\n" + "\n".join(groups)


def _group(group: Group) -> str:
    rules = "".join(_alert(rule) if isinstance(rule, Alert) else _record(rule) for rule in group.rules)
    return _group_head(group) + rules


def _group_head(group: Group) -> str:
    return f"  - name: {group.name}\n    interval: {group.interval}\n    rules:\n"


def _threshold(threshold: Threshold) -> str:
    expr = f"{threshold.value:g} * group by ({CLASS}) (slabwatch_build_info)"
    return _record(Record("slabwatch:threshold", expr, "class", {"name": threshold.name}, threshold.why))


def _record(record: Record) -> str:
    lines = textwrap.wrap(record.why, _WIDTH - 8)
    lines = [f"      # {line}" for line in lines] + [f"      - record: {record.name}"]
    if record.labels:
        lines.append(f"        labels: {{{', '.join(f'{key}: {value}' for key, value in record.labels.items())}}}")
    return "\n".join(lines) + f"\n{_expr(record.expr)}"


def _alert(alert: Alert) -> str:
    lines = [f"      - alert: {alert.name}", _expr(alert.expr).rstrip("\n")]
    if alert.hold != "0m":
        lines.append(f"        for: {alert.hold}")
    lines += ["        labels:", f"          severity: {alert.severity}", "        annotations:"]
    lines.append(f"          summary: {json.dumps(alert.summary)}")
    lines += ["          description: |-", indented("\n".join(alert.description), " " * 12)]
    lines.append(f"          runbook_url: {alert.runbook_url}")
    return "\n".join(lines) + "\n"


def _expr(expr: str) -> str:
    return f"        expr: |-\n{indented(expr, ' ' * 10)}\n"
