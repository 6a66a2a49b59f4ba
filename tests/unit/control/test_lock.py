"""The maintenance switch: over HTTP, over a restart, and with a file that can not be trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.control.access import Peer
from slabwatch.control.lock import Lock, LockNotKept, MaintenanceSwitch
from tests.unit.control.conftest import Door
from tests.unit.control.pretended import PretendedStorm, plan

Entries = list[dict[str, Any]]


def _switch(directory: Path) -> MaintenanceSwitch:
    switch = MaintenanceSwitch(directory, lambda locked: None)
    switch.read()
    return switch


def test_at_first_nothing_is_locked(tmp_path: Path) -> None:
    told: list[bool] = []
    switch = MaintenanceSwitch(tmp_path / "none-yet", told.append)
    switch.read()
    assert switch.held is None
    assert told == [False]


@pytest.mark.asyncio
async def test_a_lock_survives_a_restart(tmp_path: Path) -> None:
    told: list[bool] = []
    switch = MaintenanceSwitch(tmp_path / "state", told.append)
    await switch.lock("new kernel", "alice")
    assert told == [True]
    again = _switch(tmp_path / "state")
    assert again.held == switch.held
    assert (again.held.reason, again.held.by) == ("new kernel", "alice") if again.held else False
    await again.unlock()
    assert again.held is None
    assert _switch(tmp_path / "state").held is None
    assert os.listdir(tmp_path / "state") == []
    await again.unlock()


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"reason": "x", "by": "y"}',
    b'{"reason": "x", "by": "y", "since": "noon"}',
    b'{"reason": "x", "by": "y", "since": 1e300}',
    b'{"reason": 1, "by": "y", "since": 0}',
]


@pytest.mark.asyncio
@pytest.mark.parametrize("content", BROKEN)
async def test_a_file_that_can_not_be_understood_locks(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock.json").write_bytes(content)
    switch = _switch(tmp_path)
    assert switch.held is not None
    assert f"{tmp_path}/lock.json can not be understood" in str(switch.held)
    assert (switch.held.by, switch.held.since) == (None, None)
    await switch.unlock()
    assert _switch(tmp_path).held is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_lock(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.getbasetemp() / "lock"
    directory.mkdir(exist_ok=True)
    (directory / "lock.json").write_bytes(content)
    assert str(_switch(directory).held).startswith("storms and shrinks are locked")


@pytest.mark.asyncio
async def test_a_file_that_can_not_be_read_locks(tmp_path: Path) -> None:
    (tmp_path / "lock.json").mkdir()
    switch = _switch(tmp_path)
    assert "can not be read: Is a directory" in str(switch.held)
    with pytest.raises(LockNotKept, match="stay locked: .* could not be removed"):
        await switch.unlock()
    assert switch.held is not None


@pytest.mark.asyncio
async def test_a_lock_that_can_not_be_kept_holds_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    switch = MaintenanceSwitch(tmp_path / "file", lambda locked: None)
    with pytest.raises(LockNotKept, match="a restart of the daemon would unlock them"):
        await switch.lock("x", "alice")
    assert switch.held is not None


def test_words() -> None:
    assert str(Lock("new kernel", "alice", 1_570_000_000.0)) == (
        "storms and shrinks are locked by alice on 2019-10-02 07:06:40 UTC: new kernel "
        "(`slabwatchctl unlock` unlocks them)"
    )


# Over HTTP.


@pytest.mark.asyncio
async def test_while_it_is_locked_nothing_begins(door: Door, audit_log: Entries) -> None:
    code, answer = await door.ask("POST", "/v1/lock", {"reason": "new kernel"})
    assert code == 200
    assert (answer["lock"]["reason"], answer["before"], answer["stopping"]) == ("new kernel", None, None)
    for path in ("storms", "shrink"):
        code, problem = await door.ask("POST", f"/v1/{path}", {})
        assert (code, problem["code"]) == (423, "locked")
        assert "new kernel" in problem["detail"]
        assert problem["lock"]["reason"] == "new kernel"
    assert door.daemon.storms.running is None
    assert not door.daemon.shrinker.asked
    assert (await door.ask("GET", "/v1/status"))[1]["lock"] == answer["lock"]
    # Another reason takes the first one's place.
    _, second = await door.ask("POST", "/v1/lock", {"reason": "memory test"})
    assert second["before"] == answer["lock"]
    code, answer = await door.ask("POST", "/v1/unlock", {})
    assert (code, answer["lock"], answer["before"]["reason"]) == (200, None, "memory test")
    assert (await door.ask("GET", "/v1/status"))[1]["lock"] is None
    assert (await door.ask("POST", "/v1/storms", {}))[0] == 202
    assert [entry["outcome"] for entry in audit_log] == ["done", "locked", "locked", "done", "done", "done"]
    assert audit_log[0]["reason"] == "new kernel"


@pytest.mark.asyncio
async def test_a_forecast_says_that_it_is_locked(door: Door) -> None:
    before = (await door.ask("POST", "/v1/storms", {"dry_run": True}))[1]
    await door.ask("POST", "/v1/lock", {"reason": "new kernel"})
    code, forecast = await door.ask("POST", "/v1/storms", {"dry_run": True})
    assert code == 200
    assert forecast["accepted"] is False
    assert forecast["plan"] == before["plan"]
    *others, lock = forecast["checks"]
    assert others == before["checks"]
    assert (lock["code"], lock["ok"]) == ("locked", False)
    assert "new kernel" in lock["text"]


@pytest.mark.asyncio
@pytest.mark.parametrize("stop", [True, False])
async def test_the_running_storm_is_stopped_if_it_is_wished(door: Door, audit_log: Entries, stop: bool) -> None:
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    _, answer = await door.ask("POST", "/v1/lock", {"reason": "new kernel", "stop": stop})
    assert answer["stopping"] == ("storm-1" if stop else None)
    assert len(storm.stop_reasons) == stop
    assert audit_log[0].get("storm_id") == answer["stopping"]
    assert all("locked storms: new kernel" in reason for reason in storm.stop_reasons)


@pytest.mark.asyncio
async def test_a_disk_that_is_full_does_not_keep_the_storm_running(door: Door, audit_log: Entries) -> None:
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    door.daemon.state.write_text("", encoding="ascii")
    code, problem = await door.ask("POST", "/v1/lock", {"reason": "new kernel", "stop": True})
    assert (code, problem["code"]) == (500, "failed")
    assert "locked now, but a restart" in problem["detail"]
    assert storm.stop_reasons
    assert door.daemon.locked
    assert audit_log[0]["outcome"] == "failed"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": "a\nb"}, {"reason": "x" * 501}, {"reason": "x", "a": 1}]
)
async def test_a_lock_has_a_reason(door: Door, body: dict[str, Any]) -> None:
    code, problem = await door.ask("POST", "/v1/lock", body)
    assert (code, problem["code"]) == (422, "bad_request")
    assert not door.daemon.locked


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["lock", "unlock"])
async def test_a_viewer_may_not(door: Door, viewer: Peer, path: str) -> None:
    body = json.dumps({"reason": "x"} if path == "lock" else {}).encode()
    code, problem = await door.ask("POST", f"/v1/{path}", body)
    assert (code, problem["code"]) == (403, "not_allowed")
    assert not door.daemon.locked
