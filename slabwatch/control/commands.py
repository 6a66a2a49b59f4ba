"""What changes something: each command needs the role, and leaves one line in the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from slabwatch.control import audit
from slabwatch.control.access import Caller, Verb, may
from slabwatch.control.audit import Fields
from slabwatch.control.gate import Handler, caller_of, demand
from slabwatch.control.problems import Problem, bad_form, problem_of
from slabwatch.control.schema import (
    LockRequest,
    ReloadRequest,
    Request,
    ShrinkRequest,
    StopRequest,
    StormRequest,
    UnlockRequest,
)
from slabwatch.control.services import Services
from slabwatch.control.streams import EventStreams
from slabwatch.door import CONNECTIONS
from slabwatch.errors import SlabwatchError, StormRejected
from slabwatch.form import BadForm

# How long a client may take to send the body of a request.
BODY_SECONDS = 10.0

R = TypeVar("R", bound=Request)
Act = Callable[[web.Request, Caller, Fields], Awaitable[web.Response]]


class Commands:
    """The POST routes."""

    def __init__(self, services: Services, streams: EventStreams) -> None:
        self._services = services
        self._streams = streams
        self._shrinking = asyncio.Lock()
        self._starting = 0  # storms that are about to begin

    def routes(self, storm_path: str) -> list[web.AbstractRouteDef]:
        """``storm_path`` is the path of one storm, with its pattern."""
        return [
            web.post("/v1/storms", self._audited("storm", "storm", self._start), name="storm"),
            web.post(f"{storm_path}/stop", self._audited("stop", "stop", self._stop), name="stop"),
            web.post("/v1/shrink", self._audited("shrink", "shrink", self._shrink), name="shrink"),
            web.post("/v1/reload", self._audited("reload", "reload", self._reload), name="reload"),
            web.post("/v1/lock", self._audited("lock", "lock", self._lock), name="lock"),
            web.post("/v1/unlock", self._audited("unlock", "lock", self._unlock), name="unlock"),
        ]

    def _audited(self, command: str, verb: Verb, act: Act) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            services = self._services
            caller = await caller_of(request, services)
            allowed = may(caller, verb, services.config()) or (verb == "stop" and self._is_own(request, caller))
            fields = audit.entry(command, caller, allowed=allowed)
            try:
                if not allowed:
                    demand(caller, verb, services, command)
                response = await act(request, caller, fields)
                fields["outcome"] = "done"
                return response
            except (SlabwatchError, web.HTTPException) as error:
                problem = problem_of(error)
                fields["outcome"] = problem.code
                raise problem from error
            finally:
                services.audit.write(fields)

        return handle

    def _is_own(self, request: web.Request, caller: Caller) -> bool:
        storm = self._services.storms.find(request.match_info["id"])
        return storm is not None and storm.requested_by == caller.user and may(caller, "storm", self._services.config())

    def _refuse_if_locked(self) -> None:
        lock = self._services.switch.held
        if lock is not None:
            raise Problem("locked", str(lock), lock=lock.as_dict())

    async def _start(self, request: web.Request, caller: Caller, fields: Fields) -> web.Response:
        asked = await read_body(request, StormRequest)
        storms = self._services.storms
        wishes = asked.wishes()
        fields["asked"] = wishes
        if asked.dry_run:
            fields["command"] = "storm --dry-run"
            return web.json_response(self._with_lock(await storms.forecast(wishes)))
        self._refuse_if_locked()
        key = request.headers.get("Idempotency-Key")
        if key is not None and not (0 < len(key) <= 128 and key.isprintable()):
            raise Problem("bad_request", "Idempotency-Key: 1 to 128 printable characters")
        if self._shrinking.locked():
            raise Problem(
                "shrink_running",
                "a shrink has not finished yet, and would spoil the storm's figures: try again when it has",
            )
        self._starting += 1
        try:
            storm, repeated = await storms.start(wishes, requested_by=caller.user, idempotency_key=key)
        except StormRejected as error:
            if error.code == "storm_running" and storms.running:
                error.figures.setdefault("storm_id", storms.running.id)
            raise
        finally:
            self._starting -= 1
        fields |= {"storm_id": storm.id} | ({"repeated": True} if repeated else {})
        self._streams.expect_lease(storm, caller)
        path = f"/v1/storms/{storm.id}"
        answer = {"id": storm.id, "events": f"{path}/events", "plan": storm.plan.as_dict()}
        return web.json_response(answer, status=202, headers={"Location": path})

    def _with_lock(self, forecast: dict[str, Any]) -> dict[str, Any]:
        lock = self._services.switch.held
        if lock is None:
            return forecast
        check = {"name": "lock", "ok": False, "code": "locked", "figure": None, "limit": None, "text": str(lock)}
        return {**forecast, "checks": [*forecast["checks"], check], "accepted": False}

    async def _stop(self, request: web.Request, caller: Caller, fields: Fields) -> web.Response:
        asked = await read_body(request, StopRequest)
        storm_id = request.match_info["id"]
        fields["storm_id"] = storm_id
        storms = self._services.storms
        storm = storms.request_stop(storm_id, asked.reason or f"{caller.user} asked for it")
        if storm is not None:
            return web.json_response(
                {"id": storm_id, "stopping": storm.outcome is None, "outcome": storm.outcome}, status=202
            )
        ended = storms.find(storm_id)
        record = None if ended else await asyncio.to_thread(storms.record, storm_id)
        outcome = ended.outcome if ended else (record or {}).get("outcome")
        if outcome is None:
            raise Problem("unknown_storm", f"no storm {storm_id} is known here: `slabwatchctl storms` lists them")
        # To stop what has already ended is no fault: it is as it was asked to be.
        return web.json_response({"id": storm_id, "stopping": False, "outcome": outcome})

    async def _shrink(self, request: web.Request, caller: Caller, fields: Fields) -> web.Response:
        asked = await read_body(request, ShrinkRequest)
        fields["caches"] = asked.caches
        if not self._services.config().shrink.enabled:
            raise Problem(
                "shrink_disabled", "shrinking is off: set shrink.enabled = true in the daemon's configuration"
            )
        self._refuse_if_locked()
        running = self._services.storms.running
        if running is not None:
            raise Problem(
                "storm_running",
                f"storm {running.id} is running, and a shrink now would spoil its figures",
                storm_id=running.id,
            )
        if self._starting:
            raise Problem("storm_running", "a storm is about to begin, and a shrink now would spoil its figures")
        if self._shrinking.locked():
            raise Problem("shrink_running", "another shrink has not finished yet: try again when it has")
        async with self._shrinking:
            outcome = await self._services.shrinker.shrink(asked.caches)
        return web.json_response(outcome.as_dict())

    async def _reload(self, request: web.Request, caller: Caller, fields: Fields) -> web.Response:
        await read_body(request, ReloadRequest)
        return web.json_response({"reloaded": True, "needs_restart": await self._services.reload()})

    async def _lock(self, request: web.Request, caller: Caller, fields: Fields) -> web.Response:
        asked = await read_body(request, LockRequest)
        fields |= {"reason": asked.reason, "stop": asked.stop}
        services = self._services
        before = services.switch.held
        try:
            await services.switch.lock(asked.reason, caller.user)
        finally:
            # Whether the switch survives a restart or not: the storm was asked to be stopped.
            why = f"{caller.user} locked storms: {asked.reason}"
            storm = services.storms.request_stop(None, why) if asked.stop else None
            if storm is not None:
                fields["storm_id"] = storm.id
        held = services.switch.held
        answer = {"lock": held and held.as_dict(), "before": before and before.as_dict()}
        return web.json_response({**answer, "stopping": storm and storm.id})

    async def _unlock(self, request: web.Request, caller: Caller, fields: Fields) -> web.Response:
        await read_body(request, UnlockRequest)
        before = self._services.switch.held
        await self._services.switch.unlock()
        return web.json_response({"lock": None, "before": before and before.as_dict()})


async def read_body(request: web.Request, form: type[R]) -> R:
    """The body in its documented form; no body at all is {}. Raises Problem."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            with request.app[CONNECTIONS].waiting(request.transport):
                body = await request.read()
    except TimeoutError as error:
        raise Problem("too_slow", f"the body did not arrive within {BODY_SECONDS:g} s") from error
    return parse_body(body, form)


def parse_body(body: bytes, form: type[R]) -> R:
    """The same once it is there. Raises Problem."""
    try:
        return form.read(msgspec.json.decode(body or b"{}"))
    except BadForm as error:
        raise bad_form(error) from error
    except msgspec.ValidationError as error:  # JSON, but a number of 1e999
        raise Problem("bad_request", str(error)) from error
    except (ValueError, RecursionError) as error:  # of any kind: bytes that are no text, brackets in thousands
        raise Problem("bad_json", f"the body is not JSON: {error}") from error
