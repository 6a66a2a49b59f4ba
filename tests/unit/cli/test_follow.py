"""What a storm's events have told so far, and how much of a phase is done."""

from __future__ import annotations

from typing import Any

import pytest

from slabwatch.cli.follow import Course
from tests.unit.control.pretended import plan

MIB = 2**20


def _course(*events: dict[str, Any], **wishes: Any) -> Course:
    course = Course(plan(**wishes).as_dict())
    for event in events:
        course.take(event)
    return course


def _phase(name: str, t: float) -> dict[str, Any]:
    return {"event": "phase", "phase": name, "t": t}


def _progress(t: float, **figures: Any) -> dict[str, Any]:
    return {"event": "progress", "t": t, **figures}


def test_how_much_of_a_phase_is_done() -> None:
    assert _course().done() is None
    assert _course(_phase("baseline", 0), _progress(1.5)).done() == (1.5, 3.0)
    assert _course(_phase("settle", 10), _progress(99)).done() == (10.0, 10.0)
    assert _course(_phase("hold", 10), hold_seconds=0.0).done() is None
    assert _course(_phase("create", 0), _progress(1, cgroups=7)).done() == (7, 20)
    assert _course(_phase("load", 0), _progress(1, tasks_started=50, tasks_failed=10)).done() == (60, 200)
    assert _course(_phase("load", 0), _progress(1, tasks_started=50, tasks_requested=100)).done() == (50, 100)
    drain = _course(_phase("drain", 0), _progress(1, live_tasks=100), _progress(2, live_tasks=25))
    assert drain.done() == (75, 100)
    assert _course(_phase("shrink", 0), _progress(1)).done() is None
    assert _course(_phase("a newer phase", 0), _progress(1)).done() is None


def test_figures_name_what_is_known() -> None:
    assert _course().figures() == ""
    course = _course(
        _progress(1, live_tasks=1234, sunreclaim_bytes=100 * MIB),
        _progress(2, tasks_failed=3, sunreclaim_bytes=90 * MIB, task_struct_active=5),
    )
    assert course.figures() == "0 live   3 failed   SUnreclaim 90.0 MiB (-10.0)   task_struct 5"
    assert _course(_progress(1, live_tasks=2)).figures() == "2 live"


def test_lines_that_are_kept() -> None:
    course = _course()
    assert course.take(_phase("create", 3.0)) is None, "nothing was before it"
    assert course.take(_progress(4.0, cgroups=20)) is None
    assert course.take(_phase("load", 5.5)) == "create          2.5 s   20 cgroups"
    assert course.take({"event": "warning", "message": "evil \x1b[2J"}) == "warning: evil \\x1b[2J"
    assert course.take({"event": "something new", "t": 6.0}) is None
    assert course.take({"event": "end", "record": {}}) == "load           500 ms"


def test_the_curve_is_sunreclaim_at_each_progress() -> None:
    course = _course(
        _progress(1, sunreclaim_bytes=3),
        _progress(2),
        _progress(3, sunreclaim_bytes=None),
        _progress(4, sunreclaim_bytes=9),
    )
    assert course.curve == [3, 9]


def test_memory_that_is_used_up_on_purpose() -> None:
    assert _course(_phase("pressure", 0), _progress(1, pressure_bytes=0)).counted() == ""
    course = _course(_phase("pressure", 0), _progress(1, pressure_bytes=64 * MIB))
    assert course.counted() == "64.0 MiB used up"
    assert course.done() is None


@pytest.mark.parametrize("phase", ["load", "create", "hold", "pressure"])
def test_a_phase_without_any_progress(phase: str) -> None:
    course = _course(_phase(phase, 1.0))
    course.done()
    course.counted()
    course.figures()
