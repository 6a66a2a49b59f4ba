"""Which storm is begun, which is the same one again, and which is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from slabwatch.config import Config
from slabwatch.errors import SourceUnavailable, StormRejected
from slabwatch.expose.own import OwnMetrics
from slabwatch.storm import preflight
from slabwatch.storm import registry as module
from slabwatch.storm.events import EventLog
from slabwatch.storm.plan import Plan
from slabwatch.storm.registry import StormRegistry
from tests.unit.control.pretended import record
from tests.unit.storm.stormable import live, v2_host

__all__ = ["live"]

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("live")]


class PretendedRun:
    """Runs until it is stopped."""

    def __init__(self, storm_id: str, plan: Plan, forecast: object, requested_by: str, around: object) -> None:
        self.id, self.plan, self.requested_by = storm_id, plan, requested_by
        self.phase, self.counts, self.left = "baseline", dict[str, int](), dict[str, str]()
        self.events = EventLog()
        self._stopped = asyncio.Event()

    def request_stop(self, reason: str) -> None:
        self._stopped.set()

    async def run(self) -> dict[str, Any]:
        await self._stopped.wait()
        return record(self.id, self.plan)


async def _never() -> Any:
    raise AssertionError("nobody asked for it")


@pytest_asyncio.fixture
async def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StormRegistry]:
    """On a host where storms are possible."""
    monkeypatch.setattr(module, "StormRun", PretendedRun)
    state = {"directory": str(tmp_path / "state")}
    config = Config.read({"storm": {"enabled": True, "parent": "/storms"}, "state": state})
    made = StormRegistry(v2_host(tmp_path / "root"), lambda: config, _never, _never, OwnMetrics())
    await made.recover()
    yield made
    await made.close(10)


async def _end(registry: StormRegistry) -> None:
    assert registry._task is not None
    registry.request_stop(None, "enough")
    await asyncio.wait_for(asyncio.shield(registry._task), 10)


async def test_the_same_key_of_the_same_caller_gives_the_same_storm(registry: StormRegistry) -> None:
    wishes = {"cgroups": 3}
    first, repeated = await registry.start(wishes, requested_by="alice", idempotency_key="k1")
    assert not repeated
    assert await registry.start({"cgroups": 3}, requested_by="alice", idempotency_key="k1") == (first, True)
    await _end(registry)
    assert await registry.start(wishes, requested_by="alice", idempotency_key="k1") == (first, True)
    second, repeated = await registry.start(wishes, requested_by="alice", idempotency_key="k2")
    assert (second.id != first.id, repeated) == (True, False)


async def test_a_key_is_its_caller_s_own(registry: StormRegistry) -> None:
    first, _ = await registry.start({}, requested_by="alice", idempotency_key="k1")
    with pytest.raises(StormRejected) as caught:
        await registry.start({}, requested_by="bob", idempotency_key="k1")
    assert (caught.value.code, caught.value.figures) == ("storm_running", {"running": first.id})
    await _end(registry)
    other, repeated = await registry.start({}, requested_by="bob", idempotency_key="k1")
    assert (other.requested_by, repeated) == ("bob", False)


async def test_a_key_stands_for_what_was_wished_for_with_it(registry: StormRegistry) -> None:
    first, _ = await registry.start({"cgroups": 3}, requested_by="alice", idempotency_key="k1")
    with pytest.raises(StormRejected, match="was begun with it and other wishes") as caught:
        await registry.start({"cgroups": 7}, requested_by="alice", idempotency_key="k1")
    assert (caught.value.code, caught.value.figures) == ("bad_request", {"storm_id": first.id})


async def test_what_is_left_counts_wherever_it_is(
    registry: StormRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent of storms was another one when this storm began."""
    before, now = tmp_path / "before", tmp_path / "now"
    now.mkdir()
    monkeypatch.setattr(preflight, "storm_parents", lambda root, configured: [str(now)])
    busy = before / "slabwatch-storm-x" / "c0003" / "cgroup.procs"
    busy.parent.mkdir(parents=True)
    busy.write_text("", encoding="ascii")  # so that it can not be removed
    storm, _ = await registry.start({}, requested_by="root", idempotency_key=None)
    storm.left = {str(busy.parent): "still busy"}
    await _end(registry)
    assert registry.leftover_cgroups == 2, "the cgroup, and the storm's root above it"
    await registry.start({}, requested_by="root", idempotency_key=None)
    await _end(registry)
    assert registry.leftover_cgroups == 2
    busy.unlink()
    await registry.start({}, requested_by="root", idempotency_key=None)
    await _end(registry)
    assert registry.leftover_cgroups == 0
    assert list(before.iterdir()) == []


async def test_what_is_left_is_not_forgotten_when_it_can_not_be_looked_at(
    registry: StormRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unseen(root: object, configured: str) -> list[str]:
        raise SourceUnavailable("/proc/self/mountinfo", "not there")

    for path in ("/a/slabwatch-storm-x", "/a/slabwatch-storm-y"):
        storm, _ = await registry.start({}, requested_by="root", idempotency_key=None)
        storm.left = {path: "still busy"}
        with monkeypatch.context() as patched:
            patched.setattr(preflight, "storm_parents", unseen)
            await _end(registry)
    assert registry.leftover_cgroups == 2
