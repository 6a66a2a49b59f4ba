"""The sampler: a grid without drift, one poll at a time, overruns counted and not made up for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from slabwatch.kernel.slabinfo import SlabInfo, parse_slabinfo
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample
from slabwatch.watch.sampler import Sampler
from tests.unit.watch.clock import InlineExecutor, JumpingLoop, run

SLABINFO = parse_slabinfo(b"slabinfo - version: 2.1\n#\ndentry 1 21 192 21 1 : tunables 0 0 0 : slabdata 1 1 0\n")


def make_sample(number: int, slabinfo: SlabInfo | None = SLABINFO) -> Sample:
    parts: dict[str, Any] = dict.fromkeys(("meminfo", "process", "cgroups", "slab_sysfs"))
    return Sample(number, 0.0, 0.0, 4096, slabinfo, collectors=(), **parts)


class Polls:
    """A collector that notes when it was called, and may take its time by the loop's clock."""

    def __init__(self, loop: JumpingLoop) -> None:
        self.at: list[float] = []
        self.takes: dict[int, float] = {}  # number of the poll, from 1 -> seconds
        self.published: list[tuple[Sample, Derived]] = []
        self._loop = loop
        self._begin = loop.time()

    def collect(self, *, fresh: bool = False) -> Sample:
        self.at.append(round(self._loop.time() - self._begin, 6))
        number = len(self.at)
        self._loop.advance(self.takes.get(number, 0.001))
        return make_sample(number)

    def publish(self, sample: Sample, derived: Derived) -> None:
        self.published.append((sample, derived))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slabwatch.watch.sampler.ThreadPoolExecutor", InlineExecutor)


