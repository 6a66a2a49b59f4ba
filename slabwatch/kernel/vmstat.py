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


def parse_vmstat(data: bytes) -> dict[str, int]:
    """All keys with their counts. Raises KernelParseError."""
    return {key: int(value) for key, value in parse_flat_keyed(data, PATH).items()}
