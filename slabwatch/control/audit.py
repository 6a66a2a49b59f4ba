"""The audit log: one structured line for each command and each refusal, to the log and to a file.

A line is handed over to a thread of its own, through a bounded queue: neither a slow or full disk nor a broken file
ever holds up the event loop or stops the daemon. What could not be written is counted, and said.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from slabwatch.control.access import Caller
from slabwatch.control.audit_file import AuditFile
from slabwatch.logs import utc

# Lines that wait for the disk.
MOST_WAITING = 1000
# Refusals of one caller that are written at once; then one in FLOOD_SECONDS, which says how many it stands for.
BURST = 20
FLOOD_SECONDS = 60.0
_MOST_CALLERS = 256

Fields = dict[str, Any]

_log = logging.getLogger("slabwatch.audit")
_own_log = logging.getLogger(__name__)


def entry(command: str, caller: Caller, *, allowed: bool) -> Fields:
    """The fields that every line has; the outcome is what stays, should the command be cancelled or crash."""
    fields: Fields = {"command": command, "user": caller.user, "door": caller.door}
    if caller.peer is not None:
        fields |= {"uid": caller.peer.uid, "pid": caller.peer.pid}
    if caller.address:
        fields |= {"address": caller.address, "certificate": caller.serial}
    return fields | {"allowed": allowed, "outcome": "broken_off"}


class AuditLog:
    """``write`` from anywhere, never blocks; ``lost`` lines could not be written to the file."""

    def __init__(
        self, file: AuditFile, *, most_waiting: int = MOST_WAITING, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.file = file
        self.lost = 0
        self._waiting: queue.Queue[bytes | None] = queue.Queue(most_waiting)
        self._counting = threading.Lock()
        self._refusals, self._losses = Floods(clock), Floods(clock)
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)

    def start(self) -> None:
        """Begin to write to the file; what came before waits in the queue."""
        self._thread.start()

    def write(self, fields: Fields) -> None:
        """One line. Refusals are bounded for each caller: none of them can push out what others did."""
        if not fields["allowed"]:
            left_out = self._refusals.count(f"{fields['door']} {fields['user']}")
            if left_out is None:
                return
            if left_out:
                fields = {**fields, "left_out": left_out}
        _log.info("audit", extra={"fields": fields})
        line = json.dumps({"time": utc(time.time()), **fields}, separators=(",", ":"), default=str).encode()
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lose(1, "the disk does not keep up")

    def refused_at_tls_door(self, address: str, why: str) -> None:
        """A line for somebody who did not get in, and whose name is not known."""
        fields = {"command": "connect", "user": "", "door": "tls", "address": address, "allowed": False}
        self.write({**fields, "outcome": "not_allowed", "reason": why})

    def close(self, seconds: float) -> None:
        """Write what waits, for at most this long. Blocking; a thread that hangs is left to itself."""
        until = time.monotonic() + seconds
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(max(0.0, until - time.monotonic()))

    def _write_all(self) -> None:
        more = True
        while more:
            batch = [self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            lines = [line for line in batch if line is not None]
            more = len(lines) == len(batch)
            if not lines:
                continue
            try:
                self.file.append(lines)
            except OSError as error:
                self._lose(len(lines), str(error))

    def _lose(self, count: int, why: str) -> None:
        with self._counting:
            self.lost += count
            lost, told = self.lost, self._losses.count("") is not None
        if told:
            fields = {"path": str(self.file.path), "lost": lost, "error": why}
            _own_log.error("audit_lines_lost", extra={"fields": fields})


class Floods:
    """Who repeats something too often: a burst passes, then one in FLOOD_SECONDS."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, float, int]] = OrderedDict()

    def count(self, who: str) -> int | None:
        """How many were left out since the last one that passed; None when this one is left out too."""
        now = self._clock()
        credit, since, left_out = self._seen.pop(who, (float(BURST), now, 0))
        credit = min(float(BURST), credit + (now - since) / FLOOD_SECONDS)
        passes = credit >= 1
        self._seen[who] = (credit - 1, now, 0) if passes else (credit, now, left_out + 1)
        while len(self._seen) > _MOST_CALLERS:
            self._seen.popitem(last=False)
        return left_out if passes else None
