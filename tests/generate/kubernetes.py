"""Rules and dashboards as Kubernetes objects, from the files that Prometheus and Grafana load.

The text is taken as it is, comments and all, and moved to the right.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

_WRITTEN = "# Written by `make docs` from {source}.\n"


def rules(project: Path) -> str:
    """A PrometheusRule for each file of rules in deploy/prometheus."""
    objects = []
    for path in sorted((project / "deploy" / "prometheus").glob("*.y*ml")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"^groups:", text, flags=re.MULTILINE):  # others are Prometheus' own configuration, and tests
            head = _head("monitoring.coreos.com/v1", "PrometheusRule", f"slabwatch-{_slug(path)}", "")
            body = "spec:\n" + textwrap.indent(text, "  ", lambda line: bool(line.strip()))
            objects.append(_WRITTEN.format(source=path.relative_to(project)) + head + body)
    return "---\n".join(objects)


def dashboards(project: Path) -> str:
    """A ConfigMap for each dashboard in deploy/grafana, as Grafana's sidecar looks for them."""
    objects = []
    for path in sorted((project / "deploy" / "grafana" / "dashboards").glob("*.json")):
        label = '    grafana_dashboard: "1"\n'
        head = _head("v1", "ConfigMap", f"slabwatch-dashboard-{_slug(path)}", label)
        text = textwrap.indent(path.read_text(encoding="utf-8").strip("\n"), "    ", lambda line: bool(line.strip()))
        source = _WRITTEN.format(source=path.relative_to(project))
        objects.append(f"{source}{head}data:\n  {path.name}: |\n{text}\n")
    return "---\n".join(objects)


def _head(version: str, kind: str, name: str, labels: str) -> str:
    return (
        f"apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {name}\n  labels:\n"
        f"    app.kubernetes.io/name: slabwatch\n{labels}"
    )


def _slug(path: Path) -> str:
    """An object's name from a file's, without this project's name in front."""
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-").removeprefix("slabwatch-")
