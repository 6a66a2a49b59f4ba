"""Presets, wishes and caps become a plan, or a refusal with code and figures."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.config import Config, Shrink, Storm
from slabwatch.errors import StormRejected
from slabwatch.storm.plan import KIND_TEXT, KINDS, MOST, PRESETS, Caps, Plan, caps_of, make_plan

CAPS = Caps(max_cgroups=2000, max_tasks=250_000, max_live_tasks=20_000, max_ttl_seconds=3600.0, shrink_enabled=True)


def plan(caps: Caps = CAPS, **wishes: Any) -> Plan:
    return make_plan(wishes, caps)


def refusal(caps: Caps = CAPS, **wishes: Any) -> StormRejected:
    with pytest.raises(StormRejected) as caught:
        make_plan(wishes, caps)
    return caught.value


# Presets.


@pytest.mark.parametrize(
    ("preset", "cgroups", "tasks", "kind", "shell"),
    [
        ("smoke", 20, 10, "fork", "bash"),
        ("seed", 1000, 100, "shell", "bash"),
        ("seed-once", 1000, 1, "shell", "sh"),
        ("full", 1000, 100, "fork", "bash"),
        ("zombie", 1000, 10, "fork", "bash"),
        ("boot", 200, 20, "fork", "bash"),
    ],
)
def test_the_presets(preset: str, cgroups: int, tasks: int, kind: str, shell: str) -> None:
    made = plan(preset=preset)
    assert (made.preset, made.cgroups, made.tasks, made.kind, made.shell) == (preset, cgroups, tasks, kind, shell)
    assert made.total_tasks == cgroups * tasks
    assert made.shrink
    assert made.on_disconnect == "continue"


def test_smoke_is_what_is_done_without_a_wish() -> None:
    assert plan() == plan(preset="smoke") == plan(preset=None) == plan(preset="")


def test_every_preset_fits_the_default_caps_and_can_finish() -> None:
    caps = caps_of(Config())
    for name, preset in PRESETS.items():
        made = make_plan({"preset": name}, caps)
        assert made.preset == preset.preset == name
        assert made.ttl_seconds > made.baseline_seconds + made.hold_seconds + made.settle_seconds


def test_a_plan_as_the_record_has_it() -> None:
    made = plan(preset="seed").as_dict()
    assert json.loads(json.dumps(made)) == made
    assert made["total_tasks"] == 100_000
    assert made["kind_text"] == KIND_TEXT["shell"]
    assert set(KIND_TEXT) == set(KINDS)
    assert set(made) == {field.name for field in fields(Plan)} | {"total_tasks", "kind_text"}


def test_the_caps_are_the_configurations() -> None:
    storm = Storm(max_cgroups=7, max_tasks=8, max_live_tasks=9, max_ttl_seconds=10.0)
    assert caps_of(Config(storm=storm, shrink=Shrink(enabled=True))) == Caps(7, 8, 9, 10.0, shrink_enabled=True)
    assert not caps_of(Config()).shrink_enabled


# Wishes.


def test_wishes_replace_the_presets_values_and_none_is_no_wish() -> None:
    made = plan(
        preset="full",
        cgroups=5,
        tasks=7,
        kind="light",
        concurrency=3,
        hold_seconds=1.5,
        settle_seconds=2.5,
        shrink=False,
        ttl_seconds=99.0,
        on_disconnect="stop",
    )
    assert (made.cgroups, made.tasks, made.kind, made.concurrency) == (5, 7, "light", 3)
    assert (made.hold_seconds, made.settle_seconds, made.shrink, made.ttl_seconds) == (1.5, 2.5, False, 99.0)
    assert made.on_disconnect == "stop"
    assert plan(cgroups=None, tasks=None, ttl_seconds=None, shrink=None, kind=None) == plan()


def test_what_is_no_wish_can_not_be_wished_for() -> None:
    assert plan(baseline_seconds=0.0, shell="/bin/evil", dry_run=True, anything=1) == plan()


def test_pressure_is_a_wish_and_where_it_may_be_is_not() -> None:
    allowed = replace(CAPS, pressure_host=True)
    assert not plan().pressure
    assert not plan(allowed).pressure_host
    for caps, host in ((CAPS, False), (allowed, True)):
        made = plan(caps, pressure=True)
        assert (made.pressure, made.pressure_host) == (True, host)
        # No wish makes it larger than the configuration has it.
        assert plan(caps, pressure=True, pressure_host=not host) == made
    assert plan(pressure=True).ttl_seconds - plan().ttl_seconds == 0, "smoke has time enough"
    seconds = [plan(caps, preset="boot", cgroups=2000, pressure=wish).ttl_seconds for caps, wish in
               ((CAPS, False), (CAPS, True), (allowed, True))]  # fmt: skip
    assert [seconds[1] - seconds[0], seconds[2] - seconds[0]] == [30.0, 60.0]
    assert caps_of(Config(storm=Storm(pressure_host=True))).pressure_host
    assert not caps_of(Config()).pressure_host


# Tasks alive at one time.


@pytest.mark.parametrize(
    ("wishes", "live"),
    [
        ({}, 200),  # smoke: all of them
        ({"preset": "full"}, 2000),
        ({"preset": "full", "cgroups": 3, "tasks": 5}, 15),
        ({"preset": "smoke", "cgroups": 1000, "tasks": 100}, 20_000),  # no more than the cap allows
        ({"preset": "smoke", "live_tasks": 50}, 50),
        ({"preset": "seed"}, 1000),  # kind shell: one script in each cgroup
        ({"preset": "seed", "concurrency": 16}, 16),
        ({"preset": "seed", "concurrency": 5000}, 1000),
        ({"preset": "seed", "cgroups": 8}, 8),
        ({"preset": "smoke", "kind": "shell"}, 20),
    ],
)
def test_live_tasks(wishes: dict[str, Any], live: int) -> None:
    assert plan(**wishes).live_tasks == live


def test_a_wish_for_live_tasks_is_not_cut_but_refused() -> None:
    error = refusal(live_tasks=20_001)
    assert (error.code, error.figures) == (
        "over_cap",
        {"asked": 20_001, "limit": 20_000, "key": "storm.max_live_tasks"},
    )


@pytest.mark.parametrize("wishes", [{"preset": "seed"}, {"kind": "shell", "concurrency": 2}])
def test_live_tasks_are_not_for_kind_shell(wishes: dict[str, Any]) -> None:
    error = refusal(**wishes, live_tasks=5)
    assert (error.code, "use concurrency (--concurrency)" in str(error)) == ("bad_plan", True)


# Time to live.


@pytest.mark.parametrize(
    ("wishes", "ttl"),
    [
        ({}, 120.0),
        ({"preset": "seed"}, 1800.0),
        ({"preset": "full"}, 900.0),
        ({"settle_seconds": 300.0}, 60 + 3 + 2 + 300 + 1.0),  # longer than the preset's: what it takes
        ({"preset": "full", "cgroups": 2000, "tasks": 125}, 60 + 5 + 2 + 30 + 1250.0),
        ({"preset": "seed", "tasks": 200}, 60 + 5 + 0 + 30 + 2000.0),
        ({"preset": "seed", "tasks": 400, "cgroups": 500}, 3600.0),  # no longer than the cap allows
        ({"ttl_seconds": 30.0}, 30.0),
        ({"ttl_seconds": 3600.0}, 3600.0),
    ],
)
def test_the_time_to_live(wishes: dict[str, Any], ttl: float) -> None:
    assert plan(**wishes).ttl_seconds == pytest.approx(ttl)


@pytest.mark.parametrize("ttl", [0.0, -5.0, 14.9, 15.0, float("nan")])
def test_a_storm_that_could_never_finish(ttl: float) -> None:
    error = refusal(ttl_seconds=ttl)  # smoke: 3 + 2 + 10 seconds
    assert error.code == "bad_plan"
    assert "could never finish" in str(error)
    assert error.figures["limit"] == 15.0
    assert plan(ttl_seconds=15.1).ttl_seconds == 15.1


# Shrink.


def test_a_presets_shrink_is_a_default_and_a_wish_for_one_a_demand() -> None:
    without = replace(CAPS, shrink_enabled=False)
    assert not plan(without).shrink
    assert not plan(without, shrink=False).shrink
    error = refusal(without, shrink=True)
    assert (error.code, error.figures) == ("over_cap", {"key": "shrink.enabled"})
    assert "leave --shrink out" in str(error)
    assert plan(shrink=True).shrink
    assert not plan(shrink=False).shrink


# Refusals.


@pytest.mark.parametrize(
    ("wishes", "figures", "words"),
    [
        (
            {"cgroups": 2001},
            {"asked": 2001, "limit": 2000, "key": "storm.max_cgroups"},
            "2001 cgroups: the configuration allows 2000 (storm.max_cgroups)",
        ),
        (
            {"cgroups": 2000, "tasks": 1000},
            {"asked": 2_000_000, "limit": 250_000, "key": "storm.max_tasks"},
            "2000000 tasks in all: the configuration allows 250000 (storm.max_tasks)",
        ),
        (
            {"kind": "shell", "cgroups": 2000},
            {"asked": 2000, "limit": 1500, "key": "storm.max_live_tasks"},
            "2000 tasks at one time: the configuration allows 1500 (storm.max_live_tasks)",
        ),
        (
            {"ttl_seconds": 3600.5},
            {"asked": 3600.5, "limit": 3600.0, "key": "storm.max_ttl_seconds"},
            "3600.5 seconds: the configuration allows 3600 (storm.max_ttl_seconds)",
        ),
        (
            {"ttl_seconds": float("inf")},
            {"asked": float("inf"), "limit": 3600.0, "key": "storm.max_ttl_seconds"},
            "inf seconds: the configuration allows 3600 (storm.max_ttl_seconds)",
        ),
    ],
)
def test_over_a_cap(wishes: dict[str, Any], figures: dict[str, Any], words: str) -> None:
    caps = replace(CAPS, max_live_tasks=1500) if "kind" in wishes else CAPS
    error = refusal(caps, **wishes)
    assert (error.code, error.figures, str(error)) == ("over_cap", figures, words)


def test_figures_are_said_in_full_next_to_a_cap() -> None:
    error = refusal(replace(CAPS, max_tasks=1_000_000), cgroups=1, tasks=1_000_001)
    assert str(error).startswith("1000001 tasks in all: the configuration allows 1000000 ")


def test_just_at_the_caps() -> None:
    made = plan(cgroups=2000, tasks=125, live_tasks=20_000, ttl_seconds=3600.0)
    assert (made.cgroups, made.total_tasks, made.live_tasks) == (2000, 250_000, 20_000)


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [
        ("cgroups", 0, 1),
        ("tasks", 0, 1),
        ("tasks", -1, 1),
        ("live_tasks", 0, 1),
        ("concurrency", -1, 0),
        ("hold_seconds", -0.1, 0),
        ("settle_seconds", -0.1, 0),
        ("hold_seconds", 2e9, MOST),
        ("settle_seconds", float("inf"), MOST),
        ("cgroups", MOST, MOST),
    ],
)
def test_what_makes_no_sense(key: str, value: float, limit: int) -> None:
    wishes: dict[str, Any] = {key: value, "ttl_seconds": 100.0}
    error = refusal(**wishes)
    assert (error.code, error.figures) == ("bad_plan", {"asked": value, "limit": limit})
    assert str(error).startswith(f"{key} is {value}: it must be at least ")


def test_not_a_number_makes_no_sense_either() -> None:
    assert refusal(hold_seconds=float("nan")).code == "bad_plan"


@pytest.mark.parametrize("key", ["cgroups", "tasks", "live_tasks", "concurrency"])
def test_a_number_that_no_float_can_hold(key: str) -> None:
    wishes: dict[str, Any] = {key: 10**400}
    error = refusal(**wishes)
    assert (error.code, error.figures) == ("bad_plan", {"asked": 10**400, "limit": MOST})


def test_unknown_names_are_refused_with_those_that_are_known() -> None:
    error = refusal(preset="hurricane")
    assert (error.code, str(error)) == (
        "bad_plan",
        "preset 'hurricane' is not known: choose one of smoke, seed, seed-once, full, zombie, boot",
    )
    error = refusal(kind="thread")
    assert (error.code, str(error)) == (
        "bad_plan",
        "kind 'thread' is not known: choose one of light, fork, exec, shell",
    )


NUMBERS = st.one_of(st.none(), st.integers(-5, 10**7))
SECONDS = st.one_of(st.none(), st.floats(-1, 1e10), st.just(float("inf")), st.just(float("nan")))


@given(
    wishes=st.fixed_dictionaries(
        {
            "preset": st.sampled_from([None, *PRESETS]),
            "kind": st.sampled_from([None, *KINDS]),
            "cgroups": NUMBERS,
            "tasks": NUMBERS,
            "concurrency": NUMBERS,
            "hold_seconds": SECONDS,
            "settle_seconds": SECONDS,
            "ttl_seconds": SECONDS,
            "shrink": st.sampled_from([None, True, False]),
        }
    ),
    caps=st.builds(
        Caps, st.integers(1, 60_000), st.integers(1, 10**7), st.integers(1, 10**6), st.floats(1, 86_400), st.booleans()
    ),
)
def test_no_wish_goes_beyond_the_caps(wishes: dict[str, Any], caps: Caps) -> None:
    try:
        made = make_plan(wishes, caps)
    except StormRejected as error:
        assert error.code in ("bad_plan", "over_cap")
        return
    assert 1 <= made.cgroups <= caps.max_cgroups
    assert 1 <= made.total_tasks <= caps.max_tasks
    assert 1 <= made.live_tasks <= caps.max_live_tasks
    assert 0 < made.ttl_seconds <= caps.max_ttl_seconds
    assert caps.shrink_enabled or not made.shrink
    assert made.baseline_seconds + made.hold_seconds + made.settle_seconds < made.ttl_seconds
