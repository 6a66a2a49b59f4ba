"""The words of the HTML report: for verdicts, states, phases, and the keys of a record. Pure."""

from __future__ import annotations

from collections.abc import Mapping

MEANING: Mapping[str, str] = {
    "released": "When the tasks had gone, the kernel gave the memory back by itself.",
    "retained": "When the tasks had gone, the memory stayed. A shrink gave most of it back: nothing used it any more, "
    "the kernel's slab allocator only held on to it.",
    "pinned": "When the tasks had gone, the memory stayed, and a shrink did not give most of it back: something still "
    "uses it.",
    "inconclusive": "The figures can not be trusted, so this storm gives no answer.",
    "pressed": "When the tasks had gone, the memory stayed, until somebody else needed memory: then the kernel gave "
    "most of it back by itself.",
    "untold": "When the tasks had gone, the memory stayed. No shrink was run: whether something uses it is not known.",
}
STATES: Mapping[str, str] = {
    "baseline": "Before the storm",
    "created": "Cgroups made, no task yet",
    "loaded": "Peak of the load",
    "drained": "All tasks gone",
    "settled": "After the settle time",
    "pressured": "After memory pressure",
    "shrunk": "After a shrink",
    "removed": "Cgroups removed",
}
PHASES: Mapping[str, str] = {
    "baseline": "The host as it is, to know its noise.",
    "create": "The cgroups are made.",
    "load": "Tasks are started in every cgroup.",
    "hold": "The tasks that are alive stay so.",
    "drain": "The tasks end.",
    "settle": "Nothing happens: what does the kernel give back by itself?",
    "pressure": "Memory is used up on purpose: does the kernel give slabs back for that?",
    "shrink": "Every cache is told to give back its empty slabs.",
    "cleanup": "The cgroups are removed.",
}
LABELS: Mapping[str, str] = {
    "total_tasks": "tasks in all",
    "tasks": "tasks in each cgroup",
    "kind_text": "that is",
    "concurrency": "cgroups filled at one time (0: one a CPU, kind shell all)",
    "live_tasks": "most tasks alive at one time",
    "ttl_seconds": "time to live",
    "on_disconnect": "if its client goes away",
    "release": "kernel release",
    "allocator": "slab allocator",
    "page_size": "page size, bytes",
    "cgroup_mode": "cgroup hierarchy",
    "kmem_accounting": "kernel memory accounting",
    "cpus": "CPUs",
    "peak_live": "alive at the peak",
    "forks_observed": "forks that the kernel counted, up to the end of settle",
    "leftover": "left over",
    "dying_before": "dying before the storm",
    "dying_after": "dying after it",
    "pressure": "memory pressure after the settle time",
    "pressure_host": "on the host too",
    "memory_bytes": "memory",
    "ended": "how it ended",
    "consumed_bytes": "used up",
    "floor_bytes": "floor of MemAvailable",
    "limit_bytes": "memory limit of the storm meanwhile",
    "limit_hits": "times at the limit",
    "oom_kills": "OOM kills",
    "pages_scanned": "pages that the kernel looked through",
    "slab_objects_scanned": "slab objects that it looked through",
    "file": "read from",
    "charged": "of them charged with anything",
}
CONFIG: Mapping[str, str] = {
    "CONFIG_SLUB": "the SLUB allocator",
    "CONFIG_SLAB": "the older SLAB allocator",
    "CONFIG_SLUB_CPU_PARTIAL": "each CPU keeps partly filled slabs",
    "CONFIG_SLUB_DEBUG": "a shrink can be asked for",
    "CONFIG_SLAB_MERGE_DEFAULT": "caches of like objects share slabs",
    "CONFIG_MEMCG": "memory cgroups",
    "CONFIG_MEMCG_V1": "memory cgroups, version 1",
    "CONFIG_MEMCG_KMEM": "cgroups are charged for kernel memory",
    "CONFIG_SLUB_MEMCG_SYSFS_ON": "caches of cgroups are listed in sysfs",
    "CONFIG_CGROUP_PIDS": "cgroups can limit their tasks",
    "CONFIG_PSI": "pressure figures",
}
