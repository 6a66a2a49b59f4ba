"""A storm's events: late, slow and several followers, a bound, and an end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from slabwatch.storm import events as module
from slabwatch.storm.events import EventLog

pytestmark = pytest.mark.asyncio


async def follow(log: EventLog, start: int = 0) -> list[dict[str, Any]]:
    return [event async for event in log.follow(start)]


def following(log: EventLog, start: int = 0) -> asyncio.Task[list[dict[str, Any]]]:
    return asyncio.create_task(follow(log, start))


async def turn() -> None:
    """Let every task run until it waits again."""
    for _ in range(10):
        await asyncio.sleep(0)


def filled(count: int) -> EventLog:
    log = EventLog()
    for number in range(count):
        log.add("progress", t=number)
    return log


async def test_a_follower_sees_all_events_as_they_come() -> None:
    log = EventLog()
    seen: list[dict[str, Any]] = []

    async def watch() -> None:
        async for event in log.follow():
            seen[len(seen) :] = [event]

    task = asyncio.create_task(watch())
    await turn()
    assert seen == []
    for number, name in enumerate(("baseline", "create")):
        log.add("phase", t=float(number), phase=name)
        await turn()
        assert seen[-1] == {"event": "phase", "t": float(number), "phase": name}
    log.add("end", outcome="completed")
    await asyncio.wait_for(task, 5)
    assert [event["event"] for event in seen] == ["phase", "phase", "end"]


async def test_events_that_come_in_one_go_are_all_seen() -> None:
    log = EventLog()
    task = following(log)
    await turn()
    for number in range(100):
        log.add("progress", t=number)
    log.add("end")
    assert len(await asyncio.wait_for(task, 5)) == 101


async def test_who_comes_late_sees_the_same() -> None:
    log = filled(5)
    early = following(log)
    await turn()
    log.add("end", outcome="stopped")
    seen = await asyncio.wait_for(early, 5)
    assert await asyncio.wait_for(follow(log), 5) == seen
    assert await asyncio.wait_for(follow(log, 4), 5) == seen[4:]
    assert await asyncio.wait_for(follow(log, 6), 5) == []
    assert await asyncio.wait_for(follow(log, 99), 5) == []


async def test_a_slow_follower_holds_up_nobody_and_misses_nothing() -> None:
    log = EventLog()
    slow = log.follow()
    log.add("progress", t=0)
    assert (await anext(slow))["t"] == 0
    quick = following(log)
    for number in range(1, 50):
        log.add("progress", t=number)
    log.add("end")
    assert len(await asyncio.wait_for(quick, 5)) == 51, "while the slow one has taken one"
    assert [event.get("t") async for event in slow] == [*range(1, 50), None]


async def test_several_followers() -> None:
    log = EventLog()
    tasks = [following(log, start) for start in (0, 0, 1, 3)]
    await turn()
    for number in range(4):
        log.add("progress", t=number)
        await turn()
    log.add("end")
    lengths = [len(events) for events in await asyncio.wait_for(asyncio.gather(*tasks), 5)]
    assert lengths == [5, 5, 4, 2]


async def test_a_follower_that_goes_away_is_forgotten() -> None:
    log = filled(3)
    gone = following(log)
    await turn()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    log.add("end")
    assert len(await asyncio.wait_for(follow(log), 5)) == 4


async def test_nothing_comes_after_the_end() -> None:
    log = filled(1)
    log.add("end", outcome="completed")
    log.add("progress", t=9)
    log.add("end", outcome="failed")
    assert [event.get("outcome") for event in await asyncio.wait_for(follow(log), 5)] == [None, "completed"]


async def test_progress_is_bounded_and_phases_warnings_and_the_end_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 10)
    log = filled(50)
    task = following(log)
    await turn()
    log.add("phase", t=60, phase="shrink")
    log.add("progress", t=61)
    log.add("warning", message="the disk is full")
    log.add("end", outcome="completed")
    seen = await asyncio.wait_for(task, 5)
    assert [event.get("t") for event in seen[:10]] == list(range(10))
    assert [event["event"] for event in seen[10:]] == ["phase", "warning", "end"]
