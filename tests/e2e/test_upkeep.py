"""The maintenance switch, the audit log and the rights of real daemons."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.test_users import GROUP, OTHER_USER, USER, run_as
from tests.live.kernel import wait_until
from tests.requirements import need

pytestmark = [pytest.mark.e2e, pytest.mark.system]

MakeDaemon = Callable[..., Daemon]
LOCKED = "slabwatch_storm_locked"
LOST = "slabwatch_audit_lines_lost_total"


def test_a_lock_ends_the_storm_and_outlives_the_daemon(daemon: Daemon) -> None:
    storm_id = daemon.begin_storm(cgroups=3, tasks=3, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    assert daemon.metric(LOCKED) == 0
    done = daemon.ctl("lock", "--reason", "new kernel", "--stop")
    assert done.returncode == 0, done.stderr
    assert f"{storm_id} is stopping" in done.stdout
    record = daemon.record(storm_id)
    assert (record["outcome"], record["reason"]) == ("stopped", "root locked storms: new kernel")
    for _ in range(2):
        assert daemon.metric(LOCKED) == 1
        assert "new kernel" in daemon.ctl("status").stdout
        for arguments in (("storm", "--yes"), ("shrink",), ("storm", "--dry-run")):
            refused = daemon.ctl(*arguments)
            assert refused.returncode == 2, (arguments, refused.stderr)
            assert "new kernel" in refused.stderr + refused.stdout
        daemon.stop()
        daemon.start()
    (said,) = daemon.events("locked")
    assert said["reason"] == "new kernel"
    done = daemon.ctl("unlock")
    assert done.returncode == 0
    assert "they were locked since" in done.stdout
    assert daemon.metric(LOCKED) == 0
    assert daemon.ctl("storm", "--dry-run").returncode == 0
    assert daemon.events("storm_started") == []


def test_a_lock_without_stop_lets_the_storm_end_as_planned(daemon: Daemon) -> None:
    storm_id = daemon.begin_storm(cgroups=2, tasks=2, hold_seconds=2, settle_seconds=0)
    daemon.wait_for_phase(storm_id, "hold")
    assert daemon.ctl("lock", "--reason", "after this one").returncode == 0
    assert daemon.record(storm_id)["outcome"] == "completed"
    assert daemon.ask("POST", "/v1/storms", {})[1]["code"] == "locked"


@pytest.mark.parametrize("content", [b"", b"\xff", b'{"reason": 1}'])
def test_a_broken_lock_file_is_a_lock(make_daemon: MakeDaemon, content: bytes) -> None:
    daemon = make_daemon()
    daemon.state.mkdir()
    (daemon.state / "lock.json").write_bytes(content)
    daemon.start()
    done = daemon.ctl("storm", "--yes")
    assert done.returncode == 2
    assert "lock.json can not be understood" in done.stderr
    assert daemon.ctl("unlock").returncode == 0
    assert daemon.ctl("storm", "--dry-run").returncode == 0


def test_commands_and_refusals_are_kept_over_a_restart(daemon: Daemon) -> None:
    storm_id = daemon.begin_storm(cgroups=2, tasks=2, hold_seconds=30)
    assert daemon.ask("POST", "/v1/storms", {})[0] == 409
    assert daemon.ask("POST", f"/v1/storms/{storm_id}/stop", {"reason": "enough"})[0] == 202
    daemon.record(storm_id)
    daemon.stop()
    daemon.start()
    entries = json.loads(daemon.ctl("--json", "audit", "--limit", "3").stdout)["entries"]
    assert [(entry["command"], entry["outcome"], entry.get("storm_id")) for entry in entries] == [
        ("stop", "done", storm_id),
        ("storm", "storm_running", None),
        ("storm", "done", storm_id),
    ]
    assert {(entry["user"], entry["uid"], entry["door"], entry["allowed"]) for entry in entries} == {
        ("root", 0, "unix", True)
    }
    assert storm_id in daemon.ctl("audit").stdout


def test_an_audit_file_that_can_not_be_written_stops_nobody(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(poll={"interval_seconds": 0.5})
    (daemon.state / "audit.jsonl").mkdir(parents=True)
    daemon.start()
    assert daemon.ask("POST", "/v1/reload", {})[0] == 200
    wait_until(lambda: daemon.metric(LOST) == 1, 5, f"{LOST} 1")
    (lost,) = daemon.events("audit_lines_lost")
    assert "Is a directory" in lost["error"]
    assert [event["command"] for event in daemon.events("audit")] == ["reload"]
    assert daemon.stop() == 0


def test_a_full_disk(make_daemon: MakeDaemon) -> None:
    need(shutil.which("unshare") is not None, "unshare (util-linux)")
    daemon = make_daemon(poll={"interval_seconds": 0.5})
    daemon.state.mkdir()
    # A small disk that only the daemon sees, and that is full but for a few pages.
    script = 'mount -t tmpfs -o size=32k slabwatch-test "$0" && head -c 20480 /dev/zero > "$0/filler" && exec "$@"'
    daemon.prefix = ("unshare", "--mount", "sh", "-c", script, str(daemon.state))
    daemon.start()
    seen = Path(f"/proc/{daemon.pid}/root{daemon.state}")
    for number in range(60):
        assert daemon.ask("POST", "/v1/lock", {"reason": f"{number:0500}"})[0] in (200, 500)
    wait_until(lambda: (daemon.metric(LOST) or 0) > 0, 10, f"{LOST} > 0")
    assert daemon.get("/-/healthy")[0] == 200
    # All that were lost are counted: the metric is of the last poll.
    polls = daemon.metric("slabwatch_polls_total") or 0
    wait_until(lambda: (daemon.metric("slabwatch_polls_total") or 0) >= polls + 2, 10, "two polls")
    lost = daemon.metric(LOST)
    (seen / "filler").unlink()
    assert daemon.ask("POST", "/v1/unlock", {})[0] == 200
    newest = json.loads(daemon.ctl("--json", "audit", "--limit", "1").stdout)["entries"]
    wait_until(
        lambda: json.loads(daemon.ctl("--json", "audit", "--limit", "1").stdout)["entries"][0]["command"] == "unlock",
        10,
        f"the log goes on, {newest}",
    )
    assert daemon.metric(LOST) == lost
    assert daemon.stop() == 0


def test_rights_by_group(make_daemon: MakeDaemon) -> None:
    need(shutil.which("setpriv") is not None, "setpriv (util-linux)")
    oncall = GROUP + 1
    daemon = make_daemon(
        control={"group": str(GROUP), "operators": [str(OTHER_USER)]},
        rights={"storm": [f"group:{oncall}"], "lock": [f"user:{USER}", "user:root"]},
    ).start()
    member = ("setpriv", f"--reuid={USER}", f"--regid={GROUP}", f"--groups={oncall}", "--")
    you = json.loads(daemon.ctl("--json", "status", prefix=member).stdout)["you"]
    assert (you["role"], you["may"]) == ("viewer", ["look", "storm", "lock"])
    assert daemon.ctl("storm", "--dry-run", prefix=member).returncode == 0
    shrunk = daemon.ctl("shrink", prefix=member)
    assert shrunk.returncode == 6
    assert "control.operators" in shrunk.stderr
    operator = run_as(OTHER_USER, GROUP)
    stormed = daemon.ctl("storm", "--yes", prefix=operator)
    assert stormed.returncode == 6
    assert "rights.storm" in stormed.stderr
    assert daemon.ctl("shrink", "task_struct", prefix=operator).returncode == 0
    assert daemon.ctl("lock", "--reason", "x", prefix=operator).returncode == 6
    assert daemon.ctl("lock", "--reason", "x", prefix=member).returncode == 0
    assert daemon.ctl("unlock", prefix=member).returncode == 0
    # Who starts a storm may stop it.
    begun = daemon.ctl("storm", "--yes", "--detach", "--cgroups", "2", "--tasks", "2", "--hold", "60", prefix=member)
    storm_id = begun.stdout.strip()
    assert daemon.ctl("stop", storm_id, prefix=member).returncode == 0
    assert daemon.record(storm_id)["outcome"] == "stopped"


def test_a_configuration_that_others_can_change_is_warned_of(make_daemon: MakeDaemon) -> None:
    need(os.geteuid() == 0, "root")
    daemon = make_daemon(storms=False)
    os.chmod(daemon.config, 0o666)
    daemon.start()
    (warned,) = daemon.events("config_not_safe")
    assert warned["finding"] == f"{daemon.config} can be written by everybody (mode 0666)"
    assert "config file" in daemon.ctl("doctor").stdout
    os.chmod(daemon.config, 0o644)
    assert "config file" not in daemon.ctl("doctor").stdout
