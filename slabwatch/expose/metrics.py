"""The table: every metric that slabwatch exports, with its type, help text and labels.

All ``# HELP`` and ``# TYPE`` lines come from here. Names are without the prefix ``slabwatch_``. The families of
/proc/meminfo are not listed one by one: ``meminfo_metric`` makes them from the kernel's keys, known and unknown alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from slabwatch.kernel.meminfo import metric_name

PREFIX = "slabwatch_"

STORM_PHASES = ("baseline", "create", "load", "hold", "drain", "settle", "pressure", "shrink", "cleanup")
STORM_OUTCOMES = ("completed", "stopped", "aborted", "failed")
VERDICT_CLASSES = ("released", "retained", "pinned", "inconclusive")

# Pieces of a name that Prometheus' linter (promtool check metrics) takes for the abbreviation of a unit.
_UNIT_ABBREVIATIONS = frozenset(("s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"))
# Endings that mean something else than a gauge to Prometheus and OpenMetrics.
_RESERVED_ENDING = re.compile(r"_(?:total|count|sum|bucket|created|info)$")


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. ``info`` is a gauge that is always 1 in the text format, and a type of its own in OpenMetrics."""

    name: str
    kind: Literal["gauge", "counter", "info"]
    help: str
    labels: tuple[str, ...] = ()
    prefix: str = PREFIX

    @property
    def full_name(self) -> str:
        """The name of the series, with the prefix."""
        return self.prefix + self.name

    @property
    def family_name(self) -> str:
        """The family's name in OpenMetrics, where the suffix of a counter or an info belongs to the sample alone."""
        suffix = {"counter": "_total", "info": "_info", "gauge": ""}[self.kind]
        return self.full_name.removesuffix(suffix)

    def head(self, *, openmetrics: bool) -> str:
        """The ``# HELP`` and ``# TYPE`` lines."""
        text = self.help.replace("\\", "\\\\").replace("\n", "\\n")
        if openmetrics:
            name, kind, text = self.family_name, self.kind, text.replace('"', '\\"')
        else:
            name, kind = self.full_name, "counter" if self.kind == "counter" else "gauge"
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _polled(name: str, help_text: str, *labels: str, kind: Literal["gauge", "counter", "info"] = "gauge") -> Metric:
    return Metric(name, kind, f"{help_text}, as of the last poll.", labels)


