"""What ends a storm because the host suffers, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from slabwatch.host.root import KernelRoot
from slabwatch.storm.guard import Guard, Pulse, Vitals, read_oom_kills, read_stalled_percent
from tests.hosts import host_root
from tests.unit.control.pretended import sample
from tests.unit.host.fabricated import Content, fabricate

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
        ({"oom_kills": 9}, {"oom_kills": 6}, "OOM killer struck 2 times since the storm began"),
        ({"oom_kills": 8}, {"oom_kills": 7}, "OOM killer struck once since the storm began"),
        ({"oom_kills": 9, "pressure_oom_kills": 1}, {"oom_kills": 8, "pressure_oom_kills": 1}, "struck once since"),
        (
            {"oom_kills": 9, "own_oom_kills": 2},
            {"oom_kills": 7, "own_oom_kills": 0},
            "2 times in the storm's own cgroups",
        ),
        ({"oom_kills": 9, "own_oom_kills": 0}, {"oom_kills": 7, "own_oom_kills": 0}, "2 times outside of the storm"),
        (
            {"oom_kills": 9, "own_oom_kills": 0, "pressure_oom_kills": 1},
            {"oom_kills": 8, "own_oom_kills": 0, "pressure_oom_kills": 2},
            "once outside of the storm",
        ),
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


def host(directory: Path, kills: int, version: int, cgroups: Mapping[str, int]) -> KernelRoot:
    """Kills so far on the host, and in the storm's cgroups below /storms/s."""
    file = "memory.oom_control" if version == 1 else "memory.events"
    rows = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n" if version == 1 else "low 0\nmax 5\noom 1\noom_kill {}\n"
    files: dict[str, Content] = {f"/storms/s/{name}/{file}": rows.format(count) for name, count in cgroups.items()}
    # v2 counts what is below once more.
    files[f"/storms/s/{file}"] = rows.format(sum(cgroups.values()) if version == 2 else 0)
    return fabricate(directory, {**files, "/proc/vmstat": f"oom_kill {kills}\n"})


@pytest.mark.parametrize("version", [1, 2])
def test_whom_the_oom_killer_has_taken(tmp_path: Path, version: int) -> None:
    before = {"c0000": 0, "c0001": 0, "pressure": 0, "x-foreign": 0}
    root = host(tmp_path, 7, version, before)
    pulse = Pulse(root, "/storms/s", version, kept=True)
    now = sample()
    assert pulse.oom_kills == 7
    vitals = pulse.feel(now, 0.5, 3, 0)
    assert (vitals.oom_kills, vitals.own_oom_kills, vitals.pressure_oom_kills) == (7, None, 0)
    assert (vitals.lag_seconds, vitals.tasks_failed, vitals.available_bytes) == (0.5, 3, None)
    host(tmp_path, 12, version, {"c0000": 2, "c0001": 1, "pressure": 1, "x-foreign": 1})
    vitals = pulse.feel(now, 0.5, 3, 0)
    assert (vitals.oom_kills, vitals.own_oom_kills, vitals.pressure_oom_kills) == (12, 3, 1)
    # Told already, and the cgroup is gone.
    assert Pulse(root, "/storms/gone", version, kept=True).feel(now, 0, 0, 4).pressure_oom_kills == 4
    pulse = Pulse(root, "/storms/s", version, kept=True)
    host(tmp_path, 13, version, {"pressure": 1})
    assert pulse.feel(now, 0, 0, 4).pressure_oom_kills == 4
    # Where cgroups go meanwhile, nobody knows what was counted in them.
    unkept = Pulse(root, "/storms/s", version, kept=False)
    host(tmp_path, 14, version, {})
    assert unkept.feel(now, 0, 0, 0).own_oom_kills is None


def test_a_kernel_that_does_not_count_where_it_kills(tmp_path: Path) -> None:
    root = fabricate(tmp_path, {"/storms/s/c0000/memory.oom_control": "under_oom 0\n", "/proc/vmstat": "oom_kill 1\n"})
    pulse = Pulse(root, "/storms/s", 1, kept=True)
    fabricate(tmp_path, {"/proc/vmstat": "oom_kill 2\n"})
    assert pulse.feel(sample(), 0, 0, 0).own_oom_kills is None


def test_a_recorded_host_tells_all_and_an_empty_one_nothing(tmp_path: Path) -> None:
    recorded = KernelRoot(str(host_root("6.1.176-cgroup-v2", "storm")))
    assert read_oom_kills(recorded) == 0
    assert read_stalled_percent(recorded) is not None
    empty = fabricate(tmp_path, {"/proc/vmstat": "nr_free_pages 1\n"})
    assert read_oom_kills(empty) is None
    assert read_stalled_percent(empty) is None
