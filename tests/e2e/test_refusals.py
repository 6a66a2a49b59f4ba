"""Storms and shrinks that are refused: each with its reason and its exit code, and nothing created."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.hosts import HOSTS
from tests.live.kernel import cgroups_below, wait_until
from tests.requirements import need

pytestmark = pytest.mark.e2e

MakeDaemon = Callable[..., Daemon]


def assert_nothing_was_started(daemon: Daemon) -> None:
    assert daemon.events("storm_started") == []
    assert daemon.ask("GET", "/v1/storms")[1] == {"storms": []}
    if daemon.parent is not None:
        assert cgroups_below(daemon.parent) == []


def test_a_second_storm_is_refused_and_the_first_one_named(daemon: Daemon) -> None:
    storm_id = daemon.begin_storm(cgroups=2, tasks=2)
    done = daemon.ctl("storm", "--cgroups", "2", "--tasks", "2")
    assert done.returncode == 2
    assert storm_id in done.stderr
    status, problem = daemon.ask("POST", "/v1/storms", {})
    assert (status, problem["code"], problem["storm_id"]) == (409, "storm_running", storm_id)
    # Nor is a shrink allowed to spoil its figures.
    shrunk = daemon.ctl("shrink", "task_struct")
    assert shrunk.returncode == 2
    assert storm_id in shrunk.stderr
    assert len(daemon.events("storm_started")) == 1
    daemon.ask("POST", f"/v1/storms/{storm_id}/stop", {})
    assert daemon.record(storm_id)["outcome"] == "stopped"


def test_a_storm_waits_for_nobody_in_silence(daemon: Daemon, make_daemon: MakeDaemon) -> None:
    """A daemon that finds another one's storm gives its engine time to end, and says so to who wants to begin one."""
    assert daemon.parent is not None
    storm_id = daemon.begin_storm(cgroups=3, tasks=3, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    second = make_daemon(storms=False, storm={"enabled": True, "parent": f"/{daemon.parent.name}"}).start()
    done = second.ctl("storm", "--cgroups", "2", "--tasks", "2", seconds=10)
    assert done.returncode == 2
    root = str(daemon.root(storm_id))
    assert f"first sees to what is there of earlier storms ({root}" in done.stderr
    assert "try again in 20 s at most" in done.stderr
    status, problem = second.ask("POST", "/v1/storms", {})
    assert (status, problem["code"], problem["retry_seconds"]) == (409, "recovering", 20.0)
    assert root in second.ask("GET", "/v1/status")[1]["storm"]["recovering"]
    assert "no storm can begin yet" in second.ctl("status").stdout
    assert root in second.events("storm_leftovers_found")[0]["paths"]
    # Once that storm has ended, one can begin.
    daemon.ask("POST", f"/v1/storms/{storm_id}/stop", {})
    wait_until(lambda: not second.ask("GET", "/v1/status")[1]["storm"]["recovering"], 10, "it is done")
    second_id = second.begin_storm(cgroups=2, tasks=2, hold_seconds=0, settle_seconds=0)
    assert second.record(second_id)["outcome"] == "completed"


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (("--cgroups", "2001", "--tasks", "1"), "2001 cgroups: the configuration allows 2000 (storm.max_cgroups)"),
        (("--cgroups", "1000", "--tasks", "251"), "(storm.max_tasks)"),
        (("--live", "20001"), "(storm.max_live_tasks)"),
        (("--ttl", "3601"), "(storm.max_ttl_seconds)"),
        (("--hold", "3", "--settle", "3", "--ttl", "9"), "could never finish"),
    ],
)
def test_a_storm_beyond_the_caps_is_refused(shared_daemon: Daemon, wishes: tuple[str, ...], said: str) -> None:
    done = shared_daemon.ctl("storm", *wishes)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    assert shared_daemon.ctl("storm", "--dry-run", *wishes).returncode == 2
    assert_nothing_was_started(shared_daemon)


def test_a_dry_run_only_says_what_it_would_do(shared_daemon: Daemon) -> None:
    done = shared_daemon.ctl("--json", "storm", "--dry-run", "--cgroups", "7", "--tasks", "3")
    assert done.returncode == 0, done.stderr
    forecast = json.loads(done.stdout)
    assert (forecast["plan"]["cgroups"], forecast["plan"]["total_tasks"]) == (7, 21)
    assert {check["ok"] for check in forecast["checks"]} == {True}
    assert {"privileges", "memory", "pid_max", "cgroup ids", "shrink"} <= {
        check["name"] for check in forecast["checks"]
    }
    assert "7 cgroups" in shared_daemon.ctl("storm", "--dry-run", "--cgroups", "7").stdout
    assert_nothing_was_started(shared_daemon)


