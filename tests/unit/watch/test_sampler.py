"""The sampler: a grid without drift, one poll at a time, overruns counted and not made up for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from slabwatch.kernel.slabinfo import SlabInfo, parse_slabinfo
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample
from slabwatch.watch.sampler import Sampler
from tests.unit.watch.clock import JumpingClock

SLABINFO = parse_slabinfo(b"slabinfo - version: 2.1\n#\ndentry 1 21 192 21 1 : tunables 0 0 0 : slabdata 1 1 0\n")


def make_sample(number: int, slabinfo: SlabInfo | None = SLABINFO) -> Sample:
    parts: dict[str, Any] = dict.fromkeys(("meminfo", "process", "cgroups", "slab_sysfs"))
    return Sample(number, 0.0, 0.0, 4096, slabinfo, collectors=(), **parts)


class Polls:
    """A collector that notes when it was called, and may take its time by the clock."""

    def __init__(self, clock: JumpingClock, takes: dict[int, float] | None = None) -> None:
        self.at: list[float] = []
        self.fresh: list[bool] = []
        self.published: list[tuple[Sample, Derived]] = []
        self._clock = clock
        self._takes = takes or {}  # number of the poll, from 1 -> seconds

    def collect(self, *, fresh: bool = False) -> Sample:
        self.at.append(self._clock.seconds)
        self.fresh.append(fresh)
        self._clock.now += self._takes.get(len(self.at), 0.001)
        return make_sample(len(self.at))

    def publish(self, sample: Sample, derived: Derived) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.published.append((sample, derived))


@contextlib.asynccontextmanager
async def running(sampler: Sampler) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(sampler.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def by_clock(
    interval: float, stops: Iterable[float], takes: dict[int, float] | None = None
) -> tuple[JumpingClock, Polls, Sampler]:
    clock = JumpingClock(stops)
    polls = Polls(clock, takes)
    return clock, polls, Sampler(polls.collect, polls.publish, interval, monotonic=clock.monotonic, wait=clock.wait)


def polled(seconds: float, interval: float, takes: dict[int, float] | None = None) -> tuple[Polls, Sampler]:
    async def main() -> tuple[Polls, Sampler]:
        clock, polls, sampler = by_clock(interval, [seconds], takes)
        async with running(sampler):
            await clock.stopped()
            sampler.catch_up()
        return polls, sampler

    return asyncio.run(main())


def test_a_thousand_polls_do_not_drift() -> None:
    polls, sampler = polled(9995.0, 10.0)
    assert polls.at == [10.0 * number for number in range(1000)]
    assert sampler.polls == len(polls.published) == 1000
    assert sampler.overruns == 0
    assert not any(polls.fresh)


def test_polls_of_uneven_length_stay_on_the_grid() -> None:
    polls, sampler = polled(45.0, 10.0, {1: 9.9, 2: 0.0, 3: 10.0, 4: 5.0})
    assert polls.at == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert sampler.overruns == 0, "a poll that ends just when the next is due has not overrun"


@pytest.mark.parametrize(
    ("takes", "at", "overruns"),
    [
        ({2: 10.5}, [0.0, 10.0, 30.0, 40.0], 1),
        ({1: 25.0}, [0.0, 30.0, 40.0], 2),
        ({1: 20.0}, [0.0, 20.0, 30.0, 40.0], 1),
        ({1: 10.001, 2: 10.001, 3: 1.0}, [0.0, 20.0, 40.0], 2),
    ],
)
def test_points_that_a_long_poll_missed_are_counted_and_fall_out(
    takes: dict[int, float], at: list[float], overruns: int, caplog: pytest.LogCaptureFixture
) -> None:
    polls, sampler = polled(45.0, 10.0, takes)
    assert polls.at == at
    assert sampler.overruns == overruns
    fields = [record.__dict__["fields"] for record in caplog.records if record.message == "poll_overrun"]
    assert sum(one["missed"] for one in fields) == overruns


def test_what_is_kept_and_published() -> None:
    polls, sampler = polled(25.0, 10.0)
    assert [sample.number for sample, _ in polls.published] == [1, 2, 3]
    assert (sampler.latest, sampler.derived) == polls.published[-1]
    assert (sampler.first, sampler.first_derived) == polls.published[0]
    assert polls.published[0][1].cache_bytes == (4096,)


def test_nobody_has_to_look_for_samples_to_be_published() -> None:
    """They are held for a while, so that a poll need not wake the loop, but not without a bound."""

    async def main() -> Polls:
        clock, polls, sampler = by_clock(10.0, [35.0])
        async with running(sampler):
            await clock.stopped()
            await asyncio.sleep(0)
        return polls

    assert [sample.number for sample, _ in asyncio.run(main()).published] == [1, 2, 3, 4]


def test_the_first_sample_is_the_first_with_caches() -> None:
    async def main() -> Sampler:
        clock = JumpingClock([45.0])
        numbers = iter(range(1, 10))

        def collect(*, fresh: bool = False) -> Sample:
            number = next(numbers)
            return make_sample(number, SLABINFO if number >= 3 else None)

        sampler = Sampler(collect, _ignore, 10.0, monotonic=clock.monotonic, wait=clock.wait)
        async with running(sampler):
            await clock.stopped()
            sampler.catch_up()
        return sampler

    sampler = asyncio.run(main())
    assert sampler.first is not None
    assert sampler.latest is not None
    assert (sampler.first.number, sampler.latest.number) == (3, 5)


def test_measure_is_fresh_published_and_off_the_grid() -> None:
    async def main() -> tuple[Polls, Sampler, Sample]:
        clock, polls, sampler = by_clock(10.0, [13.0, 15.0, 25.0])
        async with running(sampler):
            await clock.stopped()
            sample, derived = await sampler.measure()
            await clock.stopped()
            assert sampler.latest is sample
            assert sampler.derived is derived
            clock.go()
            await clock.stopped()
            sampler.catch_up()
        return polls, sampler, sample

    polls, sampler, sample = asyncio.run(main())
    assert polls.at == [0.0, 10.0, 13.0, 20.0]
    assert polls.fresh == [False, False, True, False]
    assert sample.number == 3
    assert polls.published[2][0] is sample
    assert (sampler.polls, sampler.overruns) == (4, 0)


def test_a_measurement_that_takes_over_a_point_of_the_grid_stands_for_it() -> None:
    async def main() -> Polls:
        clock, polls, sampler = by_clock(10.0, [13.0, 35.0], {3: 8.0})
        async with running(sampler):
            await clock.stopped()
            await sampler.measure()
            await clock.stopped()
        assert sampler.overruns == 0
        return polls

    assert asyncio.run(main()).at == [0.0, 10.0, 13.0, 30.0]


def test_before_the_first_poll_there_is_nothing() -> None:
    sampler = Sampler(lambda *, fresh=False: make_sample(1), _ignore, 10.0)
    assert (sampler.latest, sampler.derived, sampler.first, sampler.first_derived) == (None, None, None, None)
    assert (sampler.polls, sampler.behind_seconds()) == (0, 0.0)


def test_a_reload_replaces_collectors_and_interval_at_once() -> None:
    async def main() -> tuple[Polls, Polls, Sampler]:
        clock, old, sampler = by_clock(10.0, [13.0, 20.5])
        new = Polls(clock)
        async with running(sampler):
            await clock.stopped()
            await asyncio.gather(*(sampler.replace_collect(new.collect, interval) for interval in (7.0, 3.0)))
            await clock.stopped()
        return old, new, sampler

    old, new, sampler = asyncio.run(main())
    assert old.at == [0.0, 10.0]
    assert new.at == [13.0, 16.0, 19.0]
    assert sampler.interval_seconds == 3.0
    assert sampler.overruns == 0


def test_a_reload_before_the_first_poll_and_after_the_last() -> None:
    async def main() -> None:
        clock, first, sampler = by_clock(10.0, [5.0])
        second = Polls(clock)
        await sampler.replace_collect(second.collect, 3.0)
        async with running(sampler):
            await clock.stopped()
        await asyncio.wait_for(sampler.replace_collect(first.collect, 10.0), 10)
        assert (first.at, second.at) == ([], [0.0, 3.0])
        assert sampler.interval_seconds == 10.0

    asyncio.run(main())


def test_a_sampler_on_its_grid_is_not_behind() -> None:
    async def main() -> list[float]:
        clock, _, sampler = by_clock(10.0, range(4, 32, 4))
        behind = []
        async with running(sampler):
            for _ in range(7):
                await clock.stopped()
                behind.append(sampler.behind_seconds())
                clock.go()
        return behind

    assert max(asyncio.run(main())) < 0.01


def test_a_collector_that_raises_ends_the_run_with_its_error() -> None:
    async def main() -> None:
        def collect(*, fresh: bool = False) -> Sample:
            raise ZeroDivisionError("a defect")

        sampler = Sampler(collect, _ignore, 10.0)
        with pytest.raises(ZeroDivisionError):
            await sampler.run()
        assert (sampler.polls, sampler.latest) == (0, None)

    asyncio.run(main())


def test_a_defect_reaches_who_measures_too() -> None:
    async def main() -> None:
        def collect(*, fresh: bool = False) -> Sample:
            if fresh:
                raise ZeroDivisionError("a defect")
            return make_sample(1)

        sampler = Sampler(collect, _ignore, 3600.0)
        async with running(sampler) as run:
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(sampler.measure(), 10)
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(run, 10)

    asyncio.run(main())


def test_who_measures_is_not_left_waiting_at_the_end() -> None:
    async def main() -> None:
        gate = Gate()
        sampler = Sampler(gate.collect, _ignore, 3600.0)
        async with running(sampler):
            await _entered(gate)
            measuring = asyncio.create_task(sampler.measure())
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(measuring, 10)
        gate.leave.release()

    asyncio.run(main())


# With real time, and real waiting for events.


class Gate:
    """A collector that waits for leave, and notes whether it ever ran beside itself."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.threads: set[str] = set()
        self.calls = 0
        self.at_once = 0
        self.most_at_once = 0

    def collect(self, *, fresh: bool = False) -> Sample:
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        assert self.leave.acquire(timeout=10)
        self.at_once -= 1
        return make_sample(self.calls)


