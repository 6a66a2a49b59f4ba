"""Starting, reloading and stopping, by the signals that a service manager and a terminal send."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.live.kernel import alive, cgroups_below, marked, wait_until

pytestmark = pytest.mark.e2e

RELOADED = "slabwatch_config_last_reload_successful"
MakeDaemon = Callable[..., Daemon]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean(make_daemon: MakeDaemon, number: signal.Signals) -> None:
    daemon = make_daemon(storms=False).start()
    assert daemon.socket.exists()
    started = time.monotonic()
    daemon.signal(number)
    assert daemon.wait(10) == 0
    assert time.monotonic() - started < 3
    assert not daemon.socket.exists()
    assert [event["event"] for event in daemon.events()][-2:] == ["stopping", "stopped"]
    assert not [event for event in daemon.events() if event["level"] in ("warning", "error")]


def test_a_stop_ends_the_storm_and_writes_its_record(daemon: Daemon) -> None:
    storm_id = daemon.begin_storm(cgroups=10, tasks=10, hold_seconds=60)
    with daemon.followed(storm_id) as follower:
        daemon.wait_for_phase(storm_id, "hold")
        assert len(marked(storm_id)) > 100
        started = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - started < 5
        # Nothing was left to be done after the end: all is gone already.
        assert marked(storm_id) == []
        assert daemon.parent is not None
        assert cgroups_below(daemon.parent) == []
        (ended,) = daemon.events("storm_ended")
        assert (ended["outcome"], ended["reason"]) == ("stopped", "the daemon stops")
        # Who followed it has been told.
        assert follower[-1]["event"] == "end"
        assert follower[-1]["record"]["outcome"] == "stopped"
    # And a new daemon knows it.
    daemon.start()
    status, record = daemon.ask("GET", f"/v1/storms/{storm_id}")
    assert (status, record["outcome"], record["reason"]) == (200, "stopped", "the daemon stops")
    assert record["verdict"]["class"] == "inconclusive"
    assert record["cgroups"]["leftover"] == 0
    assert daemon.events("storm_leftovers_removed") == []


def test_a_second_signal_means_now(daemon: Daemon) -> None:
    """Even if the engine hangs: it is not waited for, and cleans up when it comes to itself."""
    storm_id = daemon.begin_storm(cgroups=10, tasks=10, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    engine = daemon.engine()
    os.kill(engine, signal.SIGSTOP)
    try:
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: daemon.events("stopping"), 5, "the first signal is heard")
        with pytest.raises(AssertionError):
            wait_until(
                lambda: daemon.process is None or daemon.process.poll() is not None, 0.5, "it waits for the engine"
            )
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(5) == 0
        given_up = [(event["stage"], event["why"]) for event in daemon.events("stop_stage_given_up")]
        assert given_up[0] == ("storm", "told to stop now")
    finally:
        with suppress(ProcessLookupError):
            os.kill(engine, signal.SIGCONT)
    daemon.assert_nothing_left()


def test_two_signals_at_one_time_leave_nothing(daemon: Daemon) -> None:
    storm_id = daemon.begin_storm(cgroups=10, tasks=10, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGINT)
    assert daemon.wait(5) == 0
    daemon.assert_nothing_left()


def test_it_stops_at_once_while_it_waits_for_another_daemon_s_storm(daemon: Daemon, make_daemon: MakeDaemon) -> None:
    assert daemon.parent is not None
    storm_id = daemon.begin_storm(cgroups=3, tasks=3, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    other = make_daemon(storms=False, storm={"enabled": True, "parent": f"/{daemon.parent.name}"}).start()
    wait_until(lambda: other.get("/-/ready")[0] == 200, 5, "a sample")
    started = time.monotonic()
    assert other.stop() == 0
    assert time.monotonic() - started < 5
    # The storm, which is not its own, goes on.
    assert daemon.ask("GET", "/v1/status")[1]["storm"]["running"]["id"] == storm_id
    assert len(marked(storm_id)) >= 10


def test_a_good_configuration_is_taken_on_sighup(daemon: Daemon) -> None:
    assert daemon.metric(RELOADED) == 1
    daemon.write_config({"poll": {"interval_seconds": 0.7}, "storm": {"enabled": False}})
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.events("reloaded"), 5, "reloaded")
    assert daemon.metric("slabwatch_poll_interval_seconds") == 0.7
    assert daemon.metric(RELOADED) == 1
    status = daemon.ask("GET", "/v1/status")[1]
    assert (status["state"], status["storm"]["enabled"], status["poll"]["interval_seconds"]) == ("READY", False, 0.7)
    before = status["poll"]["polls"]
    wait_until(lambda: daemon.ask("GET", "/v1/status")[1]["poll"]["polls"] > before + 1, 5, "polls at the new interval")


def test_reloads_leave_no_descriptor_open(daemon: Daemon) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    wait_until(lambda: daemon.get("/-/ready")[0] == 200, 5, "/-/ready")
    before = descriptors()
    for number in range(1, 6):
        daemon.signal(signal.SIGHUP)
        wait_until(lambda n=number: len(daemon.events("reloaded")) == n, 5, "reloaded")  # type: ignore[misc]
    polls = daemon.metric("slabwatch_polls_total") or 0
    wait_until(lambda: (daemon.metric("slabwatch_polls_total") or 0) > polls, 5, "one more poll")
    # Others' cgroups come and go; five times all the files would be many.
    assert descriptors() <= before + 14


def test_a_bad_configuration_is_not_taken_on_sighup(daemon: Daemon) -> None:
    good = daemon.config.read_text(encoding="utf-8")

    def refused(bad: str | None, times: int) -> None:
        if bad is None:
            daemon.config.unlink()
        else:
            daemon.config.write_text(bad, encoding="utf-8")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: len(daemon.events("reload_failed")) == times, 5, "reload_failed")
        assert daemon.metric(RELOADED) == 0
        assert str(daemon.config) in daemon.events("reload_failed")[-1]["error"]

    refused(good.replace("interval_seconds", "intervall_seconds"), 1)
    refused(good + "\n[[", 2)
    refused(good.replace("2.0", '"2"'), 3)
    refused(None, 4)
    # All is as it was.
    status = daemon.ask("GET", "/v1/status")[1]
    assert (status["state"], status["storm"]["enabled"], status["poll"]["interval_seconds"]) == ("READY", True, 2.0)
    assert daemon.ask("POST", "/v1/reload", {})[0] == 422
    daemon.config.write_text(good, encoding="utf-8")
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.metric(RELOADED) == 1, 5, f"{RELOADED} 1")
    assert daemon.ask("POST", "/v1/reload", {})[0] == 200


def test_what_a_reload_can_not_change_is_said_as_long_as_it_is_so(daemon: Daemon) -> None:
    elsewhere = daemon.directory / "elsewhere"
    daemon.write_config(
        {"control": {"socket": str(elsewhere / "s"), "group": "root"}, "state": {"directory": str(elsewhere)}}
    )
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.events("reloaded"), 5, "reloaded")
    (said,) = daemon.events("reload_needs_restart")
    assert said["keys"] == ["control.socket", "control.group", "state.directory"]
    assert daemon.ask("POST", "/v1/reload", {}) == (200, {"reloaded": True, "needs_restart": said["keys"]})
    status = daemon.ask("GET", "/v1/status")[1]
    assert status["socket"] == str(daemon.socket)
    assert not elsewhere.exists()


def test_a_reload_while_it_stops_does_not_make_it_ready_again(daemon: Daemon) -> None:
    storm_id = daemon.begin_storm(cgroups=10, tasks=10, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    engine = daemon.engine()
    os.kill(engine, signal.SIGSTOP)
    try:
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: daemon.events("stopping"), 5, "stopping")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.events("reloaded"), 5, "reloaded")
        assert daemon.ask("GET", "/v1/status")[1]["state"] == "STOPPING"
        assert daemon.get("/-/ready")[0] == 503
        status, problem = daemon.ask("POST", "/v1/storms", {})
        assert (status, problem["code"]) in ((409, "stopping"), (409, "storm_running"))
    finally:
        os.kill(engine, signal.SIGCONT)
    assert daemon.wait(10) == 0
    assert not alive(engine)


def test_an_unknown_key_is_named_and_nothing_is_started(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(storms=False, poll={"intervall_seconds": 3})
    assert daemon.spawn().wait(10) == 1
    said = daemon.log.read_text(encoding="utf-8")
    assert f"{daemon.config}: poll.intervall_seconds: unknown key" in said
    assert "interval_seconds" in said
    assert "Traceback" not in said
    assert not daemon.socket.exists()
    assert not daemon.state.exists()
    assert daemon.banner.read_text(encoding="utf-8") == ""


def test_a_port_in_use_is_named(make_daemon: MakeDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = make_daemon(storms=False, metrics={"listen": address})
        assert daemon.spawn().wait(10) == 1
    said = daemon.log.read_text(encoding="utf-8")
    assert f"metrics.listen: can not listen on {address}" in said
    assert "Traceback" not in said
    assert not daemon.socket.exists()


def test_two_daemons_can_not_have_one_socket(make_daemon: MakeDaemon) -> None:
    first = make_daemon(storms=False).start()
    second = make_daemon(storms=False, control={"socket": str(first.socket)})
    assert second.spawn().wait(10) == 1
    assert f"another daemon listens at {first.socket}" in second.log.read_text(encoding="utf-8")
    assert first.ask("GET", "/v1/status")[1]["pid"] == first.pid
    # A killed one's socket is no obstacle.
    first.signal(signal.SIGKILL)
    first.wait()
    assert first.socket.exists()
    second.start()
    second.socket = first.socket
    assert second.ask("GET", "/v1/status")[1]["pid"] == second.pid


def test_what_is_no_socket_is_not_taken_away(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(storms=False)
    daemon.socket.parent.mkdir(mode=0o750)
    daemon.socket.write_text("precious", encoding="utf-8")
    assert daemon.spawn().wait(10) == 1
    assert daemon.socket.read_text(encoding="utf-8") == "precious"
    assert "is not a socket" in daemon.log.read_text(encoding="utf-8")


def test_a_state_directory_that_can_not_be_made_is_no_reason_not_to_watch(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(storms=False)
    Path(daemon.state).write_text("a file", encoding="utf-8")
    daemon.start()
    wait_until(lambda: daemon.get("/-/ready")[0] == 200, 5, "/-/ready")
    assert daemon.ask("GET", "/v1/storms")[1] == {"storms": []}
    assert daemon.stop() == 0
