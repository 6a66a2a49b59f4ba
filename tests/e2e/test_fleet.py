"""Three daemons as three hosts: looking, storms one after the other, a host that refuses, a dead one, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.daemon import BIN, Daemon
from tests.e2e.sshd import Sshd, ctl, environment, sshd
from tests.live.kernel import wait_until

__all__ = ["sshd"]
pytestmark = [pytest.mark.e2e, pytest.mark.system]

MakeDaemon = Callable[..., Daemon]
SMALL = ("storm", "--yes", "--cgroups", "3", "--tasks", "2", "--hold", "0", "--settle", "0", "--no-shrink")
DEAD = "ssh://x@127.0.0.1:1"


def unix(daemon: Daemon) -> str:
    return f"unix://{daemon.socket}"


class Fleet:
    """Some hosts under one slabwatchctl."""

    def __init__(self, hosts: Sequence[str], sshd: Sshd) -> None:
        self.hosts = hosts
        self.env = environment(sshd)
        self.where = [word for host in hosts for word in ("--host", host)]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return ctl(*self.where, *arguments, env=self.env, seconds=100)

    def lines(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and NDJSON."""
        done = self("--json", *arguments)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    @contextmanager
    def beside(self, directory: Path, *arguments: str) -> Iterator[Beside]:
        """Into files: records are larger than a pipe, and nobody reads while it runs."""
        command = [str(BIN / "slabwatchctl"), "--json", *self.where, *arguments]
        with open(directory / "out", "w+") as out, open(directory / "err", "w+") as err:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=dict(self.env), process_group=0
            )
            try:
                yield Beside(process, directory / "out", directory / "err")
            finally:
                process.kill()
                process.wait()


