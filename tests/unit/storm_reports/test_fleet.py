"""Storms of many hosts by kernel release."""

from __future__ import annotations

import random
from typing import Any

import pytest

from slabwatch.storm.compare import deciding
from slabwatch.storm.fleet import HostStorm, Spread, grouped, host_storm
from tests.unit.storm_reports.records import scaled_storm

PLAN = {"cgroups": 20, "tasks": 10, "kind": "fork"}


def storm(host: str, release: str, retained: int | None, verdict: str = "retained", **plan: object) -> HostStorm:
    return HostStorm(host, release, PLAN | plan, "completed", verdict, retained)


def test_median_least_and_most() -> None:
    storms = [storm(f"h{size}", "4.19", size) for size in (10, 40, 20, 31)] + [
        storm("n", "4.19", None, "inconclusive"),
        storm("other", "6.1", 0, "released"),
    ]
    random.Random(5).shuffle(storms)
    (group,) = grouped(storms)
    old, new = group.releases
    assert (old.release, sorted(old.hosts)) == ("4.19", ["h10", "h20", "h31", "h40", "n"])
    assert old.verdicts == {"retained": 4, "inconclusive": 1}
    assert old.retained_bytes == Spread(median=26, least=10, most=40)
    assert (new.hosts, new.retained_bytes) == (("other",), Spread(0, 0, 0))


def test_no_figure_is_not_zero() -> None:
    (group,) = grouped([storm("a", "4.19", None, "inconclusive")])
    assert group.releases[0].retained_bytes is None


def test_other_plans_stand_apart() -> None:
    groups = grouped([storm("a", "4.19", 1, tasks=99), storm("b", "4.19", 1), storm("c", "6.1", 1)])
    assert [(group.plan["tasks"], [release.hosts for release in group.releases]) for group in groups] == [
        (10, [("b",), ("c",)]),
        (99, [("a",)]),
    ]
    assert grouped([]) == ()


@pytest.mark.parametrize(
    ("wishes", "same"),
    [
        ({}, True),
        ({"hold_seconds": 9.0}, True),
        ({"ttl_seconds": 99.0}, True),
        ({"concurrency": 7}, True),
        ({"settle_seconds": 1.0}, False),
        ({"kind": "light"}, False),
        ({"tasks": 19}, False),
    ],
)
def test_what_decides(wishes: dict[str, Any], same: bool) -> None:
    usual, other = (host_storm("h", scaled_storm("6.1.176-cgroup-v2", **more)) for more in ({}, wishes))
    assert len(grouped([usual, other])) == (1 if same else 2)


def test_the_shell_decides_for_shells_only() -> None:
    assert deciding({"kind": "fork", "shell": "sh"}) == deciding({"kind": "fork", "shell": "bash"})
    assert deciding({"kind": "shell", "shell": "sh"}) != deciding({"kind": "shell", "shell": "bash"})


def test_from_a_record() -> None:
    record = scaled_storm("4.19.40-cgroup-v1", 20)
    found = host_storm("db1", record)
    assert (found.host, found.release) == ("db1", record["host"]["release"])
    assert found.retained_bytes == record["verdict"]["retained_bytes"]
    assert host_storm("x", {**record, "verdict": None}).verdict == "inconclusive"
