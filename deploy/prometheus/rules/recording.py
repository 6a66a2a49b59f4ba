"""Recording rules: a handful of series for each host, and a handful for each kernel release.

All windows are taken over recorded series, never over raw ones. Of slab caches and cgroups only the large ones are
recorded, and the alerts look at those: that is what makes them bearable on a fleet.
"""

from __future__ import annotations

from deploy.prometheus.rules.declared import CLASS, Group, Record, compared, indented, with_release

UNRECLAIMABLE = "instance:slabwatch_unreclaimable:ratio"
QUIET = "instance:slabwatch_growth:quiet"
STORM = f'{QUIET}{{because="storm"}}'
UNEXPLAINED = "instance:slabwatch_task_struct_unexplained:objects"
_KERNEL = 'slabwatch_cgroup_kernel_bytes{cgroup!~"/|__other__|/slabwatch-storm"}'
RELEASE = f"by (release, {CLASS})"
_OF_RELEASE = f"on (release, {CLASS}) group_left ()"

HOSTS = Group(
    "slabwatch-hosts",
    "1m",
    (
        Record(
            UNRECLAIMABLE,
            "slabwatch_meminfo_sunreclaim_bytes / slabwatch_meminfo_mem_total_bytes",
            "host",
            why="Share of MemTotal in unreclaimable slab; how fast it grew (a second); where it is in three days.",
        ),
        Record(f"{UNRECLAIMABLE}_deriv1h", f"deriv({UNRECLAIMABLE}[1h])", "host"),
        Record(f"{UNRECLAIMABLE}_deriv6h", f"deriv({UNRECLAIMABLE}[6h])", "host"),
        Record(f"{UNRECLAIMABLE}_predict3d", f"predict_linear({UNRECLAIMABLE}[6h], 3 * 86400)", "host"),
        Record(
            UNEXPLAINED,
            "sum without (cache) (\n"
            '  slabwatch_slab_active_objects{cache="task_struct"}\n'
            '  - slabwatch_slab_expected_objects{cache="task_struct"}\n'
            ")",
            "host",
            why="Active task_structs that no thread explains.",
        ),
        Record(
            "instance:slabwatch_memcg_ids:ratio",
            "(slabwatch_cgroups + (slabwatch_cgroups_dying or slabwatch_cgroups * 0)) / 65535",
            "host",
            why="Share of the ids for memory cgroups that is used, as far as slabwatch can see.",
        ),
        Record(
            QUIET,
            "max_over_time(slabwatch_storm_active[15m]) == 1\n"
            "or " + compared("time() - slabwatch_storm_last_end_timestamp_seconds", "<", "storm_quiet_seconds"),
            "host at times",
            {"because": "storm"},
            why="Hosts on which growth means nothing now. A storm runs or ran a short while ago...",
        ),
        Record(
            QUIET,
            "slabwatch_forks_total < slabwatch_forks_total offset 8h",
            "host at times",
            {"because": "reboot"},
            why="... or it was booted: fewer forks than eight hours ago, which is longer than all windows here.",
        ),
    ),
)

RATIO_OF_RELEASE = "instance_release:slabwatch_unreclaimable:ratio"
_MEDIAN = "release:slabwatch_unreclaimable:ratio_median"
_MAD = "release:slabwatch_unreclaimable:ratio_mad"
OUTLIER_LIMIT = "release:slabwatch_unreclaimable:ratio_outlier"

RELEASES = Group(
    "slabwatch-releases",
    "1m",
    (
        Record(
            RATIO_OF_RELEASE,
            with_release(UNRECLAIMABLE),
            "host",
            why="The same share, with the kernel's release as a label.",
        ),
        Record("release:slabwatch_hosts:count", f"count {RELEASE} ({RATIO_OF_RELEASE})", "release"),
        Record(_MEDIAN, f"quantile {RELEASE} (0.5, {RATIO_OF_RELEASE})", "release"),
        Record(
            "release:slabwatch_unreclaimable:ratio_p95", f"quantile {RELEASE} (0.95, {RATIO_OF_RELEASE})", "release"
        ),
        Record(
            _MAD,
            f"quantile {RELEASE} (0.5,\n  abs({RATIO_OF_RELEASE}\n    - {_OF_RELEASE} {_MEDIAN})\n)",
            "release",
            why="Median absolute deviation: half of the hosts are nearer to the median than this.",
        ),
        Record(
            OUTLIER_LIMIT,
            f"{_MEDIAN}\n+ (\n"
            + indented(compared(compared(f"1.4826 * {_MAD}", "*", "outlier_deviations"), ">", "outlier_ratio"))
            + "\n  or\n"
            + indented(compared(f"0 * {_MAD}", "+", "outlier_ratio"))
            + "\n)\nand "
            + compared("release:slabwatch_hosts:count", ">=", "outlier_hosts"),
            "release",
            why="Above this, a host stands out among those of its release. 1.4826 x MAD is the standard deviation of a "
            "normal distribution.",
        ),
        Record(
            "release:slabwatch_unreclaimable_bytes:sum",
            f"sum {RELEASE} (\n{indented(with_release('slabwatch_meminfo_sunreclaim_bytes'))}\n)",
            "release",
        ),
        Record(
            "release:slabwatch_unreclaimable:ratio_deriv6h_median",
            f"quantile {RELEASE} (0.5,\n{indented(with_release(f'{UNRECLAIMABLE}_deriv6h'))}\n)",
            "release",
            why="Whether a release grows as a whole: which kernels have the problem.",
        ),
        Record(
            "release:slabwatch_task_struct_unexplained:objects_median",
            f"quantile {RELEASE} (0.5,\n{indented(with_release(UNEXPLAINED))}\n)",
            "release",
        ),
        Record(
            "release:slabwatch_cgroups_dying:sum",
            f"sum {RELEASE} (\n{indented(with_release('slabwatch_cgroups_dying'))}\n)",
            "release",
        ),
    ),
)

LARGE_CACHES = "instance_cache:slabwatch_slab_size:ratio"
LARGE_CGROUPS = "instance_cgroup:slabwatch_kernel:ratio"

CACHES = Group(
    "slabwatch-caches",
    "2m",
    (
        Record(
            LARGE_CACHES,
            "slabwatch_slab_size_bytes\n/ ignoring (cache) group_left () slabwatch_meminfo_mem_total_bytes\n> 0.001",
            "large cache of a host",
            why="Share of MemTotal in each slab cache that has more than a thousandth of it.",
        ),
        Record(
            LARGE_CGROUPS,
            "(\n"
            f"  {_KERNEL} - slabwatch_cgroup_slab_reclaimable_bytes\n"
            f"  or {_KERNEL}\n"
            ")\n"
            "/ ignoring (cgroup) group_left () slabwatch_meminfo_mem_total_bytes\n"
            "> 0.001",
            "large cgroup of a host",
            why="The same of kernel memory in each cgroup, without its reclaimable slab (v2). Not the root, which is "
            "the host itself, and no sums over a changing set.",
        ),
        Record(
            "release_cache:slabwatch_slab_size_bytes:sum",
            f"sum by (release, cache) (\n{indented(with_release('slabwatch_slab_size_bytes', 'cache'))}\n)",
            "release and cache",
            why="What each slab cache takes on all hosts of a release.",
        ),
    ),
)

RECORDING: tuple[Group, ...] = (HOSTS, RELEASES, CACHES)
