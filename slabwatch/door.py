"""The way in: accepts connections for a server of aiohttp, and keeps their number and their patience bounded.

A connection that has no request in hand must come with one soon, or it is closed: clients that say nothing, that
dribble a head byte by byte, that stop in the TLS handshake or do not read their answer. When the house is full, those
that have waited longest go, so that a crowd of idle connections keeps nobody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

# Why a connection was closed from here.
CLOSED_BECAUSE = ("slow", "idle", "crowded", "refused", "handshake")

# From one look at all connections to the next, at least.
_SWEEP_SECONDS = 1.0
# After accept() has failed: without a free descriptor it would fail again at once.
_RETRY_SECONDS = 0.5
_BACKLOG = 1024
# Taken in one turn of the event loop.
_AT_ONCE = 16
# Nobody has to go before this time, in which a client that means well sends its request.
_GRACE_SECONDS = 0.1
# How long a newcomer waits while the house is full of requests in hand, and how often it looks.
_ROOM_SECONDS = 2.0
_LOOK_SECONDS = 0.02
# Read at once. What a client sends is quoted in aiohttp's errors, so that this is to be multiplied by four or so.
_READ_BYTES = 16 * 1024

log = logging.getLogger(__name__)


class _NoClientFaults(logging.Filter):
    """Whoever sends garbage, or goes away in the middle, must not be able to fill the log with tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, (HttpProcessingError, web.RequestPayloadError, ConnectionError))


# For AppRunner(logger=...).
http_log = logging.getLogger("slabwatch.http")
http_log.addFilter(_NoClientFaults())


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    since: float
    served: bool = False
    busy: int = 0
    # How it is ended: at once, and when all that was written has gone out.
    abort: Callable[[], object] = lambda: None
    close: Callable[[], object] = lambda: None