@contextlib.asynccontextmanager
async def running(sampler: Sampler) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(sampler.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def polled(seconds: float, interval: float, takes: dict[int, float] | None = None) -> tuple[Polls, Sampler]:
    async def main(loop: JumpingLoop) -> tuple[Polls, Sampler]:
        polls = Polls(loop)
        polls.takes = takes or {}
        sampler = Sampler(polls.collect, polls.publish, interval)
        async with running(sampler):
            await asyncio.sleep(seconds)
        return polls, sampler

    return run(main)


@pytest.mark.usefixtures("inline")
def test_a_thousand_polls_do_not_drift() -> None:
    polls, sampler = polled(9995.0, 10.0)
    assert polls.at == [10.0 * number for number in range(1000)]
    assert sampler.polls == len(polls.published) == 1000
    assert sampler.overruns == 0


@pytest.mark.usefixtures("inline")
def test_polls_of_uneven_length_stay_on_the_grid() -> None:
    polls, sampler = polled(45.0, 10.0, {1: 9.9, 2: 0.0, 3: 10.0, 4: 5.0})
    assert polls.at == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert sampler.overruns == 0, "a poll that ends just when the next is due has not overrun"


@pytest.mark.usefixtures("inline")
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


@pytest.mark.usefixtures("inline")
def test_what_is_kept_and_published() -> None:
    polls, sampler = polled(25.0, 10.0)
    assert [sample.number for sample, _ in polls.published] == [1, 2, 3]
    assert (sampler.latest, sampler.derived) == polls.published[-1]
    assert (sampler.first, sampler.first_derived) == polls.published[0]
    assert polls.published[0][1].cache_bytes == (4096,)


@pytest.mark.usefixtures("inline")
def test_the_first_sample_is_the_first_with_caches() -> None:
    async def main(loop: JumpingLoop) -> Sampler:
        numbers = iter(range(1, 10))

        def collect(*, fresh: bool = False) -> Sample:
            number = next(numbers)
            return make_sample(number, SLABINFO if number >= 3 else None)

        sampler = Sampler(collect, lambda sample, derived: None, 10.0)
        async with running(sampler):
            await asyncio.sleep(45)
        return sampler

    sampler = run(main)
    assert sampler.first is not None
    assert sampler.latest is not None
    assert (sampler.first.number, sampler.latest.number) == (3, 5)


@pytest.mark.usefixtures("inline")
def test_measure_is_fresh_published_and_off_the_grid() -> None:
    async def main(loop: JumpingLoop) -> tuple[Polls, Sampler, Sample]:
        polls = Polls(loop)
        sampler = Sampler(polls.collect, polls.publish, 10.0)
        async with running(sampler):
            await asyncio.sleep(13.0)
            sample, derived = await sampler.measure()
            assert sampler.latest is sample
            assert sampler.derived is derived
            await asyncio.sleep(12.0)
        return polls, sampler, sample

    polls, sampler, sample = run(main)
    assert polls.at == [0.0, 10.0, 13.0, 20.0]
    assert sample.number == 3
    assert polls.published[2][0] is sample
    assert (sampler.polls, sampler.overruns) == (4, 0)


@pytest.mark.usefixtures("inline")
def test_measure_works_before_the_first_poll() -> None:
    async def main(loop: JumpingLoop) -> Sampler:
        polls = Polls(loop)
        sampler = Sampler(polls.collect, polls.publish, 10.0)
        assert (sampler.latest, sampler.derived, sampler.first) == (None, None, None)
        await sampler.measure()
        return sampler

    sampler = run(main)
    assert sampler.first is not None
    assert sampler.polls == 1


@pytest.mark.usefixtures("inline")
def test_a_reload_replaces_collectors_and_interval_at_once() -> None:
    async def main(loop: JumpingLoop) -> tuple[Polls, Polls, Sampler]:
        old, new = Polls(loop), Polls(loop)
        sampler = Sampler(old.collect, old.publish, 10.0)
        async with running(sampler):
            await asyncio.sleep(13.0)
            await sampler.replace_collect(new.collect, 3.0)
            await asyncio.sleep(7.5)
        return old, new, sampler

    old, new, sampler = run(main)
    assert old.at == [0.0, 10.0]
    assert new.at == [13.0, 16.0, 19.0]
    assert sampler.interval_seconds == 3.0
    assert sampler.overruns == 0


@pytest.mark.usefixtures("inline")
def test_a_sampler_on_its_grid_is_not_behind() -> None:
    async def main(loop: JumpingLoop) -> list[float]:
        polls = Polls(loop)
        sampler = Sampler(polls.collect, polls.publish, 10.0)
        behind = [sampler.behind_seconds()]
        async with running(sampler):
            for _ in range(7):
                await asyncio.sleep(4.0)
                behind.append(sampler.behind_seconds())
        return behind

    assert max(run(main)) < 0.01


@pytest.mark.usefixtures("inline")
def test_a_collector_that_raises_ends_the_run_with_its_error() -> None:
    async def main(loop: JumpingLoop) -> None:
        def collect(*, fresh: bool = False) -> Sample:
            raise ZeroDivisionError("a defect")

        sampler = Sampler(collect, lambda sample, derived: None, 10.0)
        with pytest.raises(ZeroDivisionError):
            await sampler.run()
        assert (sampler.polls, sampler.latest) == (0, None)

    run(main)


# With its real thread, and real waiting for events.


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
        sampler = Sampler(gate.collect, lambda sample, derived: None, 0.01)
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
            for number in range(4):
                gate.leave.release()
                if number < 3:
                    await _entered(gate)
            samples = [sample.number for sample, _ in await asyncio.gather(*measuring)]
        assert samples == [2, 3, 4]
        assert gate.most_at_once == 1
        assert len(gate.threads) == 1
        assert next(iter(gate.threads)).startswith("sampler")

    asyncio.run(main())


def test_the_loop_goes_on_during_a_poll() -> None:
    async def main() -> None:
        gate = Gate()
        published = asyncio.Event()
        sampler = Sampler(gate.collect, lambda sample, derived: published.set(), 3600.0)
        async with running(sampler):
            await _entered(gate)
            for _ in range(100):
                await asyncio.sleep(0)
            assert sampler.latest is None
            gate.leave.release()
            await asyncio.wait_for(published.wait(), 10)
            assert sampler.latest is not None

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


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sampler")]


def test_a_run_that_is_cancelled_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(_threads())

    async def main(leave: Callable[[], None], sampler: Sampler, gate: Gate) -> None:
        async with running(sampler):
            await _entered(gate)
            leave()
        for thread in threading.enumerate():
            if thread.name.startswith("sampler"):
                await asyncio.to_thread(thread.join, 10)

    gate = Gate()
    asyncio.run(main(gate.leave.release, Sampler(gate.collect, _ignore, 3600.0), gate))
    assert len(_threads()) <= before