# What is read from the kernel, and how the reading went.
KERNEL_METRICS: tuple[Metric, ...] = (
    _polled(
        "slab_active_objects",
        "Objects in use in this slab cache; those parked on per-CPU lists count as used",
        "cache",
    ),
    _polled("slab_objects", "Objects in this slab cache, in use or free", "cache"),
    _polled("slab_object_size_bytes", "Size of one object with its padding", "cache"),
    _polled("slab_objects_per_slab", "Objects that one slab holds", "cache"),
    _polled("slab_pages_per_slab", "Pages that one slab takes", "cache"),
    _polled("slab_active_slabs", "Slabs of this cache that the allocator counts as active", "cache"),
    _polled("slab_slabs", "Slabs of this cache", "cache"),
    _polled("slab_size_bytes", "Memory held by this slab cache: slabs x pages per slab x page size", "cache"),
    _polled(
        "slab_expected_objects",
        "Objects of this cache that the kernel itself counts as its population (threads, open files, dentries)",
        "cache",
    ),
    _polled(
        "slab_unattributed_bytes",
        "Slab of /proc/meminfo minus the sum over all caches: large kmallocs, and the time between the two readings",
    ),
    _polled(
        "slab_info",
        "Names that the kernel merged into this slab cache (aliases, joined by commas) and its flags",
        "cache",
        "aliases",
        "reclaimable",
        "accounted",
        kind="info",
    ),
    _polled("processes", "Processes, as ps counts them"),
    _polled("threads", "Threads of all processes"),
    _polled("forks_total", "Tasks created since boot, threads included", kind="counter"),
    _polled(
        "cgroup_kernel_bytes",
        "Kernel memory charged to this cgroup; on cgroup v2 before kernel 5.18 the sum of slab, kernel_stack, "
        "pagetables, percpu, sock and vmalloc as far as memory.stat has them",
        "cgroup",
    ),
    _polled("cgroup_kernel_max_bytes", "Highest kernel memory that was ever charged to this cgroup (v1)", "cgroup"),
    _polled("cgroup_kernel_limit_bytes", "Limit of kernel memory (v1); no series when unlimited", "cgroup"),
    _polled(
        "cgroup_kernel_failures_total", "Times that the limit of kernel memory was hit (v1)", "cgroup", kind="counter"
    ),
    _polled("cgroup_slab_reclaimable_bytes", "Slab memory of this cgroup that can be reclaimed (v2)", "cgroup"),
    _polled("cgroup_slab_unreclaimable_bytes", "Slab memory of this cgroup that can not be reclaimed (v2)", "cgroup"),
    _polled("cgroup_kernel_stack_bytes", "Kernel stacks charged to this cgroup (v2)", "cgroup"),
    _polled("cgroup_pagetables_bytes", "Page tables charged to this cgroup (v2)", "cgroup"),
    _polled("cgroup_percpu_bytes", "Per-CPU kernel data charged to this cgroup (v2)", "cgroup"),
    _polled("cgroup_sock_bytes", "Network transmission buffers charged to this cgroup (v2)", "cgroup"),
    _polled("cgroup_vmalloc_bytes", "Memory from vmalloc charged to this cgroup (v2)", "cgroup"),
    _polled("cgroup_tcp_buffer_bytes", "TCP buffers charged to this cgroup (v1)", "cgroup"),
    _polled("cgroup_memory_bytes", "All memory charged to this cgroup, user and kernel", "cgroup"),
    _polled("cgroup_memory_max_usage_bytes", "Highest memory that was ever charged to this cgroup", "cgroup"),
    _polled(
        "cgroup_slab_active_objects",
        "Objects in use in this cgroup's own part of a slab cache (before kernel 5.9)",
        "cgroup",
        "cache",
    ),
    _polled(
        "cgroup_slab_objects",
        "Objects in this cgroup's own part of a slab cache (before kernel 5.9)",
        "cgroup",
        "cache",
    ),
    _polled("cgroup_populated", "1 when a task lives in this cgroup or below it, else 0", "cgroup"),
    _polled("cgroups", "Memory cgroups that can be seen, the root included"),
    _polled("cgroups_dying", "Memory cgroups that were removed and are still held by the kernel"),
    _polled("cgroups_unpopulated_kernel_bytes", "Kernel memory held by cgroups that have no task at all"),
    _polled("cgroups_omitted", 'Cgroups beyond the configured cap, summed in the series with cgroup="__other__"'),
    _polled(
        "cgroup_kept_descriptors",
        "Files of cgroups that slabwatch holds open between polls; each pins about 5 kB of unreclaimable slab",
    ),
    _polled("collector_success", "1 when this collector could read its kernel files, else 0", "collector"),
    _polled("collector_duration_seconds", "Time that this collector took", "collector"),
    _polled(
        "collector_backoff_seconds",
        "Time for which this collector is kept from reading again, because its last reading took long; its figures "
        "are those of that reading",
        "collector",
    ),
    _polled(
        "collector_last_success_timestamp_seconds", "Unix time of this collector's last successful reading", "collector"
    ),
    _polled(
        "collector_skipped_total",
        "Things that this collector left out since the daemon's start: bad lines, vanished cgroups, denied files",
        "collector",
        "reason",
        kind="counter",
    ),
)

