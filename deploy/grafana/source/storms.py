"""Storms: what runs, what was found, on which kernel."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from .panels import Query, bars, figure, metric, page, rows, series, states


def _of_last_storm(name: str) -> str:
    """A figure of each host's last storm, with the labels verdict and release."""
    verdict = f"({metric('storm_last_verdict')} == 1)"
    release = f"* on(job, instance) group_left(release) {metric('kernel_info')}"
    return f"sum by (instance, release, verdict) ({metric(name)} * on(job, instance) group_right() {verdict} {release})"


def make() -> dashboard.Dashboard:
    """slabwatch / Storms."""
    board = page(
        "slabwatch-storms",
        "slabwatch / Storms",
        "Storms over all hosts: progress, verdicts, leftovers.",
        one_host=False,
    )
    for panel in (
        figure("Running", "Storms that run now.", "none", Query(f"sum({metric('storm_active')})"), width=6),
        figure(
            "Live tasks",
            "Tasks of storms that are alive now.",
            "none",
            Query(f"sum({metric('storm_live_tasks')})"),
            width=6,
        ),
        figure(
            "Hosts with a finding",
            "Hosts whose last storm ended retained or pinned.",
            "none",
            Query(f"count({metric('storm_last_verdict', 'verdict=~`retained|pinned`')} == 1) or vector(0)"),
            red_from=1,
            width=6,
        ),
        figure(
            "Leftover cgroups",
            "Cgroups of storms that could not be removed.",
            "none",
            Query(f"sum({metric('storm_leftover_cgroups')})"),
            red_from=1,
            width=6,
        ),
        rows(
            "Last storm of each host",
            "What stayed of the growth, what a shrink gave back of it and what it did not; the verdict says which of the "
            "three counts.",
            "bytes",
            *(
                (heading, _of_last_storm(f"storm_last_{kept}_bytes"))
                for heading, kept in (
                    ("stayed", "retained"),
                    ("released by a shrink", "released_by_shrink"),
                    ("pinned", "pinned"),
                )
            ),
            width=24,
        ),
        states(
            "Phases",
            "The phase that each storm is in.",
            Query(f"{metric('storm_phase')} > 0", "{{instance}} {{phase}}"),
        ),
        series("Live tasks", "Tasks of storms that are alive.", "none", Query(metric("storm_live_tasks"))),
        series(
            "Tasks started",
            "Tasks that storms start a second.",
            "ops",
            Query(f"rate({metric('storm_tasks_started_total', over='$__rate_interval')})"),
        ),
        series(
            "Unreclaimable slab",
            "What the storms are about. It should come back by itself within the settle time.",
            "bytes",
            Query(metric("meminfo_sunreclaim_bytes")),
        ),
        series(
            "Task structures",
            "Active task_struct objects of each host.",
            "none",
            Query(metric("slab_active_objects", "cache=`task_struct`")),
        ),
        bars(
            "What the last storm left",
            "Growth that stayed after the tasks had gone, what a shrink gave back of it, and what it did not.",
            "bytes",
            Query(f"max by (instance) ({metric('storm_last_retained_bytes')})", "{{instance}} stayed"),
            Query(
                f"max by (instance) ({metric('storm_last_released_by_shrink_bytes')})",
                "{{instance}} released by a shrink",
            ),
            Query(f"max by (instance) ({metric('storm_last_pinned_bytes')})", "{{instance}} pinned"),
        ),
        series(
            "Storms by outcome",
            "Storms that ended within the last hour.",
            "none",
            Query(f"sum by (outcome) (increase({metric('storms_total', over='1h')}))", "{{outcome}}"),
        ),
        series(
            "Tasks that could not be started",
            "A second. More than none: a limit of the host or of the storm was hit.",
            "ops",
            Query(f"rate({metric('storm_tasks_failed_total', over='$__rate_interval')})"),
        ),
    ):
        board = board.with_panel(panel)
    return board
