"""Two records side by side: what differs, what is noise, and whether it is fair."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slabwatch.cli.storm_tables import comparison_page
from slabwatch.storm.compare import CacheFigure, Figure, Setting, compare
from slabwatch.storm.record_form import record_of
from slabwatch.storm.report import csv_report, text_report
from slabwatch.storm.report_html import html_report
from tests.hosts import HOSTS
from tests.unit.storm.records import made_record
from tests.unit.storm_reports.records import PRESSURE_STEP, scaled_storm

MIB = 2**20
OLD, NEW = "4.19.40-cgroup-v1", "6.18.15-cgroup-v2"


def changed(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy, with ``plan__cgroups=5`` for what is inside."""
    copied = copy.deepcopy(record)
    for path, value in changes.items():
        *within, key = path.split("__")
        place = copied
        for name in within:
            place = place[name]
        place[key] = value
    return copied


def figures(rows: tuple[Figure, ...]) -> dict[str, tuple[Any, Any, Any]]:
    return {row.name: (row.a, row.b, row.difference) for row in rows}


@pytest.mark.parametrize("host", HOSTS)
def test_a_storm_is_like_itself(host: str) -> None:
    record = scaled_storm(host)
    same = compare(record, record)
    assert same.a == same.b
    assert not same.unfair
    assert not same.settings
    assert not same.cache_retained_bytes
    assert same.caches_alike == len(record["snapshots"]["settled"]["caches"])
    for rows in (same.verdict_bytes, same.sunreclaim_bytes, same.task_struct_active, same.counts, same.phase_seconds):
        assert {row.difference for row in rows} == {0}


def test_two_kernels() -> None:
    old, new = scaled_storm(OLD, 20), scaled_storm(NEW, 20)
    both = compare(old, new)
    assert both.unfair == ()
    assert (both.a.release, both.b.release) == ("4.19.40", "6.18.15")
    assert [row.name for row in both.settings] == ["host.release", "host.cgroup_mode", "host.memory_bytes"]
    by_state = figures(both.sunreclaim_bytes)
    assert list(by_state) == ["baseline", "created", "loaded", "drained", "settled", "shrunk", "removed"]
    settled = [record["snapshots"]["settled"]["meminfo"]["SUnreclaim"] for record in (old, new)]
    assert by_state["settled"] == (*settled, settled[1] - settled[0])
    assert figures(both.task_struct_active)["baseline"] == (66, 99, 33)
    stayed = [record["verdict"]["retained_bytes"] for record in (old, new)]
    assert figures(both.verdict_bytes)["retained"] == (*stayed, stayed[1] - stayed[0])
    caches = {row.cache: row for row in both.cache_retained_bytes}
    assert caches["task_struct"].difference < -10 * MIB
    assert caches["maple_node"].a is None  # 4.19 has no such cache
    # kmalloc-1024 on 4.19, kmalloc-1k on 6.18
    assert (caches["kmalloc-1k"].a, caches["kmalloc-1k"].b) == (8_519_680, 3_276_800)
    assert [abs(row.difference) for row in both.cache_retained_bytes] == sorted(
        (abs(row.difference) for row in both.cache_retained_bytes), reverse=True
    )


def test_the_larger_tolerance_of_both_decides_what_is_noise() -> None:
    tolerance = 64 * 8 * 4096

    def with_dentry(stayed: int, cpus: int) -> dict[str, Any]:
        record = changed(made_record(), host__cpus=cpus)
        record["caches"][1]["retained_bytes"] = stayed
        return record

    zero = with_dentry(0, 1)
    at_the_border = compare(zero, with_dentry(tolerance, 8))
    assert at_the_border.tolerance_bytes == tolerance
    assert at_the_border.cache_retained_bytes == ()
    assert at_the_border.caches_alike == 2
    beyond = compare(with_dentry(tolerance + 1, 8), zero)
    assert beyond.cache_retained_bytes == (CacheFigure("dentry", True, tolerance + 1, 0, -tolerance - 1),)
    assert beyond.caches_alike == 1


