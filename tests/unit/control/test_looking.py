"""The GET routes: what they answer, and what they say when there is nothing to answer."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from typing import Any

import pytest

from slabwatch.config import Config
from slabwatch.control.access import Peer
from slabwatch.watch.sample import CollectorRun
from tests.unit.control.conftest import Door, Opened
from tests.unit.control.pretended import FINDINGS, Pretended, PretendedStorm, plan, record, sample

pytestmark = pytest.mark.asyncio


def _storm() -> PretendedStorm:
    return PretendedStorm("storm-1", plan(), phase="load")


async def test_status_says_who_and_how(door: Door) -> None:
    code, status = await door.ask("GET", "/v1/status")
    assert code == 200
    assert status["state"] == "READY"
    assert status["pid"] == os.getpid()
    assert status["kernel"]["allocator"] == "SLUB"
    assert status["poll"]["polls"] == 1234
    assert status["poll"]["last_poll_at"] == 1_570_000_000.0
    assert status["poll"]["age_seconds"] >= 0
    assert status["collectors"][2] == {
        "name": "cgroup", "success": True, "duration_seconds": 0.0123, "error": "", "skipped": {"vanished": 2},
    }  # fmt: skip
    assert status["storm"] == {"enabled": True, "running": None, "leftover_cgroups": 0, "recovering": ""}
    assert status["shrink"] == {"enabled": True}
    assert status["you"]["uid"] == os.geteuid()
    assert status["you"]["role"] == "operator"


async def test_status_shows_the_running_storm(door: Door) -> None:
    door.daemon.storms.running = _storm()
    _, status = await door.ask("GET", "/v1/status")
    running = status["storm"]["running"]
    assert (running["id"], running["phase"], running["requested_by"]) == ("storm-1", "load", "root")
    assert running["plan"]["cgroups"] == 20
    assert running["seconds"] > 0


async def test_status_before_the_first_poll(door: Door) -> None:
    door.daemon.sampler.latest = None
    _, status = await door.ask("GET", "/v1/status")
    assert status["poll"]["age_seconds"] is None
    assert status["collectors"] == []


async def test_a_viewer_may_look(door: Door, viewer: Peer) -> None:
    code, status = await door.ask("GET", "/v1/status")
    assert code == 200
    assert status["you"] == {"uid": 54321, "user": "54321", "door": "unix", "role": "viewer", "may": ["look"]}
    for path in ("caches", "cgroups", "doctor", "storms"):
        assert (await door.ask("GET", f"/v1/{path}"))[0] == 200


async def test_caches_with_growth_and_what_is_unexplained(door: Door) -> None:
    _, caches = await door.ask("GET", "/v1/caches")
    assert caches["sunreclaim_bytes"] == 823_116 * 1024
    assert caches["since"] == 1_569_990_000.0
    rows = {row["cache"]: row for row in caches["caches"]}
    assert rows["task_struct"] == {
        "cache": "task_struct",
        "active_objects": 11_404,
        "objects": 11_665,
        "object_size_bytes": 5888,
        "size_bytes": 2333 * 8 * 4096,
        "growth_bytes": (2333 - 198) * 8 * 4096,
        "expected_objects": 720,
        "unexplained_objects": 11_404 - 720,
    }
    assert rows["kmalloc-1k"]["growth_bytes"] == rows["kmalloc-1k"]["size_bytes"], "a new cache has grown from nothing"
    assert rows["kmalloc-1k"]["unexplained_objects"] is None


async def test_caches_without_a_first_sample_have_no_growth(door: Door) -> None:
    door.daemon.sampler.first = None
    _, caches = await door.ask("GET", "/v1/caches")
    assert caches["since"] is None
    assert {row["growth_bytes"] for row in caches["caches"]} == {None}


async def test_cgroups_leave_absent_what_is_absent(door: Door) -> None:
    _, cgroups = await door.ask("GET", "/v1/cgroups")
    assert (cgroups["visible"], cgroups["dying"], cgroups["omitted"]) == (5, 48, 2)
    assert cgroups["cgroups"][1] == {
        "cgroup": "/system.slice/cron.service",
        "kernel_bytes": 1_048_576,
        "slab_bytes": 786_432,
        "memory_bytes": 4_194_304,
        "populated": True,
    }
    assert cgroups["cgroups"][2]["populated"] is False
    assert cgroups["cgroups"][3] == {
        "cgroup": "__other__", "kernel_bytes": 500, "slab_bytes": None, "memory_bytes": None, "populated": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "part", "collector"), [("caches", "slabinfo", "slabinfo"), ("cgroups", "cgroups", "cgroup")]
)
async def test_no_figures_say_why(door: Door, path: str, part: str, collector: str) -> None:
    async def refusal() -> Any:
        code, problem = await door.ask("GET", f"/v1/{path}")
        assert (code, problem["code"]) == (503, "no_sample")
        return problem["detail"]

    failed = CollectorRun(collector, False, 0.0, "/proc/slabinfo: permission denied: run as root")
    without: dict[str, Any] = {part: None}
    door.daemon.sampler.latest = sample(**without, collectors=(failed,))
    assert "permission denied: run as root" in await refusal()
    door.daemon.sampler.latest = sample(**without, collectors=())
    assert f"set collectors.{collector} = true" in await refusal()
    door.daemon.sampler.latest = None
    assert "first poll" in await refusal()


async def test_doctor_and_storms(door: Door) -> None:
    assert (await door.ask("GET", "/v1/doctor"))[1] == {"findings": FINDINGS}
    door.daemon.storms.ended["old"] = record("old", plan())
    _, storms = await door.ask("GET", "/v1/storms")
    assert [storm["id"] for storm in storms["storms"]] == ["old"]
    assert (await door.ask("GET", "/v1/storms/old"))[1]["verdict"]["class"] == "retained"


async def test_a_running_storm_is_shown_without_a_record(door: Door) -> None:
    door.daemon.storms.running = _storm()
    code, storm = await door.ask("GET", "/v1/storms/storm-1")
    assert code == 200
    assert storm["outcome"] is None
    assert "verdict" not in storm


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_route"),
        ("GET", "/v1/nothing", 404, "unknown_route"),
        ("GET", "/v2/status", 404, "unknown_route"),
        ("GET", "/v1/storms/nothing", 404, "unknown_storm"),
        ("GET", "/v1/storms/nothing/events", 404, "unknown_storm"),
        ("GET", "/v1/storms/..%2F..%2Fetc%2Fpasswd", 404, "unknown_route"),
        ("GET", "/v1/storms/.hidden", 404, "unknown_route"),
        ("GET", "/v1/storms/" + "a" * 65, 404, "unknown_route"),
        ("POST", "/v1/status", 405, "wrong_method"),
        ("DELETE", "/v1/storms", 405, "wrong_method"),
        ("GET", "/v1/shrink", 405, "wrong_method"),
    ],
)
async def test_what_is_not_there(door: Door, method: str, path: str, status: int, code: str) -> None:
    async with door.session.request(method, path) as response:
        problem = await response.json(content_type="application/problem+json")
        assert (response.status, problem["code"], problem["status"]) == (status, code, status)
        assert problem["title"]
        assert problem["detail"]
        if status == 405:
            assert "GET" in response.headers["Allow"] or "POST" in response.headers["Allow"]


async def test_head_is_as_good_as_get(door: Door) -> None:
    async with door.session.head("/v1/status") as response:
        assert response.status == 200


async def test_switched_off_is_shown(door: Door) -> None:
    door.daemon.config = Config()
    _, status = await door.ask("GET", "/v1/status")
    assert status["storm"]["enabled"] is False
    assert status["shrink"]["enabled"] is False


async def test_the_audit_log_newest_first(door: Door) -> None:
    door.daemon.audit.start()
    for reason in ("one", "two"):
        await door.ask("POST", "/v1/lock", {"reason": reason})
    door.daemon.audit.close(10)
    code, answer = await door.ask("GET", "/v1/audit")
    assert code == 200
    assert [(entry["command"], entry["reason"]) for entry in answer["entries"]] == [("lock", "two"), ("lock", "one")]
    assert (answer["path"], answer["lost"]) == (f"{door.daemon.state}/audit.jsonl", 0)
    assert [entry["reason"] for entry in (await door.ask("GET", "/v1/audit?limit=1"))[1]["entries"]] == ["two"]


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5", "", "10001", "9" * 5000, "\u0664"])
async def test_bad_limits(door: Door, limit: str) -> None:
    code, problem = await door.ask("GET", f"/v1/audit?limit={limit}")
    assert (code, problem["code"]) == (422, "bad_request")


async def test_the_audit_log_is_for_operators(door: Door, viewer: Peer, audit_log: list[dict[str, Any]]) -> None:
    code, problem = await door.ask("GET", "/v1/audit")
    assert (code, problem["code"]) == (403, "not_allowed")
    (entry,) = audit_log
    assert (entry["command"], entry["allowed"], entry["outcome"]) == ("audit", False, "not_allowed")


async def test_an_audit_log_that_can_not_be_read(door: Door) -> None:
    door.daemon.audit.file.path.mkdir(parents=True)
    code, problem = await door.ask("GET", "/v1/audit")
    assert (code, problem["code"]) == (500, "failed")
    assert "can not be read: Is a directory" in problem["detail"]


async def test_however_many_ask_the_doctor_there_is_one_examination_at_a_time(
    open_door: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, begun, go_on, runs = Pretended(), asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def examine() -> list[dict[str, Any]]:
        runs.append(threading.get_ident())
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(5)
        return FINDINGS

    services = dataclasses.replace(daemon.services(), examine=examine)
    monkeypatch.setattr(daemon, "services", lambda: services)
    door = await open_door(daemon)
    asked = [asyncio.ensure_future(door.ask("GET", "/v1/doctor"))]
    await begun.wait()
    # Each of these has its answer from the examination that is under way, and one more finds it done.
    asked += [asyncio.ensure_future(door.ask("GET", "/v1/doctor")) for _ in range(20)]
    await door.ask("GET", "/v1/status")
    assert len(runs) == 1
    go_on.set()
    assert await asyncio.gather(*asked) == [(200, {"findings": FINDINGS})] * 21
    before = len(runs)
    assert (await door.ask("GET", "/v1/doctor"))[0] == 200
    assert len(runs) == before + 1
