"""Samples made by hand, and the same samples as prometheus_client would show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from slabwatch.expose.metrics import KERNEL_METRICS, meminfo_metric
from slabwatch.kernel.meminfo import MemInfo
from slabwatch.kernel.slabinfo import SlabInfo
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import CGROUP_COLUMNS, CacheInfo, CgroupReadings, CollectorRun, ProcessCounts, Sample

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

SLAB_COLUMNS = (
    "active_objects",
    "objects",
    "object_size_bytes",
    "objects_per_slab",
    "pages_per_slab",
    "active_slabs",
    "slabs",
)


class Build:
    """Makers of samples: every part is absent unless it is given."""

    @staticmethod
    def slabinfo(rows: Mapping[str, Sequence[int]]) -> SlabInfo:
        """One row a cache: the seven numbers of SLAB_COLUMNS."""
        numbers = list(zip(*rows.values(), strict=True)) or [()] * len(SLAB_COLUMNS)
        columns: Any = {name: tuple(map(str, column)) for name, column in zip(SLAB_COLUMNS, numbers, strict=True)}
        return SlabInfo(names=tuple(rows), **columns)

    @staticmethod
    def meminfo(values: Mapping[str, int], counts: Iterable[str] = ()) -> MemInfo:
        return MemInfo(values=dict(values), counts=frozenset(counts), skipped=())

    @staticmethod
    def cgroups(paths: Sequence[str], columns: Mapping[str, Sequence[str | None]], **changes: Any) -> CgroupReadings:
        values: dict[str, Any] = {"mode": "v2", "version": 2, "visible": len(paths), "dying": None, "omitted": 0}
        values |= {"unpopulated_kernel_bytes": None} | changes
        return CgroupReadings(
            paths=tuple(paths), columns={name: tuple(column) for name, column in columns.items()}, **values
        )

    @staticmethod
    def sample(**parts: Any) -> Sample:
        values: dict[str, Any] = {"number": 1, "unix_seconds": 1_700_000_000.5, "monotonic_seconds": 1000.0}
        values |= {"page_size": 4096, "slabinfo": None, "meminfo": None, "process": None, "cgroups": None}
        values |= {"slab_sysfs": None, "collectors": ()} | parts
        return Sample(**values)

    @classmethod
    def whole_sample(cls, **parts: Any) -> Sample:
        """Every part of it is there."""
        slabinfo = cls.slabinfo({"task_struct": (735, 990, 5888, 5, 8, 198, 198), "dentry": (10, 21, 192, 21, 1, 1, 1)})
        meminfo = cls.meminfo(
            {"MemTotal": 8_000_000, "Slab": 6_600_000, "Active(anon)": 4096, "HugePages_Total": 3}, ["HugePages_Total"]
        )
        columns: dict[str, Sequence[str | None]] = dict.fromkeys(CGROUP_COLUMNS, ("1", "2", None))
        values: dict[str, Any] = {
            "slabinfo": slabinfo,
            "meminfo": meminfo,
            "process": ProcessCounts(334, 420, 12_345, 900, 11),
            "cgroups": cls.cgroups(
                ("/", "/a", "__other__"), columns, dying=4, omitted=7, unpopulated_kernel_bytes=8192
            ),
            "slab_sysfs": (
                CacheInfo("task_struct", (), False, True),
                CacheInfo("pid", ("cred", "eventpoll_epi"), None, None),
            ),
            "collectors": (
                CollectorRun("slabinfo", True, 0.0004, skipped={"bad_line": 2}),
                CollectorRun("cgroup", False, 1.5, "denied"),
            ),
        }
        return cls.sample(**(values | parts))


@pytest.fixture(scope="session")
def build() -> type[Build]:
    return Build


def _series(families: Iterable[Metric]) -> Series:
    series: Series = {}
    for family in families:
        for sample in family.samples:
            key = sample.name, frozenset((name, value) for name, value in sample.labels.items() if value)
            assert key not in series, f"two series {key}"
            series[key] = sample.value
    return series


def read_families(page: bytes, openmetrics: bool) -> list[Metric]:
    """The page through prometheus_client's parser, which refuses what is malformed."""
    parse: Any = parse_openmetrics if openmetrics else parse_text
    end = "# EOF\n" if openmetrics and not page.endswith(b"# EOF\n") else ""
    return list(parse(page.decode() + end))


@pytest.fixture(scope="session")
def families() -> Callable[[bytes, bool], list[Metric]]:
    return read_families


@pytest.fixture(scope="session")
def series() -> Callable[[bytes, bool], Series]:
    """All series of a page: (name, labels without the empty ones) -> value."""
    return lambda page, openmetrics: _series(read_families(page, openmetrics))


def _oracle(sample: Sample, derived: Derived) -> list[Metric]:
    """A first sample, said again by means of prometheus_client alone."""
    made: dict[str, Any] = {}

    def add(name: str, value: object, *labels: str) -> None:
        if value is None:
            return
        metric = next(metric for metric in KERNEL_METRICS if metric.name == name)
        if metric.kind == "info":
            family = made.setdefault(name, InfoMetricFamily(metric.family_name, metric.help))
            family.add_metric([], dict(zip(metric.labels, labels, strict=True)))
            return
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = made.setdefault(name, kind(metric.family_name, metric.help, labels=metric.labels))
        family.add_metric(labels, float(str(value)))

    if sample.slabinfo:
        for row, cache in enumerate(sample.slabinfo.names):
            for column in SLAB_COLUMNS:
                add(f"slab_{column}", getattr(sample.slabinfo, column)[row], cache)
            add("slab_size_bytes", derived.cache_bytes[row], cache)
        for cache, count in derived.expected_objects.items():
            add("slab_expected_objects", count, cache)
    add("slab_unattributed_bytes", derived.unattributed_bytes)
    for info in sample.slab_sysfs or ():
        flags = ["" if flag is None else str(flag).lower() for flag in (info.reclaimable, info.accounted)]
        add("slab_info", 1, info.name, ",".join(info.aliases), *flags)
    if sample.process:
        add("processes", sample.process.processes)
        add("threads", sample.process.threads)
        add("forks_total", sample.process.forks)
    if sample.cgroups:
        for column, values in sample.cgroups.columns.items():
            for path, value in zip(sample.cgroups.paths, values, strict=True):
                add(f"cgroup_{column}", value, path)
        add("cgroups", sample.cgroups.visible)
        add("cgroups_dying", sample.cgroups.dying)
        add("cgroups_omitted", sample.cgroups.omitted)
        add("cgroup_kept_descriptors", sample.cgroups.kept_descriptors)
        add("cgroups_unpopulated_kernel_bytes", sample.cgroups.unpopulated_kernel_bytes)
    for run in sample.collectors:
        add("collector_success", int(run.success), run.name)
        add("collector_duration_seconds", run.duration_seconds, run.name)
        add("collector_backoff_seconds", run.backoff_seconds, run.name)
        add("collector_last_success_timestamp_seconds", sample.unix_seconds if run.success else None, run.name)
        for reason, count in run.skipped.items():
            add("collector_skipped_total", count, run.name, reason)
    result = list(made.values())
    if sample.meminfo:
        for key, count in sample.meminfo.values.items():
            metric = meminfo_metric(key, unitless=key in sample.meminfo.counts)
            result.append(GaugeMetricFamily(metric.full_name, metric.help, value=count))
    return result


@pytest.fixture(scope="session")
def oracle() -> Callable[[Sample, Derived], list[Metric]]:
    return _oracle
