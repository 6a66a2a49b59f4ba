"""The figures that people change, each with its reason."""

from __future__ import annotations

from deploy.prometheus.rules.declared import Threshold

THRESHOLDS: tuple[Threshold, ...] = (
    Threshold(
        "unreclaimable_ratio",
        0.15,
        "Share of MemTotal in unreclaimable slab that is too much (SlabUnreclaimableHigh), and that a growing host "
        "must be heading over within three days (SlabUnreclaimableGrowing).",
    ),
    Threshold(
        "unreclaimable_growing_ratio",
        0.05,
        "Share of MemTotal below which growth of unreclaimable slab is nobody's concern yet.",
    ),
    Threshold(
        "cache_growth_ratio",
        0.01,
        "Share of MemTotal by which one cache must have grown in 6 hours, and SUnreclaim with it: a cache that grows "
        "while SUnreclaim does not is a reclaimable one (dentries, inodes), which the kernel takes back by itself. "
        "Above 0.001, this and the next: caches and cgroups with less are not recorded.",
    ),
    Threshold(
        "cgroup_growth_ratio",
        0.01,
        "Share of MemTotal by which the kernel memory of one cgroup must have grown in 6 hours, reclaimable slab not "
        "counted.",
    ),
    Threshold(
        "task_struct_unexplained_objects",
        2000,
        "Active task_structs that no thread explains. Objects parked on per-CPU lists count as active, most of "
        "them on kernels from 7.0: raise it for very large hosts.",
    ),
    Threshold(
        "task_struct_active_ratio",
        3,
        "Active task_structs for each thread, both this and the figure above: a host with many threads may park more.",
    ),
    Threshold(
        "dying_cgroups",
        2000,
        "Removed cgroups that the kernel still holds. Some hundreds come and go on hosts that start many services.",
    ),
    Threshold(
        "memcg_ids_ratio",
        0.8,
        "Share of the kernel's 65,535 ids for memory cgroups, those of dying ones included. At 1, mkdir fails.",
    ),
    Threshold(
        "slabinfo_read_seconds",
        0.1,
        "Mean time of one reading of /proc/slabinfo, which holds locks that the whole kernel needs. Usual: 0.001.",
    ),
    Threshold(
        "storm_quiet_seconds",
        3600,
        "How long after a storm the alerts on growth stay silent on its host. Not below 3600: the growth of the last "
        "hour must be growth after the storm.",
    ),
    Threshold(
        "storm_finding_seconds",
        86400,
        "How long StormFoundRetention stays after the storm that found something.",
    ),
    Threshold(
        "outlier_ratio",
        0.03,
        "Share of MemTotal that a host's unreclaimable slab must be above the median of its kernel release, however "
        "alike the others are.",
    ),
    Threshold(
        "outlier_deviations",
        6,
        "The same in standard deviations, estimated from the median absolute deviation, so that outliers do not hide "
        "themselves. The larger of the two holds.",
    ),
    Threshold(
        "outlier_hosts",
        10,
        "Hosts of one kernel release (and class) from which on one can be told to stand out.",
    ),
)
