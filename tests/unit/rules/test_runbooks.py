"""The runbooks: each alert has its section, and each command in them is one that slabwatchctl understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.prometheus.rules.declared import RUNBOOKS, Alert
from deploy.prometheus.rules.thresholds import THRESHOLDS
from deploy.prometheus.rules.written import alerts, records
from slabwatch.cli.parser import parse
from slabwatch.config import Config
from slabwatch.expose.metrics import METRICS
from slabwatch.form import fields_of, form_of
from tests.unit.rules.promtool import FOLDER

FOLDER_OF_RUNBOOKS = FOLDER.parents[1] / "docs" / "runbooks"
PAGES = sorted(FOLDER_OF_RUNBOOKS.glob("*.md"))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[str]:
    """Lines of slabwatchctl in blocks."""
    for block in re.findall(r"^ *```\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield from (line.strip() for line in block.splitlines() if line.strip().startswith("slabwatchctl"))


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_the_runbook_of_an_alert_is_there(alert: Alert) -> None:
    base, _, place = alert.runbook_url.rpartition("/")
    assert base == RUNBOOKS
    name, _, anchor = place.partition("#")
    assert anchor in anchors(FOLDER_OF_RUNBOOKS / name)


def test_no_section_is_about_an_alert_that_is_gone() -> None:
    known = {alert.name for alert in alerts()}
    for page in PAGES:
        named = set(re.findall(r"\b(?:Slab|Storm|Cgroup|Memcg|Task)[A-Z][A-Za-z]+\b", page.read_text(encoding="utf-8")))
        assert named <= known, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page: Path) -> None:
    found = list(commands(page))
    assert found
    for command in found:
        # Wrong usage would end this with SystemExit.
        assert parse(shlex.split(command)[1:]).verb


@pytest.mark.parametrize(
    "page", [*PAGES, FOLDER / "README.md"], ids=lambda page: str(page.parent.name + "/" + page.stem)
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_named_exists(page: Path) -> None:
    """Metrics, thresholds and keys of the configuration, in code marks."""
    known = {metric.full_name for metric in METRICS} | {record.name for record in records()}
    known |= {threshold.name for threshold in THRESHOLDS} | {"slabwatch:threshold"}
    for text in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
        if re.fullmatch(r"slabwatch[_:]\w+|[a-z_]+:slabwatch\w*:\w+", text):
            assert text in known, text
        key = re.fullmatch(r"([a-z]+)\.([a-z_]+)(?: = \w+)?", text)
        if key:
            section = form_of(fields_of(Config)[key[1]].annotation)
            assert section, text
            assert key[2] in fields_of(section), text
