"""A real sshd on loopback with keys, port and configuration of its own, and two users who may come in by key."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import slabwatch
from tests.e2e.daemon import BIN, _environment, open_directory
from tests.live.kernel import alive, children, command_line, wait_until
from tests.requirements import need

SSHD = "/usr/sbin/sshd"
RUN = Path("/run/sshd")  # sshd insists on it; a service manager makes it elsewhere
PREFIX = "slabwatch-test-"
# It ends with the tests, whatever they die of.
UNTIL_STDIN_ENDS = 'exec 3<&0; "$@" 3<&- & pid=$!; (read line <&3; kill $pid) & wait $pid'
PACKAGE = Path(slabwatch.__file__).parents[1]


@dataclass(frozen=True)
class User:
    """An unprivileged user of the tests' own."""

    name: str
    uid: int
    gid: int


class Sshd:
    """``member`` is for a socket's group, ``stranger`` is not."""

    def __init__(self, directory: Path, member: User, stranger: User) -> None:
        self.directory = directory
        self.member = member
        self.stranger = stranger
        self.programs = _programs(directory)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("host", "client"):
            _keygen(directory / name)
        (directory / "authorized").mkdir(mode=0o755)
        for user in (member, stranger):
            self.authorize(user)

    def authorize(self, user: User, options: str = "") -> None:
        """The one key opens the account, with these options before it."""
        path = self.directory / "authorized" / user.name
        path.write_text(f"{options} {(self.directory / 'client.pub').read_text(encoding='ascii')}", encoding="ascii")
        path.chmod(0o644)

    def target(self, user: User | None = None, path: Path | str = "") -> str:
        """``ssh://user@127.0.0.1:port/path``; the member without a user."""
        return f"ssh://{(user or self.member).name}@127.0.0.1:{self.port}{path}"

    def options(self, **changes: str) -> str:
        """The value of --ssh-options: a configuration of its own, so that none of this machine's counts."""
        settings = {
            "IdentityFile": str(self.directory / "client"),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.directory / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            **changes,
        }
        path = self.directory / f"client-{'-'.join(changes) or 'usual'}.conf"
        path.write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="ascii")
        return f"-F {path}"

    def start(self) -> None:
        """On a free port; another one when somebody was quicker."""
        for _ in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            config = self.directory / "sshd.conf"
            config.write_text(self._config(), encoding="ascii")
            with open(self.directory / "sshd.log", "ab") as log:
                self.process = subprocess.Popen(
                    ["sh", "-c", UNTIL_STDIN_ENDS, "sh", SSHD, "-D", "-e", "-f", str(config)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                )
            process = self.process
            wait_until(lambda: process.poll() is not None or self._answers(), 10, "sshd answers")  # noqa: B023
            if process.poll() is None:
                break
        assert process.poll() is None, (self.directory / "sshd.log").read_text(errors="replace")
        host_key = (self.directory / "host.pub").read_text(encoding="ascii")
        (self.directory / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}", encoding="ascii")

    def _config(self) -> str:
        path = f"{self.programs}:/usr/bin:/bin"
        return (
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.directory}/host\nPidFile none\n"
            f"AuthorizedKeysFile {self.directory}/authorized/%u\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n"
            f"AllowUsers {self.member.name} {self.stranger.name}\n"
            f"SetEnv PATH={path}\n"
        )

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
        return False

    def bridges(self) -> list[int]:
        """The bridges that run in its sessions, without the shells that have started them."""
        pids = _processes_of(self.member.uid) + _processes_of(self.stranger.uid)
        lines = {pid: command_line(pid) for pid in pids}
        return [pid for pid, line in lines.items() if "stdio-bridge" in line and not line.startswith("sh -c ")]

    def sessions(self) -> list[int]:
        """The privileged half of each."""
        assert self.process is not None
        listeners = [pid for pid in children(self.process.pid) if command_line(pid).startswith(("sshd", SSHD))]
        return [session for listener in listeners for session in children(listener)]

    def stop(self) -> None:
        """No session, and none of the users' processes, outlives it."""
        process, sessions = self.process, self.sessions()
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
        for session in sessions:
            with suppress(ProcessLookupError):
                os.kill(session, signal.SIGTERM)
        for user in (self.member, self.stranger):
            wait_until(lambda user=user: not _processes_of(user.uid), 10, f"no process of {user.name} is left")  # type: ignore[misc]


