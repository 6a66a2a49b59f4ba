"""Who asks, while a directory server that knows the users' names hangs."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from slabwatch.control import access, gate
from slabwatch.control.access import Peer
from tests.unit.control.conftest import Door
from tests.unit.control.pretended import PretendedStorm, plan, until

pytestmark = pytest.mark.asyncio

# More than the event loop has threads of its own.
MANY = 40


async def test_names_that_do_not_come_hold_up_nobody_else(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    came = threading.Event()
    asked: list[Peer] = []

    def name_of(uid: int) -> str:
        assert came.wait(30)
        return str(uid)

    def peer_of(transport: asyncio.BaseTransport | None) -> Peer:
        uid = 54321 if len(asked) < MANY else os.geteuid()
        asked.append(Peer(uid, uid, 1))
        return asked[-1]

    monkeypatch.setattr(access, "user_name", name_of)
    monkeypatch.setattr(gate, "peer_of", peer_of)
    viewers = [asyncio.create_task(door.ask("GET", "/v1/status")) for _ in range(MANY)]
    try:
        await until(lambda: len(asked) == MANY)
        async with asyncio.timeout(10):
            assert (await door.ask("POST", "/v1/storms/storm-1/stop"))[0] == 202
            assert await asyncio.to_thread(os.getpid) == os.getpid(), "by such a thread a storm is guarded"
        assert storm.stop_reasons
    finally:
        came.set()
    assert {code for code, _ in await asyncio.gather(*viewers)} == {200}
