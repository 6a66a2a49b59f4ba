"""The HTML page: complete, self-contained, and safe whatever a record holds."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slabwatch.storm
from slabwatch.storm.report_html import html_report
from tests.hosts import HOSTS
from tests.unit.storm.records import made_record
from tests.unit.storm_reports.records import PRESSURE_STEP, scaled_storm

UPLOT = Path(slabwatch.storm.__file__).parent / "assets" / "uplot"
EMPTY = ("meta", "rect", "circle", "line", "path", "use", "br")
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "</style><img src=x onerror=alert(1)>",
    '"\' onmouseover=alert(1) x="',
    "&lt;b&gt; $policy ${data}",
    "\ud800 half a pair, \x00, \x1b[31m, \u2028, \N{SNOWMAN}",
)


class Page(HTMLParser):
    """What a browser would find: each element's attributes and text, and that every one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def inside(self, tag: str) -> list[str]:
        return [text for element, text in self.texts if element == tag]

    @property
    def words(self) -> str:
        shown = (text for element, text in self.texts if element not in ("script", "style"))
        return re.sub(r"\s+", " ", " ".join(shown))


def data_of(page: Page) -> Any:
    return json.loads(page.inside("script")[0])


def aborted() -> dict[str, Any]:
    """A storm that was stopped in its baseline, as the runner writes it."""
    reason = "MemAvailable fell to 1 bytes"
    return made_record() | {
        "outcome": "aborted",
        "reason": reason,
        "phases": [],
        "snapshots": {},
        "series": [],
        "caches": [],
        "verdict": {"class": "inconclusive", "reason": f"the storm was aborted: {reason}"},
    }


def test_the_verdict_stands_on_top_with_its_figures() -> None:
    page = Page(html_report(scaled_storm("4.19.40-cgroup-v1", 20)))
    before = page.words.partition("What happened")[0]
    for words in ("retained", "A shrink gave most of it back", "Growth 402.7 MiB", "Stayed 329.0 MiB", "82 % of the",
                  "Given back by shrink 221.4 MiB", "Pinned 107.6 MiB", "Explained 100 %"):  # fmt: skip
        assert words in before
    assert ("section", {"class": "verdict retained", "aria-label": "Verdict"}) in page.elements


def test_without_a_shrink_nothing_is_called_pinned() -> None:
    record = scaled_storm("4.19.40-cgroup-v1", 20, shrink=False)
    text = html_report(record)
    assert "whether something uses it is not known" in text
    assert "no shrink was run" in text
    assert '<rect class="fill-pinned"' not in text
    assert '<rect class="fill-untold"' in text


def test_memory_pressure_has_its_part_of_every_bar() -> None:
    record = scaled_storm("4.19.40-cgroup-v1", 20, pressure=True)
    text = html_report(record)
    page = Page(text)
    released, shrunk, pinned = (
        record["verdict"][f"{name}_bytes"] for name in ("released_by_pressure", "released_by_shrink", "pinned")
    )
    assert f"Given back by pressure {released / 2**20:.1f} MiB" in page.words
    assert f"Given back by shrink {shrunk / 2**20:.1f} MiB" in page.words
    assert "given back by memory pressure" in page.words, "the key"
    assert (
        "Memory pressure in the storm's own cgroup how it ended until the kernel gave no more used up 64.0 MiB"
        in page.words
    )
    assert "floor of MemAvailable" not in page.words
    assert "A shrink gave most of it back" in page.words
    assert "slab objects that it looked through 4,321" in page.words
    assert "After memory pressure" in page.words
    # The parts of the whole, side by side, are all of the growth.
    whole = re.search(r'<svg class="bar" aria-hidden="true">(.*?)</svg>', text)
    assert whole is not None
    parts = re.findall(r'fill-(\w+)" x="([\d.]+)%" width="([\d.]+)%"', whole[1])
    assert [name for name, _, _ in parts] == ["back", "pressure", "shrink", "pinned"]
    assert sum(float(width) for _, _, width in parts) == pytest.approx(100, abs=0.01)
    grown = record["verdict"]["growth_bytes"]
    assert float(parts[1][2]) == pytest.approx(100 * released / grown, abs=0.001)
    assert float(parts[3][2]) == pytest.approx(100 * pinned / grown, abs=0.001)


