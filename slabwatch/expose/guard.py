"""What a request to /metrics must pass where there is a web configuration: in the toolkit's order, the rate limit, then
the names in the client's certificate, then user and password. Without one, none of this is in the way.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from aiohttp import hdrs, web

from slabwatch.door import CONNECTIONS
from slabwatch.expose.credentials import Credentials, TooManyGuesses
from slabwatch.expose.web_config import RateLimit
from slabwatch.expose.web_config_file import Loaded

REFUSED_BECAUSE = ("rate_limit", "certificate", "password", "too_many_guesses", "old_connection")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """The middleware, and what it goes by. ``refused`` counts by reason."""

    def __init__(self, loaded: Loaded, clock: Callable[[], float] = time.monotonic) -> None:
        self.refused = dict.fromkeys(REFUSED_BECAUSE, 0)
        self.loaded = loaded
        self._clock = clock
        self._credentials = Credentials({})
        self._bucket = Bucket(loaded.config.rate_limit, clock)
        self.replace(loaded)

    def replace(self, loaded: Loaded) -> None:
        """Go by this from now on. Connections with other TLS settings are not answered any more."""
        config = loaded.config
        if config.rate_limit != self.loaded.config.rate_limit:
            self._bucket = Bucket(config.rate_limit, self._clock)
        self.loaded = loaded
        self._headers = config.http_server_config.headers
        self._allowed_sans = frozenset(config.tls_server_config.client_allowed_sans)
        self._credentials.users = config.basic_auth_users

    def install(self, app: web.Application) -> None:
        """Put it in front of everything that the app serves."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            refusal = await self._refusal(request)
            return await handler(request) if refusal is None else refusal

        app.middlewares.append(guard)
        app.on_response_prepare.append(self._add_headers)
        app.on_cleanup.append(self._close)

    async def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        transport = request.transport
        if transport is None or transport.get_extra_info("sslcontext") is not self.loaded.context:
            # It was made under settings that hold no longer: who may connect is decided anew.
            return self._refuse("old_connection", 503, "the TLS settings have changed: connect again", close=True)
        if not self._bucket.take():
            return self._refuse("rate_limit", 429, "Too Many Requests")
        if self._allowed_sans:
            names = certificate_names(transport.get_extra_info("peercert") or {})
            if self._allowed_sans.isdisjoint(names):
                return self._refuse("certificate", 403, "no name in the client's certificate is allowed", close=True)
        if not self._credentials.users:
            return None
        try:
            if await self._knows(request):
                return None
        except TooManyGuesses:
            return self._refuse(
                "too_many_guesses", 429, "too many passwords are being checked", {hdrs.RETRY_AFTER: "1"}
            )
        return self._refuse("password", 401, "Unauthorized", {hdrs.WWW_AUTHENTICATE: "Basic"})

    async def _knows(self, request: web.Request) -> bool:
        offered = basic_auth(request.headers.get(hdrs.AUTHORIZATION, ""))
        if offered is None:
            return False
        with request.app[CONNECTIONS].held(request.transport):
            return await self._credentials.verify(*offered, address=request.remote or "")

    def _refuse(
        self, reason: str, status: int, text: str, headers: Mapping[str, str] | None = None, *, close: bool = False
    ) -> web.Response:
        self.refused[reason] += 1
        response = web.Response(text=f"{text}\n", status=status, headers=headers)
        if close:
            response.force_close()
        return response

    async def _add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)

    async def _close(self, _: web.Application) -> None:
        self._credentials.close()


class Bucket:
    """`rate_limit` as a token bucket: full at first, of all clients together."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float]) -> None:
        self._interval = limit.interval
        self._burst = limit.burst
        self._clock = clock
        self._tokens = float(limit.burst)
        self._filled_at = clock()

    def take(self) -> bool:
        """One token, if there is one."""
        if not self._interval:
            return True
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) / self._interval)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def basic_auth(header: str) -> tuple[str, bytes] | None:
    """User and password of an Authorization header; None when it holds no such thing."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


def certificate_names(certificate: Mapping[str, Any]) -> Iterator[str]:
    """The subject's alternative names: DNS, e-mail, URI, and addresses as Go writes them. ``getpeercert()``'s form."""
    for kind, name in certificate.get("subjectAltName", ()):
        if kind == "IP Address":
            # OpenSSL writes IPv6 in full.
            try:
                yield str(ipaddress.ip_address(name.strip()))
            except ValueError:
                continue
        elif kind in ("DNS", "email", "URI"):
            yield name
