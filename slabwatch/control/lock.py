"""The maintenance switch: while it is locked, no storm and no shrink begins.

It is a file in the state directory, so that a restart does not unlock it. A file that can not be understood locks too:
somebody wanted it locked, or something is wrong with the disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slabwatch.control.answers import LockState
from slabwatch.errors import SlabwatchError
from slabwatch.state_file import write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lock:
    """Why it is locked. ``by`` and ``since`` (Unix time) are None when the file does not tell."""

    reason: str
    by: str | None = None
    since: float | None = None

    def as_dict(self) -> LockState:
        """For the control API, and the file."""
        return {"reason": self.reason, "by": self.by, "since": self.since}

    def __str__(self) -> str:
        when = time.strftime(" on %Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since)) if self.since is not None else ""
        who = f" by {self.by}" if self.by else ""
        return f"storms and shrinks are locked{who}{when}: {self.reason} (`slabwatchctl unlock` unlocks them)"


class LockNotKept(SlabwatchError):
    """The switch was set, but its file could not be written or removed."""


class MaintenanceSwitch:
    """``held`` is the lock that holds now; ``tell`` is called with every change, and at the start."""

    def __init__(self, directory: Path, tell: Callable[[bool], None]) -> None:
        self.held: Lock | None = None
        self._path = directory / "lock.json"
        self._tell = tell
        self._changing = asyncio.Lock()

    def read(self) -> None:
        """Take over what an earlier daemon left. Blocking."""
        self._hold(_read(self._path))
        if self.held is not None:
            log.warning("locked", extra={"fields": self.held.as_dict()})

    async def lock(self, reason: str, by: str) -> None:
        """Lock at once, for the last reason given. Raises LockNotKept: it is locked then, but a restart unlocks."""
        async with self._changing:
            lock = Lock(reason, by, round(time.time(), 3))
            self._hold(lock)
            try:
                await asyncio.to_thread(_write, self._path, lock)
            except OSError as error:
                raise LockNotKept(
                    f"storms and shrinks are locked now, but a restart of the daemon would unlock them: {self._path} "
                    f"could not be written: {error.strerror or error}"
                ) from error

    async def unlock(self) -> None:
        """Allow storms and shrinks again. Raises LockNotKept: it stays locked then."""
        async with self._changing:
            try:
                await asyncio.to_thread(self._path.unlink, missing_ok=True)
            except OSError as error:
                raise LockNotKept(
                    f"storms and shrinks stay locked: {self._path} could not be removed: {error.strerror or error}"
                ) from error
            self._hold(None)

    def _hold(self, lock: Lock | None) -> None:
        self.held = lock
        self._tell(lock is not None)


def _read(path: Path) -> Lock | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        reason, by, since = kept["reason"], kept["by"], kept["since"]
        if not (isinstance(reason, str) and isinstance(by, str) and isinstance(since, (int, float))):
            raise ValueError("reason, by or since is not what it should be")
        str(lock := Lock(reason, by, float(since)))  # a time that no calendar has can not be said
        return lock
    except FileNotFoundError:
        return None
    except OSError as error:
        return Lock(f"{path} can not be read: {error.strerror or error}")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        return Lock(f"{path} can not be understood: {error!r}")


def _write(path: Path, lock: Lock) -> None:
    """Raises OSError."""
    write_json(path, lock.as_dict())
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # the name too shall survive a crash
    finally:
        os.close(directory)