@pytest.mark.parametrize(
    ("changes", "unfair"),
    [
        ({"plan__cgroups": 20}, ["cgroups is 1,000 in A and 20 in B"]),
        ({"plan__kind": "light"}, ["kind is shell in A and light in B"]),
        ({"plan__live_tasks": 10}, ["live_tasks is 1,000 in A and 10 in B"]),
        ({"plan__settle_seconds": 5.0}, ["settle_seconds is not set in A and 5 in B"]),
        ({"plan__shell": "sh"}, ["shell is not set in A and sh in B"]),
        ({"plan__remove_first": True}, ["remove_first is not set in A and yes in B"]),
        ({"outcome": "stopped"}, ["B was stopped"]),
        ({"verdict__class": "inconclusive"}, ["B is inconclusive"]),
        ({"outcome": "aborted", "verdict__class": "inconclusive"}, ["B was aborted"]),
        ({"plan__preset": "full", "plan__ttl_seconds": 4.0, "plan__shrink": False}, []),
        ({"plan__pressure": True, "plan__pressure_host": False}, []),  # what stayed is measured before it
        ({"host__cpus": 64, "host__release": "6.1"}, []),
    ],
)
def test_what_makes_it_unfair(changes: dict[str, Any], unfair: list[str]) -> None:
    record = changed(made_record(), tasks__failed=0)
    assert list(compare(record, changed(record, **changes)).unfair) == unfair


def test_one_of_them_had_memory_pressure() -> None:
    without, pressed = scaled_storm(OLD, 20), scaled_storm(OLD, 20, pressure=True)
    assert "released_by_pressure" not in figures(compare(without, without).verdict_bytes)
    both = compare(without, pressed)
    released = pressed["verdict"]["released_by_pressure_bytes"]
    assert released > 10 * MIB
    assert figures(both.verdict_bytes)["released_by_pressure"] == (None, released, None)
    assert figures(both.verdict_bytes)["retained"][2] == 0
    assert list(figures(both.sunreclaim_bytes)).index("pressured") == 5
    assert figures(both.phase_seconds)["pressure"] == (None, 1.2, None)
    assert [(row.name, row.a, row.b) for row in both.settings] == [("plan.pressure", False, True)]
    swapped = figures(compare(pressed, without).verdict_bytes)
    assert swapped["released_by_pressure"] == (released, None, None)


def test_the_shell_matters_to_its_own_kind_only() -> None:
    record = changed(made_record(), tasks__failed=0, plan__kind="fork")
    assert compare(record, changed(record, plan__shell="sh")).unfair == ()


def test_failed_tasks_make_it_unfair() -> None:
    assert compare(made_record(), changed(made_record(), tasks__failed=0)).unfair == (
        "1 tasks of A could not be started",
    )


def test_settings_that_differ() -> None:
    record = made_record()
    other = changed(record, host__kernel_config={"CONFIG_SLUB": "y", "CONFIG_PSI": "n"}, plan__ttl_seconds=5.0)
    other["host"]["memory_bytes"] = 1024
    other["plan"]["kind_text"] = "said otherwise"
    assert compare(record, other).settings == (
        Setting("host.memory_bytes", 16 * 1024 * MIB, 1024),
        Setting("CONFIG_PSI", None, "n"),
        Setting("plan.ttl_seconds", None, 5.0),
    )


