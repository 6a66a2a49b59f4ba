"""The fixed-interval sampler: one poll at a time, on a grid of the monotonic clock, off the event loop."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from slabwatch.watch.derive import Derived, derive
from slabwatch.watch.sample import Sample


class Collect(Protocol):
    """One poll, blocking; ``fresh``: nothing may be older than the call."""

    def __call__(self, *, fresh: bool = False) -> Sample: ...


log = logging.getLogger(__name__)


class Sampler:
    """Calls ``collect`` at each point of the grid and hands the sample to ``publish``.

    A poll that takes longer than the interval makes the next points fall out: they are counted as overruns, not
    made up for. ``measure`` gives a sample taken after the call, outside of the grid, and never beside another.
    """

    def __init__(self, collect: Collect, publish: Callable[[Sample, Derived], None], interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self.latest: Sample | None = None
        self.derived: Derived | None = None
        self.first: Sample | None = None
        self.first_derived: Derived | None = None
        self.polls = 0
        self.overruns = 0
        self._collect = collect
        self._publish = publish
        self._changed = asyncio.Event()
        self._single_flight = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sampler")
        self._due: float | None = None  # the next point of the grid
        self._since: float | None = None  # the begin of the poll under way

    async def run(self) -> None:
        """Poll until cancelled."""
        loop = asyncio.get_running_loop()
        self._due = due = loop.time()
        try:
            while True:
                await self._poll()
                interval = self.interval_seconds
                late = loop.time() - due
                missed = max(0, math.ceil(late / interval) - 1)
                if missed:
                    self.overruns += missed
                    log.warning("poll_overrun", extra={"fields": {"late_seconds": round(late, 3), "missed": missed}})
                self._due = due = due + interval * (missed + 1)
                if await self._changed_before(due):
                    self._due = due = loop.time()  # another interval holds from now on
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def measure(self) -> tuple[Sample, Derived]:
        """A fresh sample, published like any other."""
        return await self._poll(fresh=True)

    def behind_seconds(self) -> float:
        """How long the poll under way takes already, or the next one is overdue: what a watchdog wants to know."""
        begin = self._due if self._since is None else self._since
        return 0.0 if begin is None else max(0.0, asyncio.get_running_loop().time() - begin)

    async def replace_collect(self, collect: Collect, interval_seconds: float) -> None:
        """From the next poll on, read by these collectors and at this interval. A poll under way is waited for."""
        async with self._single_flight:
            self._collect = collect
            self.interval_seconds = interval_seconds
        self._changed.set()

    async def _poll(self, *, fresh: bool = False) -> tuple[Sample, Derived]:
        loop = asyncio.get_running_loop()
        async with self._single_flight:
            self._since = loop.time()
            try:
                sample = await loop.run_in_executor(self._thread, functools.partial(self._collect, fresh=fresh))
            finally:
                self._since = None
            derived = derive(sample)
            self.polls += 1
            self.latest, self.derived = sample, derived
            if self.first is None and sample.slabinfo is not None:
                self.first, self.first_derived = sample, derived
            self._publish(sample, derived)
            return sample, derived

    async def _changed_before(self, due: float) -> bool:
        try:
            async with asyncio.timeout_at(due):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True
