"""One poll of the kernel, raw and frozen. What follows from it is in ``derive``.

Numbers that are only passed on to the exposition stay decimal text, as the kernel wrote them; None is
"this kernel does not have it", which is never the same as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slabwatch.host.slab_sysfs import CacheInfo as CacheInfo
from slabwatch.kernel.meminfo import MemInfo
from slabwatch.kernel.slabinfo import SlabInfo

# Columns of CgroupReadings, and the metric that each of them becomes is slabwatch_cgroup_<column>.
CGROUP_COLUMNS = (
    "kernel_bytes",
    "kernel_max_bytes",
    "kernel_limit_bytes",
    "kernel_failures_total",
    "slab_reclaimable_bytes",
    "slab_unreclaimable_bytes",
    "kernel_stack_bytes",
    "pagetables_bytes",
    "percpu_bytes",
    "sock_bytes",
    "vmalloc_bytes",
    "tcp_buffer_bytes",
    "memory_bytes",
    "memory_max_usage_bytes",
    "populated",
)


@dataclass(frozen=True, slots=True)
class ProcessCounts:
    """Population of the host, from /proc, /proc/loadavg, /proc/stat and /proc/sys/fs."""

    processes: int | None
    threads: int | None
    forks: int | None
    allocated_files: int | None
    dentries: int | None


@dataclass(frozen=True, slots=True)
class CgroupReadings:
    """Every memory cgroup that was read, as columns.

    ``paths`` are below the hierarchy's mount, "/" for the root. Each value of ``columns`` (keys: a subset of
    CGROUP_COLUMNS) has one decimal text a path, or None where that cgroup does not have the figure.
    """

    mode: str  # "v1", "v2" or "hybrid"
    version: int  # of the hierarchy that holds the memory controller: 1 or 2
    paths: tuple[str, ...]
    columns: Mapping[str, tuple[str | None, ...]]
    visible: int  # directories of the hierarchy, the root included, also those not read
    dying: int | None
    omitted: int  # beyond the cap: summed in the last path, "__other__"
    unpopulated_kernel_bytes: int | None
    kept_descriptors: int = 0


@dataclass(frozen=True, slots=True)
class CgroupSlabs:
    """One cgroup's own part of the slab caches: its memory.kmem.slabinfo, where that has content (before 5.9).

    ``row`` is the cgroup's place in ``CgroupReadings.paths``.
    """

    row: int
    slabinfo: SlabInfo


@dataclass(frozen=True, slots=True)
class CollectorRun:
    """How one collector fared in this poll.

    ``backoff_seconds``: how long it is kept from reading, because the last read took long; in that time the part is
    ``reused`` from that read, whose duration this is.
    """

    name: str
    success: bool
    duration_seconds: float
    error: str = ""
    skipped: Mapping[str, int] = field(default_factory=dict)  # reason -> how many things were left out
    backoff_seconds: float = 0.0
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One poll. A part is None when its collector failed or is off: then it has no series."""

    number: int
    unix_seconds: float
    monotonic_seconds: float
    page_size: int
    slabinfo: SlabInfo | None
    meminfo: MemInfo | None
    process: ProcessCounts | None
    cgroups: CgroupReadings | None
    slab_sysfs: tuple[CacheInfo, ...] | None
    collectors: tuple[CollectorRun, ...]
    cgroup_slabs: tuple[CgroupSlabs, ...] | None = None
