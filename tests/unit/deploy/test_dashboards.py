"""The dashboards in git are those of their source, and each panel says what it shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana.source.__main__ import main as write_dashboards
from slabwatch.expose.metrics import METRICS

DASHBOARDS = Path(__file__).parents[3] / "deploy" / "grafana" / "dashboards"
FILES = sorted(DASHBOARDS.glob("*.json"))
NAMES = [path.stem for path in FILES]
KNOWN = {metric.full_name for metric in METRICS}


def board(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def expressions(name: str) -> Iterator[tuple[str, str]]:
    loaded = board(name)
    for panel in loaded["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in loaded["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def test_the_files_are_what_the_source_makes(tmp_path: Path) -> None:
    write_dashboards(str(tmp_path))
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in FILES}
    assert made == kept, "run `make docs`, and look at the difference"


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_is_labelled_and_bound_to_the_variables(name: str) -> None:
    loaded = board(name)
    assert [variable["name"] for variable in loaded["templating"]["list"]] == ["datasource", "job", "instance"]
    for panel in loaded["panels"]:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"], panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


@pytest.mark.parametrize("name", NAMES)
def test_queries_name_known_metrics_of_the_chosen_hosts(name: str) -> None:
    for title, expr in expressions(name):
        for found, labels in re.findall(r"(slabwatch_\w+)(\{[^}]*\})?", expr):
            assert found in KNOWN or re.fullmatch(r"slabwatch_meminfo_\w+", found), (title, found)
            assert 'job=~"$job",instance=~"$instance"' in labels, (title, expr)
        assert all(over == "$__rate_interval" for over in re.findall(r"rate\([^[]*\[([^]]*)\]", expr)), title


def test_links_between_dashboards_go_by_one_tag() -> None:
    assert {tuple(board(name)["tags"]) for name in NAMES} == {("slabwatch",)}
    assert len({board(name)["uid"] for name in NAMES}) == len(NAMES) == 3