@dataclass(slots=True)
class Connections:
    """All connections of one door. ``most``: bound of their number.

    ``first_seconds``: time to the first request, the TLS handshake included; ``idle_seconds``: from one answer to the
    next request.
    """

    most: int = 128
    first_seconds: float = 10.0
    idle_seconds: float = 75.0
    clock: Callable[[], float] = time.monotonic
    closed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLOSED_BECAUSE, 0))
    _all: dict[int, _Connection] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """Connections that hold a descriptor."""
        self._forget_closed()
        return len(self._all)

    @property
    def full(self) -> bool:
        """Whether the next one has to wait, or somebody has to go."""
        return len(self._all) >= self.most

    def admit(self, connection: socket.socket) -> bool:
        """Take it in; False when the house is full of connections with a request in hand."""
        if len(self._all) >= self.most:
            self._forget_closed()
        if len(self._all) >= self.most and not self._make_room():
            return False
        self._all[connection.fileno()] = _Connection(connection, self.clock())
        return True

    def ends_by(
        self, connection: socket.socket, abort: Callable[[], object], close: Callable[[], object] | None = None
    ) -> None:
        """How it is to be ended from now on: in its TLS handshake it is so by other means than after it."""
        known = self._all.get(connection.fileno())
        if known is not None:
            known.abort, known.close = abort, close or abort

    def touch(self, transport: asyncio.BaseTransport | None) -> None:
        """It has just been served: its time runs anew."""
        connection = self._of(transport)
        if connection is not None:
            connection.served, connection.since = True, self.clock()

    @contextlib.contextmanager
    def held(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """While a request of it is in hand, it is left alone."""
        connection = self._of(transport)
        if connection is None:
            yield
            return
        connection.busy += 1
        try:
            yield
        finally:
            connection.busy -= 1
            connection.served, connection.since = True, self.clock()

    @contextlib.contextmanager
    def waiting(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """Inside of ``held``: while the client has to send more, it is as if it had no request in hand."""
        connection = self._of(transport)
        if connection is None:
            yield
            return
        connection.busy -= 1
        try:
            yield
        finally:
            connection.busy += 1

    def sweep(self) -> float | None:
        """Close those that have taken too long. The seconds until the next one may have; None: there is nobody.

        The figure is negative while somebody who would have taken too long has a request in hand.
        """
        self._forget_closed()
        now = self.clock()
        for connection in list(self._all.values()):
            if not connection.busy and now > self._patience_ends(connection):
                self._close(connection, "idle" if connection.served else "slow")
        if not self._all:
            return None
        # Whoever is served meanwhile has so much time from then on, which may be less than before.
        return min(self.idle_seconds, min(map(self._patience_ends, self._all.values())) - now)

    def dismiss(self) -> None:
        """Close all that have no request in hand: they may come again."""
        for connection in list(self._all.values()):
            if not connection.busy:
                connection.close()

    def _patience_ends(self, connection: _Connection) -> float:
        return connection.since + (self.idle_seconds if connection.served else self.first_seconds)

    def _make_room(self) -> bool:
        before = self.clock() - _GRACE_SECONDS
        waiting = [each for each in self._all.values() if not each.busy and each.since < before]
        waiting.sort(key=lambda each: each.since)
        # More than one, if there are many, so that not every newcomer has to look for a victim.
        for connection in waiting[: 1 + len(waiting) // 16]:
            self._close(connection, "crowded")
        return bool(waiting)

    def _close(self, connection: _Connection, why: str) -> None:
        self.closed[why] += 1
        del self._all[connection.socket.fileno()]
        connection.abort()
        # Even a transport that is closing, and waits for a client to read the rest, ends now.
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)

    def _forget_closed(self) -> None:
        gone = [number for number, connection in self._all.items() if connection.socket.fileno() != number]
        for number in gone:
            del self._all[number]

    def _of(self, transport: asyncio.BaseTransport | None) -> _Connection | None:
        connection = transport.get_extra_info("socket") if transport else None
        return self._all.get(connection.fileno()) if connection is not None else None


CONNECTIONS: web.AppKey[Connections] = web.AppKey("connections", Connections)


def connections_of(app: web.Application) -> Connections:
    """The app's own, or new ones with the usual bounds."""
    if CONNECTIONS not in app:
        app[CONNECTIONS] = Connections()
    return app[CONNECTIONS]


class Door:
    """Accepts at bound sockets for a runner that has been set up; ``tls`` gives what new connections are to speak.

    An app with a second door gives it ``connections`` of its own.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        sockets: Sequence[socket.socket],
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        connections: Connections | None = None,
    ) -> None:
        assert runner.server is not None
        self._server = runner.server
        self._sockets = sockets
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = connections or connections_of(runner.app)
        self._sweeping: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Listen. Raises OSError."""
        for listener in self._sockets:
            listener.setblocking(False)
            listener.listen(_BACKLOG)
        for listener in self._sockets:
            self._start(self._accept(listener), f"accept at {listener.getsockname()}")

    async def close(self) -> None:
        """Accept nobody any more. Connections stay: they are the runner's to end."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._sockets:
            listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop, taken = asyncio.get_running_loop(), 0
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("accept_failed", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if await self._room_for(connection):
                self._take(connection)
            taken += 1
            # sock_accept() gives way only when nobody is waiting: under a flood nothing else would have a turn, and who
            # has to make room would be closed before it has begun.
            if taken % _AT_ONCE == 0 or self.connections.full:
                await asyncio.sleep(0)

    async def _room_for(self, connection: socket.socket) -> bool:
        until = time.monotonic() + _ROOM_SECONDS
        while not self.connections.admit(connection):
            if time.monotonic() > until:
                self.connections.closed["refused"] += 1
                self.turn_away(connection)
                return False
            try:
                await asyncio.sleep(_LOOK_SECONDS)
            except asyncio.CancelledError:
                connection.close()
                raise
        return True

    def _take(self, connection: socket.socket) -> None:
        task = self._start(self._connect(connection), "connect")
        # A task that is cancelled before its first turn does nothing at all.
        task.add_done_callback(lambda done: connection.close() if done.cancelled() else None)
        self.connections.ends_by(connection, task.cancel)
        self._sweep_within(min(self.connections.first_seconds, self.connections.idle_seconds))

    def turn_away(self, connection: socket.socket) -> None:
        """The house is full."""
        connection.close()

    async def shake_hands(self, connection: socket.socket) -> asyncio.Transport:
        """Connect it with the server, in TLS if that is wanted. Raises OSError, of which ssl.SSLError is one."""
        loop, context = asyncio.get_running_loop(), self._tls()
        seconds = {"ssl_handshake_timeout": self.connections.first_seconds, "ssl_shutdown_timeout": 2.0}
        transport, _ = await loop.connect_accepted_socket(
            self._server, connection, ssl=context, **(seconds if context else {})
        )
        return transport

    async def _connect(self, connection: socket.socket) -> None:
        try:
            transport = await self.shake_hands(connection)
        except OSError:  # what a client sends is no event
            self.connections.closed["handshake"] += 1
            connection.close()
        else:
            transport.max_size = _READ_BYTES  # type: ignore[attr-defined]  # has no effect under TLS
            self.connections.ends_by(connection, transport.abort, transport.close)

    def _sweep(self) -> None:
        self._sweeping = None
        seconds = self.connections.sweep()
        if seconds is not None:
            self._sweep_within(seconds)

    def _sweep_within(self, seconds: float) -> None:
        # Not once a second: a scraper that keeps its connection would wake an idle daemon as often.
        loop = asyncio.get_running_loop()
        # A moment later than need be: a TLS handshake has the same time, and is to say by itself that it has run out.
        at = loop.time() + max(seconds, 0.0) + _SWEEP_SECONDS
        if self._sweeping is not None:
            if self._sweeping.when() <= at:
                return
            self._sweeping.cancel()
        self._sweeping = loop.call_at(at, self._sweep)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("door_task_failed", exc_info=error, extra={"fields": {"task": task.get_name()}})


def shown_address(address: Any) -> str:
    """Host and port of a socket's address (of ``getsockname`` and the like) as they stand in a URL."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound_sockets(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host. Raises OSError. Blocks: names may come from a name server."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # "a..b", a label of more than 63 characters
        raise OSError(errno.EINVAL, f"{host!r} is no name of a host") from error
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            try:
                sockets.append(listener := socket.socket(family, kind, protocol))
            except OSError:  # a kernel without IPv6, and a name that has such an address too
                continue
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # [::] is IPv6 alone, as a name with addresses of both kinds needs it.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    if not sockets:
        raise OSError(errno.EAFNOSUPPORT, f"this kernel has no addresses of {host}'s kind")
    return sockets
