"""Many hosts: pretended daemons, each with a course of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from slabwatch.cli.contexts import Host
from slabwatch.cli.ctl import main
from slabwatch.cli.exit_codes import Exit
from slabwatch.cli.fleet_board import Turn, worth_showing
from slabwatch.control.client import ControlClient
from slabwatch.errors import StormRejected
from tests.unit.cli.conftest import Backstage, Ran, backstage_at
from tests.unit.cli.test_windows import Window
from tests.unit.control.pretended import PretendedStorm, sample, until
from tests.unit.storm_reports.records import scaled_storm

FleetCtl = Callable[..., Ran]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Backstage]]:
    with ExitStack() as stack:
        yield [stack.enter_context(backstage_at(tmp_path / name)) for name in ("a", "b", "c")]


@pytest.fixture
def fleet(hosts: list[Backstage], tmp_path: Path, capsys: pytest.CaptureFixture[str], own_config: Path) -> FleetCtl:
    """``fleet("top")`` asks contexts a, b and c."""
    for host in hosts:
        assert main(["context", "add", host.path.name, host.target]) == 0
    names = [word for host in hosts for word in ("--host", host.path.name)]

    def run(*argv: str) -> Ran:
        code = main([*names, *argv])
        return Ran(code, *capsys.readouterr())

    return run


def rows(ran: Ran) -> list[list[str]]:
    return [line.split() for line in ran.out.splitlines() if not line.startswith("#")]


async def retained(storm: PretendedStorm) -> None:
    await storm.enter("load", 3.0)
    await storm.progress(12.0, tasks_started=200, live_tasks=20)
    await storm.end()


def ending(outcome: str, verdict: str) -> Any:
    async def act(storm: PretendedStorm) -> None:
        await storm.end(outcome, verdict)

    return act


def test_status_of_all(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    ran = fleet("status")
    assert ran.code == 0
    assert [row[:4] for row in rows(ran)] == [
        ["host", "state", "kernel", "allocator"],
        *(["abc"[place], "READY", "5.0.0-27-generic", "SLUB"] for place in range(3)),
    ]
    assert ran.out.splitlines()[-1] == "# 3 of 3 hosts answered."
    lines = fleet("--json", "status").lines
    assert [line["host"] for line in lines] == ["a", "b", "c"]
    assert [line["target"] for line in lines] == [host.target for host in hosts]
    assert all(line["ok"] and line["answer"]["state"] == "READY" for line in lines)


def test_one_that_does_not_answer_costs_its_own_row_only(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    hosts[1].path.unlink()
    ran = fleet("status")
    assert ran.code == 5
    assert [row[:2] for row in rows(ran)[1:]] == [["a", "READY"], ["b", "unreachable"], ["c", "READY"]]
    assert "there is no such socket" in ran.out
    ran = fleet("doctor")
    assert ran.code == 5
    assert {row[0] for row in rows(ran)[1:]} == {"a", "c"}
    assert f"# b: {hosts[1].path}: there is no such socket" in ran.out
    assert ran.out.splitlines()[-1] == "# 2 of 3 hosts answered."
    bad = fleet("--json", "top").lines[1]
    assert (bad["host"], bad["ok"], bad["error"]["code"], bad["error"]["exit"]) == ("b", False, "unreachable", 5)


def test_one_of_another_version(fleet: FleetCtl, monkeypatch: pytest.MonkeyPatch) -> None:
    get = ControlClient.get

    async def other(client: ControlClient, path: str) -> Any:
        return {"state": "READY"} if client.name.endswith("/c") else await get(client, path)

    monkeypatch.setattr(ControlClient, "get", other)
    ran = fleet("status")
    assert ran.code == 5
    assert [row[:2] for row in rows(ran)[1:]] == [["a", "READY"], ["b", "READY"], ["c", "bad_answer"]]
    assert "is its slabwatch of another version?" in ran.out


def test_the_caches_of_all_in_one_order(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    small = {"task_struct": (1, 5, 5888, 5, 8, 1, 1), "filp": (1, 16, 256, 16, 1, 1, 1)}
    hosts[0].daemon.sampler.latest = sample(small)
    ran = fleet("top", "--sort", "size", "--limit", "5")
    assert [row[:2] for row in rows(ran)[1:]] == [
        ["b", "task_struct"], ["c", "task_struct"], ["b", "dentry"], ["c", "dentry"], ["b", "kmalloc-1k"],
    ]  # fmt: skip
    assert "# 5 of 10 rows; --limit 0 shows all." in ran.out
    assert [len(line["answer"]["caches"]) for line in fleet("top", "--json", "--limit", "1").lines] == [1, 1, 1]
    growth = fleet("top", "--sort", "growth")
    assert len(rows(growth)) == 11
    assert [row[0] for row in rows(growth)[-2:]] == ["a", "a"], "what has shrunk, or is as it was, comes last"
    assert {row[-1] for row in rows(fleet("cgroups", "--sort", "dying"))[1:4]} == {"no"}


def test_a_storm_on_each(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    for host in hosts:
        host.play(retained)
    ran = fleet("storm", "--yes", "--cgroups", "5")
    assert ran.code == 0
    assert [row[:4] for row in rows(ran)[1:]] == [[name, "completed", "retained", "5.0.0-27-generic"] for name in "abc"]
    said = ran.err.splitlines()
    assert said[0] == "a: storm storm-1: smoke, 5 cgroups x 10 = 50 tasks of kind fork"
    assert [line for line in said if line.endswith(": completed, retained")] == [
        f"{name}: completed, retained" for name in "abc"
    ]
    assert [line[0] for line in said] == sorted(line[0] for line in said), "one after the other"


def test_a_storm_on_each_as_json(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    for host in hosts:
        host.play(retained)
    lines = fleet("--json", "storm", "--yes", "--parallel", "2").lines
    assert {line["host"] for line in lines} == {"a", "b", "c"}
    for line in lines:
        assert (line["ok"], line["state"], line["exit"], line["verdict"]) == (True, "completed", 0, "retained")
        assert line["record"]["id"] == line["storm_id"] == "storm-1"


@pytest.mark.parametrize(
    ("act", "options", "code", "states"),
    [
        (ending("aborted", "inconclusive"), (), 7, ["completed", "aborted", "not_run"]),
        (ending("failed", "inconclusive"), (), 7, ["completed", "failed", "not_run"]),
        (ending("completed", "released"), ("--expect", "retained"), 8, ["completed", "completed", "not_run"]),
        (ending("completed", "inconclusive"), ("--expect", "retained"), 7, ["completed", "completed", "not_run"]),
        (ending("completed", "inconclusive"), (), 7, ["completed"] * 3),
        (ending("completed", "pinned"), (), 0, ["completed"] * 3),
    ],
)
def test_the_first_that_goes_wrong_is_the_last(
    fleet: FleetCtl, hosts: list[Backstage], act: Any, options: tuple[str, ...], code: int, states: list[str]
) -> None:
    for host, course in zip(hosts, (retained, act, retained), strict=True):
        host.play(course)
    ran = fleet("storm", "--yes", *options)
    assert (ran.code, [row[1] for row in rows(ran)[1:]]) == (code, states)
    assert ("# 1 host of 3 not run." in ran.out) == ("not_run" in states)
    begun = [host.daemon.storms.running is not None for host in hosts]
    assert begun == [state != "not_run" for state in states]


def test_what_is_left_behind_is_a_reason_to_stop(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    async def act(storm: PretendedStorm) -> None:
        await storm.end(cgroups={"requested": 2, "created": 2, "removed": 1, "leftover": 1})

    hosts[0].play(act)
    assert [row[1] for row in rows(fleet("storm", "--yes"))[1:]] == ["completed", "not_run", "not_run"]


def test_a_host_that_refuses(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    hosts[0].play(retained)
    hosts[1].daemon.storms.refusal = StormRejected("lack_of_memory", "not enough memory here")
    ran = fleet("--json", "storm", "--yes")
    assert ran.code == 3
    assert [(line["state"], line["ok"], line["exit"]) for line in ran.lines] == [
        ("completed", True, 0), ("refused", False, 3), ("not_run", False, None),
    ]  # fmt: skip
    assert ran.lines[1]["error"] == {"code": "lack_of_memory", "message": "not enough memory here", "exit": 3}
    assert ran.lines[2]["error"] is None


def test_a_canary_that_is_dead(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    hosts[0].path.unlink()
    ran = fleet("storm", "--yes", "--parallel", "3")
    assert (ran.code, [row[1] for row in rows(ran)[1:]]) == (5, ["unreachable", "not_run", "not_run"])
    assert "there is no such socket" in ran.out


def test_ctrl_c(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    async def act(storm: PretendedStorm) -> None:
        await storm.enter("load", 3.0)
        await hosts[0].follower()
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: storm.stop_reasons)
        await storm.end("stopped", "inconclusive")

    hosts[0].play(act)
    before = signal.getsignal(signal.SIGINT)
    ran = fleet("storm", "--yes")
    assert signal.getsignal(signal.SIGINT) is before
    assert (ran.code, [row[1] for row in rows(ran)[1:]]) == (130, ["stopped", "not_run", "not_run"])
    storm = hosts[0].daemon.storms.running
    assert storm
    assert storm.stop_reasons == ["Ctrl-C"]
    assert "Stopping what runs" in ran.err


def test_ctrl_c_twice_leaves(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    async def act(storm: PretendedStorm) -> None:
        await hosts[0].follower()
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: storm.stop_reasons)
        os.kill(os.getpid(), signal.SIGINT)

    hosts[0].play(act)
    ran = fleet("--json", "storm", "--yes")
    assert ran.code == 130
    assert [line["state"] for line in ran.lines] == ["left", "not_run", "not_run"]
    assert ran.lines[0]["storm_id"] == "storm-1"


def test_a_storm_is_lost_with_its_daemon(fleet: FleetCtl, hosts: list[Backstage], monkeypatch: Any) -> None:
    async def act(storm: PretendedStorm) -> None:
        await hosts[0].follower()
        await hosts[0].streams.close(None)  # type: ignore[arg-type]

    hosts[0].play(act)
    ran = fleet("storm", "--yes")
    assert (ran.code, [row[1] for row in rows(ran)[1:]]) == (5, ["lost", "not_run", "not_run"])
    assert "slabwatchctl report storm-1" in ran.out


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    terminal = io.StringIO(text)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)


@pytest.mark.parametrize("text", ["", "\n", "y\n", "yes\n", "2\n", "33\n"])
def test_the_number_of_hosts_must_be_typed(
    fleet: FleetCtl, hosts: list[Backstage], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    answer(monkeypatch, text)
    ran = fleet("storm")
    assert (ran.code, ran.out) == (1, "")
    assert "smoke, 20 cgroups x 10 = 200 tasks of kind fork, on each of 3 hosts: a alone, then 1 at a time." in ran.err
    assert "Type the number of hosts (3) to go on: " in ran.err
    assert "Nothing was started." in ran.err
    assert not any(host.daemon.storms.running for host in hosts)


def test_it_was_typed(fleet: FleetCtl, hosts: list[Backstage], monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "3\n")
    for host in hosts:
        host.play(retained)
    assert fleet("storm").code == 0


def test_nobody_can_be_asked(fleet: FleetCtl, hosts: list[Backstage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("3\n"))
    ran = fleet("storm")
    assert (ran.code, ran.out) == (1, "")
    assert "--yes says that it is" in ran.err
    assert not any(host.daemon.storms.running for host in hosts)


def test_dry_run(fleet: FleetCtl, hosts: list[Backstage], monkeypatch: pytest.MonkeyPatch) -> None:
    forecast = hosts[1].daemon.storms.forecast

    async def refused(wishes: Mapping[str, Any]) -> dict[str, Any]:
        check = {"name": "pids", "ok": False, "figure": 1, "limit": 0, "text": "too few", "code": "lack_of_pids"}
        return {**await forecast(wishes), "checks": [check], "accepted": False}

    monkeypatch.setattr(hosts[1].daemon.storms, "forecast", refused)
    ran = fleet("storm", "--dry-run")
    assert (ran.code, [row[1] for row in rows(ran)[1:]]) == (3, ["ok", "fail", "ok"])
    assert "pids: too few" in ran.out
    assert not any(host.daemon.storms.running for host in hosts)


def test_stop(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    main(["--host", hosts[1].target, "storm", "--detach"])
    fleet("status")
    ran = fleet("stop")
    assert ran.code == 0
    assert [row[:3] for row in rows(ran)[1:]] == [["a", "-", "none"], ["b", "storm-1", "is"], ["c", "-", "none"]]
    running = hosts[1].daemon.storms.running
    assert running
    assert len(running.stop_reasons) == 1
    assert [line["answer"]["stopping"] for line in fleet("--json", "stop").lines] == [False, True, False]


def test_compare(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    for host, kernel in zip(hosts, ("4.19.40-cgroup-v1", "6.1.176-cgroup-v2", "4.19.40-cgroup-v1"), strict=True):
        host.daemon.storms.ended["s1"] = {**scaled_storm(kernel, 20), "id": "s1"}
    ran = fleet("compare")
    assert ran.code == 0
    assert [row[:2] for row in rows(ran)[2:]] == [["4.19.40", "2"], ["6.1.176", "1"]]
    (plan,) = fleet("--json", "compare").json["plans"]
    assert [release["hosts"] for release in plan["releases"]] == [["a", "c"], ["b"]]
    assert fleet("compare", "--preset", "full").code == 0
    ran = fleet("compare", "--preset", "seed")
    assert ran.code == 2
    assert "# a: no storm of preset seed has ended there yet" in ran.out
    # One with a record that is none costs its own row.
    hosts[2].daemon.storms.ended["s1"] = {**scaled_storm("4.19.40-cgroup-v1"), "id": "s1", "host": {}}
    ran = fleet("--json", "compare")
    assert ran.code == 5
    assert [entry["host"] for entry in ran.json["failed"]] == ["c"]
    assert "another version" in ran.json["failed"][0]["error"]["message"]


def test_in_a_window(hosts: list[Backstage], own_config: Path) -> None:
    async def act(storm: PretendedStorm) -> None:
        await storm.enter("load", 3.0)
        await storm.progress(12.0, tasks_started=50, live_tasks=20)
        await until(lambda: storm.stop_reasons)
        await storm.end("stopped", "inconclusive")

    for host in hosts[:2]:
        main(["context", "add", f"host-{host.path.name}", host.target])
    hosts[0].play(retained)
    hosts[1].play(act)
    window = Window("", "--host", "host-a", "--host", "host-b", "storm")
    try:
        window.until("Type the number of hosts (2) to go on:")
        window.type("2\n")
        window.until("20 live")
        table = window.text[window.text.index("figures") :]
        assert "host-a  retained" in table
        assert "host-b  running   load 9.0 s      25  20 live" in table
        window.type("\x03")
        assert window.code() == 130
        assert "Stopping what runs" in window.text
        last = window.text[window.text.rindex("remark") :]
        assert "stopped" in last
    finally:
        window.close()


def test_a_window_that_is_too_low() -> None:
    turns = [Turn(Host(str(number), "", {})) for number in range(10)]
    for number, code in ((0, Exit.DONE), (1, Exit.DONE), (2, Exit.UNTRUSTED)):
        turns[number].state, turns[number].exit = "completed", code
    turns[3].state = "running"

    def shown(room: int) -> list[str]:
        return [turn.host.name for turn in worth_showing(turns, room)]

    assert shown(1) == ["3"]
    assert shown(2) == ["2", "3"]
    assert shown(4) == ["2", "3", "4", "5"]
    assert shown(9) == ["1", *map(str, range(2, 10))]
    assert shown(99) == list(map(str, range(10)))


def test_json_of_a_failed_look_is_whole(fleet: FleetCtl, hosts: list[Backstage]) -> None:
    hosts[0].path.unlink()
    first = fleet("--json", "storms").lines[0]
    assert json.dumps(first)
    assert first.keys() == {"host", "target", "ok", "error"}