def test_what_mostly_went_under_pressure_is_not_the_shrink_s_merit() -> None:
    record = scaled_storm("4.19.40-cgroup-v1", 20, pressure=True)
    host = PRESSURE_STEP | {"where": "host", "ended": "floor", "floor_bytes": 5 * 2**30, "limit_hits": None}
    record["pressure"].append(host)
    verdict = record["verdict"]
    shrunk, pressed = verdict["released_by_shrink_bytes"], verdict["released_by_pressure_bytes"]
    verdict |= {"released_by_shrink_bytes": pressed, "released_by_pressure_bytes": shrunk}
    words = Page(html_report(record)).words
    assert "then the kernel gave most of it back by itself" in words
    assert "A shrink gave most of it back" not in words
    assert "Memory pressure on the host how it ended down to the floor of MemAvailable" in words
    assert "floor of MemAvailable 5,120.0 MiB times at the limit unknown" in words


def test_memory_pressure_without_a_shrink() -> None:
    text = html_report(scaled_storm("4.19.40-cgroup-v1", 20, pressure=True, shrink=False))
    assert '<rect class="fill-pressure"' in text
    assert '<rect class="fill-untold"' in text
    assert '<rect class="fill-pinned"' not in text


def test_limits_and_charges_stand_in_words() -> None:
    record = scaled_storm("6.1.176-cgroup-v2")
    record["limits"] = {"memory_bytes": 400 * 2**20, "pids": None}
    charges = {"file": "memory.stat", "cgroups": 50, "charged": 49, "total_bytes": 5 * 2**20, "median_bytes": 100_000}
    record["cgroups"]["charges"] = charges | {"max_bytes": None}
    words = Page(html_report(record)).words
    assert "Limits, set in the kernel memory 400.0 MiB pids none" in words
    assert "of them charged with anything 49" in words
    assert "total 5.0 MiB" in words
    assert "{" not in words


@pytest.mark.parametrize("host", HOSTS)
def test_tables_tell_everything_without_scripts(host: str) -> None:
    record = scaled_storm(host)
    page = Page(html_report(record))
    for row in record["caches"]:
        cells = [row["cache"]]
        went_back = row["growth_bytes"] - row["retained_bytes"]
        sizes = (row["growth_bytes"], went_back, row["retained_bytes"], row["released_by_shrink_bytes"])
        cells += [f"{size / 2**20:,.2f}" for size in (*sizes, row["pinned_bytes"])]
        assert " ".join([*cells, row["verdict"]]) in page.words
    for taken in record["snapshots"].values():
        row = next(row for row in taken["caches"] if row["cache"] == "task_struct")
        meminfo = [f"{taken['meminfo'][key] // 1024:,}" for key in ("Slab", "SReclaimable", "SUnreclaim")]
        assert " ".join([*meminfo, f"{row['active_objects']:,}", f"{row['objects']:,}"]) in page.words
    for phase in record["phases"]:
        assert f"{phase['seconds']:,.2f}" in page.words
    assert record["host"]["release"] in page.words
    assert "SLUB_CPU_PARTIAL (each CPU keeps partly filled slabs) y" in page.words


def test_unreclaimable_caches_come_first_and_each_group_is_ranked() -> None:
    record = scaled_storm("7.2.13-cgroup-v2", 20)
    text = html_report(record)
    bars = re.findall(r"<li><span>([^<]+)</span><svg class=\"bar\"", text)
    rows = {row["cache"]: row for row in record["caches"]}
    groups = [rows[cache]["reclaimable"] for cache in bars]
    assert groups == sorted(groups)
    for group in (False, True):
        sizes = [rows[cache]["growth_bytes"] for cache in bars if rows[cache]["reclaimable"] is group]
        assert sizes == sorted(sizes, reverse=True)
    assert text.index("Unreclaimable</h3>") < text.index("Reclaimable</h3>")


def test_bars_are_as_long_as_the_growth() -> None:
    record = scaled_storm("4.19.40-cgroup-v1", 20)
    text = html_report(record)
    widest = max(row["growth_bytes"] for row in record["caches"])
    for row in record["caches"][:10]:
        (bar,) = re.findall(rf'<li><span>{row["cache"]}</span><svg class="bar"[^>]*>(.*?)</svg>', text)
        widths = dict(re.findall(r'class="fill-(\w+)" x="[\d.]+%" width="([\d.]+)%"', bar))
        assert sum(map(float, widths.values())) == pytest.approx(100 * row["growth_bytes"] / widest, abs=0.01)
        pinned = 100 * row["pinned_bytes"] / widest
        assert float(widths.get("pinned", 0)) == pytest.approx(pinned, abs=0.01)


