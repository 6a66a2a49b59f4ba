"""/proc/vmstat: counters of the memory management.

Written by mm/vmstat.c, without a document of its own. A sample::

    nr_slab_unreclaimable 6356
    oom_kill 0

Which keys there are differs between kernels and their options. ``nr_`` are counts now (most of them pages), the
others count events since boot.
"""

from __future__ import annotations

from slabwatch.kernel.flat_keyed import parse_flat_keyed

PATH = "/proc/vmstat"


def reclaim_counts(vmstat: dict[str, int]) -> dict[str, int]:
    """What was looked through for memory since boot: ``pages_scanned`` and ``slab_objects_scanned``, where it is told.

    Old kernels count pages by zone (pgscan_kswapd_normal and so on). Reclaim in a cgroup counts its slab objects here,
    but not its pages.
    """
    pages = [
        count
        for key, count in vmstat.items()
        if key.startswith(("pgscan_kswapd", "pgscan_direct")) and key != "pgscan_direct_throttle"
    ]
    counts = {"pages_scanned": sum(pages)} if pages else {}
    if "slabs_scanned" in vmstat:
        counts["slab_objects_scanned"] = vmstat["slabs_scanned"]
    return counts


def parse_vmstat(data: bytes) -> dict[str, int]:
    """All keys with their counts. Raises KernelParseError."""
    return {key: int(value) for key, value in parse_flat_keyed(data, PATH).items()}
