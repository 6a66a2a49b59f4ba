"""What follows from one raw sample: pure, and the same for metrics, tables and storms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slabwatch.kernel.slabinfo import SlabInfo
from slabwatch.watch.sample import ProcessCounts, Sample


@dataclass(frozen=True, slots=True)
class Derived:
    """``cache_bytes`` runs parallel to ``sample.slabinfo.names``.

    ``expected_objects`` holds the kernel's own count of a cache's population, for the caches where such a
    count exists and means just that; the difference to the active objects is what the allocator holds on to.
    """

    cache_bytes: tuple[int, ...]
    unattributed_bytes: int | None
    expected_objects: Mapping[str, int]


def derive(sample: Sample) -> Derived:
    """Sizes in bytes, the part of Slab that no cache explains, and the populations that are known."""
    slabinfo = sample.slabinfo
    cache_bytes = slabinfo.size_bytes(sample.page_size) if slabinfo else ()
    slab = sample.meminfo.get("Slab") if sample.meminfo else None
    # Large kmallocs are in no cache. The two files are not read at the same instant, so the difference can
    # be below zero on a busy host: it is passed on as it is. To a slabinfo that is kept back it would be the growth
    # since then.
    kept_back = any(run.reused for run in sample.collectors if run.name == "slabinfo")
    unattributed = slab - sum(cache_bytes) if slabinfo and slab is not None and not kept_back else None
    return Derived(cache_bytes, unattributed, _expected(slabinfo, sample.process))


def _expected(slabinfo: SlabInfo | None, process: ProcessCounts | None) -> dict[str, int]:
    if slabinfo is None or process is None:
        return {}
    # Only where the count has the same meaning as the cache's objects: nr_threads counts task_structs up to
    # RCU's grace period and the idle tasks; nr_files and nr_dentry are counted where the object is made.
    known = {"task_struct": process.threads, "filp": process.allocated_files, "dentry": process.dentries}
    return {cache: count for cache, count in known.items() if count is not None and slabinfo.index(cache) is not None}
