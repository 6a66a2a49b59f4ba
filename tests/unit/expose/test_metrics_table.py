"""The table itself: names and types by Prometheus' conventions, and the rule for /proc/meminfo."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.expose.metrics import KERNEL_METRICS, METRICS, PREFIX, Metric, meminfo_metric
from slabwatch.watch.sample import CGROUP_COLUMNS


def test_names_are_unique_and_well_formed() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name) for name in names)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_type_fits_the_name(metric: Metric) -> None:
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_info") == (metric.kind == "info")
    assert metric.help.endswith(".")
    assert not re.search(r"_(kb|pages|milliseconds|ms)$", metric.name)


@pytest.mark.parametrize("metric", KERNEL_METRICS, ids=lambda metric: metric.name)
def test_help_says_how_old_the_figure_is(metric: Metric) -> None:
    assert metric.help.endswith("as of the last poll.")


def test_every_column_of_cgroups_is_a_metric() -> None:
    table = {metric.name: metric for metric in METRICS}
    assert all(table[f"cgroup_{column}"].labels == ("cgroup",) for column in CGROUP_COLUMNS)


def test_heads() -> None:
    counter = Metric("forks_total", "counter", 'Back\\slash, "quotes"\nand a line.')
    assert counter.head(openmetrics=False) == (
        '# HELP slabwatch_forks_total Back\\\\slash, "quotes"\\nand a line.\n# TYPE slabwatch_forks_total counter\n'
    )
    assert counter.head(openmetrics=True) == (
        '# HELP slabwatch_forks Back\\\\slash, \\"quotes\\"\\nand a line.\n# TYPE slabwatch_forks counter\n'
    )
    info = Metric("slab_info", "info", "Names.")
    assert info.head(openmetrics=False).endswith("# TYPE slabwatch_slab_info gauge\n")
    assert info.head(openmetrics=True).endswith("# TYPE slabwatch_slab info\n")


@pytest.mark.parametrize(
    ("key", "unitless", "name"),
    [
        ("Slab", False, "meminfo_slab_bytes"),
        ("SUnreclaim", False, "meminfo_sunreclaim_bytes"),
        ("MemTotal", False, "meminfo_mem_total_bytes"),
        ("Active(anon)", False, "meminfo_active_anon_bytes"),
        ("DirectMap4k", False, "meminfo_direct_map4k_bytes"),
        # a gauge must not end in _total
        ("HugePages_Total", True, "meminfo_huge_pages"),
        ("HugePages_Free", True, "meminfo_huge_pages_free"),
        ("Foo_Count", True, "meminfo_foo"),
        # "sec" is the abbreviation of a unit to Prometheus' linter
        ("SecPageTables", False, "meminfo_secpage_tables_bytes"),
        ("Pages_Sec", True, "meminfo_pagessec"),
        ("S_M_Foo", True, "meminfo_sm_foo"),
        ("Sec", True, "meminfo_sec"),
    ],
)
def test_meminfo_names(key: str, unitless: bool, name: str) -> None:
    metric = meminfo_metric(key, unitless=unitless)
    assert metric.name == name
    assert key in metric.help
    assert metric.kind == "gauge"


@given(st.text(max_size=30), st.booleans())
def test_any_key_gives_a_valid_name_and_head(key: str, unitless: bool) -> None:
    metric = meminfo_metric(key, unitless=unitless)
    assert re.fullmatch(r"slabwatch_meminfo_[a-z0-9_]+", metric.full_name)
    assert metric.full_name.startswith(PREFIX)
    assert metric.head(openmetrics=False).count("\n") == 2
