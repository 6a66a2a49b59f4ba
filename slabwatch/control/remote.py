"""The TLS door: lets in who has a certificate, and hands them to the control server.

Each connection is verified against the certificates, CAs and revocation lists that hold when it comes, and serves one
request: what a reload takes away is gone with the next question, and a stream that is open goes on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from aiohttp import web

from slabwatch.config import Remote
from slabwatch.control.tls import HandshakeFailed, server_context
from slabwatch.control.validity import expired
from slabwatch.door import Connections, Door, bound_sockets, shown_address
from slabwatch.errors import ConfigError

# Fewer than at the local socket: asyncio keeps 256 KiB for each connection in TLS, strangers' too.
MAX_CONNECTIONS = 64
FIRST_SECONDS = 5.0
# How long a client that is sent away may take to hear why, and how many do so at one time.
ALERT_SECONDS = 1.0
MAX_ALERTS = 16

_PLAIN_HTTP = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: use https:// and a client certificate.\n"
)

# Called with the address and the reason for each client that does not get in.
Refused = Callable[[str, str], None]

REMOTE_CONNECTIONS: web.AppKey[Connections] = web.AppKey("remote_connections", Connections)

log = logging.getLogger(__name__)


def remote_connections() -> Connections:
    """With the bounds of this door."""
    return Connections(most=MAX_CONNECTIONS, first_seconds=FIRST_SECONDS)


class TlsDoor:
    """The listener of ``remote.listen``, which comes and goes with the configuration."""

    def __init__(self, runner: web.AppRunner, refused: Refused) -> None:
        self.url = ""
        self.connections = runner.app[REMOTE_CONNECTIONS]
        self._runner = runner
        self._refused = refused
        self._remote = Remote()
        self._context: ssl.SSLContext | None = None
        self._door: Door | None = None

    async def apply(self, remote: Remote) -> None:
        """Open, move, close, or take new certificates. Raises ConfigError, and leaves everything as it was."""
        if not remote.listen:
            await self.cleanup()
            self._remote = remote
            return
        context = await asyncio.to_thread(server_context, remote)
        for finding in await asyncio.to_thread(expired, remote):
            log.warning("remote_expired", extra={"fields": asdict(finding)})
        if self._door is None or remote.listen != self._remote.listen:
            door = await self._opened(remote)
            await self.cleanup()
            self._door, self.url = door
            log.info("tls_door_open", extra={"fields": {"url": self.url}})
        self._context, self._remote = context, remote
        # Nobody gets in by a handshake that has begun with the old one. And no await from here on: the caller has the
        # roles to change.
        self.connections.dismiss()

    async def _opened(self, remote: Remote) -> tuple[Door, str]:
        try:
            sockets = await asyncio.to_thread(bound_sockets, *remote.address())
            door = _Entrance(self._runner, sockets, lambda: self._context, self.connections, self._refused)
            door.open()
        except OSError as error:
            raise ConfigError(f"remote.listen: can not listen on {remote.listen}: {error.strerror or error}") from error
        return door, f"https://{shown_address(sockets[0].getsockname())}"

    async def cleanup(self) -> None:
        """Let nobody in any more. Those inside are the runner's to end."""
        if self._door is None:
            return
        await self._door.close()
        self._door, self.url = None, ""
        log.info("tls_door_closed")


class _Entrance(Door):
    """A door that says, and is told, why somebody does not get in."""

    def __init__(
        self,
        runner: web.AppRunner,
        sockets: list[socket.socket],
        tls: Callable[[], ssl.SSLContext | None],
        connections: Connections,
        refused: Refused,
    ) -> None:
        super().__init__(runner, sockets, tls, connections)
        self._refused = refused
        self._alerts = 0

    def turn_away(self, connection: socket.socket) -> None:
        address = _address_of(connection)
        super().turn_away(connection)
        self._refused(address, f"{self.connections.most} connections are open")

    async def shake_hands(self, connection: socket.socket) -> asyncio.Transport:
        address = _address_of(connection)
        # asyncio closes its own descriptor with a failed handshake, before the client could be told why.
        with connection.dup() as spare:
            try:
                return await super().shake_hands(connection)
            except HandshakeFailed as error:
                self._refused(address, error.why)
                await self._send_away(spare, error)
                raise
            except ConnectionAbortedError:
                self._refused(address, f"no handshake within {self.connections.first_seconds:g} s")
                raise
            except OSError:
                self._refused(address, "the connection was closed in the handshake")
                raise
            except asyncio.CancelledError:
                self._refused(address, "made room for others, or for new certificates, before its handshake was done")
                raise

    async def _send_away(self, connection: socket.socket, error: HandshakeFailed) -> None:
        if self._alerts >= MAX_ALERTS:
            return
        self._alerts += 1
        try:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(ALERT_SECONDS):
                    await _tell(connection, _PLAIN_HTTP if error.why.startswith("plain HTTP") else error.alert)
        finally:
            self._alerts -= 1


async def _tell(connection: socket.socket, words: bytes) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, words)
    connection.shutdown(socket.SHUT_WR)
    # What it has sent already must be read: closed before, the kernel would reset the connection and drop the words.
    while await loop.sock_recv(connection, 16_384):
        pass


def _address_of(connection: socket.socket) -> str:
    try:
        return shown_address(connection.getpeername())
    except OSError:
        return ""  # it has gone already
