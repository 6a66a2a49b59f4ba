"""One host: which cache, which cgroup, and does it come back."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from .panels import Query, figure, metric, page, series, states

_UNRECLAIMABLE = metric("meminfo_sunreclaim_bytes")
_TOTAL = metric("meminfo_mem_total_bytes")
_SIZE = "slab_size_bytes"
_KNOWN = f"on(job, instance, cache) {metric('slab_expected_objects')}"


def make() -> dashboard.Dashboard:
    """slabwatch / Host."""
    board = page(
        "slabwatch-host",
        "slabwatch / Host",
        "The kernel memory of one host, by slab cache and by cgroup.",
        one_host=True,
    )
    for panel in (
        figure("Unreclaimable slab", "SUnreclaim of /proc/meminfo.", "bytes", Query(_UNRECLAIMABLE)),
        figure(
            "Share of memory",
            "SUnreclaim / MemTotal.",
            "percentunit",
            Query(f"{_UNRECLAIMABLE} / {_TOTAL}"),
            red_from=0.1,
            decimals=1,
        ),
        figure(
            "Growth in an hour",
            "Change of SUnreclaim within one hour.",
            "bytes",
            Query(f"delta({metric('meminfo_sunreclaim_bytes', over='1h')})"),
        ),
        figure(
            "In no cache",
            "Slab minus the sum over all caches: large kmallocs.",
            "bytes",
            Query(metric("slab_unattributed_bytes")),
        ),
        figure("Dying cgroups", "Removed, but still held by an object.", "none", Query(metric("cgroups_dying"))),
        figure("Threads", "Threads of all processes.", "none", Query(metric("threads"))),
        series(
            "Slab against all memory",
            "What can be reclaimed and what can not, stacked; MemTotal is the dashed line, on the right axis.",
            "bytes",
            Query(_UNRECLAIMABLE, "SUnreclaim"),
            Query(metric("meminfo_sreclaimable_bytes"), "SReclaimable"),
            Query(_TOTAL, "MemTotal"),
            stacked=True,
            right="MemTotal",
        ),
        series(
            "Active against expected objects",
            "The kernel's own count of what exists (threads, open files) beside the objects that their caches call active. A gap that stays is memory that the allocator holds on to: a shrink gives it back, unless it leaks.",
            "none",
            Query(f"{metric('slab_active_objects', 'cache!=`dentry`')} and {_KNOWN}", "{{cache}} active"),
            Query(metric("slab_expected_objects", "cache!=`dentry`"), "{{cache}} expected"),
        ),
        series(
            "Dentries",
            "The same for dentries, which are reclaimable: many of them are no fault, active ones that nobody counts would be.",
            "none",
            Query(f"{metric('slab_active_objects', 'cache=`dentry`')} and {_KNOWN}", "active"),
            Query(metric("slab_expected_objects", "cache=`dentry`"), "expected"),
        ),
        series(
            "In no cache",
            "Slab minus the sum over all caches, over time.",
            "bytes",
            Query(metric("slab_unattributed_bytes"), "in no cache"),
            least=None,
        ),
        series(
            "Largest caches",
            "Memory of the ten largest slab caches.",
            "bytes",
            Query(f"topk(10, {metric(_SIZE)})", "{{cache}}"),
        ),
        series(
            "Fastest growing caches",
            "Change within one hour, the ten largest.",
            "bytes",
            Query(f"topk(10, delta({metric(_SIZE, over='1h')}))", "{{cache}}"),
            least=None,
        ),
        series(
            "Cgroups by kernel memory",
            "Kernel memory charged to each cgroup and to those below it.",
            "bytes",
            Query(f"topk(10, {metric('cgroup_kernel_bytes', 'cgroup!=`/`')})", "{{cgroup}}"),
        ),
        series(
            "Cgroups",
            "Cgroups that can be seen, those removed but still held, and those beyond the cap.",
            "none",
            Query(metric("cgroups"), "visible"),
            Query(metric("cgroups_dying"), "dying"),
            Query(metric("cgroups_omitted"), "omitted"),
        ),
        series(
            "New tasks",
            "Forks and clones a second: bursts of short tasks in many cgroups are what leaves slabs behind on affected kernels.",
            "ops",
            Query(f"rate({metric('forks_total', over='$__rate_interval')})", "forks"),
        ),
        series(
            "Storm on this host",
            "Tasks of a running storm that are alive.",
            "none",
            Query(metric("storm_live_tasks"), "live tasks"),
        ),
        series(
            "Time of each collector",
            "Slabinfo takes locks that the whole kernel needs.",
            "s",
            Query(metric("collector_duration_seconds"), "{{collector}}"),
        ),
        states(
            "Collectors",
            "A failed collector's series are absent, never frozen.",
            Query(metric("collector_success"), "{{collector}}"),
        ),
    ):
        board = board.with_panel(panel)
    return board
