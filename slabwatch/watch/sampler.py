"""The fixed-interval sampler: one poll at a time, on a grid of the monotonic clock, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from slabwatch.watch.derive import Derived, derive
from slabwatch.watch.sample import Sample

# A poll alone does not wake the event loop: that took a tenth of what a poll and a scrape take together. The loop comes
# for the samples when it is asked for them, or when there are so many.
_MOST_WAITING = 4

Taken = tuple[Sample, Derived]
Value = TypeVar("Value")
log = logging.getLogger(__name__)


class Collect(Protocol):
    """One poll, blocking; ``fresh``: nothing may be older than the call."""

    def __call__(self, *, fresh: bool = False) -> Sample: ...


class Sampler:
    """Calls ``collect`` at each point of the grid; ``publish`` gets each sample, in order and in the event loop.

    A poll that takes longer than the interval makes the next points fall out: they are counted as overruns, not
    made up for. ``measure`` gives a sample taken after the call, outside of the grid, and never beside another.
    All methods are for the event loop's thread. ``monotonic`` and ``wait`` are the clock.
    """

    def __init__(
        self,
        collect: Collect,
        publish: Callable[[Sample, Derived], None],
        interval_seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float], object] = threading.Condition.wait,
    ) -> None:
        self.interval_seconds = interval_seconds
        self.overruns = 0
        self._collect = collect
        self._publish = publish
        self._monotonic = monotonic
        self._wait = wait
        self._polls = 0
        self._latest: Taken | None = None
        self._first: Taken | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # What the loop and the thread tell each other, all of it under this lock.
        self._turn = threading.Condition()
        self._taken: list[Taken] = []
        self._wanted: list[asyncio.Future[Taken]] = []
        self._changes: list[tuple[Collect, float, asyncio.Future[None]]] = []
        self._at_work = False
        self._due: float | None = None  # the next point of the grid
        self._since: float | None = None  # the begin of the poll under way

    async def run(self) -> None:
        """Poll until cancelled. Raises what ``collect`` raises."""
        self._loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = self._loop.create_future()
        self._at_work = True
        # A daemon thread: one that waits for the kernel can not be ended, and must not keep the process from its end.
        threading.Thread(target=self._work, args=(failed,), name="sampler", daemon=True).start()
        try:
            await failed
        finally:
            with self._turn:
                self._at_work = False
                self._turn.notify()
            for wanted in self._wanted:
                wanted.cancel()
            for _, _, replaced in self._changes:
                replaced.cancel()

    @property
    def latest(self) -> Sample | None:
        """The newest sample."""
        self.catch_up()
        return self._latest[0] if self._latest else None

    @property
    def derived(self) -> Derived | None:
        """What is derived from the newest sample."""
        self.catch_up()
        return self._latest[1] if self._latest else None

    @property
    def first(self) -> Sample | None:
        """The first sample that has caches."""
        self.catch_up()
        return self._first[0] if self._first else None

    @property
    def first_derived(self) -> Derived | None:
        """What is derived from the first sample that has caches."""
        self.catch_up()
        return self._first[1] if self._first else None

    @property
    def polls(self) -> int:
        """How many samples there were."""
        self.catch_up()
        return self._polls

    def catch_up(self) -> None:
        """Publish what was taken since the last time."""
        with self._turn:
            taken, self._taken = self._taken, []
        for sample, derived in taken:
            self._polls += 1
            self._latest = sample, derived
            if self._first is None and sample.slabinfo is not None:
                self._first = self._latest
            self._publish(sample, derived)

    async def measure(self) -> Taken:
        """A fresh sample, published like any other. Who asks at the same time gets the same one."""
        wanted: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        with self._turn:
            self._wanted.append(wanted)
            self._turn.notify()
        return await wanted

    def behind_seconds(self) -> float:
        """How long the poll under way takes already, or the next one is overdue: what a watchdog wants to know."""
        with self._turn:
            begin = self._due if self._since is None else self._since
        return 0.0 if begin is None else max(0.0, self._monotonic() - begin)

    async def replace_collect(self, collect: Collect, interval_seconds: float) -> None:
        """From the next poll on, read by these collectors and at this interval. A poll under way is waited for."""
        replaced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._turn:
            if self._at_work:
                self._changes.append((collect, interval_seconds, replaced))
                self._turn.notify()
            else:
                self._collect, self.interval_seconds = collect, interval_seconds
                replaced.set_result(None)
        await replaced

    # In the thread.

    def _work(self, failed: asyncio.Future[None]) -> None:
        due = self._monotonic()
        while (turn := self._next(due)) is not None:
            wanted, due = turn
            try:
                sample = self._collect(fresh=bool(wanted))
                taken = sample, derive(sample)
            except Exception as error:  # the border of the thread: the daemon ends with it
                for future in wanted:
                    self._tell(_fail, future, error)
                self._tell(_fail, failed, error)
                return
            self._hand_over(taken, wanted)
            late = self._monotonic() - due
            if late >= 0:
                missed = max(0, math.ceil(late / self.interval_seconds) - 1)
                due += self.interval_seconds * (missed + 1)
                self._note_missed(missed, late)

    def _next(self, due: float) -> tuple[list[asyncio.Future[Taken]], float] | None:
        """Wait for the next poll: who has asked for it, and the point of the grid that it or the next one is for."""
        with self._turn:
            self._due = due
            while self._at_work and not (self._changes or self._wanted) and (left := due - self._monotonic()) > 0:
                self._wait(self._turn, left)
            if not self._at_work:
                return None
            self._since = self._monotonic()
            for collect, interval_seconds, replaced in self._changes:
                self._collect, self.interval_seconds = collect, interval_seconds
                self._tell(_resolve, replaced, None)
                due = self._since  # another interval holds from now on
            self._changes.clear()
            wanted, self._wanted = self._wanted, []
            return wanted, due

    def _hand_over(self, taken: Taken, wanted: list[asyncio.Future[Taken]]) -> None:
        with self._turn:
            self._since = None
            self._taken.append(taken)
            waiting = len(self._taken)
        if wanted or waiting >= _MOST_WAITING:
            self._tell(self.catch_up)
        for future in wanted:
            self._tell(_resolve, future, taken)

    def _tell(self, callback: Callable[..., object], *arguments: Any) -> None:
        assert self._loop is not None
        # One that is closed has nobody left who waits for an answer.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _note_missed(self, missed: int, late: float) -> None:
        if missed:
            self.overruns += missed
            log.warning("poll_overrun", extra={"fields": {"late_seconds": round(late, 3), "missed": missed}})


def _resolve(future: asyncio.Future[Value], value: Value) -> None:
    if not future.done():  # who has asked may have given up
        future.set_result(value)


def _fail(future: asyncio.Future[Value], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
