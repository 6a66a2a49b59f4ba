"""ssh://[user@]host[:port][/socket]: each connection is a run of the system's ssh, with the bridge at its far end.

ssh gets one end of a socket pair as its stdin and stdout, aiohttp the other. What ssh or the bridge said on stderr,
and their exit code, become the error's words. Keys, bastions, known hosts and multiplexing are ssh's own business.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from slabwatch.errors import ControlError

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

DEFAULT_COMMAND = "slabwatchctl stdio-bridge"
# After the user's own options: of each option, ssh takes the first.
OPTIONS = (
    "-T", "-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes", "-o", "ConnectTimeout=10",
    "-o", "ServerAliveInterval=15",
)  # fmt: skip
# Ctrl-C in a terminal goes to ssh too, which must live on to carry the request to stop. What is ignored stays so.
_DEAF_TO_CTRL_C = ("/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh")

TAIL_BYTES = 2000
TAIL_LINES = 5
# How long ssh may take to end by itself, and how long its exit code is waited for after a connection broke.
END_SECONDS = 2.0
KEEP_SECONDS = 30.0

# No name that ssh, its configuration's %h, or a shell could take for something else.
_TARGET = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,127})@)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,64}(?:%[A-Za-z0-9_.-]{1,32})?)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}))"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<socket>/[A-Za-z0-9_./+@-]{0,107})?"
)


@dataclass(frozen=True, slots=True)
class SshTarget:
    """``socket`` is a path on the far host; "": where its daemon listens by default."""

    host: str
    user: str = ""
    port: int | None = None
    socket: str = ""

    @classmethod
    def parse(cls, target: str) -> SshTarget:
        """Raises ControlError ``bad_target``."""
        found = _TARGET.fullmatch(target)
        port = int(found["port"]) if found and found["port"] else None
        if found is None or (port is not None and not 0 < port < 65536):
            raise ControlError(
                f"{target!r}: not a target of ssh: use ssh://[user@]host[:port][/path/of/socket], with letters, digits "
                "and . _ - in names; what else ssh needs goes into its own configuration, or into --ssh-options",
                code="bad_target",
            )
        socket_path = (found["socket"] or "").rstrip("/")
        return cls(host=found["ipv6"] or found["host"], user=found["user"] or "", port=port, socket=socket_path)


def ssh_command(target: SshTarget, settings: Mapping[str, str]) -> tuple[str, ...]:
    """The whole command; ``settings`` may hold ``ssh_options`` and ``ssh_command``. Raises ControlError."""
    try:
        options = shlex.split(settings.get("ssh_options", ""))
    except ValueError as error:
        raise ControlError(f"ssh options: {settings['ssh_options']!r}: {error}", code="bad_target") from error
    if any(not option.startswith("-") for option in options[:1]):
        raise ControlError(f"ssh options: {options[0]!r} is no option: they begin with -", code="bad_target")
    command = settings.get("ssh_command") or DEFAULT_COMMAND
    if target.socket:
        command += f" --host {shlex.quote(f'unix://{target.socket}')}"
    port = ("-p", str(target.port)) if target.port is not None else ()
    user = ("-l", target.user) if target.user else ()
    return ("ssh", *port, *user, *options, *OPTIONS, "--", target.host, command)


class SshConnector(aiohttp.BaseConnector):
    """aiohttp's connections, each through an ssh of its own, kept for the next question."""

    def __init__(self, command: tuple[str, ...], name: str) -> None:
        super().__init__(keepalive_timeout=KEEP_SECONDS)
        self._command = command
        self._name = name
        self._tunnels: set[_Tunnel] = set()
        self._failure: ControlError | None = None

    async def _create_connection(self, req: Any, traces: Any, limits: Any) -> ResponseHandler:
        if shutil.which(self._command[0]) is None:
            raise ControlError(f"{self._name}: there is no ssh on this host: install openssh-client")
        # aiohttp asks once more when a connection broke before its answer. To log in again would change nothing.
        told = await self.failure()
        if told is not None:
            raise told
        ours, far = socket.socketpair()
        with far:
            try:
                tunnel = await _Tunnel.start(self._command, far)
            except BaseException:
                ours.close()
                raise
        self._tunnels.add(tunnel)
        tunnel.ended.add_done_callback(lambda _: self._ended(tunnel))
        _, tunnel.protocol = await self._loop.create_unix_connection(self._factory, sock=ours)
        return tunnel.protocol

    def _ended(self, tunnel: _Tunnel) -> None:
        self._tunnels.discard(tunnel)
        if tunnel.code and not tunnel.stopped:
            self._failure = _told(self._name, tunnel.code, tunnel.words())

    async def failure(self) -> ControlError | None:
        """Why a connection broke off, when ssh or the bridge has said so."""
        broken = [tunnel.ended for tunnel in self._tunnels if tunnel.is_broken]
        if broken:
            await asyncio.wait(broken, timeout=END_SECONDS)
        return self._failure

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections, and wait until no ssh is left."""
        await super().close(abort_ssl=abort_ssl)
        await asyncio.gather(*(tunnel.stop() for tunnel in self._tunnels))


class _Tunnel:
    """One run of ssh. Its stderr is read as it comes, and the end of it kept."""

    def __init__(self, process: asyncio.subprocess.Process, stderr: int) -> None:
        self._process = process
        self._stderr = stderr
        self._said = b""
        self.protocol: ResponseHandler | None = None
        self.stopped = False
        self.code: int | None = None
        os.set_blocking(stderr, False)
        asyncio.get_running_loop().add_reader(stderr, self._read)
        self.ended = asyncio.create_task(self._wait(), name="ssh")

    @classmethod
    async def start(cls, command: tuple[str, ...], far: socket.socket) -> _Tunnel:
        # A pipe of our own, not asyncio's: a master connection that ssh leaves behind may hold its other end for hours.
        stderr, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *_DEAF_TO_CTRL_C, *command, stdin=far.fileno(), stdout=far.fileno(), stderr=theirs
            )
        except BaseException:
            os.close(stderr)
            raise
        finally:
            os.close(theirs)
        return cls(process, stderr)

    @property
    def is_broken(self) -> bool:
        """Our side is closed, so ssh has ended or is about to."""
        return self.protocol is not None and not self.protocol.is_connected()

    def _read(self) -> None:
        try:
            data = os.read(self._stderr, 65536)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._stderr)
        self._said = (self._said + data)[-TAIL_BYTES:]

    async def _wait(self) -> None:
        try:
            self.code = await self._process.wait()
        finally:
            self._read()
            asyncio.get_running_loop().remove_reader(self._stderr)
            os.close(self._stderr)

    def words(self) -> str:
        """What was said last."""
        lines = [line.strip() for line in self._said.decode(errors="replace").splitlines()]
        return "; ".join([line for line in lines if line][-TAIL_LINES:])

    async def stop(self) -> None:
        """Our side has been closed, so it ends by itself; if not, it is ended."""
        self.stopped = True
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number and self.code is None:
                # Not by asyncio's own method, which may take the exit code away from who waits for it.
                with suppress(ProcessLookupError):
                    os.kill(self._process.pid, number)
            if (await asyncio.wait([self.ended], timeout=END_SECONDS))[0]:
                return


def _told(name: str, code: int, words: str) -> ControlError:
    """The error for an exit code: ssh's own is 255, a shell's 126 and 127, the bridge's 5 and 6."""
    words = words.removeprefix("slabwatchctl: ")
    if code == 6:
        return ControlError(f"{name}: {words}", code="not_allowed")
    if code in (126, 127):
        return ControlError(
            f"{name}: {words}. Is slabwatch installed there? If it is not in the PATH of a session without a terminal, "
            "--ssh-command names it: --ssh-command '/opt/slabwatch/bin/slabwatchctl stdio-bridge'"
        )
    who = "ssh" if code == 255 or code < 0 else "the far end"
    return ControlError(f"{name}: {who} ended with {code}: {words or 'it did not say why'}")
