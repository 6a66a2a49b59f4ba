"""The daemon's side of the engine: starts it, gives orders, hears what happens, and ends it if it must."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import slabwatch
from slabwatch.errors import StormAborted
from slabwatch.storm import lifecycle
from slabwatch.storm.setup import Setup

_PACKAGE_PARENT = str(Path(slabwatch.__file__).resolve().parent.parent)
_MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from slabwatch.storm.engine import main; main()"

# The event "removed" names all that was left.
_LONGEST_LINE_BYTES = 32 * 1024 * 1024

log = logging.getLogger(__name__)


class EngineProcess:
    """One engine. ``counts`` are the workers' newest figures: cgroups, started, failed, live, peak."""

    def __init__(self, process: asyncio.subprocess.Process, storm_id: str) -> None:
        self.counts = dict.fromkeys(("cgroups", "started", "failed", "live", "peak"), 0)
        self.created = 0
        self.removed = 0
        self.left: dict[str, str] = {}
        self.limits: dict[str, int | None] = {}  # those that could be set: memory_bytes, pids
        self.pressed: dict[str, dict[str, Any]] = {}  # by place, once it is over
        self.pressing_bytes = 0
        self.by_limit = False  # whether it failed because the storm's own memory limit was reached
        self._process = process
        self._storm_id = storm_id
        self._reached: dict[str, asyncio.Event] = {}
        self._ended = asyncio.Event()
        self._failure = ""
        self._complaints: list[str] = []
        self._readers = [
            asyncio.create_task(self._hear(), name=f"storm {storm_id} engine stdout"),
            asyncio.create_task(self._complain(), name=f"storm {storm_id} engine stderr"),
        ]

    @classmethod
    async def start(cls, setup: Setup) -> EngineProcess:
        """A session of its own, so that a Ctrl-C on the daemon's terminal is the daemon's to handle.

        Raises StormAborted when there is no more process or memory to be had.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-E", "-c", _MAIN, _PACKAGE_PARENT, setup.to_json(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LONGEST_LINE_BYTES,
                env={lifecycle.MARK: setup.storm_id, "PATH": "/usr/local/bin:/usr/bin:/bin"},
                cwd="/",
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise StormAborted(f"the engine could not be started: {error.strerror or error}") from error
        return cls(process, setup.storm_id)

    async def order(self, do: str, until: str) -> None:
        """Give an order and wait until it is done. Raises StormAborted when the engine fails or is gone."""
        reached = self._reached.setdefault(until, asyncio.Event())
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"do": do}).encode() + b"\n")
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended: said below
        waits = [asyncio.create_task(reached.wait()), asyncio.create_task(self._ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._failure or not reached.is_set():
            raise StormAborted(self.failure)

    @property
    def failure(self) -> str:
        """Why it can do nothing more; "" while it can."""
        return (self._failure or self._why_ended()) if self._ended.is_set() else ""

    async def end(self, seconds: float) -> None:
        """Close its stdin, upon which it cleans up and ends; SIGKILL after the deadline. Never raises."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            log.warning("engine_killed", extra={"fields": {"storm": self._storm_id, "deadline_seconds": seconds}})
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                self._event(json.loads(line))
        finally:
            self._ended.set()

    def _event(self, event: dict[str, Any]) -> None:
        at = event["at"]
        if at in ("load", "loaded", "drained"):
            self.counts = {key: event[key] for key in self.counts}
        elif at in ("create", "created"):
            self.created = event["cgroups"]
            self.limits = event.get("limits", self.limits)
        elif at == "pressing":
            self.pressing_bytes = event["consumed_bytes"]
        elif at in ("pressed_storm", "pressed_host"):
            self.pressed[event["where"]] = {key: value for key, value in event.items() if key != "at"}
        elif at in ("removed_first", "removed"):
            self.removed += event["removed"]
            self.left = event["left"]
        elif at == "failed":
            self.by_limit = event["by_limit"]
            said = event["reason"] if self.by_limit else f"the engine failed: {event['reason']}"
            self._failure = "; ".join([said, *self._complaints])
            self._ended.set()
        self._reached.setdefault(at, asyncio.Event()).set()

    async def _complain(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode("utf-8", "backslashreplace").rstrip()
            self._complaints = [*self._complaints[-4:], text]
            log.warning("engine_says", extra={"fields": {"storm": self._storm_id, "line": text}})

    def _why_ended(self) -> str:
        return "; ".join(["the engine is gone before its work was done", *self._complaints])
