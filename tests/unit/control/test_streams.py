"""A storm's events over HTTP, and the lease of whoever follows it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from slabwatch.config import Config
from slabwatch.control.access import Caller, Peer
from slabwatch.control.streams import LEASE_LOST, NO_LEASE
from tests.unit.control.conftest import Door, Opened
from tests.unit.control.pretended import PretendedStorm, plan, record, until

pytestmark = pytest.mark.asyncio

EVENTS = "/v1/storms/storm-1/events"


def _running(door: Door, **wishes: Any) -> PretendedStorm:
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan(**wishes))
    return storm


async def test_all_events_from_the_first_to_the_end(door: Door) -> None:
    storm = _running(door)
    await storm.enter("baseline", 0.0)
    following = asyncio.create_task(door.lines(EVENTS))
    await storm.progress(1.0)
    await storm.enter("create", 3.0)
    ended = await storm.end()
    events = await following
    assert [event["event"] for event in events] == ["phase", "progress", "phase", "end"]
    assert events[-1]["record"] == ended
    assert await door.lines(EVENTS) == events, "who comes late sees the same"


async def test_of_a_finished_storm_the_end_is_left(door: Door) -> None:
    ended = door.daemon.storms.ended["old"] = record("old", plan())
    assert await door.lines("/v1/storms/old/events") == [
        {"event": "end", "outcome": "completed", "reason": "", "record": ended}
    ]


async def test_a_lost_lease_stops_the_storm(door: Door, audit_log: list[dict[str, Any]]) -> None:
    storm = _running(door, on_disconnect="stop")
    await storm.enter("load", 0.0)
    async with door.session.get(EVENTS + "?lease=1") as response:
        await response.content.readline()
        response.close()
    await until(lambda: storm.stop_reasons)
    assert storm.stop_reasons == [LEASE_LOST]
    assert audit_log[-1] | {"command": "stop", "storm_id": "storm-1", "reason": LEASE_LOST} == audit_log[-1]


@pytest.mark.parametrize(("on_disconnect", "query"), [("continue", "?lease=1"), ("stop", "")])
async def test_without_a_lease_to_lose_it_goes_on(door: Door, on_disconnect: str, query: str) -> None:
    storm = _running(door, on_disconnect=on_disconnect)
    await storm.enter("load", 0.0)
    async with door.session.get(EVENTS + query) as response:
        await response.content.readline()
        response.close()
    await until(lambda: door.streams.open_streams == 0)
    assert not storm.stop_reasons


async def test_an_ended_storm_is_not_stopped_by_its_leaseholder(door: Door) -> None:
    storm = _running(door, on_disconnect="stop")
    await storm.end()
    await door.lines(EVENTS + "?lease=1")
    assert not storm.stop_reasons


async def test_a_lease_that_nobody_takes(open_door: Opened) -> None:
    door: Door = await open_door(lease_seconds=0.05)
    await door.ask("POST", "/v1/storms", {"on_disconnect": "stop"})
    storm = door.daemon.storms.running
    assert storm
    await until(lambda: storm.stop_reasons)
    assert storm.stop_reasons == [NO_LEASE]


async def test_a_lease_that_is_taken_in_time(open_door: Opened) -> None:
    door: Door = await open_door(lease_seconds=0.0)
    storm = _running(door, on_disconnect="stop")
    following = asyncio.create_task(door.lines(EVENTS + "?lease=1"))
    await until(lambda: door.streams.open_streams == 1)
    door.streams.expect_lease(storm, Caller("root", "unix", (), owner=True, peer=Peer(0, 0, 1)))
    await door.ask("GET", "/v1/status")
    assert not storm.stop_reasons
    await storm.end()
    assert len(await following) == 1


async def test_a_detached_storm_needs_no_lease(open_door: Opened) -> None:
    door: Door = await open_door(lease_seconds=0.0)
    await door.ask("POST", "/v1/storms", {"on_disconnect": "continue"})
    await door.ask("GET", "/v1/status")
    assert door.daemon.storms.running
    assert not door.daemon.storms.running.stop_reasons


async def test_the_daemons_own_end_is_no_lost_lease(door: Door) -> None:
    storm = _running(door, on_disconnect="stop")
    await storm.enter("load", 0.0)
    async with door.session.get(EVENTS + "?lease=1") as response:
        await response.content.readline()
        await door.runner.cleanup()
        assert await response.content.read() == b"", "in an orderly way, and at once"
    assert not storm.stop_reasons


async def test_a_viewer_may_follow_but_hold_no_lease(door: Door, viewer: Peer, audit_log: list[dict[str, Any]]) -> None:
    storm = _running(door, on_disconnect="stop")
    await storm.end()
    assert len(await door.lines(EVENTS)) == 1
    code, problem = await door.ask("GET", EVENTS + "?lease=1")
    assert (code, problem["code"]) == (403, "not_allowed")
    (entry,) = audit_log
    said = {"command": "lease", "uid": viewer.uid, "allowed": False, "outcome": "not_allowed", "storm_id": "storm-1"}
    assert entry | said == entry


@pytest.mark.parametrize(
    ("rights", "requested_by", "status"),
    [
        ({"storm": ["user:54321"]}, "54321", 200),
        ({"storm": ["user:54321"]}, "root", 403),
        ({"storm": ["user:54321"], "stop": ["user:1"]}, "54321", 200),
        ({"storm": ["user:1"], "stop": ["user:54321"]}, "root", 200),
        ({"storm": ["user:1"], "stop": ["user:1"]}, "54321", 403),
    ],
)
async def test_a_lease_is_for_who_may_stop_the_storm(
    door: Door, viewer: Peer, rights: dict[str, list[str]], requested_by: str, status: int
) -> None:
    door.daemon.config = Config.read({"rights": rights})
    storm = _running(door, on_disconnect="stop")
    storm.requested_by = requested_by
    await storm.enter("load", 0.0)
    async with door.session.get(EVENTS + "?lease=1") as response:
        assert response.status == status
        response.close()


async def test_of_two_leases_the_last_counts(door: Door) -> None:
    storm = _running(door, on_disconnect="stop")
    await storm.enter("load", 0.0)
    async with door.session.get(EVENTS + "?lease=1") as owner:
        await owner.content.readline()
        async with door.session.get(EVENTS + "?lease=1") as guest:
            await guest.content.readline()
            guest.close()
        await until(lambda: door.streams.open_streams == 1)
        await door.ask("GET", "/v1/status")
        assert not storm.stop_reasons
        owner.close()
    await until(lambda: storm.stop_reasons)
    assert storm.stop_reasons == [LEASE_LOST]


async def test_who_only_looks_takes_no_lease(open_door: Opened) -> None:
    door: Door = await open_door(lease_seconds=0.0)
    storm = _running(door, on_disconnect="stop")
    await storm.enter("load", 0.0)
    async with door.session.get(EVENTS) as response:
        await response.content.readline()
        door.streams.expect_lease(storm, Caller("root", "unix", (), owner=True, peer=Peer(0, 0, 1)))
        await until(lambda: storm.stop_reasons)
        response.close()
    assert storm.stop_reasons == [NO_LEASE]


async def test_too_many_streams(open_door: Opened) -> None:
    door: Door = await open_door(max_streams=1)
    storm = _running(door)
    await storm.enter("load", 0.0)
    async with door.session.get(EVENTS) as first:
        await first.content.readline()
        code, problem = await door.ask("GET", EVENTS)
        assert (code, problem["code"]) == (503, "too_many_streams")
        first.close()

    await until(lambda: not door.streams.open_streams)
    async with door.session.get(EVENTS) as response:
        assert response.status == 200
        response.close()


async def test_a_reader_that_does_not_read_is_dropped(open_door: Opened) -> None:
    door: Door = await open_door(write_seconds=0.1)
    storm = _running(door, on_disconnect="stop")
    reader, writer = await asyncio.open_unix_connection(door.path, limit=1024)
    writer.write(f"GET {EVENTS}?lease=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readline()
    for number in range(50):
        await storm.events.add({"event": "warning", "t": number, "text": "x" * 100_000})
    await until(lambda: storm.stop_reasons)
    writer.close()


async def test_a_record_larger_than_any_buffer(door: Door) -> None:
    storm = _running(door)
    await storm.end(snapshots={"baseline": ["x" * 1000] * 1000})
    async with door.session.get(EVENTS) as response:
        body = await response.read()
    assert body.count(b"\n") == 1
    assert len(json.loads(body)["record"]["snapshots"]["baseline"]) == 1000