def test_a_storm_that_ended_early() -> None:
    verdict = {"class": "inconclusive", "reason": "it was aborted"}
    early = changed(made_record(), outcome="aborted", snapshots={}, caches=[], phases=[], verdict=verdict)
    both = compare(made_record(), early)
    assert "B was aborted" in both.unfair
    assert both.cache_retained_bytes == ()
    assert both.caches_alike == 0
    assert figures(both.sunreclaim_bytes)["settled"] == (823_116 * 1024, None, None)
    assert figures(both.verdict_bytes)["growth"] == (527_708 * 1024, None, None)
    assert figures(both.phase_seconds) == {
        "baseline": (5.0, None, None),
        "create": (2.31, None, None),
        "in all": (262.34, 262.34, 0),
    }


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("kmalloc-1024", "kmalloc-1k"),
        ("kmalloc-8192", "kmalloc-8k"),
        ("dma-kmalloc-2048", "dma-kmalloc-2k"),
        ("kmalloc-4194304", "kmalloc-4M"),
        ("kmalloc-512", "kmalloc-512"),
        ("kmalloc-cg-2k", "kmalloc-cg-2k"),
        ("ext4-kmalloc-1024x", "ext4-kmalloc-1024x"),
    ],
)
def test_caches_that_got_another_name(before: str, now: str) -> None:
    old, new = made_record(), made_record()
    for record, name in ((old, before), (new, now)):
        record["caches"][0]["cache"] = record["snapshots"]["settled"]["caches"][0]["cache"] = name
    both = compare(old, new)
    assert both.cache_retained_bytes == ()
    assert both.caches_alike == 2


def test_counts_are_numbers_alone() -> None:
    counts = figures(compare(made_record(), changed(made_record(), tasks__started=100_000)).counts)
    assert counts["tasks.started"] == (99_999, 100_000, 1)
    assert counts["tasks.forks_observed"] == (None, None, None)
    assert "cgroups.left" not in counts


def test_what_only_one_storm_has_is_no_count() -> None:
    whole, short = made_record(), made_record()
    whole["cgroups"]["charges"], short["cgroups"]["charges"] = {"charged": 3}, None
    for one, other in ((whole, short), (short, whole)):
        assert "cgroups.charges" not in [figure.name for figure in compare(one, other).counts]
        comparison_page(compare(one, other))


def test_it_is_json() -> None:
    both = compare(scaled_storm(OLD), scaled_storm(NEW))
    assert json.loads(json.dumps(both.as_dict()))["a"]["release"] == "4.19.40"


@pytest.mark.parametrize(
    "record", [made_record(), scaled_storm(OLD), scaled_storm(NEW, shrink=False), scaled_storm(NEW, pressure=True)]
)
def test_a_record_from_a_file(record: dict[str, Any]) -> None:
    assert record_of(json.dumps(record).encode()) == record


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `format`"),
        (json.dumps(changed(made_record(), format=2)).encode(), r"Expected `int` <= 1 - at `\$.format`"),
        (json.dumps(changed(made_record(), host__cpus=0)).encode(), r"Expected `int` >= 1 - at `\$.host.cpus`"),
        (
            json.dumps(changed(made_record(), caches=[{}])).encode(),
            r"field `cache` - at `\$.caches\[0\]`",
        ),
        (json.dumps(changed(made_record(), seconds=float("nan"))).encode(), "malformed"),
        (json.dumps(changed(made_record(), verdict=None)).encode(), r"Expected `object`, got `null` - at `\$.verdict`"),
    ],
)
def test_a_file_that_is_no_record(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        record_of(data)


@given(st.binary())
def test_any_bytes_are_a_record_or_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the one error that it raises
        record_of(data)


@settings(max_examples=150)
@given(st.data())
def test_what_has_a_records_form_can_be_shown(data: st.DataObject) -> None:
    """Whatever is put in the place of some value, or left out: it is no record, or every reader copes with it."""
    record = made_record(pressure=[dict(PRESSURE_STEP)], limits={"memory_bytes": 5, "pids": None})
    place: Any = record
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            if isinstance(place, dict) and data.draw(st.booleans()):
                del place[key]
                break
            place[key] = data.draw(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just({}))
            break
        place = inner
    try:
        read = record_of(json.dumps(record).encode())
    except ValueError:
        return
    compare(made_record(), read)
    compare(read, made_record())
    for report in (text_report, csv_report, html_report):
        report(read)
