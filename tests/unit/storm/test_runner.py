"""What a storm does by itself, on a pretended host."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from slabwatch.host.hierarchy import MemoryHierarchy
from slabwatch.host.root import KernelRoot
from slabwatch.storm import runner
from slabwatch.storm.guard import Vitals
from slabwatch.storm.preflight import Forecast
from slabwatch.storm.runner import StormRun
from slabwatch.storm.surroundings import Surroundings
from slabwatch.watch.derive import Derived, derive
from slabwatch.watch.sample import Sample
from tests.unit.control.pretended import plan, sample

pytestmark = pytest.mark.asyncio


async def _measure() -> tuple[Sample, Derived]:
    taken = sample()
    return taken, derive(taken)


async def _shrink() -> Any:
    raise AssertionError("nobody asked for it")


def _run() -> StormRun:
    hierarchy = MemoryHierarchy(2, "v2", "/sys/fs/cgroup", "/")
    forecast = Forecast((), hierarchy, "/sys/fs/cgroup", "/sys/fs/cgroup", 0)
    around = Surroundings(KernelRoot("/nonexistent"), _measure, _shrink, {}, {}, 0, lambda run: None)
    return StormRun("s", plan(), forecast, "root", around)


async def test_a_look_at_the_host_that_takes_long_makes_the_next_sample_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    lags: list[float] = []

    class SlowPulse:
        oom_kills = 0

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def feel(self, sample: Sample, lag_seconds: float, tasks_failed: int, pressure_oom_kills: int) -> Vitals:
            lags.append(lag_seconds)
            clock.now += 26.0
            return Vitals(None, None, None, tasks_failed, lag_seconds)

    monkeypatch.setattr(runner, "Pulse", SlowPulse)
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 0.0))
    monkeypatch.setattr(runner, "SAMPLE_SECONDS", 0.0)
    storm = _run()
    watch = asyncio.create_task(storm._watch())
    async with asyncio.timeout(10):
        await storm._stop.wait()
    watch.cancel()
    assert storm._stop_outcome == ("aborted", "a sample came 26 s late: the kernel has no time for it")
    assert lags[:2] == [0.0, 26.0]
