"""A service manager's end of the notification socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

Told = dict[str, str]


class Manager:
    """Receives what a daemon says. ``address`` is for its NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.told: list[Told] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)

    def close(self) -> None:
        self._socket.close()

    def receive(self, seconds: float) -> Told | None:
        """The next datagram; None when none comes."""
        self._socket.settimeout(max(0.001, seconds))
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return None
        assert data.endswith(b"\n")
        self.told.append(dict(line.split("=", 1) for line in data.decode().splitlines()))
        return self.told[-1]

    def wait_for(self, wanted: Callable[[Told], object], seconds: float = 20) -> Told:
        """The first datagram from now on that is wanted."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            told = self.receive(left)
            if told is not None and wanted(told):
                return told
        raise AssertionError(f"not told within {seconds:g} s; the last were {self.told[-5:]}")

    def drain(self) -> list[Told]:
        """All that has come meanwhile."""
        before = len(self.told)
        while self.receive(0) is not None:
            pass
        return self.told[before:]
