"""memory.kmem.slabinfo of a memory cgroup (v1): its own slab caches, in the format of /proc/slabinfo.

Kernel document: Documentation/admin-guide/cgroup-v1/memory.rst. A sample::

    slabinfo - version: 2.1
    # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables ... : slabdata ...
    anon_vma              92     92     88   46    1 : tunables    0    0    0 : slabdata      2      2      0

Drift: from 5.9 on cgroups share their caches, and the file is there but empty. Presence is not support.
"""

from __future__ import annotations

from slabwatch.kernel.slabinfo import SlabInfo, parse_table

PATH = "memory.kmem.slabinfo"


def parse_kmem_slabinfo(data: bytes) -> SlabInfo | None:
    """The cgroup's caches, None when it has none. Raises KernelParseError when lines are there but none fits."""
    if not data:
        return None
    table = parse_table(data, PATH)
    if table.names:
        return table
    if table.skipped:
        raise table.skipped[0]
    return None