def _programs(directory: Path) -> Path:
    """A directory with a slabwatchctl that every user can run, wherever this checkout and its interpreter are."""
    lib, programs = directory / "lib", directory / "bin"
    shutil.copytree(PACKAGE / "slabwatch", lib / "slabwatch", ignore=shutil.ignore_patterns("__pycache__"))
    for name in re.findall(r"^([\w.-]+)==", (PACKAGE / "requirements.lock").read_text(encoding="utf-8"), flags=re.M):
        for file in importlib.metadata.distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                target = lib / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
    python = next(filter(_anybody_can_run, (os.path.realpath(sys.executable), "/usr/bin/python3")), "")
    need(bool(python), "a Python of this version that every user can run (Debian's, for one)")
    programs.mkdir()
    script = programs / "slabwatchctl"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={lib} exec {python} -m slabwatch.cli.ctl "$@"\n', encoding="ascii")
    script.chmod(0o755)
    return programs


def _anybody_can_run(python: str) -> bool:
    version = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    # Through a shell: what setpriv itself starts may still have root's capabilities.
    ran = ["setpriv", "--reuid=65501", "--regid=65501", "--clear-groups", "--", "sh", "-c", '"$0" -c "$1"']
    return subprocess.run([*ran, python, version], capture_output=True, timeout=30, check=False).returncode == 0


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)


def _uid(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def _processes_of(uid: int) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _uid(int(name)) == uid]


@contextmanager
def _user(kind: str, home: Path) -> Iterator[User]:
    name = f"{PREFIX}{kind}-{os.getpid()}"
    # "*" is no password, and no locked account either; sshd takes only these without PAM.
    command = ["useradd", "--no-create-home", "--user-group", "--home-dir", str(home), "--shell", "/bin/sh"]
    subprocess.run([*command, "--password", "*", name], check=True)
    try:
        entry = pwd.getpwnam(name)
        yield User(name, entry.pw_uid, entry.pw_gid)
    finally:
        subprocess.run(["userdel", name], check=True)


def _remove_users_of_the_dead() -> None:
    """A run that was killed could not remove its users."""
    for entry in pwd.getpwall():
        owner = entry.pw_name.removeprefix(PREFIX).rpartition("-")[2]
        if entry.pw_name.startswith(PREFIX) and owner.isdigit() and not alive(int(owner)):
            subprocess.run(["userdel", entry.pw_name], check=False)


@contextmanager
def _run_directory() -> Iterator[None]:
    made = not RUN.exists()
    if made:
        RUN.mkdir(mode=0o755)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):
                RUN.rmdir()


@contextmanager
def running_sshd() -> Iterator[Sshd]:
    """Skip where it can not be had."""
    need(os.geteuid() == 0, "root")
    for program in (SSHD, "ssh", "ssh-keygen", "useradd", "userdel"):
        need(shutil.which(program) is not None, f"{program} (openssh-server, openssh-client, passwd)")
    need(shutil.which("setpriv") is not None, "setpriv (util-linux)")
    with ExitStack() as stack:
        _remove_users_of_the_dead()
        directory = stack.enter_context(open_directory())
        stack.enter_context(_run_directory())
        member, stranger = (stack.enter_context(_user(kind, directory)) for kind in ("in", "out"))
        sshd = Sshd(directory, member, stranger)
        sshd.start()
        stack.callback(sshd.stop)
        yield sshd


def environment(sshd: Sshd | None = None, **more: str) -> Mapping[str, str]:
    """For slabwatchctl: nothing of this machine's, and the way to this sshd."""
    ssh = {"SLABWATCH_SSH": sshd.options()} if sshd else {}
    return {**_environment(), "XDG_CONFIG_HOME": "/nonexistent", **ssh, **more}


def ctl(*arguments: str, env: Mapping[str, str], seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """slabwatchctl to its end."""
    return subprocess.run(
        [str(BIN / "slabwatchctl"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=dict(env),
        check=False,
    )


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    """One for the tests of a module."""
    with running_sshd() as started:
        yield started
        until = time.monotonic() + 5
        while (left := started.bridges()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not left, "bridges outlived their sessions"