# What the daemon knows about itself and its storms.
OWN_METRICS: tuple[Metric, ...] = (
    Metric("build_info", "info", "Version of slabwatch and of the Python that runs it.", ("version", "python")),
    Metric(
        "kernel_info",
        "info",
        "The kernel: release, slab allocator, cgroup mode, and whether kernel memory is accounted to cgroups.",
        ("release", "allocator", "cgroup_mode", "kmem_accounting"),
    ),
    Metric("poll_interval_seconds", "gauge", "Configured time from one poll to the next."),
    Metric("polls_total", "counter", "Polls of the kernel since the daemon's start."),
    Metric("poll_overruns_total", "counter", "Polls that were left out because the one before took too long."),
    Metric("config_last_reload_successful", "gauge", "1 when the last load of the configuration succeeded, else 0."),
    Metric(
        "audit_lines_lost_total",
        "counter",
        "Lines of the audit log that could not be written to its file since the daemon's start.",
    ),
    Metric("storm_locked", "gauge", "1 while storms and shrinks are locked for maintenance, else 0."),
    Metric(
        "web_config_last_reload_successful",
        "gauge",
        "1 when the last load of the web configuration succeeded, else 0; no series without such a file.",
    ),
    _polled("connections", "Connections that this door holds, in use or waiting", "door"),
    _polled(
        "connections_closed_total",
        "Connections that this door closed: no request in time (slow), no further one (idle), to make room (crowded), "
        "for want of room (refused), or because the TLS handshake failed (handshake)",
        "door",
        "reason",
        kind="counter",
    ),
    _polled(
        "web_requests_refused_total",
        "Requests that the web configuration refused: over the rate limit, no allowed name in the certificate, "
        "wrong password, too many passwords to check, or TLS settings that have changed meanwhile",
        "reason",
        kind="counter",
    ),
    Metric("storm_active", "gauge", "1 while a storm runs, else 0."),
    Metric("storm_phase", "gauge", "1 for the phase that the running storm is in, else 0.", ("phase",)),
    Metric("storm_live_tasks", "gauge", "Tasks of the running storm that are alive."),
    Metric("storm_leftover_cgroups", "gauge", "Cgroups of storms that could not be removed and are still there."),
    Metric("storm_tasks_started_total", "counter", "Tasks that storms started since the daemon's start."),
    Metric("storm_tasks_failed_total", "counter", "Tasks that storms could not start since the daemon's start."),
    Metric("storms_total", "counter", "Storms that ended since the daemon's start, by outcome.", ("outcome",)),
    Metric(
        "storm_last_retained_bytes",
        "gauge",
        "Growth of slab memory that stayed after the last storm's tasks had gone, before any shrink.",
    ),
    Metric("storm_last_pinned_bytes", "gauge", "What was left of the last storm's growth after a shrink."),
    Metric(
        "storm_last_released_by_pressure_bytes",
        "gauge",
        "What went back under memory pressure after the last storm, if there was any.",
    ),
    Metric("storm_last_released_by_shrink_bytes", "gauge", "What a shrink gave back after the last storm."),
    Metric("storm_last_verdict", "gauge", "1 for the class of the last storm's verdict, else 0.", ("verdict",)),
    Metric("storm_last_end_timestamp_seconds", "gauge", "Unix time at which the last storm ended."),
)

METRICS: tuple[Metric, ...] = KERNEL_METRICS + OWN_METRICS

# What every Prometheus client library says of its own process, in prometheus_client's words.
PROCESS_METRICS: tuple[Metric, ...] = (
    Metric("virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", prefix="process_"),
    Metric("resident_memory_bytes", "gauge", "Resident memory size in bytes.", prefix="process_"),
    Metric("start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", prefix="process_"),
    Metric("cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", prefix="process_"),
    Metric("open_fds", "gauge", "Number of open file descriptors.", prefix="process_"),
    Metric("max_fds", "gauge", "Maximum number of open file descriptors.", prefix="process_"),
)


def meminfo_metric(key: str, *, unitless: bool) -> Metric:
    """The family of one key of /proc/meminfo; ``unitless`` for a count (a line without kB).

    The name is the key in snake case, spelled so that it means nothing else to Prometheus: HugePages_Total is
    ``meminfo_huge_pages`` (``_total`` marks a counter), SecPageTables is ``meminfo_secpage_tables_bytes`` (``sec``
    looks like a unit).
    """
    name = re.sub(r"[^a-z0-9]+", "_", metric_name(key).lower()).strip("_") or "unnamed"
    name = _without_unit_abbreviations(name)
    if unitless:
        name = _RESERVED_ENDING.sub("", name)
    shown = "".join(character if character.isprintable() else "?" for character in key)
    return _polled(f"meminfo_{name}" if unitless else f"meminfo_{name}_bytes", f"{shown} of /proc/meminfo")


def _without_unit_abbreviations(name: str) -> str:
    """Joins such a piece to the next one, or to the one before it at the end: sec_page_tables -> secpage_tables."""
    pieces: list[str] = []
    joins = False
    for piece in name.split("_"):
        if joins:
            pieces[-1] += piece
        else:
            pieces.append(piece)
        joins = pieces[-1] in _UNIT_ABBREVIATIONS
    if joins and len(pieces) > 1:
        last = pieces.pop()
        pieces[-1] += last
    return "_".join(pieces)
