"""All files that are made, by their paths in the project."""

from __future__ import annotations

from pathlib import Path

from tests.generate import kubernetes, manpages, metrics_page


def everything(project: Path) -> dict[str, str]:
    """Paths below the project, and what the files hold. ``project``: where the sources are read."""
    return {f"docs/man/{name}": text for name, text in manpages.pages().items()} | {
        "docs/metrics.md": metrics_page.page(),
        "deploy/kubernetes/components/rules/rules.yaml": kubernetes.rules(project),
        "deploy/kubernetes/components/dashboards/dashboards.yaml": kubernetes.dashboards(project),
    }
