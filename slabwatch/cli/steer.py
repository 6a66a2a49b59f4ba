"""One storm from its start to its exit code: what the verbs for one host and for many have in common."""

from __future__ import annotations

import uuid
from argparse import Namespace
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from slabwatch.cli.exit_codes import Exit, exit_for_code
from slabwatch.cli.follow import Progress
from slabwatch.control.client import ControlClient
from slabwatch.errors import ControlError

WISHES = {
    "preset": "preset",
    "cgroups": "cgroups",
    "tasks": "tasks",
    "kind": "kind",
    "concurrency": "concurrency",
    "live": "live_tasks",
    "hold": "hold_seconds",
    "settle": "settle_seconds",
    "shrink": "shrink",
    "pressure": "pressure",
    "ttl": "ttl_seconds",
}


def wishes_of(args: Namespace) -> dict[str, Any]:
    """What was asked for, as the control API names it."""
    return {name: getattr(args, option) for option, name in WISHES.items() if getattr(args, option) is not None}


async def forecast(client: ControlClient, wishes: Mapping[str, Any]) -> Any:
    """What the storm would be, and whether it may run."""
    return await client.post("/v1/storms", {**wishes, "dry_run": True})


def accepted(answer: Mapping[str, Any]) -> Exit:
    """The exit code of a forecast."""
    if answer["accepted"]:
        return Exit.DONE
    codes = [check.get("code", "") for check in answer["checks"] if not check["ok"]]
    return exit_for_code(codes[0] if codes else "")


async def start(client: ControlClient, wishes: Mapping[str, Any], *, lease: bool) -> Any:
    """Start a storm. With a lease it ends when nobody follows it with one."""
    asked = {**wishes, "on_disconnect": "stop" if lease else "continue"}
    return await client.post("/v1/storms", asked, {"Idempotency-Key": uuid.uuid4().hex})


async def running_id(client: ControlClient) -> str | None:
    """The running storm's."""
    running = (await client.get("/v1/status"))["storm"]["running"]
    return running["id"] if running else None


async def stopped(client: ControlClient, storm_id: str | None) -> Any:
    """Ask a storm (None: the running one) to stop."""
    storm_id = storm_id or await running_id(client)
    return await client.post(f"/v1/storms/{storm_id}/stop", {}) if storm_id else {"id": None, "stopping": False}


async def to_the_end(client: ControlClient, storm_id: str, progress: Progress, *, lease: bool) -> dict[str, Any]:
    """Hand each event to ``progress``; the record. Raises ControlError when it can not be had."""
    path = f"/v1/storms/{storm_id}/events" + ("?lease=1" if lease else "")
    async with aclosing(client.events(path)) as events:
        async for event in events:
            progress.take(event)
            if event["event"] == "end":
                return _record_of(storm_id, event)
    raise ControlError(
        f"{client.name}: the daemon went away, so how storm {storm_id} ended is not known. When it is back, "
        f"`slabwatchctl report {storm_id}` tells",
    )


def _record_of(storm_id: str, end: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] | None = end["record"]
    if record is None:
        raise ControlError(f"storm {storm_id} {end['outcome']}, and left no record: {end['reason']}", code="no_record")
    return record


async def ask_to_stop(client: ControlClient, storm_id: str, progress: Progress) -> None:
    """After Ctrl-C. That it can not be stopped is told, and no reason to leave."""
    try:
        await client.post(f"/v1/storms/{storm_id}/stop", {"reason": "Ctrl-C"})
    except ControlError as error:
        progress.say(f"It could not be stopped: {error}")


def judge(record: Mapping[str, Any], expect: str | None) -> Exit:
    """The exit code of a storm that has ended."""
    verdict = (record["verdict"] or {}).get("class", "inconclusive")
    if record["cgroups"]["leftover"]:
        return Exit.UNTRUSTED
    if record["outcome"] == "completed" and verdict == expect:
        return Exit.DONE
    if record["outcome"] != "completed" or verdict == "inconclusive":
        return Exit.UNTRUSTED
    return Exit.DONE if expect is None else Exit.UNEXPECTED
