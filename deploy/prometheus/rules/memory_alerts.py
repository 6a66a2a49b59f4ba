"""The alerts on memory: silent on a host after a storm, and those on growth after a reboot as well."""

from __future__ import annotations

from deploy.prometheus.rules.declared import CLASS, Alert, compared, indented
from deploy.prometheus.rules.recording import (
    LARGE_CACHES,
    LARGE_CGROUPS,
    OUTLIER_LIMIT,
    QUIET,
    RATIO_OF_RELEASE,
    STORM,
    UNEXPLAINED,
    UNRECLAIMABLE,
)
from deploy.prometheus.rules.templates import (
    GROWN_CACHES,
    LARGEST_CACHES,
    LARGEST_CGROUPS,
    ON_HOST,
    SUNRECLAIM,
    count,
    figure,
    size,
)

_OF_MEMORY = "{{ $value | humanizePercentage }} of memory"


def _still_growing(series: str, before: str, threshold: str) -> str:
    # No saturation: the last hour has at least half the pace of all six. No step: it grew before the last hour too.
    grown = f"{series} - {before}\n  < 12 * ({series} - {series} offset 1h)"
    return compared(grown, ">", threshold) + f"\nunless {series} offset 1h <= {series} offset 6h"


# Caches that were too small to be recorded count from 0: where slabinfo was not read then, nobody knows what they were.
_CACHES_BEFORE = (
    f"(\n  {LARGE_CACHES} offset 6h\n  or 0 * {LARGE_CACHES}\n"
    '  and ignoring (cache, collector) slabwatch_collector_success{collector="slabinfo"} offset 6h == 1\n)'
)
# What grows while this does not is reclaimable.
_UNRECLAIMABLE_GREW = compared(f"({UNRECLAIMABLE} - {UNRECLAIMABLE} offset 6h)", ">", "cache_growth_ratio")
# v2 knows what of a cgroup's kernel memory is reclaimable, v1 does not.
_V2 = "group without (cgroup) (slabwatch_cgroup_slab_reclaimable_bytes)"

HOST_ALERTS: tuple[Alert, ...] = (
    Alert(
        "SlabUnreclaimableGrowing",
        "warning",
        "90m",
        compared(UNRECLAIMABLE, ">", "unreclaimable_growing_ratio")
        + f"\nand {UNRECLAIMABLE}_deriv1h > 0"
        + f"\nand {UNRECLAIMABLE}_deriv6h > 0\nand "
        + compared(f"{UNRECLAIMABLE}_predict3d", ">", "unreclaimable_ratio")
        + f"\nand present_over_time({UNRECLAIMABLE}[1h] offset 5h)"
        + f"\nunless ignoring (because) {QUIET}",
        f"Unreclaimable slab {ON_HOST} grows and does not come back",
        (
            f"{_OF_MEMORY} is unreclaimable slab; at the pace of the last six hours it will be "
            + figure(f"{UNRECLAIMABLE}_predict3d{{HOST}}", "humanizePercentage")
            + " in three days.",
            SUNRECLAIM,
            GROWN_CACHES,
            LARGEST_CACHES,
        ),
        "unreclaimable",
    ),
    Alert(
        "SlabUnreclaimableHigh",
        "warning",
        "15m",
        compared(UNRECLAIMABLE, ">", "unreclaimable_ratio") + f"\nunless ignoring (because) {STORM}",
        f"A large part of memory {ON_HOST} is unreclaimable slab",
        (
            f"{_OF_MEMORY} is unreclaimable slab.",
            SUNRECLAIM,
            "Slab that no cache explains: " + size("slabwatch_slab_unattributed_bytes{HOST}"),
            LARGEST_CACHES,
        ),
        "unreclaimable",
    ),
    Alert(
        "SlabUnreclaimableOutlier",
        "warning",
        "30m",
        f"{RATIO_OF_RELEASE}\n  > on (release, {CLASS}) group_left () {OUTLIER_LIMIT}\n"
        f"unless ignoring (because, release) {STORM}",
        f"Unreclaimable slab {ON_HOST} stands out among the hosts with Linux {{{{ $labels.release }}}}",
        (
            f"{_OF_MEMORY} is unreclaimable slab; the median of the hosts with this kernel is "
            + figure(
                f"release:slabwatch_unreclaimable:ratio_median{{release=<release>,{CLASS}=<{CLASS}>}}",
                "humanizePercentage",
            )
            + ". The same kernel does well elsewhere: look at what runs here.",
            SUNRECLAIM,
            LARGEST_CACHES,
        ),
        "unreclaimable",
    ),
    Alert(
        "TaskStructUnexplained",
        "warning",
        "30m",
        compared(UNEXPLAINED, ">", "task_struct_unexplained_objects")
        + "\nand "
        + compared(
            "sum without (cache) (\n"
            '  slabwatch_slab_active_objects{cache="task_struct"}\n'
            '  / slabwatch_slab_expected_objects{cache="task_struct"}\n'
            ")",
            ">",
            "task_struct_active_ratio",
        )
        + f"\nunless ignoring (because) {STORM}",
        f"The kernel keeps task_structs {ON_HOST} for which there is no task",
        (
            "Active task_structs: "
            + count("slabwatch_slab_active_objects{cache='task_struct',HOST}")
            + ", threads: "
            + count("slabwatch_threads{HOST}")
            + ", processes: "
            + count("slabwatch_processes{HOST}")
            + ". Nothing explains {{ $value | printf `%.0f` }} of them.",
            SUNRECLAIM,
            LARGEST_CACHES,
        ),
        "task-struct",
    ),
    Alert(
        "MemcgIdsNearlyExhausted",
        "critical",
        "5m",
        compared("instance:slabwatch_memcg_ids:ratio", ">", "memcg_ids_ratio"),
        f"Ids of memory cgroups run out {ON_HOST}: soon no service and no container can start",
        (
            "{{ $value | humanizePercentage }} of 65,535 ids are used.",
            "Cgroups: "
            + count("slabwatch_cgroups{HOST}")
            + ", removed and still held: "
            + count("slabwatch_cgroups_dying{HOST}"),
            LARGEST_CACHES,
        ),
        "cgroups",
    ),
)

