"""The presets that remove their cgroups in another order than the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.daemon import Daemon

pytestmark = [pytest.mark.e2e, pytest.mark.system]


def storm(daemon: Daemon, *wishes: str) -> dict[str, Any]:
    done = daemon.ctl("--json", "storm", *wishes)
    assert done.returncode in (0, 7), done.stderr
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert record["outcome"] == "completed", record["reason"]
    return record


def test_zombies_stay_dying_until_the_storm_lets_them_go(daemon: Daemon) -> None:
    record = storm(daemon, "--preset", "zombie", "--cgroups", "40", "--tasks", "2", "--hold", "0", "--settle", "3")
    cgroups, snapshots = record["cgroups"], record["snapshots"]
    assert (cgroups["created"], cgroups["removed"], cgroups["leftover"]) == (40, 40, 0)
    # Others' cgroups come and go meanwhile: ours are dying for seconds, and then most of them are not.
    for state in ("settled", "shrunk"):
        assert cgroups["dying_after"] <= snapshots[state]["cgroups_dying"] - 30


def test_boot_makes_uses_and_removes_at_its_rate(daemon: Daemon) -> None:
    record = storm(daemon, "--preset", "boot", "--cgroups", "20", "--tasks", "3", "--settle", "0")
    cgroups, tasks = record["cgroups"], record["tasks"]
    assert (cgroups["created"], cgroups["removed"], cgroups["leftover"]) == (20, 20, 0)
    assert (tasks["started"], tasks["failed"]) == (60, 0)
    assert tasks["peak_live"] <= 3 * 4, "of one cgroup a worker at a time"
    load = next(phase for phase in record["phases"] if phase["name"] == "load")
    assert load["seconds"] >= 0.8, "20 cgroups at 20 a second"
