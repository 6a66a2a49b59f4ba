"""Rendering of the kernel's families, held against prometheus_client's parsers and its own renderer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from slabwatch.expose.metrics import KERNEL_METRICS
from slabwatch.expose.render import KernelPage
from slabwatch.watch.derive import derive
from slabwatch.watch.sample import CollectorRun, ProcessCounts, Sample

BOTH = pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])


def rendered(sample: Sample, openmetrics: bool, page: KernelPage | None = None) -> bytes:
    page = page or KernelPage()
    page.observe(sample)
    return page.render(sample, derive(sample), openmetrics=openmetrics)


def by_prometheus_client(metrics: list[Any], openmetrics: bool) -> bytes:
    class Made:
        def collect(self) -> list[Any]:
            return metrics

        def describe(self) -> list[Any]:
            return []

    registry = CollectorRegistry()
    registry.register(Made())
    if openmetrics:
        page: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return page
    return generate_latest(registry)


@BOTH
def test_every_family_agrees_with_prometheus_client(build: Any, oracle: Any, families: Any, openmetrics: bool) -> None:
    sample = build.whole_sample()
    ours = families(rendered(sample, openmetrics), openmetrics)
    theirs = families(by_prometheus_client(oracle(sample, derive(sample)), openmetrics), openmetrics)

    def said(metrics: list[Any]) -> dict[str, Any]:
        return {
            metric.name: (
                metric.type,
                metric.documentation,
                sorted((one.name, sorted(one.labels.items()), one.value) for one in metric.samples),
            )
            for metric in metrics
        }

    assert said(ours) == said(theirs)
    assert len(ours) == len(said(ours)), "a family appears twice"


@BOTH
def test_whole_sample_has_every_family_but_those_without_a_source(build: Any, families: Any, openmetrics: bool) -> None:
    names = {family.name for family in families(rendered(build.whole_sample(), openmetrics), openmetrics)}
    for metric in KERNEL_METRICS:
        # The text parser strips _total from a counter's name too, and leaves _info alone.
        name = metric.full_name if metric.kind == "info" and not openmetrics else metric.family_name
        assert (name in names) == (not metric.name.startswith(("cgroup_slab_active", "cgroup_slab_objects"))), name


def test_one_line_a_series_and_integers_stay_text(build: Any) -> None:
    sample = build.sample(
        slabinfo=build.slabinfo({"dentry": (10, 21, 192, 21, 1, 1, 12345678901234567)}),
        meminfo=build.meminfo({"Slab": 2**60 + 1, "HugePages_Free": 3}, ["HugePages_Free"]),
    )
    lines = rendered(sample, False).decode().splitlines()
    assert 'slabwatch_slab_slabs{cache="dentry"} 12345678901234567' in lines
    assert "slabwatch_meminfo_slab_bytes 1152921504606846977" in lines
    assert "slabwatch_meminfo_huge_pages_free 3" in lines
    samples = [line for line in lines if not line.startswith("#")]
    assert len(samples) == 8 + 1 + 2  # eight columns of the cache, what is unattributed, two keys
    assert len([line for line in lines if line.startswith("# TYPE")]) == 11


@BOTH
def test_absent_is_not_zero(build: Any, openmetrics: bool) -> None:
    assert rendered(build.sample(), openmetrics) == b""
    process = build.sample(process=ProcessCounts(None, 5, None, None, None))
    assert [line for line in rendered(process, openmetrics).decode().splitlines() if line[0] != "#"] == [
        "slabwatch_threads 5"
    ]
    columns = {"kernel_bytes": ("1", None), "kernel_limit_bytes": (None, None)}
    text = rendered(build.sample(cgroups=build.cgroups(("/", "/a"), columns)), openmetrics).decode()
    assert 'slabwatch_cgroup_kernel_bytes{cgroup="/"} 1\n' in text
    assert 'kernel_bytes{cgroup="/a"}' not in text
    for name in ("kernel_limit", "memory_bytes", "cgroups_dying", "unpopulated", "collector"):
        assert name not in text
    assert "slabwatch_cgroups_omitted 0\n" in text


def test_unattributed_bytes_can_be_below_zero(build: Any) -> None:
    sample = build.sample(slabinfo=build.slabinfo({"a": (1, 1, 1, 1, 2, 1, 3)}), meminfo=build.meminfo({"Slab": 4096}))
    assert b"slabwatch_slab_unattributed_bytes -20480\n" in rendered(sample, False)


def test_repeated_polls_render_what_a_new_page_renders(build: Any) -> None:
    page = KernelPage()
    first = {"a": (1, 2, 3, 4, 5, 6, 7), "b": (1, 2, 3, 4, 5, 6, 7)}
    columns = {"kernel_bytes": ("1", "2"), "populated": ("1", "0")}
    steps: list[dict[str, Any]] = [
        {"slabinfo": build.slabinfo(first), "cgroups": build.cgroups(("/", "/a"), columns)},
        {"slabinfo": build.slabinfo(first | {"b": (9, 9, 3, 4, 5, 6, 8)})},  # numbers
        {"slabinfo": build.slabinfo({"a": first["a"], "c": first["b"]})},  # a name
        {"slabinfo": build.slabinfo({"a": first["a"]})},  # one less
        {"cgroups": build.cgroups(("/", "/a"), {"kernel_bytes": ("1", None)})},  # one vanished
        {"cgroups": build.cgroups(("/", "/a"), columns)},
        {"cgroups": build.cgroups(("/", "/b"), columns)},
        {"cgroups": build.cgroups((), {"kernel_bytes": ()}), "slabinfo": build.slabinfo({})},
        {"slabinfo": build.slabinfo(first), "meminfo": build.meminfo({"Slab": 1, "Foo": 2})},
        {"meminfo": build.meminfo({"Slab": 1, "Foo": 3})},
        {"meminfo": build.meminfo({"Slab": 1, "Foo": 3}, ["Foo"])},
        {"meminfo": build.meminfo({})},
        {"slab_sysfs": build.whole_sample().slab_sysfs},
        {"slab_sysfs": build.whole_sample().slab_sysfs[:1]},
    ]
    for step in steps:
        for openmetrics in (False, True):
            sample = build.sample(**step)
            assert rendered(sample, openmetrics, page) == rendered(sample, openmetrics)


names = st.text(max_size=12) | st.sampled_from(
    ["\\xff", "\udcff", 'a"b', "a\nb", "a\\", "{}", ",", " ", "#", "\r", "\x85"]
)


@given(st.lists(names, max_size=6), st.lists(st.integers(0, 2**70), min_size=6, max_size=6))
def test_any_label_and_number_comes_back(build: Any, series: Any, paths: list[str], numbers: list[int]) -> None:
    values = tuple(map(str, numbers[: len(paths)]))
    sample = build.sample(cgroups=build.cgroups(paths, {"kernel_bytes": values}))
    for openmetrics in (False, True):
        found = series(rendered(sample, openmetrics), openmetrics)
        got = {labels: value for (name, labels), value in found.items() if name == "slabwatch_cgroup_kernel_bytes"}
        assert len(got) == len(paths), "every path has a series, also those that are spelled alike"
        spelled = [path.encode("utf-8", "backslashreplace").decode() for path in paths]
        for path, number in zip(spelled, values, strict=True):
            if spelled.count(path) == 1 and not any(f"{other}#" in path for other in spelled):
                assert float(got[frozenset({("cgroup", path)} if path else ())]) == float(number)


@given(st.dictionaries(st.text(max_size=12), st.integers(0, 2**64), max_size=8), st.data())
def test_any_meminfo_key_gives_one_readable_family(
    build: Any, families: Any, values: dict[str, int], data: st.DataObject
) -> None:
    counts = data.draw(st.sets(st.sampled_from(sorted(values)))) if values else set()
    sample = build.sample(meminfo=build.meminfo(values, counts))
    for openmetrics in (False, True):
        found = [
            family
            for family in families(rendered(sample, openmetrics), openmetrics)
            if family.name.startswith("slabwatch_meminfo_")
        ]
        assert len({family.name for family in found}) == len(found) == len(values)
        assert [float(family.samples[0].value) for family in found] == [float(value) for value in values.values()]


def test_keys_of_one_name_do_not_make_one_family_twice(build: Any) -> None:
    meminfo = build.meminfo({"Foo": 1, "Foo_bytes": 2, "Bar(x)": 3, "Bar_x": 4}, ["Foo_bytes"])
    lines = rendered(build.sample(meminfo=meminfo), False).decode().splitlines()
    assert [line for line in lines if line[0] != "#"] == [
        "slabwatch_meminfo_foo_bytes 1",
        "slabwatch_meminfo_foo_bytes_2 2",
        "slabwatch_meminfo_bar_x_bytes 3",
        "slabwatch_meminfo_bar_x_bytes_2 4",
    ]


def test_many_names_that_are_spelled_alike_cost_little(build: Any) -> None:
    paths = ["/\\xff"] * 20_000 + ["/\\xff#2"]
    text = rendered(build.sample(cgroups=build.cgroups(paths, {"kernel_bytes": ["1"] * len(paths)})), False).decode()
    lines = [line for line in text.splitlines() if line.startswith("slabwatch_cgroup_kernel_bytes{")]
    assert len(set(lines)) == len(paths)


def test_collectors_history(build: Any, series: Any) -> None:
    def of(found: Any, name: str) -> dict[str, float]:
        return {
            "/".join(value for _, value in sorted(labels)): number
            for (series_name, labels), number in found.items()
            if series_name == f"slabwatch_collector_{name}"
        }

    page = KernelPage()
    good = CollectorRun("slabinfo", True, 0.25, skipped={"bad_line": 2, "denied": 0})
    first = build.sample(unix_seconds=100.0, collectors=(good, CollectorRun("cgroup", False, 0.5, "denied")))
    page.observe(first)
    for openmetrics in (False, True):  # rendering twice counts nothing twice
        found = series(page.render(first, derive(first), openmetrics=openmetrics), openmetrics)
        assert of(found, "success") == {"slabinfo": 1, "cgroup": 0}
        assert of(found, "duration_seconds") == {"slabinfo": 0.25, "cgroup": 0.5}
        assert of(found, "last_success_timestamp_seconds") == {"slabinfo": 100.0}
        assert of(found, "skipped_total") == {"slabinfo/bad_line": 2, "slabinfo/denied": 0}

    bad = replace(good, success=False, skipped={"bad_line": 1})
    second = build.sample(unix_seconds=110.0, collectors=(bad, CollectorRun("cgroup", True, 0.5)))
    found = series(rendered(second, False, page), False)
    assert of(found, "success") == {"slabinfo": 0, "cgroup": 1}
    assert of(found, "last_success_timestamp_seconds") == {"slabinfo": 100.0, "cgroup": 110.0}
    assert of(found, "skipped_total") == {"slabinfo/bad_line": 3, "slabinfo/denied": 0}

    stale = series(page.render_stale(second, openmetrics=True), True)
    assert of(stale, "success") == {"slabinfo": 0, "cgroup": 0}
    assert of(stale, "last_success_timestamp_seconds") == {"slabinfo": 100.0, "cgroup": 110.0}
    assert not of(stale, "duration_seconds")

    off = build.sample(unix_seconds=120.0, collectors=(CollectorRun("cgroup", True, 0.5),))
    found = series(rendered(off, False, page), False)
    assert not of(found, "skipped_total"), "a reload has turned slabinfo off"
    found = series(rendered(second, False, page), False)
    assert of(found, "skipped_total")["slabinfo/bad_line"] == 4, "a counter goes on"
