"""Memory used up on purpose, on the running kernel: in the storm's own cgroup, and on the host down to a floor.

One after the other: the OOM killer strikes, which ends any other storm on this host.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Daemon
from tests.live.kernel import alive, status, wait_for_no_task, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.system]

MIB = 1024 * 1024
MakeDaemon = Callable[..., Daemon]
SMALL = {"cgroups": 5, "tasks": 5, "hold_seconds": 0, "settle_seconds": 0, "ttl_seconds": 100, "pressure": True}


def vmstat(key: str) -> int:
    lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key} "))


def meminfo(key: str) -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def ratio_that_leaves(spare_bytes: int) -> float:
    """Of MemTotal: the floor that is so far below what is available now; on an empty host the highest that there is."""
    return min(0.95, (meminfo("MemAvailable") - spare_bytes) / meminfo("MemTotal"))


def storm(daemon: Daemon, *wishes: str) -> dict[str, Any]:
    done = daemon.ctl("--json", "storm", "--hold", "0", "--settle", "1", "--pressure", *wishes)
    assert done.returncode in (0, 7), done.stderr
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def test_in_the_storm_s_own_cgroup_until_the_kernel_gives_no_more(daemon: Daemon) -> None:
    kills = vmstat("oom_kill")
    record = storm(daemon)
    assert (record["outcome"], record["reason"]) == ("completed", ""), "its own OOM kill is no reason to abort"
    assert vmstat("oom_kill") == kills + 1
    names = [phase["name"] for phase in record["phases"]]
    assert names == ["baseline", "create", "load", "hold", "drain", "settle", "pressure", "shrink", "cleanup"]
    (step,) = record["pressure"]
    assert (step["where"], step["ended"], step["oom_kills"], step["floor_bytes"]) == ("storm", "limit", 1, None)
    assert 60 * MIB <= step["consumed_bytes"] <= step["limit_bytes"]
    assert step["limit_hits"] > 0
    assert step["slab_objects_scanned"] >= 0
    assert record["limits"]["memory_bytes"] > 256 * MIB
    assert record["limits"]["pids"] == 2 * 200 + 256
    states = ("settled", "pressured", "shrunk")
    taken = [record["snapshots"][state]["taken_at"] for state in states]
    assert taken == sorted(taken)
    for figures in [record["verdict"], *record["caches"]]:
        shares = (figures[f"{name}_bytes"] for name in ("released_by_pressure", "released_by_shrink", "pinned"))
        assert sum(shares) == figures["retained_bytes"]
    assert (record["cgroups"]["created"], record["cgroups"]["removed"], record["cgroups"]["leftover"]) == (20, 20, 0)
    assert daemon.cgroups() == []
    released = record["verdict"]["released_by_pressure_bytes"]
    assert daemon.metric("slabwatch_storm_last_released_by_pressure_bytes") == released
    report = daemon.ctl("report").stdout
    assert "After memory pressure\n-------------" in report
    assert "MiB used up in the storm's own cgroup, until the kernel gave no more" in report


@pytest.mark.parametrize("preset", ["zombie", "boot"])
def test_with_cgroups_that_are_gone_by_then(daemon: Daemon, preset: str) -> None:
    record = storm(daemon, "--preset", preset, "--cgroups", "20", "--tasks", "3")
    assert (record["outcome"], record["reason"]) == ("completed", "")
    assert [step["ended"] for step in record["pressure"]] == ["limit"]
    assert (record["cgroups"]["created"], record["cgroups"]["removed"], record["cgroups"]["leftover"]) == (20, 20, 0)


def test_on_the_host_down_to_the_floor(make_daemon: MakeDaemon) -> None:
    floor = ratio_that_leaves(1024 * MIB)
    daemon = make_daemon(storm={"pressure_host": True, "pressure_floor_ratio": floor}).start()
    told = daemon.ctl("storm", "--pressure", "--dry-run").stdout
    assert "MiB on the host, until" in told
    record = storm(daemon)
    assert (record["outcome"], record["reason"]) == ("completed", "")
    in_storm, on_host = record["pressure"]
    assert (in_storm["where"], on_host["where"]) == ("storm", "host")
    assert (on_host["ended"], on_host["oom_kills"]) == ("floor", 0)
    assert on_host["floor_bytes"] == pytest.approx(floor * meminfo("MemTotal"), abs=MIB)
    # Others use memory and give it back meanwhile.
    assert 100 * MIB < on_host["consumed_bytes"] < 2048 * MIB
    assert on_host["pages_scanned"] >= 0


def test_without_leave_of_the_configuration_the_host_is_left_alone(daemon: Daemon) -> None:
    record = storm(daemon, "--cgroups", "3", "--tasks", "3")
    assert [step["where"] for step in record["pressure"]] == ["storm"]
    answer = daemon.ask("POST", "/v1/storms", {"pressure_host": True})
    assert (answer[0], answer[1]["code"]) == (422, "bad_request")


# The process that uses memory up, and what becomes of it.


def reach(make_daemon: MakeDaemon) -> tuple[Daemon, str, int]:
    """A storm whose pressure on the host has begun: daemon, id, and the process."""
    floor = ratio_that_leaves(1024 * MIB)
    daemon = make_daemon(storm={"pressure_host": True, "pressure_floor_ratio": floor}).start()
    storm_id = daemon.begin_storm(**SMALL)
    group = daemon.root(storm_id) / "pressure"
    limit = (
        "memory.limit_in_bytes" if (daemon.root(storm_id).parent / "memory.limit_in_bytes").exists() else "memory.max"
    )

    def consumer() -> int:
        try:
            # What the storm's cgroups hold and 64 MiB more is not for the host.
            if int((daemon.root(storm_id) / limit).read_text(encoding="ascii")) < 600 * MIB:
                return 0
            return int((group / "cgroup.procs").read_text(encoding="ascii").split()[0])
        except (OSError, ValueError, IndexError):
            return 0

    wait_until(lambda: daemon.ask("GET", "/v1/status")[1]["storm"]["running"]["phase"] == "pressure", 30, "the phase")
    wait_until(consumer, 10, "a process uses memory up")
    pid = consumer()
    assert Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii").strip() == "1000"
    return daemon, storm_id, pid


def assert_gone(daemon: Daemon, storm_id: str, pid: int) -> None:
    wait_until(lambda: not alive(pid), 5, f"the process has ended: {status(pid)}")
    wait_for_no_task(storm_id, 5)
    if daemon.process is None or daemon.process.poll() is not None:
        daemon.start()
    wait_until(lambda: not daemon.cgroups(), 5, f"no cgroup is left: {daemon.cgroups()[:3]}")


@pytest.mark.parametrize("whom", ["daemon", "engine", "process", "daemon and engine", "engine and process"])
def test_nothing_lives_on_when_it_is_killed_meanwhile(make_daemon: MakeDaemon, whom: str) -> None:
    daemon, storm_id, pid = reach(make_daemon)
    victims = {"daemon": daemon.pid, "engine": daemon.engine(), "process": pid}
    for name in whom.split(" and "):
        os.kill(victims[name], signal.SIGKILL)
    if "daemon" in whom:
        assert daemon.wait() == -signal.SIGKILL
        assert_gone(daemon, storm_id, pid)
        return
    record = daemon.record(storm_id)
    assert record["outcome"] == "failed"
    expected = "was killed, and not by the OOM killer" if whom == "process" else "the engine is gone"
    assert expected in record["reason"]
    assert record["cgroups"]["leftover"] == 0
    assert_gone(daemon, storm_id, pid)


def test_it_ends_with_a_storm_that_is_stopped(make_daemon: MakeDaemon) -> None:
    daemon, storm_id, pid = reach(make_daemon)
    assert daemon.ctl("stop").returncode == 0
    record = daemon.record(storm_id)
    assert (record["outcome"], record["cgroups"]["leftover"]) == ("stopped", 0)
    assert_gone(daemon, storm_id, pid)


def test_it_ends_with_the_daemon(make_daemon: MakeDaemon) -> None:
    daemon, storm_id, pid = reach(make_daemon)
    assert daemon.stop() == 0
    assert not alive(pid)
    assert daemon.cgroups() == []
    daemon.start()
    assert daemon.ask("GET", f"/v1/storms/{storm_id}")[1]["reason"] == "the daemon stops"
