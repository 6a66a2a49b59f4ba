"""The events of a storm as a stream of lines, and the lease of whoever follows it.

A plan whose ``on_disconnect`` is "stop" lives as long as a client follows it with ``?lease=1``: a terminal that died
must not leave a storm behind. It is stopped when the last such client goes away, and when none came within
LEASE_SECONDS.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from slabwatch.control import audit
from slabwatch.control.access import Caller
from slabwatch.control.problems import Problem
from slabwatch.control.services import Services, Storm
from slabwatch.control.views import end_event

# Half of what the TLS door lets in: streams never make room there, and must leave some for commands.
MAX_STREAMS = 32
WRITE_SECONDS = 30.0
# How soon a client that left, or the server's own end, is noticed between two events.
LOOK_SECONDS = 0.5

# How long a storm that needs a lease may go without its first holder.
LEASE_SECONDS = 10.0

LEASE_LOST = "the client that followed it went away"
NO_LEASE = "no client came to follow it with a lease"

log = logging.getLogger(__name__)


class EventStreams:
    """All open streams of one server."""

    def __init__(
        self,
        services: Services,
        *,
        max_streams: int = MAX_STREAMS,
        write_seconds: float = WRITE_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._services = services
        self._max_streams = max_streams
        self._write_seconds = write_seconds
        self._lease_seconds = lease_seconds
        self.open_streams = 0
        self._closing = False
        self._leaseholders: Counter[str] = Counter()  # by storm; 0: there has been one

    def expect_lease(self, storm: Storm, caller: Caller) -> None:
        """Stop the storm unless somebody takes its lease soon."""

        def look() -> None:
            if storm.id not in self._leaseholders:
                self._stop(storm, caller, NO_LEASE)

        if storm.plan.on_disconnect == "stop":
            asyncio.get_running_loop().call_later(self._lease_seconds, look)

    async def answer(self, request: web.Request, storm_id: str, leaseholder: Caller | None) -> web.StreamResponse:
        """Stream the storm's events until its end; raises Problem ``unknown_storm`` or ``too_many_streams``."""
        storm, events = await self._events(storm_id)
        # Whoever holds a lease may stop the storm: those who only look must not keep them out.
        if self.open_streams >= self._max_streams and not leaseholder:
            raise Problem(
                "too_many_streams", f"{self.open_streams} event streams are open: close one, or try again later"
            )
        response = web.StreamResponse(headers={"Cache-Control": "no-store"})
        response.content_type = "application/x-ndjson"
        if leaseholder:
            self._leaseholders[storm_id] += 1
        self.open_streams += 1
        try:
            reader_lost = await self._pump(request, response, events)
        except ConnectionError:
            reader_lost = True
        finally:
            self.open_streams -= 1
            if leaseholder:
                self._leaseholders[storm_id] -= 1
        if storm and leaseholder and reader_lost and not self._leaseholders[storm_id]:
            self._stop(storm, leaseholder, LEASE_LOST)
        return response

    async def _events(self, storm_id: str) -> tuple[Storm | None, AsyncIterator[dict[str, Any]]]:
        storm = self._services.storms.find(storm_id)
        if storm is not None:
            return storm, storm.events.follow()
        record = await asyncio.to_thread(self._services.storms.record, storm_id)
        if record is None:
            raise Problem("unknown_storm", f"no storm {storm_id} is known here: `slabwatchctl storms` lists them")
        return None, _once(end_event(record))

    async def close(self, app: web.Application) -> None:
        """End all streams: the server is stopping, which is no reader's fault."""
        self._closing = True

    async def _pump(
        self, request: web.Request, response: web.StreamResponse, events: AsyncIterator[dict[str, Any]]
    ) -> bool:
        """Write until the end; True when the reader went away before it, or did not read for too long."""
        await response.prepare(request)
        while not self._closing:
            event = await self._next(request, events)
            if event is None:
                return True
            if not event:
                break
            try:
                async with asyncio.timeout(self._write_seconds):
                    await response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
            except TimeoutError:
                log.warning("event reader too slow", extra={"fields": {"seconds": self._write_seconds}})
                if request.transport is not None:
                    request.transport.abort()
                return True
            if event["event"] == "end":
                break
        return False

    async def _next(self, request: web.Request, events: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
        """The next event, {} when there are no more, None when the reader has gone."""
        waiting = asyncio.ensure_future(anext(events, {}))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=LOOK_SECONDS)
                if self._closing:
                    return {}
                if request.transport is None or request.transport.is_closing():
                    return None
            return waiting.result()
        finally:
            waiting.cancel()

    def _stop(self, storm: Storm, caller: Caller, reason: str) -> None:
        if storm.outcome is None and storm.plan.on_disconnect == "stop":
            fields = audit.entry("stop", caller, allowed=True)
            self._services.audit.write(fields | {"outcome": "done", "storm_id": storm.id, "reason": reason})
            self._services.storms.request_stop(storm.id, reason)


async def _once(event: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield event
