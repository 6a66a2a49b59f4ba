"""The storm's cgroups: made, emptied and removed, by name and place alone.

A storm's root is the directory ``slabwatch-storm-<id>`` below the configured parent; in it are ``c0000`` and so
on, and for a while ``pressure``. On cgroup v1 the pids controller may have a root of the same name. Whatever else is
found there was made by someone else: it is never removed, and no process is killed that does not carry the storm's
mark in its environment. Standard library only: see ``engine``.

Kernel documents: admin-guide/cgroup-v1/cgroups.rst, admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PREFIX = "slabwatch-storm-"
# In the environment of the engine, and so of everything that comes from it. Its value is the storm's id.
MARK = "SLABWATCH_STORM"
# What the removal of earlier storms may take, the end of an engine that still lives included.
ORPHANS_SECONDS = 20.0
PRESSURE = "pressure"
_CGROUP_NAME = re.compile(rf"(?:c\d{{4,6}}|{PRESSURE})\Z")
_STORM_NAME = re.compile(re.escape(PREFIX) + r"[0-9a-z-]{1,64}\Z")


@dataclass(slots=True)
class Swept:
    """What a removal did. ``left`` names each directory that stays, with the reason."""

    removed: int = 0
    killed: int = 0
    left: dict[str, str] = field(default_factory=dict)


def storm_root(parent: str, storm_id: str) -> str:
    """The directory of a storm below ``parent`` (a directory of the memory hierarchy)."""
    return os.path.join(parent, PREFIX + storm_id)


def cgroup_name(index: int) -> str:
    """Name of the storm's cgroup number ``index``."""
    return f"c{index:04d}"


def find_roots(parent: str) -> list[str]:
    """Directories of storms below ``parent``, running ones included. Raises OSError when it can't be listed."""
    with os.scandir(parent) as entries:
        return sorted(
            entry.path for entry in entries if _STORM_NAME.match(entry.name) and entry.is_dir(follow_symlinks=False)
        )


def own_children(root: str) -> list[str]:
    """The storm's own cgroups that exist below its root."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.path for entry in entries if _CGROUP_NAME.match(entry.name))
    except FileNotFoundError:
        return []


def pressure_cgroup(root: str) -> str:
    """Where memory is consumed on purpose."""
    return os.path.join(root, PRESSURE)


def enter(directory: str) -> None:
    """Move the calling process into a cgroup. Raises OSError."""
    descriptor = os.open(os.path.join(directory, "cgroup.procs"), os.O_WRONLY)
    try:
        os.write(descriptor, b"0")
    finally:
        os.close(descriptor)


def processes(directory: str) -> list[int]:
    """Pids in a cgroup, its descendants not included. A cgroup that is gone has none."""
    try:
        with open(os.path.join(directory, "cgroup.procs"), "rb") as file:
            return [int(line) for line in file.read().split()]
    except (FileNotFoundError, OSError):
        return []


def remove_root(
    root: str,
    *,
    deadline_seconds: float,
    pause: Callable[[float], None] = time.sleep,
    give_up: Callable[[], bool] = lambda: False,
    keep_root: bool = False,
) -> Swept:
    """Kill what is marked as this storm's in its cgroups, remove them and then the root itself, if it is not kept.

    rmdir says EBUSY until the last task has been taken down, so it is repeated until the deadline, or ``give_up``.
    """
    swept = Swept()
    storm_id = os.path.basename(root).removeprefix(PREFIX)
    until = time.monotonic() + deadline_seconds
    while True:
        remaining: list[str] = []
        unseen = ""
        try:
            remaining = [path for path in own_children(root) if not _remove(path, storm_id, swept)]
            if not remaining and (keep_root or _remove(root, storm_id, swept)):
                return swept
        except OSError as error:  # it can not even be listed, as when there are no more descriptors
            unseen = f"can not be looked at: {error.strerror}"
        if time.monotonic() >= until or give_up():
            break
        pause(0.05)
    swept.left |= {path: _why_busy(path, storm_id) for path in remaining}
    if unseen or not keep_root:
        swept.left[root] = unseen or _why_busy(root, storm_id)
    return swept


def remove_orphans(*parents: str, deadline_seconds: float, give_up: Callable[[], bool] = lambda: False) -> Swept:
    """Remove all storms below these directories whose engine is gone: what earlier daemons could not.

    An engine without its daemon cleans up and ends by itself: it is given the deadline to do so. One that lives on
    has a daemon, another one than this: its storm is left alone, and named. Raises OSError.
    """
    total = Swept()
    until = time.monotonic() + deadline_seconds
    for root in [root for parent in parents for root in find_roots(parent)]:
        storm_id = os.path.basename(root).removeprefix(PREFIX)
        while (engine := _engine_of(root, storm_id)) is not None and time.monotonic() < until and not give_up():
            time.sleep(0.1)
        if engine is not None:
            total.left[root] = f"its engine, process {engine}, is at work for another daemon"
            continue
        swept = remove_root(root, deadline_seconds=max(1.0, until - time.monotonic()), give_up=give_up)
        total.removed += swept.removed
        total.killed += swept.killed
        total.left |= swept.left
    return total


def _engine_of(root: str, storm_id: str) -> int | None:
    """A living process that is this storm's engine or one of its workers, or None.

    It is of the user who has made the root: anyone can start a process that looks like an engine.
    """
    try:
        owner = os.stat(root).st_uid
    except OSError:
        return None
    for name in os.listdir("/proc"):
        if name.isdigit() and is_marked(int(name), storm_id):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    runs_engine = b"slabwatch.storm.engine" in file.read(4096)
                    same_user = os.fstat(file.fileno()).st_uid == owner
            except OSError:
                continue
            if runs_engine and same_user:
                return int(name)
    return None


def kill_marked(directory: str, storm_id: str) -> int:
    """SIGKILL each process in the cgroup that carries the storm's mark; how many."""
    killed = 0
    for pid in processes(directory):
        if is_marked(pid, storm_id) and _kill(pid, storm_id):
            killed += 1
    return killed


def is_marked(pid: int, storm_id: str) -> bool:
    """Whether a process comes from this storm's engine: its environment says so.

    Tasks that were cloned share or copy the engine's memory, so theirs says it too; a zombie's is empty.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={storm_id}".encode() in file.read(65536).split(b"\0")
    except OSError:
        return False


def _remove(path: str, storm_id: str, swept: Swept) -> bool:
    """One try; True when the directory is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            swept.killed += kill_marked(path, storm_id)
        return False
    swept.removed += 1
    return True


def _kill(pid: int, storm_id: str) -> bool:
    # A pid can be given to someone else between the look and the kill: a pidfd (Linux 5.3) can not.
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:
        os.kill(pid, signal.SIGKILL)
        return True
    try:
        if not is_marked(pid, storm_id):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def _why_busy(path: str, storm_id: str) -> str:
    inside = processes(path)
    foreign = [pid for pid in inside if not is_marked(pid, storm_id)]
    if foreign:
        return f"holds processes that are not the storm's: {', '.join(map(str, foreign[:5]))}"
    if inside:
        return f"processes of the storm do not end: {', '.join(map(str, inside[:5]))}"
    others = [name for name in _directories(path) if not _CGROUP_NAME.match(name)]
    if others:
        return f"holds cgroups that are not the storm's: {', '.join(others[:5])}"
    return "still busy, or not ours to remove"


def _directories(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    # A name may hold any byte: spell out what could not be written into a record or report.
                    yield os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    except OSError:
        return
