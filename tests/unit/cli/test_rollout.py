"""Whose turn it is: the canary, how many at a time, and when no more are begun."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.cli.rollout import Rollout


class Hosts:
    """Fake hosts. Each ends when it is told to; ``now`` are those under way."""

    def __init__(self) -> None:
        self.now: dict[int, asyncio.Future[bool]] = {}
        self.begun: list[int] = []

    async def act(self, host: int) -> bool:
        self.begun.append(host)
        self.now[host] = asyncio.get_running_loop().create_future()
        try:
            return await self.now[host]
        finally:
            del self.now[host]

    async def end(self, host: int, *, well: bool = True) -> None:
        self.now[host].set_result(well)
        await settled()


async def settled() -> None:
    """All that can go on without news has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def begun(hosts: int, parallel: int) -> tuple[Hosts, Rollout[int], asyncio.Task[tuple[int, ...]]]:
    fakes, rollout = Hosts(), Rollout(range(hosts), parallel)
    running = asyncio.create_task(rollout.run(fakes.act))
    await settled()
    return fakes, rollout, running


@pytest.mark.asyncio
async def test_one_after_the_other() -> None:
    hosts, _, running = await begun(3, 1)
    for host in range(3):
        assert list(hosts.now) == [host]
        await hosts.end(host)
    assert await running == ()
    assert hosts.begun == [0, 1, 2]


@pytest.mark.asyncio
async def test_the_canary_is_alone() -> None:
    hosts, _, running = await begun(6, 3)
    assert list(hosts.now) == [0]
    await hosts.end(0)
    assert list(hosts.now) == [1, 2, 3]
    await hosts.end(2)
    assert list(hosts.now) == [1, 3, 4]
    for host in (1, 3, 4, 5):
        await hosts.end(host)
    assert await running == ()


@pytest.mark.asyncio
async def test_a_canary_that_dies_is_the_only_one() -> None:
    hosts, _, running = await begun(4, 9)
    await hosts.end(0, well=False)
    assert await running == (1, 2, 3)
    assert hosts.begun == [0]


@pytest.mark.asyncio
async def test_what_is_under_way_goes_on() -> None:
    hosts, _, running = await begun(6, 2)
    await hosts.end(0)
    await hosts.end(1, well=False)
    assert list(hosts.now) == [2]
    assert not running.done()
    await hosts.end(2)
    assert await running == (3, 4, 5)


@pytest.mark.asyncio
async def test_halt() -> None:
    hosts, rollout, running = await begun(4, 2)
    await hosts.end(0)
    rollout.halt()
    await hosts.end(1)
    await hosts.end(2)
    assert await running == (3,)
    rollout = Rollout([7, 8], 1)
    rollout.halt()
    assert await rollout.run(hosts.act) == (7, 8)


@pytest.mark.asyncio
async def test_one_host_and_none() -> None:
    hosts, _, running = await begun(1, 5)
    await hosts.end(0)
    assert await running == ()
    assert await Rollout[int]([], 5).run(hosts.act) == ()


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 5))
def test_none_is_begun_after_a_failure_and_none_twice(course: Sequence[bool], parallel: int) -> None:
    begun: list[int] = []
    failed = False
    under_way = most = 0

    async def act(host: int) -> bool:
        nonlocal failed, under_way, most
        assert not failed
        begun.append(host)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        failed = failed or not course[host]
        return course[host]

    left = asyncio.run(Rollout(range(len(course)), parallel).run(act))
    assert (*begun, *left) == tuple(range(len(course)))
    assert most <= parallel
    assert bool(left) <= failed
