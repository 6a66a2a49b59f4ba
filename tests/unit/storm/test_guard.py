"""What ends a storm because the host suffers, and what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slabwatch.host.root import KernelRoot
from slabwatch.storm.guard import Guard, Vitals, read_oom_kills, read_stalled_percent
from tests.hosts import host_root
from tests.unit.host.fabricated import fabricate

WELL = Vitals(available_bytes=1000, oom_kills=7, stalled_percent=0.0, tasks_failed=0, lag_seconds=0.1)
GUARD = Guard(floor_bytes=1000, tasks_requested=100_000, oom_kills=7)


def test_a_host_that_is_well_and_one_that_does_not_tell() -> None:
    assert GUARD.reason(WELL) == ""
    assert GUARD.reason(Vitals(None, None, None, 0, 0.0)) == ""
    assert replace(GUARD, oom_kills=None).reason(WELL) == "", "what was not known before can not have grown"


@pytest.mark.parametrize(
    ("sick", "border", "words"),
    [
        (
            {"available_bytes": 999},
            {"available_bytes": 1000},
            "MemAvailable fell to 999 bytes, below the floor of 1000",
        ),
        ({"oom_kills": 9}, {"oom_kills": 6}, "OOM killer struck 2 times"),
        ({"stalled_percent": 20.1}, {"stalled_percent": 20.0}, "20 % of the last 10 s"),
        ({"tasks_failed": 5001}, {"tasks_failed": 5000}, "5001 tasks could not be started; 5000"),
        ({"lag_seconds": 15.1}, {"lag_seconds": 15.0}, "15 s late"),
    ],
)
def test_each_reason_and_its_border(sick: dict[str, float], border: dict[str, float], words: str) -> None:
    assert words in GUARD.reason(replace(WELL, **sick))  # type: ignore[arg-type]
    assert GUARD.reason(replace(WELL, **border)) == ""  # type: ignore[arg-type]


def test_a_few_failures_are_tolerated_in_a_small_storm() -> None:
    small = replace(GUARD, tasks_requested=10)
    assert small.reason(replace(WELL, tasks_failed=100)) == ""
    assert small.reason(replace(WELL, tasks_failed=101))


def test_a_recorded_host_tells_all_and_an_empty_one_nothing(tmp_path: Path) -> None:
    recorded = KernelRoot(str(host_root("6.1.176-cgroup-v2", "storm")))
    assert read_oom_kills(recorded) == 0
    assert read_stalled_percent(recorded) is not None
    empty = fabricate(tmp_path, {"/proc/vmstat": "nr_free_pages 1\n"})
    assert read_oom_kills(empty) is None
    assert read_stalled_percent(empty) is None
