"""Who asks, and whether they may: the same for each route, whichever door the request came in by."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from slabwatch.control import audit
from slabwatch.control.access import Caller, Verb, is_owner, local_caller, may, owner_name, peer_of, remote_caller
from slabwatch.control.problems import Problem
from slabwatch.control.remote import REMOTE_CONNECTIONS
from slabwatch.control.services import Services
from slabwatch.door import shown_address

# Apart from the loop's own threads, by which storms are guarded and stopped: a directory server that hangs holds up
# these alone.
_LOOK_UPS = ThreadPoolExecutor(4, thread_name_prefix="names")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def caller_of(request: web.Request, services: Services) -> Caller:
    """Who asks. Looking up users' names may block, so it is done in a thread, but for the owners."""
    session = _tls(request)
    if session is not None:
        return remote_caller(session, _address(request), services.config())
    peer = peer_of(request.transport)
    if peer is None:
        raise Problem("not_allowed", "the kernel does not say who is at the other end of this connection")
    if is_owner(peer):
        return local_caller(peer, services.config())
    return await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, local_caller, peer, services.config())


def demand(caller: Caller, verb: Verb, services: Services, what: str = "") -> None:
    """Raise Problem ``not_allowed`` unless the caller may; ``what`` is what the message calls it."""
    config = services.config()
    if not may(caller, verb, config):
        operators = "remote.operators" if caller.door == "tls" else "control.operators"
        key = f"rights.{verb}" if getattr(config.rights, verb, ()) else operators
        way = "" if caller.door == "tls" else "ask as root, or "
        raise Problem(
            "not_allowed",
            f"{what or verb} is not for {caller}: {way}have the name added to {key} in the daemon's configuration",
        )


def gate(services: Services) -> Any:
    """The middleware in front of every route. What it refuses has an audit line, if it is no flood."""
    for uid in (0, os.geteuid()):
        owner_name(uid)

    @web.middleware
    async def pass_through(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _tls(request) is None:
            return await handler(request)
        try:
            with request.app[REMOTE_CONNECTIONS].held(request.transport):
                await _check_remote(request, services)
                response = await handler(request)
            if not response.prepared:
                response.force_close()
            return response
        finally:
            # Each request is to be verified by the certificates and lists that hold when it comes.
            request.protocol.close()

    return pass_through


async def _check_remote(request: web.Request, services: Services) -> None:
    caller = await caller_of(request, services)
    problem = None
    if not may(caller, "look", services.config()):
        lists = "remote.viewers or remote.operators in the daemon's configuration"
        way = f"have one of the certificate's names added to {lists}"
        if not caller.names:
            way = f"have it signed with a subjectAltName that is in {lists}"
        problem = Problem("not_allowed", f"{caller} has no role here: {way}")
    elif "Origin" in request.headers:
        # A browser would show the certificate for any page that asks it to.
        problem = Problem("not_allowed", "requests of web pages are not answered here")
    if problem is not None:
        fields = audit.entry(f"{request.method} {request.path}"[:200], caller, allowed=False)
        services.audit.write(fields | {"outcome": problem.code, "reason": problem.detail})
        raise problem


def _tls(request: web.Request) -> ssl.SSLObject | None:
    session: ssl.SSLObject | None = request.transport.get_extra_info("ssl_object") if request.transport else None
    return session


def _address(request: web.Request) -> str:
    return shown_address((request.transport.get_extra_info("peername") if request.transport else None) or ("", 0))
