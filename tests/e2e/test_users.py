"""Who may do what: a daemon of an ordinary user, and ordinary users at root's daemon."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import BIN, Daemon
from tests.live.kernel import wait_until
from tests.requirements import need

pytestmark = [pytest.mark.e2e, pytest.mark.system]

USER, OTHER_USER, GROUP = 65_501, 65_502, 65_510
MakeDaemon = Callable[..., Daemon]


def run_as(user: int, group: int) -> tuple[str, ...]:
    return ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--")


@pytest.fixture(autouse=True)
def setpriv() -> None:
    need(shutil.which("setpriv") is not None, "setpriv (util-linux)")
    probe = os.system(f"{' '.join(run_as(USER, USER))} {BIN}/slabwatch --version > /dev/null 2>&1")
    need(probe == 0, f"a virtual environment that every user can read ({BIN})")


@pytest.fixture
def user_daemon(make_daemon: MakeDaemon) -> Iterator[Daemon]:
    """The daemon of a user with a home, as `slabwatch` starts in that user's session."""
    daemon = make_daemon(
        storms=False, poll={"interval_seconds": 0.5}, storm={"enabled": True}, shrink={"enabled": True}
    )
    home = daemon.directory / "home"
    for path in (home, home / "run"):
        path.mkdir(mode=0o700)
        os.chown(path, USER, USER)
    daemon.prefix = run_as(USER, USER)
    daemon.environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}
    daemon.socket = home / "run" / "slabwatch" / "slabwatch.sock"
    # Socket and state where they are by default for this user.
    daemon.write_config({"control": {"socket": ""}, "state": {"directory": ""}, **daemon.sections})
    daemon.start()
    yield daemon
    assert daemon.stop() == 0


def test_an_ordinary_user_s_daemon_serves_what_it_may_read(user_daemon: Daemon) -> None:
    daemon = user_daemon
    wait_until(lambda: (daemon.metric("slabwatch_polls_total") or 0) >= 4, 10, "some polls")
    assert daemon.metric('slabwatch_collector_success{collector="slabinfo"}') == 0
    assert daemon.metric('slabwatch_collector_success{collector="meminfo"}') == 1
    assert daemon.metric('slabwatch_collector_success{collector="process"}') == 1
    assert daemon.metric("slabwatch_meminfo_sunreclaim_bytes")
    page = daemon.get("/metrics")[2]
    # A failed collector's series are gone; they are not 0.
    assert b"slabwatch_slab_objects{" not in page
    assert b"slabwatch_slab_unattributed_bytes" not in page
    # It is said once, however often it is polled.
    (said,) = [event for event in daemon.events("collector_failed") if event["collector"] == "slabinfo"]
    assert said["error"] == "/proc/slabinfo: permission denied"
    assert "CAP_DAC_READ_SEARCH" in said["remedy"]
    assert daemon.get("/-/healthy")[0] == daemon.get("/-/ready")[0] == 200
    assert [event for event in daemon.events() if event["level"] == "error"] == []


def test_an_ordinary_user_s_daemon_says_what_it_can_not_do(user_daemon: Daemon) -> None:
    daemon = user_daemon
    me = run_as(USER, USER)
    done = daemon.ctl("storm", prefix=me)
    assert done.returncode == 6, done.stderr
    assert "no right to make cgroups" in done.stderr
    assert daemon.ask("POST", "/v1/storms", {})[1]["code"] == "not_permitted"
    assert daemon.ctl("storm", "--dry-run", prefix=me).returncode == 6
    shrunk = daemon.ctl("shrink", prefix=me)
    assert shrunk.returncode == 6
    assert "CAP_DAC_OVERRIDE" in shrunk.stderr
    top = daemon.ctl("top", prefix=me)
    assert top.returncode != 0
    assert "/proc/slabinfo: permission denied" in top.stderr
    findings = json.loads(daemon.ctl("--json", "doctor", prefix=me).stdout)["findings"]
    slabinfo = next(finding for finding in findings if finding["name"] == "slabinfo")
    assert slabinfo["state"] == "fail"
    assert "CAP_DAC_READ_SEARCH" in slabinfo["remedy"]
    status = json.loads(daemon.ctl("--json", "status", prefix=me).stdout)
    assert (status["you"]["uid"], status["you"]["role"]) == (USER, "operator")


def test_another_user_can_not_open_that_daemon_s_socket(user_daemon: Daemon) -> None:
    done = user_daemon.ctl("status", prefix=run_as(OTHER_USER, OTHER_USER))
    assert done.returncode == 6
    assert str(user_daemon.socket) in done.stderr


def test_a_viewer_may_look_and_nothing_else(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(control={"group": str(GROUP)}).start()
    wait_until(lambda: daemon.get("/-/ready")[0] == 200, 10, "/-/ready")
    viewer = run_as(OTHER_USER, GROUP)
    for verb in ("status", "top", "cgroups", "doctor", "storms"):
        done = daemon.ctl("--json", verb, prefix=viewer)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
    status = json.loads(daemon.ctl("--json", "status", prefix=viewer).stdout)
    assert (status["you"]["uid"], status["you"]["role"]) == (OTHER_USER, "viewer")
    for arguments in (("storm", "--yes"), ("storm", "--dry-run"), ("shrink",)):
        done = daemon.ctl(*arguments, prefix=viewer)
        assert done.returncode == 6, (arguments, done.stderr)
        assert "control.operators" in done.stderr
    storm_id = daemon.begin_storm(cgroups=2, tasks=2, hold_seconds=60)
    for arguments in (("stop",), ("stop", storm_id)):
        assert daemon.ctl(*arguments, prefix=viewer).returncode == 6
    assert daemon.ask("GET", "/v1/status")[1]["storm"]["running"]["id"] == storm_id
    daemon.ask("POST", f"/v1/storms/{storm_id}/stop", {})
    daemon.record(storm_id)
    refused = [event for event in daemon.events("audit") if not event["allowed"]]
    assert {(event["uid"], event["outcome"]) for event in refused} == {(OTHER_USER, "not_allowed")}
    assert len(refused) == 5
    assert len(daemon.events("storm_started")) == 1


def test_an_operator_is_named_in_the_configuration(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(control={"group": str(GROUP), "operators": [str(OTHER_USER)]}).start()
    operator, viewer = run_as(OTHER_USER, GROUP), run_as(USER, GROUP)
    assert daemon.ctl("storm", "--dry-run", prefix=operator).returncode == 0
    assert daemon.ctl("shrink", "task_struct", prefix=operator).returncode == 0
    assert daemon.ctl("shrink", "task_struct", prefix=viewer).returncode == 6
    stranger = daemon.ctl("status", prefix=run_as(USER, USER))
    assert stranger.returncode == 6
    assert "you may not open the control socket" in stranger.stderr


def test_the_state_is_closed_to_others(daemon: Daemon) -> None:
    storm_id = daemon.begin_storm(cgroups=2, tasks=2, settle_seconds=0, hold_seconds=0)
    daemon.ask("POST", f"/v1/storms/{storm_id}/stop", {})
    daemon.record(storm_id)
    path = Path(daemon.state / "storms" / f"{storm_id}.json")
    assert path.exists()
    probe = os.system(f"{' '.join(run_as(USER, GROUP))} cat {path} > /dev/null 2>&1")
    assert probe != 0