@pytest.mark.parametrize("cancel_a_measurement", [False, True])
def test_a_read_that_does_not_come_back_puts_it_behind(cancel_a_measurement: bool) -> None:
    """Also when a measurement is given up meanwhile: its read may hang all the same."""

    async def main() -> None:
        gate = Gate()
        sampler = Sampler(gate.collect, _ignore, 0.01)
        async with running(sampler):
            await _entered(gate)
            if cancel_a_measurement:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(sampler.measure(), 0.05)
            else:
                await asyncio.sleep(0.05)
            assert sampler.behind_seconds() >= 0.05
            gate.leave.release()
            await _entered(gate)
            assert sampler.behind_seconds() < 5
            gate.leave.release(100)

    asyncio.run(main())


async def _entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.acquire, timeout=10)


def _ignore(sample: Sample, derived: Derived) -> None:
    pass


def test_polls_and_measurements_are_never_beside_each_other_nor_in_the_loop() -> None:
    async def main() -> None:
        gate = Gate()
        sampler = Sampler(gate.collect, _ignore, 3600.0)
        async with running(sampler):
            await _entered(gate)
            measuring = [asyncio.create_task(sampler.measure()) for _ in range(3)]
            await asyncio.sleep(0)
            assert gate.calls == 1, "the measurements wait for the poll"
            gate.leave.release(2)
            samples = [sample.number for sample, _ in await asyncio.gather(*measuring)]
        assert samples == [2, 2, 2], "one for all that wait"
        assert gate.most_at_once == 1
        assert len(gate.threads) == 1
        assert next(iter(gate.threads)).startswith("sampler")

    asyncio.run(main())


