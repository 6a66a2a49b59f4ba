"""Storms from the client's side: start, follow, stop, Ctrl-C, verdict and exit code."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from typing import Any

import pytest

from slabwatch.errors import StormRejected
from tests.unit.cli.conftest import Backstage, Ctl
from tests.unit.control.pretended import PretendedStorm, plan, record, until


async def _course(storm: PretendedStorm) -> None:
    await storm.enter("baseline", 0.0)
    await storm.progress(1.0, cgroups=0)
    await storm.enter("load", 3.0)
    await storm.progress(12.0, tasks_started=150, live_tasks=150, sunreclaim_bytes=400 * 2**20)
    await storm.events.add({"event": "warning", "text": "other load on this host"})
    await storm.enter("settle", 14.0)


async def _completed(storm: PretendedStorm) -> None:
    await _course(storm)
    await storm.end()


def _ending(outcome: str, verdict: str) -> Any:
    async def act(storm: PretendedStorm) -> None:
        await storm.end(outcome, verdict)

    return act


def test_a_storm_is_followed_to_its_verdict(ctl: Ctl, backstage: Backstage) -> None:
    backstage.play(_completed)
    ran = ctl("storm")
    assert ran.code == 0
    started, *progress = ran.err.splitlines()
    assert started == "Storm storm-1: smoke, 20 cgroups x 10 = 200 tasks of kind fork. Ctrl-C stops it."
    assert progress == [
        "baseline        3.0 s   SUnreclaim 300.0 MiB (+0.0)",
        "load       ...   150 / 200 tasks   150 live   SUnreclaim 400.0 MiB (+100.0)   task_struct 735",
        "warning: other load on this host",
        "load           11.0 s   150 tasks   SUnreclaim 400.0 MiB (+100.0)",
        "settle            0 s   SUnreclaim 400.0 MiB (+100.0)",
    ]
    assert "Verdict: retained" in ran.out
    assert "the allocator only held on to it" in ran.out
    assert "given back by shrink  476.8 MiB" in ran.out
    assert "slabwatchctl report storm-1" in ran.out
    assert backstage.daemon.storms.keys[0], "an idempotency key was sent"


def test_as_json_the_record_is_the_last_line(ctl: Ctl, backstage: Backstage) -> None:
    backstage.play(_completed)
    ran = ctl("--json", "storm", "--preset", "smoke")
    assert ran.code == 0
    *events, last = ran.lines
    assert [event["event"] for event in events] == [
        "phase", "progress", "phase", "progress", "warning", "phase", "end",
    ]  # fmt: skip
    assert "record" not in events[-1]
    assert last == record("storm-1", plan(on_disconnect="stop"))


def test_wishes_are_passed_on(ctl: Ctl, backstage: Backstage) -> None:
    backstage.play(_completed)
    argv = "--preset seed --cgroups 7 --tasks 3 --kind light --concurrency 2 --hold 1.5 --settle 4 --no-shrink --ttl 99"
    argv += " --pressure"
    ctl("storm", "--yes", *argv.split())
    running = backstage.daemon.storms.running
    assert running
    assert running.plan == plan(
        preset="seed", cgroups=7, tasks=3, kind="light", concurrency=2, hold_seconds=1.5, settle_seconds=4.0,
        shrink=False, ttl_seconds=99.0, on_disconnect="stop", pressure=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "verdict", "expect", "code"),
    [
        ("completed", "retained", None, 0),
        ("completed", "released", None, 0),
        ("completed", "released", "released", 0),
        ("completed", "retained", "released", 8),
        ("completed", "inconclusive", None, 7),
        ("completed", "inconclusive", "released", 7),
        ("completed", "inconclusive", "inconclusive", 0),
        ("stopped", "inconclusive", None, 7),
        ("aborted", "released", "released", 7),
        ("failed", "inconclusive", "inconclusive", 7),
    ],
)
def test_exit_codes_of_the_end(
    ctl: Ctl, backstage: Backstage, outcome: str, verdict: str, expect: str | None, code: int
) -> None:
    backstage.play(_ending(outcome, verdict))
    ran = ctl("storm", *(["--expect", expect] if expect else []))
    assert ran.code == code
    assert ("Expected" in ran.err) == (code == 8)


@pytest.mark.parametrize("expect", [None, "retained"])
def test_a_storm_that_leaves_something_behind_is_no_plain_success(
    ctl: Ctl, backstage: Backstage, expect: str | None
) -> None:
    left = {"/sys/fs/cgroup/s/c0001": "holds processes that are not the storm's: 4711"}

    async def act(storm: PretendedStorm) -> None:
        counts = {"requested": 20, "created": 20, "removed": 19, "leftover": 1, "left": left}
        await storm.end("completed", "retained", cgroups=counts)

    backstage.play(act)
    ran = ctl("storm", *(["--expect", expect] if expect else []))
    assert ran.code == 7
    assert "Storm storm-1 completed" in ran.out
    assert "/sys/fs/cgroup/s/c0001: holds processes that are not the storm's: 4711" in ran.out
    assert ran.err.endswith("The storm has left 1 cgroup behind: /sys/fs/cgroup/s/c0001.\n")


def test_a_storm_that_failed_before_any_verdict(ctl: Ctl, backstage: Backstage) -> None:
    async def act(storm: PretendedStorm) -> None:
        await storm.end("failed", verdict=None, reason="the worker could not be started", phases=[], caches=[])  # type: ignore[arg-type]

    backstage.play(act)
    ran = ctl("storm")
    assert ran.code == 7
    assert "Storm storm-1 failed" in ran.out
    assert "Reason: the worker could not be started" in ran.out


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ("storm_disabled", 2),
        ("storm_running", 2),
        ("recovering", 2),
        ("stopping", 2),
        ("bad_plan", 2),
        ("over_cap", 2),
        ("lack_of_memory", 3),
        ("lack_of_program", 3),
        ("kernel_can_not", 4),
        ("not_permitted", 6),
    ],
)
@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--detach",), ("--json",)])
def test_exit_codes_of_refusals(
    ctl: Ctl, backstage: Backstage, refusal: str, code: int, options: tuple[str, ...]
) -> None:
    backstage.daemon.storms.refusal = StormRejected(refusal, "the reason, and what to do")
    ran = ctl("storm", *options)
    assert (ran.code, ran.out, ran.err) == (code, "", "slabwatchctl: the reason, and what to do\n")


def test_detach_prints_the_id(ctl: Ctl, backstage: Backstage) -> None:
    ran = ctl("storm", "--detach")
    assert (ran.code, ran.out) == (0, "storm-1\n")
    running = backstage.daemon.storms.running
    assert running
    assert running.plan.on_disconnect == "continue"
    assert ctl("storm", "--detach", "--json").json["id"] == "storm-1"


def test_dry_run(ctl: Ctl, backstage: Backstage, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = ctl("storm", "--preset", "full", "--dry-run")
    assert ran.code == 0
    assert "full, 1,000 cgroups x 100 = 100,000 tasks of kind fork" in ran.out
    assert "1,024 MiB are needed" in ran.out
    assert "This storm may run." in ran.out
    assert backstage.daemon.storms.running is None

    async def forecast(wishes: Any) -> Any:
        check = {"name": "pids", "ok": False, "figure": 1, "limit": 0, "text": "too few", "code": "lack_of_pids"}
        return {"plan": plan().as_dict(), "checks": [check], "accepted": False}

    monkeypatch.setattr(backstage.daemon.storms, "forecast", forecast)
    ran = ctl("storm", "--dry-run")
    assert ran.code == 3
    assert "This storm may not run." in ran.out


@pytest.mark.parametrize(
    ("answer", "argv", "started"),
    [
        ("n\n", ["--preset", "full"], False),
        ("", ["--preset", "full"], False),
        ("y\n", ["--preset", "full"], True),
        ("n\n", ["--preset", "full", "--yes"], True),
        ("n\n", ["--cgroups", "100", "--tasks", "10"], True),
        ("n\n", ["--cgroups", "1001", "--tasks", "1"], False),
    ],
)
def test_a_large_storm_is_asked_about(
    ctl: Ctl, backstage: Backstage, monkeypatch: pytest.MonkeyPatch, answer: str, argv: list[str], started: bool
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    backstage.play(_completed)
    ran = ctl("storm", *argv)
    assert ran.code == (0 if started else 1)
    assert (backstage.daemon.storms.running is not None) == started
    assert started or "Nothing was started." in ran.err


def _sigint() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _running(backstage: Backstage) -> PretendedStorm:
    storm = backstage.daemon.storms.running
    assert storm
    return storm


def test_ctrl_c_stops_and_follows_to_the_end(ctl: Ctl, backstage: Backstage) -> None:
    async def act(storm: PretendedStorm) -> None:
        await _course(storm)
        await backstage.follower()
        _sigint()
        await until(lambda: storm.stop_reasons)
        await storm.end("stopped", "inconclusive")

    backstage.play(act)
    ran = ctl("storm")
    assert ran.code == 7
    assert "Stopping, and cleaning up." in ran.err
    assert "Storm storm-1 stopped" in ran.out
    assert _running(backstage).stop_reasons == ["Ctrl-C"]


def test_ctrl_c_while_the_storm_is_being_started(
    ctl: Ctl, backstage: Backstage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storms = backstage.daemon.storms
    start = storms.start

    async def interrupted_start(wishes: Any, **more: Any) -> tuple[PretendedStorm, bool]:
        _sigint()
        return await start(wishes, **more)

    async def act(storm: PretendedStorm) -> None:
        await until(lambda: storm.stop_reasons)
        await storm.end("stopped", "inconclusive")

    monkeypatch.setattr(storms, "start", interrupted_start)
    backstage.play(act)
    ran = ctl("storm")
    assert ran.code == 7
    assert _running(backstage).stop_reasons == ["Ctrl-C"]


def test_ctrl_c_twice_leaves(ctl: Ctl, backstage: Backstage) -> None:
    async def act(storm: PretendedStorm) -> None:
        await _course(storm)
        await backstage.follower()
        _sigint()
        await until(lambda: storm.stop_reasons)
        _sigint()

    backstage.play(act)
    ran = ctl("storm")
    assert ran.code == 130
    assert not ran.out
    assert "is being stopped" in ran.err


def test_ctrl_c_when_the_stop_is_refused(ctl: Ctl, backstage: Backstage, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = asyncio.Event()

    def request_stop(storm_id: str, reason: str) -> None:
        refused.set()
        raise StormRejected("stopping", "the daemon is stopping already")

    async def act(storm: PretendedStorm) -> None:
        await backstage.follower()
        _sigint()
        await refused.wait()
        # Its answer is on the way to the client, which follows on all the same.
        await asyncio.sleep(0.2)
        await storm.end()

    monkeypatch.setattr(backstage.daemon.storms, "request_stop", request_stop)
    backstage.play(act)
    ran = ctl("storm")
    assert ran.code == 0
    assert "It could not be stopped: the daemon is stopping already" in ran.err


def test_a_defect_leaves_no_record(ctl: Ctl, backstage: Backstage) -> None:
    async def act(storm: PretendedStorm) -> None:
        storm.outcome = "failed"
        await storm.events.add({"event": "end", "outcome": "failed", "reason": "see the log", "record": None})

    backstage.play(act)
    ran = ctl("storm")
    assert (ran.code, ran.out) == (7, "")
    assert "storm storm-1 failed, and left no record: see the log" in ran.err


def test_follow_leaves_the_storm_alone(ctl: Ctl, backstage: Backstage) -> None:
    ctl("storm", "--detach")
    storm = _running(backstage)

    async def act() -> None:
        await _course(storm)
        await backstage.follower()
        _sigint()

    backstage.start(act())
    ran = ctl("follow")
    assert ran.code == 130
    assert "goes on without this terminal" in ran.err
    assert not storm.stop_reasons
    backstage.start(storm.end())
    ran = ctl("follow", "storm-1")
    assert ran.code == 0
    assert "Verdict: retained" in ran.out


def test_the_daemon_goes_away(ctl: Ctl, backstage: Backstage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        async def follow(self, start: int = 0) -> Any:
            yield {"event": "phase", "t": 0.0, "phase": "baseline"}

    async def start(wishes: Any, **kwargs: Any) -> tuple[PretendedStorm, bool]:
        return PretendedStorm("storm-1", plan(), events=Broken()), False  # type: ignore[arg-type]

    storms = backstage.daemon.storms
    monkeypatch.setattr(storms, "start", start)
    monkeypatch.setattr(storms, "find", lambda storm_id: PretendedStorm(storm_id, plan(), events=Broken()))  # type: ignore[arg-type]
    ran = ctl("storm")
    assert ran.code == 5
    assert "slabwatchctl report storm-1" in ran.err


def test_follow_when_nothing_runs(ctl: Ctl) -> None:
    ran = ctl("follow")
    assert (ran.code, ran.out) == (2, "")
    assert "no storm is running" in ran.err


def test_stop(ctl: Ctl, backstage: Backstage) -> None:
    assert (ctl("stop").code, ctl("stop").out) == (0, "no storm is running\n")
    assert ctl("stop", "--json").json == {"id": None, "stopping": False}
    ctl("storm", "--detach")
    ran = ctl("stop")
    assert (ran.code, ran.out.split()[:3]) == (0, ["storm-1", "is", "stopping;"])
    running = backstage.daemon.storms.running
    assert running
    assert len(running.stop_reasons) == 1
    running.outcome = "stopped"
    assert ctl("stop", "storm-1").out == "storm-1 has already ended: stopped\n"
    assert ctl("stop", "other").code == 2


def test_storms(ctl: Ctl, backstage: Backstage) -> None:
    assert "No storm yet" in ctl("storms").out
    backstage.daemon.storms.ended["old"] = record("old", plan(preset="full"))
    header, row = ctl("storms").out.splitlines()
    assert header.split() == ["id", "outcome", "verdict", "preset", "cgroups", "tasks", "started", "took", "by"]
    assert row.split()[:6] == ["old", "completed", "retained", "full", "1000", "100"]
    assert ctl("storms", "--json").json["storms"][0]["id"] == "old"


@pytest.mark.usefixtures("reports")
def test_report(ctl: Ctl, backstage: Backstage) -> None:
    ran = ctl("report")
    assert (ran.code, ran.out) == (2, "")
    assert "no storm has ended yet" in ran.err
    old = backstage.daemon.storms.ended["old"] = record("old", plan())
    ctl("storm", "--detach")
    assert ctl("report").out == "text of old\n"
    assert ctl("report", "old", "--format", "csv").out == "csv of old\n"
    assert ctl("report", "--format", "json").json == old
    assert ctl("report", "--json").json == old
    assert ctl("report", "--json", "--format", "text").out == "text of old\n"
    ran = ctl("report", "storm-1")
    assert ran.code == 2
    assert "has not ended yet" in ran.err
    assert ctl("report", "other").code == 2
