"""docs/metrics.md: every family of the table, and for each where it comes from and when it is absent."""

from __future__ import annotations

import fnmatch

from slabwatch.expose.metrics import METRICS, PREFIX, Metric, meminfo_metric

# Pattern of names -> from, absent when. The first that fits counts; a name that none fits is an error.
_ORIGINS: tuple[tuple[str, str, str], ...] = (
    (
        "slab_expected_objects",
        "/proc/loadavg, /proc/sys/fs/file-nr, /proc/sys/fs/dentry-state",
        "the kernel has no count that means just this",
    ),
    (
        "slab_unattributed_bytes",
        "/proc/meminfo, /proc/slabinfo",
        "one of the two can not be read; slabinfo is kept back (`collector_backoff_seconds`)",
    ),
    ("slab_info", "/sys/kernel/slab", "off by default; the allocator is not SLUB"),
    ("slab_*", "/proc/slabinfo", "it can not be read"),
    ("processes", "/proc", "it can not be listed"),
    ("threads", "/proc/loadavg", "it can not be read"),
    ("forks_total", "/proc/stat", "it can not be read"),
    ("cgroup_kernel_bytes", "v1 memory.kmem.usage_in_bytes, v2 memory.stat", "the cgroup has no such file"),
    ("cgroup_kernel_max_bytes", "v1 memory.kmem.max_usage_in_bytes", "cgroup v2"),
    ("cgroup_kernel_limit_bytes", "v1 memory.kmem.limit_in_bytes", "cgroup v2; unlimited"),
    ("cgroup_kernel_failures_total", "v1 memory.kmem.failcnt", "cgroup v2"),
    ("cgroup_tcp_buffer_bytes", "v1 memory.kmem.tcp.usage_in_bytes", "cgroup v2"),
    ("cgroup_memory_bytes", "v1 memory.usage_in_bytes, v2 memory.current", "the root of cgroup v2"),
    (
        "cgroup_memory_max_usage_bytes",
        "v1 memory.max_usage_in_bytes, v2 memory.peak",
        "the root of cgroup v2; v2 before 5.19",
    ),
    ("cgroup_slab_*objects", "v1 memory.kmem.slabinfo", "off by default; it is empty (5.9 and later)"),
    (
        "cgroup_populated",
        "v2 cgroup.events, v1 cgroup.procs",
        "v1 without `cgroups.populated_v1`, or where something below is not read and nothing that is holds a task; "
        "the root of cgroup v2",
    ),
    ("cgroup_kept_descriptors", "slabwatch", "there is no memory hierarchy"),
    ("cgroup_*_bytes", "v2 memory.stat", "cgroup v1; this kernel's memory.stat has no such line"),
    ("cgroups", "the hierarchy's directories", "there is no memory hierarchy"),
    ("cgroups_omitted", "the hierarchy's directories", "there is no memory hierarchy"),
    (
        "cgroups_dying",
        "v2 cgroup.stat, v1 /proc/cgroups",
        "the kernel does not count them; v1 in a container, where only a part of the hierarchy is seen",
    ),
    (
        "cgroups_unpopulated_kernel_bytes",
        "`cgroup_kernel_bytes`, `cgroup_populated`",
        "one of the two is",
    ),
    ("collector_last_success_timestamp_seconds", "the poll", "the collector is off, or never succeeded"),
    ("collector_skipped_total", "the poll", "the collector is off; nothing was left out for that reason"),
    ("collector_*", "the poll", "the collector is off"),
    ("build_info", "slabwatch", "never"),
    ("kernel_info", "/proc, /sys", "never"),
    ("poll_*", "slabwatch", "with `--once`"),
    ("polls_total", "slabwatch", "with `--once`"),
    ("config_*", "slabwatch", "with `--once`"),
    ("audit_lines_lost_total", "slabwatch", "with `--once`"),
    ("connections*", "slabwatch", "with `--once`"),
    ("web_*", "slabwatch", "with `--once`; there is no `metrics.web_config_file`"),
    ("storm_leftover_cgroups", "the hierarchy's directories", "with `--once`"),
    (
        "storm_last_*_bytes",
        "the last storm's record",
        "no storm has ended yet; its verdict has no such figure",
    ),
    ("storm_last_*", "the last storm's record", "no storm has ended yet"),
    ("storm*", "slabwatch", "with `--once`"),
)

_HEAD = f"""# Metrics

Written by `make docs` from the table in `slabwatch/expose/metrics.py`. All names begin with `{PREFIX}`. What has no
value has no series: absent is never zero. A collector that fails, or whose last success is too long ago, takes its own
series away. Figures are those of the last poll.

| metric | type | labels | from | absent when |
|---|---|---|---|---|
"""

_MEMINFO = f"""
## /proc/meminfo

Every key, known or not, becomes `{PREFIX}meminfo_<key>_bytes`, in snake case and in bytes: `{{slab}}`,
`{{sunreclaim}}`, `{{active_anon}}`. Counts have no unit: `{{hugepages}}`. Absent when the kernel has no such key.

`process_*` are about slabwatch's own process, as Prometheus' client libraries have them.

## What they mean

"""


def page() -> str:
    """The file."""
    rows = [_row(metric) for metric in METRICS]
    meminfo = _MEMINFO.format(
        slab=meminfo_metric("Slab", unitless=False).full_name,
        sunreclaim=meminfo_metric("SUnreclaim", unitless=False).full_name,
        active_anon=meminfo_metric("Active(anon)", unitless=False).full_name,
        hugepages=meminfo_metric("HugePages_Free", unitless=True).full_name,
    )
    meanings = [f"* `{metric.name}`: {metric.help}" for metric in METRICS]
    return _HEAD + "\n".join(rows) + "\n" + meminfo + "\n".join(meanings) + "\n"


def _row(metric: Metric) -> str:
    source, absent = origin(metric.name)
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {source} | {absent} |"


def origin(name: str) -> tuple[str, str]:
    """Where a family comes from, and when it is absent. Raises ValueError for one that is not listed."""
    for pattern, source, absent in _ORIGINS:
        if fnmatch.fnmatchcase(name, pattern):
            return source, absent
    raise ValueError(f"{name}: say in {__name__} where it comes from and when it is absent")
