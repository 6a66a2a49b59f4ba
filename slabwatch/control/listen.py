"""The control socket: made so that nobody but its owner and group can ever connect, and so that no other
daemon's socket, and nothing that is not a socket, is ever taken away."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aiohttp import web

from slabwatch.config import temporary_runtime
from slabwatch.control.access import id_of
from slabwatch.control.sockets import why_foreign
from slabwatch.door import Door, connections_of, http_log
from slabwatch.errors import ConfigError

SOCKET_MODE = 0o660
DIRECTORY_MODE = 0o750
RUNTIME_MODE = 0o755
# How long a connection may be open without a request.
IDLE_SECONDS = 30.0
# How long open event streams may delay the daemon's stop.
SHUTDOWN_SECONDS = 3.0


class UnixRunner(web.AppRunner):
    """Serves one app at one socket; ``cleanup()`` stops it and takes the socket's file away."""

    def __init__(self, app: web.Application, path: Path, made: os.stat_result) -> None:
        super().__init__(
            app,
            access_log=None,
            logger=http_log,
            shutdown_timeout=SHUTDOWN_SECONDS,
            keepalive_timeout=IDLE_SECONDS,
        )
        self.path = path
        self._made = made
        self.connections = connections_of(app)
        self.door: Door | None = None

    async def cleanup(self) -> None:
        if self.door is not None:
            await self.door.close()
        await super().cleanup()
        if _same_file(_lstat(self.path), self._made):
            self.path.unlink()


async def start_unix(app: web.Application, path: Path, owner: str = "", group: str = "") -> UnixRunner:
    """Listen at ``path`` with mode 0660 for ``owner`` and ``group`` (names or ids; "": the daemon's own).

    A directory that is missing is made with mode 0750. Raises ConfigError when another daemon listens there, when
    something that is not a socket is there, or when path, owner or group can not be used.
    """
    uid, gid = owner_ids(owner, group)
    # 108 bytes with the NUL is what sockaddr_un holds.
    if len(os.fsencode(path)) > 107:
        raise ConfigError(f"control.socket: {path} is too long for a socket (107 bytes): choose a shorter path")
    try:
        _make_directory(path.parent, uid, gid)
        with _locked(path.parent):
            _clear_the_place(path)
            listener, made = _bind(path, uid, gid)
    except OSError as error:
        raise ConfigError(f"control.socket: can not listen at {path}: {error.strerror or error}") from error
    runner = UnixRunner(app, path, made)
    try:
        await runner.setup()
        runner.door = Door(runner, [listener])
        runner.door.open()
    except BaseException:
        listener.close()
        await runner.cleanup()
        raise
    return runner


def _make_directory(directory: Path, uid: int, gid: int) -> None:
    if (runtime := temporary_runtime()) in directory.parents:
        with suppress(FileExistsError):
            runtime.mkdir(mode=RUNTIME_MODE)
    if foreign := why_foreign(directory):
        raise ConfigError(f"control.socket: {foreign}: set XDG_RUNTIME_DIR, or choose another path")
    if not directory.exists():
        directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        os.chown(directory, uid, gid)
        return
    made = directory.stat()
    # In somebody else's directory, that somebody can put a socket of their own in place of this one.
    if made.st_uid not in (0, os.geteuid(), uid) or (made.st_mode & stat.S_IWOTH and not made.st_mode & stat.S_ISVTX):
        raise ConfigError(
            f"control.socket: the directory {directory} belongs to user {made.st_uid} with mode "
            f"{stat.S_IMODE(made.st_mode):04o}, so others could replace the socket: choose another, or mend it"
        )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Two daemons that start at one time must not both find the place free. The lock is on the directory itself."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"control.socket: another daemon is starting in {directory}") from error
        yield
    finally:
        os.close(descriptor)


def _clear_the_place(path: Path) -> None:
    there = _lstat(path)
    if there is None:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise ConfigError(f"control.socket: {path} exists and is not a socket: choose another path, or move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full backlog is a sign of life too, and must not make this wait.
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()  # left by a daemon that did not stop in an orderly way
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass
    raise ConfigError(f"control.socket: another daemon listens at {path}: stop it, or give this one a path of its own")


def _bind(path: Path, uid: int, gid: int) -> tuple[socket.socket, os.stat_result]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    try:
        # Nobody can connect before listen(), which comes after this: so there is no moment with other rights.
        os.chown(path, uid, gid, follow_symlinks=False)
        os.chmod(path, SOCKET_MODE)
    except OSError:
        listener.close()
        path.unlink()
        raise
    listener.setblocking(False)
    return listener, path.lstat()


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _same_file(one: os.stat_result | None, other: os.stat_result) -> bool:
    return one is not None and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def owner_ids(owner: str, group: str) -> tuple[int, int]:
    """uid and gid of control.owner and control.group; -1 for "". Raises ConfigError."""
    return _id("owner", "user", owner), _id("group", "group", group)


def _id(key: str, kind: str, name: str) -> int:
    found = id_of(f"{kind}:{name}") if name else -1
    if found is None:
        raise ConfigError(f"control.{key}: there is no {kind} {name!r} on this host")
    return found
