"""A storm's events, kept in one bounded list that any number of followers read at their own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

# An hour at one event a second. Beyond it progress is no longer kept; the few phases, warnings and the end always are.
MOST_EVENTS = 4096


class EventLog:
    """Events are dicts with a key ``event``: phase, progress, warning, and at last end. Nobody is ever waited for."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._ended = False
        self._more = asyncio.Event()

    def add(self, event: str, **fields: Any) -> None:
        """Append one; "end" closes the log."""
        if self._ended or (len(self._events) >= MOST_EVENTS and event == "progress"):
            return
        self._events.append({"event": event, **fields})
        self._ended = event == "end"
        self._more.set()
        self._more = asyncio.Event()

    async def follow(self, start: int = 0) -> AsyncIterator[dict[str, Any]]:
        """All events from number ``start`` on, then new ones as they come, up to the end."""
        while True:
            more = self._more
            while start < len(self._events):
                yield self._events[start]
                start += 1
            if self._ended:
                return
            await more.wait()