class Beside(NamedTuple):
    """A slabwatchctl that runs beside the test."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def said(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def interrupt(self) -> dict[str, str]:
        """Ctrl-C to the whole process group, as a terminal sends it; then the state of each host."""
        os.killpg(self.process.pid, signal.SIGINT)
        assert self.process.wait(40) == 130, self.said()
        turns = map(json.loads, self.out.read_text(encoding="utf-8").splitlines())
        return {turn["host"]: turn["state"] for turn in turns}


def running(daemon: Daemon) -> bool:
    storm = daemon.ask("GET", "/v1/status")[1]["storm"]["running"]
    return bool(storm and storm["phase"] == "hold")


@pytest.fixture
def three(make_daemon: MakeDaemon, sshd: Sshd) -> list[Daemon]:
    """The third is for ssh."""
    member = {"group": str(sshd.member.gid), "operators": [sshd.member.name]}
    daemons = [make_daemon(), make_daemon(), make_daemon(control=member)]
    for daemon in daemons:
        daemon.start()
    return daemons


@pytest.fixture
def fleet(three: list[Daemon], sshd: Sshd) -> Fleet:
    return Fleet([unix(three[0]), unix(three[1]), sshd.target(path=three[2].socket)], sshd)


def test_a_look_at_all_of_them(fleet: Fleet, sshd: Sshd, three: list[Daemon], tmp_path: Path) -> None:
    code, answers = fleet.lines("status")
    assert (code, [answer["host"] for answer in answers]) == (0, list(fleet.hosts))
    assert [answer["answer"]["pid"] for answer in answers] == [daemon.pid for daemon in three]
    assert all(answer["ok"] for answer in answers)
    rows = [line.split() for line in fleet("top", "--sort", "size", "--limit", "6").stdout.splitlines()]
    assert rows[0][:2] == ["host", "cache"]
    sizes = [float(row[2]) for row in rows[1:7]]
    assert sizes == sorted(sizes, reverse=True)
    assert {row[0] for row in rows[1:7]} == set(fleet.hosts), "the same kernel thrice: each has its largest in it"
    for verb in ("cgroups", "doctor", "storms"):
        done = fleet(verb)
        assert done.returncode == 0, done.stderr
        assert "# 3 of 3 hosts answered." in done.stdout

    # The same by a file, with one that is dead.
    file = tmp_path / "hosts"
    file.write_text("# a fleet\n\n" + "".join(f"{host}  # one\n" for host in (*fleet.hosts, DEAD)), encoding="utf-8")
    done = ctl("--hosts-file", str(file), "--json", "status", env=fleet.env)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 5
    assert [answer["ok"] for answer in answers] == [True, True, True, False]
    assert answers[3]["error"]["code"] == "unreachable"
    assert "Connection refused" in answers[3]["error"]["message"]
    assert "unreachable" in ctl("--hosts-file", str(file), "status", env=fleet.env).stdout


def test_a_storm_on_each(fleet: Fleet, three: list[Daemon]) -> None:
    done = fleet("--json", *SMALL)
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode in (0, 7), done.stderr
    assert [turn["host"] for turn in turns] == list(fleet.hosts)
    assert {turn["state"] for turn in turns} == {"completed"}
    assert {turn["record"]["tasks"]["started"] for turn in turns} == {6}
    ids = [daemon.storm_ids() for daemon in three]
    assert ids == [[turn["storm_id"]] for turn in turns]
    # One after the other.
    begins = [turn["record"]["started_at"] for turn in turns]
    ends = [turn["record"]["started_at"] + turn["record"]["seconds"] for turn in turns]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))

    code, (comparison,) = fleet.lines("compare")
    assert code == 0
    (plan,) = comparison["plans"]
    (release,) = plan["releases"]
    assert release["release"] == os.uname().release
    assert release["hosts"] == list(fleet.hosts)
    assert sum(release["verdicts"].values()) == 3
    assert fleet("compare", "--preset", "full").returncode == 2
    page = fleet("compare").stdout
    assert "3 cgroups x 2 of kind fork" in page
    assert os.uname().release in page

    # Other plans stand apart.
    assert three[0].ctl("storm", "--cgroups", "2", "--tasks", "2", "--hold", "0", "--settle", "0").returncode in (0, 7)
    code, (comparison,) = fleet.lines("compare")
    assert [sum(len(release["hosts"]) for release in plan["releases"]) for plan in comparison["plans"]] == [2, 1]


def test_nobody_can_be_asked(fleet: Fleet, three: list[Daemon]) -> None:
    done = fleet(*(word for word in SMALL if word != "--yes"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "--yes" in done.stderr
    assert not any(daemon.storm_ids() for daemon in three)
    code, answers = fleet.lines("storm", "--dry-run")
    assert (code, len(answers)) == (0, 3)
    assert not any(daemon.storm_ids() for daemon in three)


def test_the_first_that_goes_wrong_is_the_last(make_daemon: MakeDaemon, sshd: Sshd) -> None:
    good, refusing, last = make_daemon().start(), make_daemon(storms=False).start(), make_daemon().start()
    fleet = Fleet([unix(good), unix(refusing), unix(last)], sshd)
    done = fleet(*SMALL)
    assert done.returncode in (2, 7)
    assert [line.split()[1] for line in done.stdout.splitlines()[1:4]] == ["completed", "refused", "not_run"]
    assert "storm.enabled" in done.stdout
    assert "# 1 host of 3 not run." in done.stdout
    assert (len(good.storm_ids()), len(last.storm_ids())) == (1, 0)

    code, turns = Fleet([DEAD, unix(last)], sshd).lines(*SMALL, "--parallel", "2")
    assert code == 5
    assert [(turn["state"], turn["exit"]) for turn in turns] == [("unreachable", 5), ("not_run", None)]
    assert "Connection refused" in turns[0]["error"]["message"]

    code, turns = Fleet([unix(good), unix(last)], sshd).lines(*SMALL, "--expect", "pinned")
    assert code in (7, 8)
    assert [turn["state"] for turn in turns] == ["completed", "not_run"]
    assert last.storm_ids() == []


def test_ctrl_c_stops_the_canary_and_begins_no_more(fleet: Fleet, three: list[Daemon], tmp_path: Path) -> None:
    with fleet.beside(tmp_path, *SMALL, "--hold", "60") as beside:
        wait_until(lambda: running(three[0]), 20, "the canary holds")
        states = beside.interrupt()
    assert [states[host] for host in fleet.hosts] == ["stopped", "not_run", "not_run"]
    assert [len(daemon.storm_ids()) for daemon in three] == [1, 0, 0]
    record = json.loads(next((three[0].state / "storms").glob("*.json")).read_text(encoding="utf-8"))
    assert (record["outcome"], record["reason"]) == ("stopped", "Ctrl-C")


def test_ctrl_c_stops_all_that_run(fleet: Fleet, three: list[Daemon], tmp_path: Path) -> None:
    with fleet.beside(tmp_path, *SMALL, "--hold", "5", "--parallel", "9") as beside:
        others, process = three[1:], beside.process
        wait_until(lambda: process.poll() is not None or all(map(running, others)), 60, "the others hold")
        assert process.poll() is None, beside.said()
        states = beside.interrupt()
    assert [states[host] for host in fleet.hosts] == ["completed", "stopped", "stopped"]


def test_stop_goes_to_all(fleet: Fleet, three: list[Daemon]) -> None:
    ids = [daemon.begin_storm(cgroups=2, tasks=2, hold_seconds=60) for daemon in three[1:]]
    code, answers = fleet.lines("stop")
    assert code == 0
    assert [answer["answer"]["id"] for answer in answers] == [None, *ids]
    for daemon, storm_id in zip(three[1:], ids, strict=True):
        assert daemon.record(storm_id)["outcome"] == "stopped"


@contextmanager
def prometheus(targets: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Answers as Prometheus' API does; the real one is asked in the tests of discovery."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"status": "success", "data": {"activeTargets": targets}}).encode()
            self.send_response(200 if self.path.startswith("/api/v1/targets") else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_hosts_from_prometheus(fleet: Fleet, sshd: Sshd, three: list[Daemon]) -> None:
    def target(job: str, url: str, instance: str) -> dict[str, Any]:
        return {"labels": {"job": job, "instance": instance}, "scrapeUrl": url, "health": "up"}

    targets = [target("slabwatch", "http://127.0.0.1:9934/metrics", "lab"), target("node", "http://10.0.0.1:1/m", "x")]
    template = f"ssh://{sshd.member.name}@{{host}}:{sshd.port}{three[2].socket}"
    with prometheus(targets) as url:
        done = ctl("--prometheus", url, "--target-template", template, "--json", "status", env=fleet.env)
        (answer,) = map(json.loads, done.stdout.splitlines())
        assert (done.returncode, answer["answer"]["pid"]) == (0, three[2].pid)
        assert answer["host"] == template.format(host="127.0.0.1")
        done = ctl("--prometheus", url, "--prometheus-job", "nothing", "status", env=fleet.env)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no active target" in done.stderr