def test_the_curves_begin_where_the_load_does() -> None:
    record = scaled_storm("4.19.40-cgroup-v1", 20)
    data = data_of(Page(html_report(record)))
    created = record["snapshots"]["created"]["meminfo"]
    assert data["start"] == {"sunreclaim_bytes": created["SUnreclaim"], "slab_bytes": created["Slab"]}
    assert data["live_tasks"] == [point["live_tasks"] for point in record["series"]]
    assert [phase["name"] for phase in data["phases"]] == [phase["name"] for phase in record["phases"]]
    assert data["phases"][2] == {"name": "load", "start": 5.4, "end": 17.4} | {
        key: pytest.approx(value) for key, value in (("start", 5.4), ("end", 17.4))
    }


def test_a_record_with_gaps() -> None:
    page = Page(html_report(made_record()))
    assert "1 tasks could not be started" in page.words
    assert "slabwatch-storm-20190926-120000-abcd/c0007: still busy" in page.words
    assert "forks that the kernel counted, up to the end of settle unknown" in page.words
    assert data_of(page)["sunreclaim_bytes"] == [4, None]


def test_a_storm_that_ended_early() -> None:
    page = Page(html_report(aborted()))
    assert "This storm was aborted: MemAvailable fell to 1 bytes." in page.words
    assert "ended before the caches could be compared" in page.words
    assert "not measured" in page.words
    assert ("canvas", {}) not in page.elements
    assert "chart-memory" not in str(page.elements)


def test_what_a_newer_record_adds_is_shown_too() -> None:
    record = made_record()
    record["plan"]["remove_first"] = True
    record["host"]["numa_nodes"] = 4
    record["cgroups"]["largest_charge_bytes"] = 3 * 2**20
    record["verdict"]["class"] = "shifted"
    page = Page(html_report(record))
    for words in ("remove first yes", "numa nodes 4", "largest charge 3.0 MiB", "shifted"):
        assert words in page.words


def hostile_record(text: str) -> dict[str, Any]:
    record = made_record(storm_id=text)
    record |= {"outcome": text, "reason": text, "requested_by": text}
    record["plan"] |= {"preset": text, "kind": text, "kind_text": text, text: text}
    record["host"] |= {"release": text, "kernel_config": {text: text}}
    record["cgroups"]["left"] = {text: text}
    record["verdict"] |= {"class": text, "reason": text}
    record["caches"][0] |= {"cache": text, "verdict": text}
    record["phases"][0]["name"] = text
    record["snapshots"][text] = record["snapshots"]["settled"]
    return record


def check_hostile(text: str) -> None:
    written = html_report(hostile_record(text))
    assert written.isascii()
    page, usual = Page(written), Page(html_report(hostile_record("usual")))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in usual.elements]
    assert page.inside("script")[1:] == usual.inside("script")[1:]
    assert {name for _, attributes in page.elements for name in attributes} == {
        name for _, attributes in usual.elements for name in attributes
    }
    assert data_of(page)["phases"][0]["name"] == text


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_record_becomes_markup(text: str) -> None:
    check_hostile(text)


@settings(max_examples=40)
@given(st.text(st.sampled_from("<>&\"'!-/$`\\\u2028ascriptmp\ud800"), min_size=1, max_size=30))
def test_any_text_stays_text(text: str) -> None:
    check_hostile(text)


def test_numbers_that_json_has_not() -> None:
    record = made_record()
    record["series"][0]["slab_bytes"] = float("nan")
    record["series"][1]["live_tasks"] = float("inf")
    data = data_of(Page(html_report(record)))
    assert data["slab_bytes"] == [None, 9]
    assert data["live_tasks"] == [0, None]


def test_nothing_but_itself_is_needed() -> None:
    page = Page(html_report(scaled_storm("6.18.15-cgroup-v2")))
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "base", "object", "form")
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_the_policy_allows_these_scripts_and_styles_alone() -> None:
    page = Page(html_report(scaled_storm("6.18.15-cgroup-v2")))
    policy = next(attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    _, *scripts = page.inside("script")
    assert rules == {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash, scripts)),
        "style-src": " ".join(map(_hash, page.inside("style"))),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_the_library_is_the_released_one_and_its_licence_travels_with_it() -> None:
    readme = (UPLOT / "README.md").read_text(encoding="utf-8")
    (version,) = re.findall(r"^# uPlot (\S+)$", readme, re.MULTILINE)
    sums = dict(re.findall(r"^\| (\S+) \| ([0-9a-f]{64}) \|$", readme, re.MULTILINE))
    assert sums.keys() == {path.name for path in UPLOT.iterdir()} - {"README.md"}
    for name, known in sums.items():
        assert hashlib.sha256((UPLOT / name).read_bytes()).hexdigest() == known
    written = html_report(made_record())
    assert f"(v{version})" in written
    assert "Copyright (c) 2022 Leon Sorokin" in written
