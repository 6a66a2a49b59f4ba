"""What the service manager is told, and when: systemd's notification protocol, in its own small code.

Protocol: sd_notify(3), sd_watchdog_enabled(3): one datagram of ``NAME=value`` lines to the socket that $NOTIFY_SOCKET
names (a path, or ``@name`` for an abstract one). Nothing here blocks or raises: a daemon whose manager does not
listen works on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

# A first sample that does not come is no reason to keep from serving: /-/ready and the status line tell of it.
FIRST_SAMPLE_SECONDS = 10.0
_TICK_SECONDS = 5.0
_STARTING_TICK_SECONDS = 0.1
# Beyond the next tick, for a machine under load.
_EXTEND_SECONDS = 15.0

log = logging.getLogger(__name__)


class Notifier:
    """Sends datagrams to the manager that started this process, if one did.

    ``watchdog_seconds``: within which it wants a sign of life; None where it wants none of this process.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        self.address = address
        self.watchdog_seconds = watchdog_seconds if address else None
        self._failure = ""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """As the manager has set it. The variables are removed, so that no child takes itself for the service."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        meant = len(microseconds) < 20 and (not pid or pid == str(os.getpid()))
        seconds = int(microseconds) / 1e6 if meant and microseconds.isascii() and microseconds.isdecimal() else 0.0
        return cls(address if address.startswith(("/", "@")) else "", seconds or None)

    def send(self, **assignments: object) -> bool:
        """One datagram; whether the manager has got it. A failure is logged when it is another one than the last."""
        if not self.address:
            return False
        # A line end in a value would begin another assignment.
        lines = [f"{name}={' '.join(str(value).splitlines())}\n" for name, value in assignments.items()]
        target = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("".join(lines).encode("utf-8", "backslashreplace"), target)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            if str(error) != self._failure:
                self._failure = str(error)
                fields = {"socket": self.address, "error": self._failure}
                log.warning("service_manager_not_told", extra={"fields": fields})
            return False
        self._failure = ""
        return True


class ServiceManager:
    """The daemon as its manager sees it: its state, a line of status, and signs of life from the sampler's progress.

    ``sampled``: whether there is a first sample. ``behind_seconds``: how late the sampler is. ``status``: one line.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        sampled: Callable[[], bool],
        behind_seconds: Callable[[], float],
        status: Callable[[], str],
    ) -> None:
        self._notifier = notifier
        self._sampled = sampled
        self._behind_seconds = behind_seconds
        self._status = status
        self._told_ready = False
        self._stopping = False
        self._told_status = ""
        self._owed: dict[str, object] = {}  # the last state, when its datagram was not taken

    async def run(self) -> None:
        """Report until cancelled. From this loop, so that one that stands still reports nothing either."""
        if not self._notifier.address:
            return
        watchdog = self._notifier.watchdog_seconds
        tick = min(_TICK_SECONDS, watchdog / 2) if watchdog else _TICK_SECONDS
        until = time.monotonic() + FIRST_SAMPLE_SECONDS
        while True:
            if not self._told_ready and not self._stopping and (self._sampled() or time.monotonic() >= until):
                self._told_ready = True
                self._tell(READY=1, MAINPID=os.getpid())
            if self._told_ready or self._stopping:
                self._tick(tick)
                await asyncio.sleep(tick)
            else:
                await asyncio.sleep(min(tick, _STARTING_TICK_SECONDS))

    def stopping(self) -> None:
        """The daemon has begun to stop. While it does, the manager is asked for the time that this takes."""
        self._stopping = True
        self._tell(STOPPING=1)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Around a reload, whichever way it ends. Without a word before READY and after STOPPING."""
        if not self._told_ready or self._stopping:
            yield
            return
        self._tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        try:
            yield
        finally:
            if not self._stopping:
                self._tell(READY=1)

    def _tick(self, tick: float) -> None:
        if self._owed:
            self._tell(**self._owed)
        watchdog = self._notifier.watchdog_seconds
        # Half of it: the manager's patience ends at most one and a half times that after the sampler's last progress.
        if watchdog and self._behind_seconds() < watchdog / 2:
            self._notifier.send(WATCHDOG=1)
        if self._stopping:
            self._notifier.send(EXTEND_TIMEOUT_USEC=int((tick + _EXTEND_SECONDS) * 1e6))
        status = self._status()
        if status != self._told_status and self._notifier.send(STATUS=status):
            self._told_status = status

    def _tell(self, **state: object) -> None:
        self._owed = {} if self._notifier.send(**state) else state
