"""A clock for the sampler that jumps to whatever is due next, so that no test waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable


class JumpingClock:
    """Its time goes on when the sampler waits, up to the next of ``stops``, where it stands until ``go`` or a wake."""

    def __init__(self, stops: Iterable[float]) -> None:
        self.now = self.begin = 1000.0
        self._stops = [self.begin + stop for stop in stops]
        self._reached = threading.Semaphore(0)
        self._turn: threading.Condition | None = None

    @property
    def seconds(self) -> float:
        """Since the begin."""
        return round(self.now - self.begin, 6)

    def monotonic(self) -> float:
        return self.now

    def wait(self, turn: threading.Condition, seconds: float) -> None:
        """Stands for ``threading.Condition.wait``."""
        if self.now + seconds < self._stops[0]:
            self.now += seconds
            return
        self._turn, self.now = turn, self._stops[0]
        if len(self._stops) > 1:
            self._stops.pop(0)
        self._reached.release()
        assert turn.wait(10), "nobody comes any more"

    async def stopped(self) -> None:
        """Until the next stop."""
        assert await asyncio.to_thread(self._reached.acquire, timeout=10)

    def go(self) -> None:
        """On from this stop."""
        assert self._turn is not None
        with self._turn:
            self._turn.notify()
