"""The control API over HTTP: the routes that only look, and the app that holds them all."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

from aiohttp import web

from slabwatch import __version__
from slabwatch.control import audit, openapi
from slabwatch.control.access import VERBS, Caller, Verb, may, role_of
from slabwatch.control.answers import Status, You
from slabwatch.control.audit import Fields
from slabwatch.control.commands import Commands
from slabwatch.control.gate import Handler, caller_of, demand, gate
from slabwatch.control.problems import Problem, problem_of
from slabwatch.control.remote import REMOTE_CONNECTIONS, remote_connections
from slabwatch.control.services import Services
from slabwatch.control.streams import EventStreams
from slabwatch.control.views import caches_view, cgroups_view, collector_states, poll_state, storm_view
from slabwatch.door import CONNECTIONS, connections_of
from slabwatch.errors import SlabwatchError
from slabwatch.watch.sample import Sample

MAX_BODY_BYTES = 64 * 1024
AUDIT_LIMIT = 100
MAX_AUDIT_LIMIT = 10_000

# An id becomes part of a file's name further down: nothing but this may come through.
STORM = "/v1/storms/{id:[A-Za-z0-9][A-Za-z0-9_-]{0,63}}"


def make_app(services: Services, streams: EventStreams | None = None) -> web.Application:
    """The control API as an aiohttp application; ``streams`` only for other limits than the usual ones."""
    streams = streams or EventStreams(services)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_problems, gate(services)])
    connections_of(app)
    app[REMOTE_CONNECTIONS] = remote_connections()
    app.add_routes(_Look(services, streams).routes())
    app.add_routes(Commands(services, streams).routes(STORM))
    app.router.add_get(openapi.PATH, _describe(app), name="openapi")
    app.on_shutdown.append(streams.close)
    return app


def _describe(app: web.Application) -> Handler:
    made: list[str] = []

    async def describe(request: web.Request) -> web.Response:
        if not made:
            made.append(json.dumps(openapi.document(list(app.router.routes()))))
        return web.Response(text=made[0], content_type="application/json")

    return describe


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    with request.app[CONNECTIONS].held(request.transport):
        try:
            return await handler(request)
        except (SlabwatchError, web.HTTPException) as error:
            return problem_of(error).response()


class _Look:
    """The GET routes: every caller may use them."""

    def __init__(self, services: Services, streams: EventStreams) -> None:
        self._services = services
        self._streams = streams
        self._examination: asyncio.Task[list[dict[str, Any]]] | None = None

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/v1/status", self._status, name="status"),
            web.get("/v1/caches", self._caches, name="caches"),
            web.get("/v1/cgroups", self._cgroups, name="cgroups"),
            web.get("/v1/doctor", self._doctor, name="doctor"),
            web.get("/v1/audit", self._audit, name="audit"),
            web.get("/v1/storms", self._storms, name="storms"),
            web.get(STORM, self._storm, name="record"),
            web.get(f"{STORM}/events", self._events, name="events", allow_head=False),
        ]

    async def _status(self, request: web.Request) -> web.Response:
        services = self._services
        caller = await caller_of(request, services)
        facts, config, now = services.facts(), services.config(), time.time()
        running = services.storms.running
        status: Status = {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": facts["started_at"],
            "uptime_seconds": max(0.0, now - facts["started_at"]),
            "state": facts["state"],
            "kernel": facts["kernel"],
            "poll": poll_state(services.sampler, time.monotonic()),
            "collectors": collector_states(services.sampler.latest),
            "storm": {
                "enabled": config.storm.enabled,
                "running": storm_view(running, now) if running else None,
                "leftover_cgroups": services.storms.leftover_cgroups,
                "recovering": services.storms.recovering,
            },
            "shrink": {"enabled": config.shrink.enabled},
            "lock": lock.as_dict() if (lock := services.switch.held) else None,
            "metrics_url": facts["metrics_url"],
            "socket": facts["socket"],
            "remote_url": facts["remote_url"],
            "you": self._you(caller),
        }
        return web.json_response(status)

    def _you(self, caller: Caller) -> You:
        config = self._services.config()
        return {
            "user": caller.user,
            "uid": caller.peer.uid if caller.peer else None,
            "door": caller.door,
            "role": role_of(caller, config),
            "may": [verb for verb in VERBS if may(caller, verb, config)],
        }

    async def _caches(self, request: web.Request) -> web.Response:
        sample, derived = self._services.sampler.latest, self._services.sampler.derived
        if sample is None or derived is None or sample.slabinfo is None:
            raise _no_figures(sample, "slabinfo")
        return web.json_response(caches_view(self._services.sampler, sample, derived))

    async def _cgroups(self, request: web.Request) -> web.Response:
        sample = self._services.sampler.latest
        if sample is None or sample.cgroups is None:
            raise _no_figures(sample, "cgroup")
        return web.json_response(cgroups_view(sample, sample.cgroups))

    async def _doctor(self, request: web.Request) -> web.Response:
        # However many ask, one examination at a time: it reads a lot, and the daemon's threads are few.
        if self._examination is None:
            self._examination = asyncio.create_task(asyncio.to_thread(self._services.examine), name="doctor")
            self._examination.add_done_callback(self._examined)
        return web.json_response({"findings": await asyncio.shield(self._examination)})

    def _examined(self, _: asyncio.Task[list[dict[str, Any]]]) -> None:
        self._examination = None

    async def _audit(self, request: web.Request) -> web.Response:
        """The last commands and refusals, newest first: operators only."""
        services = self._services
        caller = await caller_of(request, services)
        self._demand(caller, "audit", "the audit log", audit.entry("audit", caller, allowed=False))
        limit = request.query.get("limit", str(AUDIT_LIMIT))
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= MAX_AUDIT_LIMIT):
            raise Problem("bad_request", f"limit: a number of 1 to {MAX_AUDIT_LIMIT}")
        file = services.audit.file
        try:
            entries = await asyncio.to_thread(file.newest, int(limit))
        except OSError as error:
            raise Problem("failed", f"{file.path} can not be read: {error.strerror or error}") from error
        return web.json_response({"path": str(file.path), "lost": services.audit.lost, "entries": entries})

    async def _storms(self, request: web.Request) -> web.Response:
        return web.json_response({"storms": self._services.storms.summaries()})

    async def _storm(self, request: web.Request) -> web.Response:
        """The record of a finished storm, else how far it is."""
        storm_id = request.match_info["id"]
        answer: Any = await asyncio.to_thread(self._services.storms.record, storm_id)
        if answer is None:
            storm = self._services.storms.find(storm_id)
            if storm is None:
                raise Problem("unknown_storm", f"no storm {storm_id} is known here: `slabwatchctl storms` lists them")
            answer = storm_view(storm, time.time())
        return web.json_response(answer)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        leaseholder = None
        if request.query.get("lease", "1") != "1":
            raise Problem("bad_request", "lease: can be 1, or left out")
        storm_id = request.match_info["id"]
        if "lease" in request.query:
            # To hold the lease is to be able to stop the storm: by going away.
            leaseholder = await caller_of(request, self._services)
            storm = self._services.storms.find(storm_id)
            own = storm is None or storm.requested_by == leaseholder.user
            verb: Verb
            verb, what = ("storm", "a lease") if own else ("stop", "the lease of another's storm")
            fields = audit.entry("lease", leaseholder, allowed=False) | {"storm_id": storm_id}
            self._demand(leaseholder, verb, what, fields)
        return await self._streams.answer(request, storm_id, leaseholder)

    def _demand(self, caller: Caller, verb: Verb, what: str, refusal: Fields) -> None:
        """Raise Problem ``not_allowed`` unless the caller may, with this line in the audit log."""
        try:
            demand(caller, verb, self._services, what)
        except Problem as problem:
            self._services.audit.write(refusal | {"outcome": problem.code})
            raise


def _no_figures(sample: Sample | None, collector: str) -> Problem:
    if sample is None:
        return Problem("no_sample", "the daemon has not finished its first poll: try again in a moment")
    for run in sample.collectors:
        if run.name == collector:
            return Problem("no_sample", f"the collector {collector} failed at the last poll: {run.error}")
    return Problem(
        "no_sample",
        f"the collector {collector} is off: set collectors.{collector} = true in the daemon's configuration",
    )
