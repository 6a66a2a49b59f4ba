"""The fleet: which hosts grow, on which kernels, and which of them are far from their like."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from .panels import Query, bars, figure, metric, page, rows, series, states

_UNRECLAIMABLE = metric("meminfo_sunreclaim_bytes")
_SHARE = f"{_UNRECLAIMABLE} / {metric('meminfo_mem_total_bytes')}"
# With the label release: the kernel's release is a label of an info series alone.
_SHARE_BY_HOST = f"({_SHARE}) * on(job, instance) group_left(release) {metric('kernel_info')}"
_MEDIAN = f"quantile by (release) (0.5, {_SHARE_BY_HOST})"


def make() -> dashboard.Dashboard:
    """slabwatch / Fleet."""
    board = page(
        "slabwatch-fleet", "slabwatch / Fleet", "Kernel memory over all hosts that slabwatch runs on.", one_host=False
    )
    for panel in (
        figure("Hosts", "Hosts whose slabwatch answers.", "none", Query(f"count({metric('build_info')})")),
        figure("Unreclaimable slab", "Sum over all hosts.", "bytes", Query(f"sum({_UNRECLAIMABLE})")),
        figure(
            "Largest share of memory",
            "The host whose unreclaimable slab takes most of its memory.",
            "percentunit",
            Query(f"max({_SHARE})"),
            red_from=0.1,
            decimals=1,
        ),
        figure(
            "Dying cgroups",
            "Removed cgroups that the kernels still hold, over all hosts.",
            "none",
            Query(f"sum({metric('cgroups_dying')})"),
        ),
        figure(
            "Failing collectors",
            "Collectors that could not read their files at the last poll: their series are absent.",
            "none",
            Query(f"count({metric('collector_success')} == 0) or vector(0)"),
            red_from=1,
        ),
        figure("Storms running", "Hosts on which a storm runs now.", "none", Query(f"sum({metric('storm_active')})")),
        series(
            "Unreclaimable slab, largest hosts",
            "What the kernel can not give back under memory pressure. A line that only "
            "climbs is what all this is about.",
            "bytes",
            Query(f"topk(10, {_UNRECLAIMABLE})"),
        ),
        series(
            "Growth in an hour, largest hosts",
            "Change of unreclaimable slab within one hour. A host that is high here again and "
            "again leaks, or holds on to memory after bursts of cgroups.",
            "bytes",
            Query(f"topk(10, delta({metric('meminfo_sunreclaim_bytes', over='1h')}))"),
            least=None,
        ),
        series(
            "Share of memory by kernel release",
            "Median over the hosts of each release. A release that stands apart after an upgrade "
            "is worth a storm on one of its hosts.",
            "percentunit",
            Query(_MEDIAN, "{{release}}"),
        ),
        rows(
            "Hosts far from others of their kernel",
            "Hosts by the distance of their share of unreclaimable slab from the median of their release.",
            "percentunit",
            ("share", f"sum by (instance, release) ({_SHARE_BY_HOST})"),
            (
                "above the median",
                f"topk(15, sum by (instance, release) ({_SHARE_BY_HOST} - on(release) group_left() {_MEDIAN}))",
            ),
        ),
        series(
            "Dying cgroups, most",
            "Removed cgroups that objects still hold. They go when their last object is freed; a count that only "
            "climbs wants the page of that host.",
            "none",
            Query(f"topk(10, {metric('cgroups_dying')})"),
        ),
        series(
            "Task structures without a task, most",
            "Active task_struct objects minus threads: what the allocator holds on to. Some "
            "hundred are normal, thousands are the finding.",
            "none",
            Query(
                f"topk(10, {metric('slab_active_objects', 'cache=`task_struct`')} - on(job, instance, cache) "
                f"{metric('slab_expected_objects')})"
            ),
            least=None,
        ),
        bars(
            "Hosts by kernel release",
            "How many hosts run which kernel.",
            "none",
            Query(f"count by (release) ({metric('kernel_info')})", "{{release}}"),
        ),
        states(
            "Collectors",
            "Whether each collector succeeds on every host.",
            Query(f"min by (collector) ({metric('collector_success')})", "{{collector}}"),
        ),
        series(
            "Time to read slabinfo, longest",
            "Reading slabinfo takes locks that the whole kernel needs: above some 100 ms it disturbs the host.",
            "s",
            Query(f"topk(10, {metric('collector_duration_seconds', 'collector=`slabinfo`')})"),
        ),
        series(
            "Age of the oldest figures",
            "Time since each collector's last success, on the host where it is longest.",
            "s",
            Query(
                f"max by (collector) (time() - {metric('collector_last_success_timestamp_seconds')})", "{{collector}}"
            ),
        ),
    ):
        board = board.with_panel(panel)
    return board