GROWTH_ALERTS: tuple[Alert, ...] = (
    Alert(
        "SlabCacheGrowing",
        "warning",
        "30m",
        _still_growing(LARGE_CACHES, _CACHES_BEFORE, "cache_growth_ratio")
        + f"\nand ignoring (cache) {_UNRECLAIMABLE_GREW}"
        + f"\nunless ignoring (because, cache) {QUIET}",
        f"Slab cache {{{{ $labels.cache }}}} grows {ON_HOST}",
        (
            f"In six hours it has grown by {_OF_MEMORY}, to "
            + size("slabwatch_slab_size_bytes{cache=<cache>,HOST}")
            + ". It still grows, and SUnreclaim with it.",
            SUNRECLAIM,
            GROWN_CACHES,
            LARGEST_CACHES,
        ),
        "unreclaimable",
    ),
    Alert(
        "CgroupKernelMemoryGrowing",
        "warning",
        "30m",
        _still_growing(LARGE_CGROUPS, f"{LARGE_CGROUPS} offset 6h", "cgroup_growth_ratio")
        + f"\nand ignoring (cgroup) (\n{indented(_UNRECLAIMABLE_GREW)}\n  or {_V2}\n)"
        + f"\nunless ignoring (because, cgroup) {QUIET}",
        f"Kernel memory of cgroup {{{{ $labels.cgroup }}}} grows {ON_HOST}",
        (
            f"In six hours it has grown by {_OF_MEMORY}, to "
            + size("slabwatch_cgroup_kernel_bytes{cgroup=<cgroup>,HOST}")
            + ". It still grows.",
            LARGEST_CGROUPS,
            LARGEST_CACHES,
        ),
        "cgroups",
    ),
    Alert(
        "CgroupsDyingAccumulating",
        "warning",
        "30m",
        compared("slabwatch_cgroups_dying", ">", "dying_cgroups")
        + "\nand min_over_time(slabwatch_cgroups_dying[1h]) > max_over_time(slabwatch_cgroups_dying[1h] offset 5h)"
        + f"\nunless ignoring (because) {QUIET}",
        f"Removed cgroups pile up {ON_HOST}",
        (
            "The kernel holds {{ $value | printf `%.0f` }} cgroups that were removed, at each moment of the last hour "
            "more than at any moment of the hour five hours before.",
            "Cgroups that can be seen: "
            + count("slabwatch_cgroups{HOST}")
            + ", kernel memory of those without any task: "
            + size("slabwatch_cgroups_unpopulated_kernel_bytes{HOST}"),
            LARGEST_CACHES,
        ),
        "cgroups",
    ),
)
