"""The POST routes: who may, what is refused with which status, and the line in the audit log."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.config import Config
from slabwatch.control import commands
from slabwatch.control.access import Peer
from slabwatch.control.commands import parse_body
from slabwatch.control.problems import CODES, Problem
from slabwatch.control.schema import ShrinkRequest, StormRequest
from slabwatch.errors import ConfigError, SlabwatchError, SourceDenied, SourceUnavailable, StormRejected
from slabwatch.form import fields_of
from tests.unit.control.conftest import Door
from tests.unit.control.pretended import PretendedStorm, plan, record, until

Entries = list[dict[str, Any]]


@pytest.mark.asyncio
async def test_a_storm_is_started(door: Door, audit_log: Entries) -> None:
    wishes = {"preset": "full", "cgroups": 10, "hold_seconds": 1, "on_disconnect": "continue"}
    async with door.session.post("/v1/storms", json=wishes, headers={"Idempotency-Key": "k1"}) as response:
        answer = await response.json()
        assert response.status == 202
        assert response.headers["Location"] == "/v1/storms/storm-1"
    assert answer["id"] == "storm-1"
    assert answer["events"] == "/v1/storms/storm-1/events"
    assert (answer["plan"]["cgroups"], answer["plan"]["tasks"], answer["plan"]["hold_seconds"]) == (10, 100, 1)
    assert door.daemon.storms.keys == ["k1"]
    (entry,) = audit_log
    assert entry == {
        "command": "storm",
        "user": "root" if os.geteuid() == 0 else entry["user"],
        "uid": os.geteuid(),
        "pid": os.getpid(),
        "door": "unix",
        "allowed": True,
        "outcome": "done",
        "asked": wishes,
        "storm_id": "storm-1",
    }


@pytest.mark.asyncio
async def test_a_repeated_key_is_said_in_the_audit_log(door: Door, audit_log: Entries) -> None:
    for _ in range(2):
        assert (await door.ask("POST", "/v1/storms", {}, **{"Idempotency-Key": "k1"}))[0] == 202
    assert [entry.get("repeated") for entry in audit_log] == [None, True]
    assert [entry["storm_id"] for entry in audit_log] == ["storm-1", "storm-1"]


@pytest.mark.asyncio
async def test_no_body_is_the_smallest_storm(door: Door) -> None:
    code, answer = await door.ask("POST", "/v1/storms", b"")
    assert code == 202
    assert answer["plan"]["preset"] == "smoke"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "key", ["cgroups", "tasks", "concurrency", "live_tasks", "hold_seconds", "settle_seconds", "ttl_seconds"]
)
@pytest.mark.parametrize("digits", [10, 400, 4000])
async def test_a_number_of_any_length_is_refused(door: Door, audit_log: Entries, key: str, digits: int) -> None:
    code, problem = await door.ask(
        "POST", "/v1/storms", b'{"dry_run": true, "%b": 1%b}' % (key.encode(), b"0" * digits)
    )
    assert code == 422
    assert problem["code"] in ("bad_plan", "over_cap", "bad_request")
    assert audit_log[0]["outcome"] == problem["code"]


@pytest.mark.asyncio
async def test_a_dry_run_starts_nothing(door: Door, audit_log: Entries) -> None:
    code, answer = await door.ask("POST", "/v1/storms", {"preset": "full", "dry_run": True})
    assert code == 200
    assert answer["accepted"] is True
    assert answer["plan"]["total_tasks"] == 100_000
    assert door.daemon.storms.running is None
    assert audit_log[0]["command"] == "storm --dry-run"


REFUSALS = {
    "storm_disabled": 403,
    "not_permitted": 403,
    "storm_running": 409,
    "stopping": 409,
    "bad_plan": 422,
    "over_cap": 422,
    "kernel_can_not": 501,
    "lack_of_memory": 507,
    "lack_of_pids": 507,
    "lack_of_cgroup_ids": 507,
    "lack_of_descriptors": 507,
    "lack_of_program": 507,
    "lack_of_something_new": 507,
    "something_new": 409,
}


@pytest.mark.asyncio
@pytest.mark.parametrize(("code", "status"), REFUSALS.items())
@pytest.mark.parametrize("dry_run", [False, True])
async def test_every_refusal_of_a_storm(door: Door, audit_log: Entries, code: str, status: int, dry_run: bool) -> None:
    # Figures may bear any name, also those of the problem's own members.
    door.daemon.storms.refusal = StormRejected(code, "words", asked=7, limit=5, detail="no", status=200)
    answered, problem = await door.ask("POST", "/v1/storms", {"dry_run": dry_run})
    assert answered == problem["status"] == status
    assert (problem["code"], problem["detail"], problem["asked"], problem["limit"]) == (code, "words", 7, 5)
    assert problem["title"]
    assert audit_log[0]["outcome"] == code


@pytest.mark.asyncio
async def test_a_second_storm_is_told_of_the_first(door: Door) -> None:
    door.daemon.storms.running = PretendedStorm("first", plan())
    door.daemon.storms.refusal = StormRejected("storm_running", "storm first is running")
    _, problem = await door.ask("POST", "/v1/storms", {})
    assert problem["storm_id"] == "first"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "command"),
    [("storms", "storm"), ("storms/storm-1/stop", "stop"), ("shrink", "shrink"), ("reload", "reload")],
)
async def test_a_viewer_may_change_nothing(
    door: Door, viewer: Peer, audit_log: Entries, path: str, command: str
) -> None:
    running = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    code, problem = await door.ask("POST", f"/v1/{path}", {})
    assert (code, problem["code"]) == (403, "not_allowed")
    assert "control.operators" in problem["detail"]
    assert not running.stop_reasons
    assert not door.daemon.shrinker.asked
    assert not door.daemon.reloads
    (entry,) = audit_log
    assert (entry["command"], entry["uid"], entry["pid"]) == (command, viewer.uid, viewer.pid)
    assert (entry["allowed"], entry["outcome"]) == (False, "not_allowed")


@pytest.mark.asyncio
async def test_a_named_operator_may(door: Door, viewer: Peer) -> None:
    door.daemon.config = Config.read({"control": {"operators": [str(viewer.uid)]}})
    assert (await door.ask("POST", "/v1/reload", {}))[0] == 200


@pytest.mark.asyncio
async def test_a_right_for_one_command_is_for_that_one(door: Door, viewer: Peer, audit_log: Entries) -> None:
    door.daemon.config = Config.read(
        {"rights": {"storm": [f"user:{viewer.uid}"], "lock": ["user:1"]}, "control": {"operators": ["2"]}}
    )
    assert (await door.ask("GET", "/v1/status"))[1]["you"]["may"] == ["look", "storm"]
    assert (await door.ask("POST", "/v1/storms", {"dry_run": True}))[0] == 200
    for path, key in (("shrink", "control.operators"), ("lock", "rights.lock")):
        code, problem = await door.ask("POST", f"/v1/{path}", {})
        assert (code, problem["code"]) == (403, "not_allowed")
        assert f"have the name added to {key} in the daemon's configuration" in problem["detail"]
    assert [entry["allowed"] for entry in audit_log] == [True, False, False]


@pytest.mark.asyncio
async def test_who_started_a_storm_may_stop_it(door: Door, viewer: Peer) -> None:
    door.daemon.config = Config.read({"rights": {"storm": [f"user:{viewer.uid}"]}})
    running = door.daemon.storms.running = PretendedStorm("storm-1", plan(), requested_by=str(viewer.uid))
    assert (await door.ask("POST", "/v1/storms/storm-1/stop", {}))[0] == 202
    door.daemon.storms.running = PretendedStorm("storm-2", plan(), requested_by="root")
    assert (await door.ask("POST", "/v1/storms/storm-2/stop", {}))[0] == 403
    # Whoever has lost the right has lost this too.
    door.daemon.storms.running = running
    door.daemon.config = Config()
    assert (await door.ask("POST", "/v1/storms/storm-1/stop", {}))[0] == 403


@pytest.mark.asyncio
async def test_a_body_has_its_time(door: Door, audit_log: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "BODY_SECONDS", 0.05)
    _, writer = await asyncio.open_unix_connection(door.path)
    writer.write(b"POST /v1/storms HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await until(lambda: audit_log)
    assert audit_log[0]["outcome"] == "too_slow"
    assert door.daemon.storms.running is None
    writer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (b"{", 400, "bad_json", "JSON"),
        (b"\xff\xfe", 400, "bad_json", "JSON"),
        (b'{"\xff": 1}', 400, "bad_json", "can't decode"),
        (b'{"preset": "\xff"}', 400, "bad_json", "can't decode"),
        (b"[" * 60_000, 400, "bad_json", "recursion"),
        (b"[]", 422, "bad_request", ""),
        (b'{"cgroups": "ten"}', 422, "bad_request", "cgroups"),
        (b'{"cgroups": 1.5}', 422, "bad_request", "cgroups"),
        (b'{"cgroups": true}', 422, "bad_request", "cgroups"),
        (b'{"kind": "dance"}', 422, "bad_request", "kind"),
        (b'{"command": "rm"}', 422, "bad_request", "command: not a field of this request"),
        (b'{"hold_seconds": NaN}', 400, "bad_json", "invalid character"),
        (b'{"hold_seconds": 1e999}', 422, "bad_request", "out of range"),
        (b'{"preset": "a\\u001bb"}', 422, "bad_request", "preset"),
        (b'{"on_disconnect": "explode"}', 422, "bad_request", "on_disconnect"),
        (b" " * 70_000, 413, "too_large", "64 KiB"),
    ],
)
async def test_bodies_of_the_wrong_form(
    door: Door, audit_log: Entries, body: bytes, status: int, code: str, words: str
) -> None:
    answered, problem = await door.ask("POST", "/v1/storms", body)
    assert (answered, problem["code"]) == (status, code)
    assert words in problem["detail"]
    assert door.daemon.storms.running is None
    assert audit_log[0]["outcome"] == code


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["", "k" * 129, "a\tb"])
async def test_bad_idempotency_keys(door: Door, key: str) -> None:
    code, problem = await door.ask("POST", "/v1/storms", {}, **{"Idempotency-Key": key})
    assert (code, problem["code"]) == (422, "bad_request")


@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*fields_of(StormRequest), "caches", "other"]), inner, max_size=4),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
@pytest.mark.parametrize("form", [StormRequest, ShrinkRequest])
def test_any_bytes_are_a_request_or_a_problem(form: Any, body: bytes) -> None:
    try:
        parse_body(body, form)
    except Problem as problem:
        assert problem.code in ("bad_json", "bad_request")
        json.loads(problem.response().text or "")


@pytest.mark.asyncio
async def test_stop(door: Door, audit_log: Entries) -> None:
    running = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    code, answer = await door.ask("POST", "/v1/storms/storm-1/stop", {"reason": "too loud"})
    assert code == 202
    assert answer == {"id": "storm-1", "stopping": True, "outcome": None}
    await door.ask("POST", "/v1/storms/storm-1/stop")
    assert running.stop_reasons[0] == "too loud"
    assert running.stop_reasons[1].endswith("asked for it")
    assert audit_log[0]["storm_id"] == "storm-1"


@pytest.mark.asyncio
async def test_what_has_ended_is_already_stopped(door: Door) -> None:
    running = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    running.outcome = "aborted"
    door.daemon.storms.ended["old"] = record("old", plan())
    assert await door.ask("POST", "/v1/storms/storm-1/stop") == (
        200, {"id": "storm-1", "stopping": False, "outcome": "aborted"},
    )  # fmt: skip
    assert await door.ask("POST", "/v1/storms/old/stop") == (
        200,
        {"id": "old", "stopping": False, "outcome": "completed"},
    )
    code, problem = await door.ask("POST", "/v1/storms/other/stop")
    assert (code, problem["code"]) == (404, "unknown_storm")


@pytest.mark.asyncio
async def test_shrink(door: Door, audit_log: Entries) -> None:
    code, answer = await door.ask("POST", "/v1/shrink", {"caches": ["dentry"]})
    assert code == 200
    assert answer["caches"][0]["cache"] == "dentry"
    assert (await door.ask("POST", "/v1/shrink"))[0] == 200
    assert door.daemon.shrinker.asked == [("dentry",), ()]
    assert audit_log[0]["caches"] == ("dentry",)


@pytest.mark.asyncio
async def test_shrink_is_off_until_the_configuration_says_so(door: Door) -> None:
    door.daemon.config = Config()
    code, problem = await door.ask("POST", "/v1/shrink", {})
    assert (code, problem["code"]) == (403, "shrink_disabled")
    assert not door.daemon.shrinker.asked


@pytest.mark.asyncio
async def test_a_shrink_would_spoil_a_storm(door: Door) -> None:
    door.daemon.storms.running = PretendedStorm("storm-1", plan())
    code, problem = await door.ask("POST", "/v1/shrink", {})
    assert (code, problem["code"], problem["storm_id"]) == (409, "storm_running", "storm-1")
    assert not door.daemon.shrinker.asked


@asynccontextmanager
async def shrinking(door: Door) -> AsyncIterator[None]:
    """A shrink is running, and comes to its end afterwards."""
    may_finish = door.daemon.shrinker.may_finish = asyncio.Event()
    shrink = asyncio.create_task(door.ask("POST", "/v1/shrink", {}))
    await until(lambda: door.daemon.shrinker.asked)
    yield
    may_finish.set()
    assert (await shrink)[0] == 200


@pytest.mark.asyncio
async def test_no_storm_begins_during_a_shrink(door: Door, audit_log: Entries) -> None:
    async with shrinking(door):
        code, problem = await door.ask("POST", "/v1/storms", {})
        assert (code, problem["code"]) == (409, "shrink_running")
        assert audit_log[0]["outcome"] == "shrink_running"
        assert (await door.ask("POST", "/v1/storms", {"dry_run": True}))[0] == 200
    assert (await door.ask("POST", "/v1/storms", {}))[0] == 202


@pytest.mark.asyncio
async def test_no_shrink_begins_while_a_storm_is_about_to(door: Door) -> None:
    may_start = door.daemon.storms.may_start = asyncio.Event()
    starting = asyncio.create_task(door.ask("POST", "/v1/storms", {}))
    await until(lambda: door.daemon.storms.keys)
    code, problem = await door.ask("POST", "/v1/shrink", {})
    assert (code, problem["code"]) == (409, "storm_running")
    assert not door.daemon.shrinker.asked
    may_start.set()
    assert (await starting)[0] == 202


@pytest.mark.asyncio
async def test_one_shrink_at_a_time(door: Door) -> None:
    async with shrinking(door):
        code, problem = await door.ask("POST", "/v1/shrink", {})
        assert (code, problem["code"]) == (409, "shrink_running")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (SourceUnavailable("/sys/kernel/slab", "not there"), 501, "kernel_can_not"),
        (SourceDenied("/sys/kernel/slab/dentry/shrink", "permission denied"), 403, "not_permitted"),
        (StormRejected("unknown_cache", "no cache 'dentri'. Did you mean dentry?"), 404, "unknown_cache"),
        (SlabwatchError("something else"), 500, "failed"),
    ],
)
async def test_a_shrink_that_fails(door: Door, failure: Exception, status: int, code: str) -> None:
    door.daemon.shrinker.failure = failure
    answered, problem = await door.ask("POST", "/v1/shrink", {})
    assert (answered, problem["code"], problem["detail"]) == (status, code, str(failure))


@pytest.mark.asyncio
async def test_reload(door: Door, audit_log: Entries) -> None:
    door.daemon.needs_restart = ["metrics.listen"]
    assert await door.ask("POST", "/v1/reload") == (200, {"reloaded": True, "needs_restart": ["metrics.listen"]})
    door.daemon.reload_failure = ConfigError("/etc/slabwatch.toml: poll.interval_seconds: must be at least 0.5")
    code, problem = await door.ask("POST", "/v1/reload")
    assert (code, problem["code"]) == (422, "bad_config")
    assert "interval_seconds" in problem["detail"]
    assert [entry["outcome"] for entry in audit_log] == ["done", "bad_config"]


@pytest.mark.asyncio
async def test_a_crash_is_in_the_audit_log_too(
    door: Door, audit_log: Entries, caplog: pytest.LogCaptureFixture
) -> None:
    door.daemon.reload_failure = RuntimeError("a fault of ours")
    async with door.session.post("/v1/reload") as response:
        assert response.status == 500
        assert "fault of ours" not in await response.text()
    assert audit_log[0]["outcome"] == "broken_off"


def test_every_code_has_a_status_and_a_title() -> None:
    assert all(400 <= status < 600 and title for status, title in CODES.values())