def test_the_loop_goes_on_during_a_poll() -> None:
    async def main() -> None:
        gate = Gate()
        sampler = Sampler(gate.collect, _ignore, 3600.0)
        async with running(sampler):
            await _entered(gate)
            for _ in range(100):
                await asyncio.sleep(0)
            assert sampler.latest is None
            gate.leave.release(2)
            await asyncio.wait_for(sampler.measure(), 10)
            assert sampler.polls == 2

    asyncio.run(main())


def test_a_measurement_that_is_given_up_leaves_the_sampler_usable() -> None:
    async def main() -> None:
        gate = Gate()
        sampler = Sampler(gate.collect, _ignore, 3600.0)
        async with running(sampler):
            await _entered(gate)
            gate.leave.release()
            given_up = asyncio.create_task(sampler.measure())
            await _entered(gate)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            gate.leave.release()
            gate.leave.release()
            sample, _ = await sampler.measure()
            assert sample.number == 3
            assert gate.most_at_once == 1

    asyncio.run(main())


def test_a_run_that_is_cancelled_leaves_no_thread() -> None:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "sampler"}

    async def main() -> None:
        before, gate = threads(), Gate()
        async with running(Sampler(gate.collect, _ignore, 3600.0)):
            await _entered(gate)
            (mine,) = threads() - before
            gate.leave.release()
        await asyncio.to_thread(mine.join, 10)
        assert not mine.is_alive()

    asyncio.run(main())
