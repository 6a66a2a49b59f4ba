"""Targets of ssh, the command that comes of them, and what becomes of connections through a program."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.control import ssh
from slabwatch.control.client import ControlClient
from slabwatch.control.ssh import OPTIONS, SshTarget, ssh_command
from slabwatch.errors import ControlError
from tests.live.kernel import status
from tests.unit.control.conftest import Door
from tests.unit.control.pretended import PretendedStorm, plan, until


@pytest.mark.parametrize(
    ("target", "parsed"),
    [
        ("ssh://host", SshTarget("host")),
        ("ssh://host/", SshTarget("host")),
        ("ssh://me@db-1.example.org:2222", SshTarget("db-1.example.org", "me", 2222)),
        ("ssh://me@corp@host", SshTarget("host", "me@corp")),
        ("ssh://[::1]", SshTarget("::1")),
        ("ssh://me@[fe80::1%eth0]:22/run/s.sock", SshTarget("fe80::1%eth0", "me", 22, "/run/s.sock")),
        ("ssh://10.0.0.1/run/slabwatch/slabwatch.sock", SshTarget("10.0.0.1", socket="/run/slabwatch/slabwatch.sock")),
    ],
)
def test_targets(target: str, parsed: SshTarget) -> None:
    assert SshTarget.parse(target) == parsed


@pytest.mark.parametrize(
    "target",
    [
        "ssh://", "ssh:///path", "ssh://-oProxyCommand=id", "ssh://me@-host", "ssh://-lroot@host", "ssh://@host",
        "ssh://host:0", "ssh://host:65536", "ssh://host:", "ssh://host:22x", "ssh://ho st", "ssh://host;id",
        "ssh://$(id)@host", "ssh://me`id`@host", "ssh://host/run/a b", "ssh://host/$(id)", "ssh://host\n", "ssh://host?x",
        "ssh://hôst", "ssh://[::1", "ssh://[me]", "ssh://[-x]", "ssh://[::1%-]x", "ssh://host%h", "ssh://me:secret@host",
        "ssh://" + "a" * 300, "ssh://host/" + "a" * 200,
    ],
)  # fmt: skip
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(ControlError) as caught:
        SshTarget.parse(target)
    assert caught.value.code == "bad_target"


@given(st.text(max_size=60) | st.from_regex(r"[a-z@\[\]:/%.0-9-]{0,40}"))
def test_no_target_becomes_an_option(rest: str) -> None:
    try:
        target = SshTarget.parse(f"ssh://{rest}")
    except ControlError:
        return
    *before, separator, host, command = ssh_command(target, {})
    assert separator == "--"
    assert not host.startswith("-")
    assert not target.user.startswith("-")
    assert tuple(before[-len(OPTIONS) :]) == OPTIONS
    words = shlex.split(command)
    assert words[:2] == ["slabwatchctl", "stdio-bridge"]
    assert words[2:] in ([], ["--host", f"unix://{target.socket}"])


def test_the_command() -> None:
    target = SshTarget.parse("ssh://me@host:2222/run/s.sock")
    settings = {"ssh_options": "-F 'my conf' -J bastion", "ssh_command": "sudo slabwatchctl stdio-bridge"}
    assert ssh_command(target, settings) == (
        "ssh", "-p", "2222", "-l", "me", "-F", "my conf", "-J", "bastion", *OPTIONS, "--", "host",
        "sudo slabwatchctl stdio-bridge --host unix:///run/s.sock",
    )  # fmt: skip
    assert ssh_command(SshTarget("h"), {}) == ("ssh", *OPTIONS, "--", "h", "slabwatchctl stdio-bridge")


@pytest.mark.parametrize("options", ["'", "otherhost", "User=root"])
def test_options_that_are_none(options: str) -> None:
    with pytest.raises(ControlError) as caught:
        ssh_command(SshTarget("h"), {"ssh_options": options})
    assert caught.value.code == "bad_target"


# A program in the place of ssh: it is found first, and gets the arguments that ssh would get.
Fake = Callable[[str], None]


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    programs = tmp_path / "bin"
    programs.mkdir()

    def put(script: str) -> None:
        path = programs / "ssh"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return put


def bridge_to(door: Door) -> str:
    """What runs the bridge to this door, as the far end would."""
    code = f"from pathlib import Path; from slabwatch.control.bridge import bridge; bridge(Path({str(door.path)!r}))"
    return f"exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"


@pytest.mark.asyncio
async def test_one_connection_for_many_questions(door: Door, fake_ssh: Fake, tmp_path: Path) -> None:
    fake_ssh(f'echo "$@" >> {tmp_path}/calls\n{bridge_to(door)}')
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    ended = await storm.end(snapshots={"baseline": "x" * 3_000_000})
    async with ControlClient("ssh://me@host") as client:
        assert client.name == "ssh://me@host"
        for _ in range(3):
            assert (await client.get("/v1/status"))["state"] == "READY"
        assert await client.post("/v1/reload", {}) == {"reloaded": True, "needs_restart": []}
        events = [event async for event in client.events("/v1/storms/storm-1/events")]
        assert events[-1]["record"] == ended
    (call,) = (tmp_path / "calls").read_text(encoding="ascii").splitlines()
    assert call == f"-l me {' '.join(OPTIONS)} -- host slabwatchctl stdio-bridge"


@pytest.mark.asyncio
async def test_a_second_connection_while_one_streams(door: Door, fake_ssh: Fake) -> None:
    fake_ssh(bridge_to(door))
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan(on_disconnect="stop"))
    async with ControlClient("ssh://host") as client:
        events = client.events("/v1/storms/storm-1/events?lease=1")
        await storm.enter("baseline", 0.0)
        assert (await anext(events))["phase"] == "baseline"
        await client.post("/v1/storms/storm-1/stop", {})
        assert len(storm.stop_reasons) == 1
    # The client has gone, and its lease with it.
    await until(lambda: len(storm.stop_reasons) == 2)
    await events.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("echo 'ssh: connect to host h: Connection refused' >&2; exit 255", "unreachable", "Connection refused"),
        ("exit 255", "unreachable", "ssh ended with 255: it did not say why"),
        ("echo 'sh: slabwatchctl: not found' >&2; exit 127", "unreachable", "Is slabwatch installed there?"),
        ("echo 'slabwatchctl: /run/s: there is no such socket' >&2; exit 5", "unreachable", "5: /run/s: there is no"),
        ("echo 'slabwatchctl: /run/s: you may not' >&2; exit 6", "not_allowed", "ssh://host: /run/s: you may not"),
        ("kill -9 $$", "unreachable", "ssh ended with -9"),
        ("exit 0", "unreachable", "the daemon broke off the answer"),
        ("echo Welcome", "unreachable", "the daemon broke off the answer"),
        (r"printf 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{'; echo gone >&2; exit 255", "unreachable", "gone"),
    ],
)  # fmt: skip
async def test_what_was_said_is_told(fake_ssh: Fake, tmp_path: Path, script: str, code: str, words: str) -> None:
    fake_ssh(f"echo >> {tmp_path}/calls; {script}")
    async with ControlClient("ssh://host") as client:
        with pytest.raises(ControlError, match=words) as caught:
            await client.get("/v1/status")
    assert caught.value.code == code
    failed = code == "not_allowed" or "ended with" in str(caught.value)
    assert not failed or len((tmp_path / "calls").read_text().splitlines()) == 1, "nobody logs in twice to fail twice"


@pytest.mark.asyncio
async def test_a_flood_of_words_is_bounded(fake_ssh: Fake) -> None:
    fake_ssh("seq 100000 >&2; echo the last words >&2; exit 255")
    async with ControlClient("ssh://host") as client:
        with pytest.raises(ControlError) as caught:
            await client.get("/v1/status")
    assert "the last words" in str(caught.value)
    assert len(str(caught.value)) < ssh.TAIL_BYTES


@pytest.mark.asyncio
async def test_an_ssh_that_does_not_end(fake_ssh: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is deaf to the end of its input and to SIGTERM, and left a master behind that holds its stderr."""
    monkeypatch.setattr(ssh, "END_SECONDS", 0.2)
    fake_ssh(
        f'trap "" TERM; sleep 1000 & echo $! > {tmp_path}/master; echo $$ > {tmp_path}/pid; read x; while :; do :; done'
    )
    client = ControlClient("ssh://host")
    async with client:
        with pytest.raises(ControlError, match="does not answer in time"):
            await client.post("/v1/reload", {}, seconds=0.5)
    pid, master = (int((tmp_path / name).read_text()) for name in ("pid", "master"))
    os.kill(master, 9)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.asyncio
async def test_no_ssh_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with ControlClient("ssh://host") as client:
        with pytest.raises(ControlError, match="install openssh-client"):
            await client.get("/v1/status")


@pytest.mark.asyncio
async def test_ctrl_c_does_not_reach_it(fake_ssh: Fake, door: Door, tmp_path: Path) -> None:
    fake_ssh(f"echo $$ > {tmp_path}/pid; {bridge_to(door)}")
    async with ControlClient("ssh://host") as client:
        await client.get("/v1/status")
        pid = int((tmp_path / "pid").read_text())
        assert int(status(pid)["SigIgn"], 16) & 1 << (signal.SIGINT - 1)
        os.kill(pid, signal.SIGINT)
        assert (await client.get("/v1/status"))["state"] == "READY"
