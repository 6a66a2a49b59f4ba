"""slabwatchctl over a real ssh: every verb, what a lease is worth, and what is said when it does not work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.daemon import BIN, Daemon
from tests.e2e.sshd import Sshd, User, ctl, environment, sshd
from tests.live.kernel import children, command_line, wait_until

__all__ = ["sshd"]
pytestmark = [pytest.mark.e2e, pytest.mark.system]

MakeDaemon = Callable[..., Daemon]
QUICK = ("--hold", "0", "--settle", "0")


@pytest.fixture
def shared(make_daemon: MakeDaemon, sshd: Sshd) -> Daemon:
    """A daemon whose socket is the member's group's, and of which the member is an operator."""
    control = {"group": str(sshd.member.gid), "operators": [sshd.member.name]}
    return make_daemon(control=control).start()


class Over:
    """slabwatchctl over ssh to one daemon."""

    def __init__(self, sshd: Sshd, daemon: Daemon) -> None:
        self.sshd, self.daemon = sshd, daemon
        self.env = environment(sshd)

    def __call__(self, *arguments: str, user: User | None = None) -> subprocess.CompletedProcess[str]:
        return ctl("--host", self.sshd.target(user, self.daemon.socket), *arguments, env=self.env)

    @contextmanager
    def beside(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """In a process group of its own, as a shell with job control starts it."""
        command = [str(BIN / "slabwatchctl"), "--json", "--host", self.sshd.target(path=self.daemon.socket), *arguments]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(self.env),
            process_group=0,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def running(self, phase: str = "") -> str:
        def found() -> str:
            storm = self.daemon.ask("GET", "/v1/status")[1]["storm"]["running"]
            return str(storm["id"]) if storm and phase in ("", storm["phase"]) else ""

        wait_until(found, 20, f"a storm in phase {phase or 'any'}")
        return found()


@pytest.fixture
def over(sshd: Sshd, shared: Daemon) -> Over:
    return Over(sshd, shared)


def test_every_verb(over: Over) -> None:
    daemon, member = over.daemon, over.sshd.member
    status = json.loads(over("--json", "status").stdout)
    assert (status["you"]["uid"], status["you"]["role"]) == (member.uid, "operator")
    assert status["pid"] == daemon.pid
    for verb in ("status", "top", "cgroups", "doctor", "storms"):
        done = over(verb)
        assert (done.returncode, done.stderr) == (0, ""), (verb, done)
        assert done.stdout
    assert over("shrink", "task_struct").returncode == 0
    done = over("--json", "storm", "--cgroups", "3", "--tasks", "2", *QUICK)
    assert done.returncode in (0, 7), done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["outcome"] == "completed"
    assert record["requested_by"] == member.name
    assert json.loads(over("--json", "report").stdout) == record
    detached = over("storm", "--cgroups", "2", "--tasks", "2", "--hold", "60", "--detach")
    assert detached.returncode == 0, detached.stderr
    storm_id = detached.stdout.strip()
    assert over("storm", "--cgroups", "2", "--tasks", "2").returncode == 2, "one runs"
    assert "is stopping" in over("stop").stdout
    assert over("follow", storm_id).returncode == 7
    assert over("compare", "last-1", "last").returncode == 0
    audits = [event for event in daemon.events("audit") if event["command"] == "storm"]
    assert {(event["user"], event["uid"]) for event in audits} == {(member.name, member.uid)}


def test_top_goes_on_over_one_connection(over: Over) -> None:
    with over.beside("top", "--watch", "--limit", "1") as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline())["taken_at"] for _ in range(3)]
        assert len(set(seen)) == 3
        ssh = [pid for pid in children(process.pid) if command_line(pid).startswith("ssh ")]
        assert len(ssh) == 1
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0


def test_ctrl_c_reaches_ssh_too_and_the_storm_is_stopped(over: Over) -> None:
    with over.beside("storm", "--cgroups", "2", "--tasks", "2", "--hold", "60") as process:
        storm_id = over.running("hold")
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 7, err
    record = json.loads(out.splitlines()[-1])
    assert (record["id"], record["outcome"], record["reason"]) == (storm_id, "stopped", "Ctrl-C")


@pytest.mark.parametrize("victim", ["slabwatchctl", "ssh", "bridge"])
def test_the_storm_ends_with_whoever_holds_its_lease(over: Over, victim: str) -> None:
    with over.beside("storm", "--cgroups", "2", "--tasks", "2", "--hold", "60") as process:
        storm_id = over.running("hold")
        (ssh,) = (pid for pid in children(process.pid) if command_line(pid).startswith("ssh "))
        (bridge,) = over.sshd.bridges()
        os.kill({"slabwatchctl": process.pid, "ssh": ssh, "bridge": bridge}[victim], signal.SIGKILL)
        assert over.daemon.record(storm_id)["outcome"] == "stopped"
        _, err = process.communicate(timeout=30)
        if victim != "slabwatchctl":
            assert process.returncode == 5, err
            assert over.sshd.target() in err
    wait_until(lambda: not over.sshd.bridges(), 5, "the bridge ends")


def test_a_user_outside_of_the_group_may_not(over: Over) -> None:
    done = over("status", user=over.sshd.stranger)
    assert (done.returncode, done.stdout) == (6, "")
    assert f"{over.daemon.socket}: you may not open the control socket" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_viewer_may_look_and_nothing_else(make_daemon: MakeDaemon, sshd: Sshd) -> None:
    over = Over(sshd, make_daemon(control={"group": str(sshd.member.gid)}).start())
    assert over("status").returncode == 0
    done = over("storm", "--yes")
    assert done.returncode == 6
    assert "control.operators" in done.stderr
    (refused,) = [event for event in over.daemon.events("audit") if not event["allowed"]]
    assert (refused["uid"], refused["outcome"]) == (sshd.member.uid, "not_allowed")


def test_a_key_that_opens_the_bridge_alone(over: Over) -> None:
    sshd = over.sshd
    sshd.authorize(sshd.member, f'restrict,command="slabwatchctl stdio-bridge --host unix://{over.daemon.socket}"')
    try:
        done = ctl("--host", sshd.target(), "--json", "status", env=over.env)
        assert json.loads(done.stdout)["you"]["role"] == "operator", done.stderr
        other = ctl("--host", sshd.target(), "--ssh-command", "touch /tmp/x", "--json", "status", env=over.env)
        assert json.loads(other.stdout)["pid"] == over.daemon.pid, "whatever is asked for, the bridge is what comes"
    finally:
        sshd.authorize(sshd.member)


def test_a_network_that_goes_silent(over: Over) -> None:
    quick = f"{over.sshd.options()} -o ServerAliveInterval=1 -o ServerAliveCountMax=1"
    over.env = {**over.env, "SLABWATCH_SSH": quick}
    with over.beside("top", "--watch") as process:
        assert process.stdout is not None
        process.stdout.readline()
        # Of each session's two halves, the one that talks to the network.
        sessions = [pid for monitor in over.sshd.sessions() for pid in children(monitor)]
        assert sessions
        for pid in sessions:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert process.wait(20) == 5
        finally:
            for pid in sessions:
                os.kill(pid, signal.SIGCONT)
        assert process.stderr is not None
        assert "not responding" in process.stderr.read()


def test_the_daemon_goes_away(over: Over) -> None:
    with over.beside("storm", "--cgroups", "2", "--tasks", "2", "--hold", "60") as process:
        over.running("hold")
        over.daemon.stop()
        _, err = process.communicate(timeout=30)
    assert process.returncode in (5, 7), err
    done = over("status")
    assert done.returncode == 5
    assert f"{over.daemon.socket}: there is no such socket" in done.stderr


def test_what_ssh_says_is_told(sshd: Sshd) -> None:
    def told(target: str, **env: str) -> str:
        done = ctl("--host", target, "status", env=environment(sshd, **env))
        assert (done.returncode, done.stdout) == (5, ""), done
        assert done.stderr.startswith(f"slabwatchctl: {target}: ")
        assert "Traceback" not in done.stderr
        return done.stderr

    nobody = "ssh://x@127.0.0.1:1"
    assert "Connection refused" in told(nobody)
    assert "Permission denied" in told(sshd.target().replace(sshd.member.name, "nobody"))
    unknown = sshd.options(UserKnownHostsFile="/dev/null")
    assert "Host key verification failed" in told(sshd.target(), SLABWATCH_SSH=unknown)
    assert "there is no such socket" in told(sshd.target(path="/nowhere/s.sock"))


def test_no_slabwatch_there(sshd: Sshd) -> None:
    done = ctl("--host", sshd.target(), "--ssh-command", "/nowhere/slabwatchctl x", "status", env=environment(sshd))
    assert done.returncode == 5
    assert "Is slabwatch installed there?" in done.stderr
    assert "--ssh-command" in done.stderr


def test_a_context_knows_the_way(over: Over, tmp_path: object) -> None:
    env = {**environment(), "XDG_CONFIG_HOME": str(tmp_path)}
    way = ("--ssh-options", over.sshd.options(), "--ssh-command", f"{over.sshd.programs}/slabwatchctl stdio-bridge")
    added = ctl(*way, "context", "add", "lab", over.sshd.target(path=over.daemon.socket), env=env)
    assert added.returncode == 0, added.stderr
    assert json.loads(ctl("--host", "lab", "--json", "status", env=env).stdout)["pid"] == over.daemon.pid
    assert ctl("context", "use", "lab", env=env).returncode == 0
    assert json.loads(ctl("--json", "status", env=env).stdout)["pid"] == over.daemon.pid
    assert ctl("status", env={**env, "SLABWATCH_HOST": "unix:///nowhere"}).returncode == 5
