"""Memory pressure on purpose: a process uses memory up, to see whether the kernel gives slabs back for that.

It lives in the storm's cgroup ``pressure``, and what it may have is set on the storm's root, so that the kernel looks
for memory in all of the storm's cgroups before it gives up. In the storm (``storm``) that is where it ends: the OOM
killer takes it, as it did in the mail that this repeats. On the host (``host``) it ends at a floor of MemAvailable.

The process is the first that the OOM killer takes (oom_score_adj 1000), dies with the engine, and has a bound in bytes
and one in seconds. Standard library only: see ``engine``. Kernel documents: admin-guide/cgroup-v1/memory.rst,
admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from slabwatch.storm import lifecycle, limits, spawn
from slabwatch.storm.oom import event, oom_kills
from slabwatch.storm.setup import PRESSURE_BYTES

MIB = 1024 * 1024
SECONDS = 20.0
HOLD_SECONDS = 2.0  # with all of it in use, for what the kernel does in the background
_CHUNKS = 64  # the memory comes in about so many parts, each at least:
_LEAST_CHUNK = 1 * MIB
# By version: the limit, the usage, and what is written with a 0 to keep the memory out of swap.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.swappiness"),
    2: ("memory.max", "memory.current", "memory.swap.max"),
}


@dataclass(frozen=True, slots=True)
class Pressed:
    """What was done, for the record.

    ``ended``: by the ``limit`` (the kernel gave no more), when the ``amount`` was used up, at the ``floor``, by the
    ``time``, or as it was ``stopped``. ``limit_hits``: times that the limit was met, None where it is not told.
    """

    where: str
    ended: str
    consumed_bytes: int
    limit_bytes: int  # of the storm's root meanwhile
    floor_bytes: int | None  # of MemAvailable
    limit_hits: int | None
    oom_kills: int | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For the engine's report."""
        return asdict(self)


def press(
    root: str, version: int, floor_bytes: int | None, interrupted: Callable[[], bool], tell: Callable[[int], None]
) -> Pressed:
    """Use memory up: on the host down to ``floor_bytes`` of MemAvailable, without a floor in the storm's cgroup.

    ``root`` is the directory of the storm's root, ``tell`` gets the bytes so far. Raises OSError when the limit can not
    be set, RuntimeError when the process was ended by somebody else.
    """
    group = lifecycle.pressure_cgroup(root)
    with contextlib.suppress(FileExistsError):
        os.mkdir(group)
    limit_file, usage_file, swap_file = _FILES[version]
    with contextlib.suppress(OSError):  # a kernel without swap has no such file
        limits.write(os.path.join(group, swap_file), "0")
    most = PRESSURE_BYTES if floor_bytes is None else max(0, available_bytes() - floor_bytes)
    limit = _number(os.path.join(root, usage_file)) + most + (0 if floor_bytes is None else PRESSURE_BYTES)
    limits.write(os.path.join(root, limit_file), str(limit))
    hits, kills = _limit_hits(root, version), oom_kills([group], version)
    started = time.monotonic()
    # In the storm the limit is what ends it: it may have all that the kernel finds for it.
    consumer = _Consumer(group, most if floor_bytes is not None else limit, floor_bytes or 0)
    ended, consumed = consumer.watch(interrupted, tell)
    hits_after, kills_after = _limit_hits(root, version), oom_kills([group], version)
    killed = None if kills is None or kills_after is None else kills_after - kills
    if ended == "killed":
        if killed == 0:
            raise RuntimeError("the process that used memory up was killed, and not by the OOM killer")
        ended = "limit"
    return Pressed(
        where="storm" if floor_bytes is None else "host",
        ended=ended,
        consumed_bytes=consumed,
        limit_bytes=limit,
        floor_bytes=floor_bytes,
        limit_hits=hits_after - hits if hits >= 0 and hits_after >= 0 else None,
        oom_kills=killed,
        seconds=round(time.monotonic() - started, 3),
    )


def available_bytes() -> int:
    """MemAvailable; 0 when it is not told, so that nothing is used up."""
    kilobytes = event("/proc/meminfo", "MemAvailable:")
    return max(0, kilobytes) * 1024


def _limit_hits(root: str, version: int) -> int:
    if version == 2:
        return event(os.path.join(root, "memory.events"), "max")
    try:
        return _number(os.path.join(root, "memory.failcnt"))
    except OSError:
        return -1


class _Consumer:
    """The child process, from the engine's side."""

    def __init__(self, group: str, most_bytes: int, floor_bytes: int) -> None:
        self._read, written = os.pipe()
        engine = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._read)
            _consume(group, most_bytes, floor_bytes, written, engine)
        os.close(written)

    def watch(self, interrupted: Callable[[], bool], tell: Callable[[int], None]) -> tuple[str, int]:
        """How it ended ("killed": by a signal) and the bytes that it had by then. It is over when this returns."""
        until = time.monotonic() + SECONDS
        unread, consumed, said = b"", 0, ""
        try:
            while not said:
                if interrupted():
                    said = "stopped"
                elif time.monotonic() > until:
                    said = "time"
                elif select.select([self._read], [], [], 0.1)[0]:
                    data = os.read(self._read, 65536)
                    if not data:
                        break
                    *lines, unread = (unread + data).split(b"\n")
                    for line in lines:
                        said = "" if line.isdigit() else line.decode()
                        consumed = int(line) if line.isdigit() else consumed
                    tell(consumed)
        finally:
            os.close(self._read)
            if said:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if not said and status != -signal.SIGKILL:
            raise RuntimeError(f"the process that used memory up ended with status {status}")
        return said or "killed", consumed


def _consume(group: str, most_bytes: int, floor_bytes: int, reports: int, engine: int) -> None:
    """The child's whole life; never returns. Says the bytes that it has, and at last why it takes no more."""
    try:
        spawn.die_with_parent(engine)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.nice(19)
        limits.write("/proc/self/oom_score_adj", "1000")
        null = os.open(os.devnull, os.O_RDWR)
        for engines_own in (0, 1):
            os.dup2(null, engines_own)
        lifecycle.enter(group)
        chunk = max(_LEAST_CHUNK, most_bytes // _CHUNKS // mmap.PAGESIZE * mmap.PAGESIZE)
        held: list[mmap.mmap] = []
        consumed, why = 0, "floor" if floor_bytes else "amount"
        while consumed < most_bytes:
            if floor_bytes and available_bytes() - chunk < floor_bytes:
                break
            held.append(mmap.mmap(-1, chunk, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
            for at in range(0, chunk, _LEAST_CHUNK):
                address = ctypes.addressof(ctypes.c_char.from_buffer(held[-1], at))
                ctypes.memset(address, 1, min(_LEAST_CHUNK, chunk - at))
            consumed += chunk
            os.write(reports, b"%d\n" % consumed)
        time.sleep(HOLD_SECONDS)
        os.write(reports, why.encode() + b"\n")
        time.sleep(SECONDS)  # the engine ends it
    except BrokenPipeError:  # of ``reports``: the engine has gone, or has ended this
        pass
    except BaseException as error:  # the border of a process: the engine's stderr has the reason
        with contextlib.suppress(OSError):
            os.write(2, f"pressure: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())