def test_more_tasks_at_one_time_than_there_are_pids(make_daemon: MakeDaemon) -> None:
    pid_max = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))
    need(pid_max <= 100_000, "a pid_max that does not need more memory than there is")
    daemon = make_daemon(
        storm={"max_live_tasks": 4_000_000, "max_tasks": 10_000_000, "min_available_ratio": 0.01}
    ).start()
    wishes = ("--kind", "light", "--cgroups", "100", "--tasks", str(pid_max // 100), "--live", str(pid_max))
    for dry in ((), ("--dry-run",)):
        done = daemon.ctl("storm", *wishes, *dry)
        assert done.returncode == 3, done.stderr
        assert f"kernel.pid_max {pid_max}" in done.stderr + done.stdout
    status, problem = daemon.ask("POST", "/v1/storms", {"kind": "light", "tasks": pid_max, "live_tasks": pid_max})
    assert (status, problem["code"]) == (507, "lack_of_pids")
    assert problem["figure"] > problem["limit"]
    assert_nothing_was_started(daemon)


def test_more_memory_than_there_is(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(storm={"min_available_ratio": 0.95}).start()
    done = daemon.ctl("storm", "--kind", "exec", "--cgroups", "200", "--tasks", "100")
    assert done.returncode == 3, done.stderr
    assert "storm.min_available_ratio" in done.stderr
    assert_nothing_was_started(daemon)


def test_storms_are_off_unless_the_configuration_says_otherwise(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(storms=False, shrink={"enabled": False}).start()
    for arguments, key in ((("storm",), "storm.enabled"), (("shrink",), "shrink.enabled")):
        done = daemon.ctl(*arguments)
        assert done.returncode == 2
        assert f"{key} = true" in done.stderr
    assert daemon.ctl("storm", "--dry-run").returncode == 2
    assert_nothing_was_started(daemon)


def test_a_storm_without_shrink_where_shrinking_is_off(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(shrink={"enabled": False}).start()
    done = daemon.ctl("storm", "--shrink")
    assert done.returncode == 2
    assert "shrink.enabled" in done.stderr
    forecast = json.loads(daemon.ctl("--json", "storm", "--dry-run").stdout)
    assert (forecast["accepted"], forecast["plan"]["shrink"]) == (True, False)


def test_a_parent_that_does_not_exist(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(storms=False, storm={"enabled": True, "parent": "/slabwatch-storm-MISSING"}).start()
    done = daemon.ctl("storm")
    assert done.returncode == 2
    assert "slabwatch-storm-MISSING does not exist" in done.stderr
    assert [event["level"] for event in daemon.events("storm_recovery_impossible")] == ["info"]


def test_caches_are_shrunk(shared_daemon: Daemon) -> None:
    done = shared_daemon.ctl("--json", "shrink", "task_struct", "dentry")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {row["cache"] for row in answer["caches"]} == {"task_struct", "dentry"}
    for row in answer["caches"]:
        assert row["error"] == ""
        assert row["released_bytes"] == row["before_bytes"] - row["after_bytes"]
    everything = json.loads(shared_daemon.ctl("--json", "shrink").stdout)
    real = [path for path in Path("/sys/kernel/slab").iterdir() if not path.is_symlink()]
    assert len(everything["caches"]) == pytest.approx(len(real), abs=3)
    assert [row for row in everything["caches"] if row["error"]] == []
    assert "task_struct" in shared_daemon.ctl("shrink", "task_struct").stdout


def test_an_unknown_cache_is_not_shrunk(shared_daemon: Daemon) -> None:
    done = shared_daemon.ctl("shrink", "task_struct", "no_such_cache")
    assert done.returncode == 2
    assert "no_such_cache" in done.stderr
    done = shared_daemon.ctl("shrink", "../../kernel/slab/task_struct")
    assert done.returncode == 2


def test_nobody_listens(tmp_path: Path, shared_daemon: Daemon) -> None:
    done = shared_daemon.ctl("--host", f"unix://{tmp_path}/none.sock", "status")
    assert done.returncode == 5
    assert str(tmp_path) in done.stdout, "one of two hosts, and it is named"


@pytest.mark.parametrize("host", [HOSTS[0], HOSTS[-1]])
def test_a_recorded_host_is_served_and_not_stormed(
    make_daemon: MakeDaemon, hosts: Callable[[str, str], Path], host: str
) -> None:
    root = hosts(host, "after")
    daemon = make_daemon(storms=False, storm={"enabled": True})
    daemon.arguments = ("--root", str(root))
    daemon.start()
    wait_until(lambda: daemon.get("/-/ready")[0] == 200, 10, "/-/ready")
    for line in (root / "proc/slabinfo").read_text(encoding="ascii").splitlines():
        name, active, *_ = line.split()
        if name in ("task_struct", "dentry"):
            assert daemon.metric(f'slabwatch_slab_active_objects{{cache="{name}"}}') == int(active)
    kernel = daemon.ask("GET", "/v1/status")[1]["kernel"]
    assert kernel["allocator"] == "slub"
    # Of the recorded ones, those with v1 have v2 beside it.
    assert kernel["cgroup_mode"] == ("v2" if host.endswith("v2") else "hybrid")
    for arguments in (("storm",), ("storm", "--dry-run")):
        done = daemon.ctl(*arguments)
        assert done.returncode == 4, done.stderr
        assert "recorded host" in done.stderr + done.stdout
    assert_nothing_was_started(daemon)
    assert daemon.stop() == 0
