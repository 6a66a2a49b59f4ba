"""The TLS door: lets in who has a certificate, and hands them to the control server.

Each connection is verified against the certificates, CAs and revocation lists that hold when it comes, and serves one
request: what a reload takes away is gone with the next question, and a stream that is open goes on. Strangers can hold
no more than MAX_HANDSHAKES connections, of which the oldest makes room.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from slabwatch.config import Remote
from slabwatch.control.tls import HandshakeFailed, server_context
from slabwatch.errors import ConfigError

MAX_CONNECTIONS = 64
MAX_HANDSHAKES = 64
HANDSHAKE_SECONDS = 5.0
GOODBYE_SECONDS = 5.0
# How long a client that is sent away may take to hear why.
ALERT_SECONDS = 1.0
# After accept() failed, as for want of descriptors.
PAUSE_SECONDS = 1.0

_PLAIN_HTTP = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: use https:// and a client certificate.\n"
)

log = logging.getLogger(__name__)


class TlsDoor:
    """``refused`` is called with the address and the reason for each client that does not get in."""

    def __init__(
        self,
        server: web.Server,
        refused: Callable[[str, str], None],
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_handshakes: int = MAX_HANDSHAKES,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self.url = ""
        self._server = server
        self._refused = refused
        self._max_connections = max_connections
        self._max_handshakes = max_handshakes
        self._handshake_seconds = handshake_seconds
        self._remote = Remote()
        self._context: ssl.SSLContext | None = None
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: dict[asyncio.Task[None], str] = {}  # with the client's address, oldest first
        self._inside: list[asyncio.BaseProtocol] = []

    async def apply(self, remote: Remote) -> None:
        """Open, move, close, or take new certificates. Raises ConfigError, and leaves everything as it was."""
        if not remote.listen:
            await self._close()
            self._remote = remote
            return
        context = await asyncio.to_thread(server_context, remote)
        if self._accepting is None or remote.listen != self._remote.listen:
            listener = await asyncio.to_thread(_listen, remote)
            await self._close()
            self._open(listener)
        # Whoever is in a handshake finishes it with the old one.
        self._context, self._remote = context, remote

    async def cleanup(self) -> None:
        """Let nobody in any more. Those inside are the server's to end."""
        await self._close()
        for task in self._handshakes:
            task.cancel()

    def _open(self, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        self.url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener), name="tls door")
        self._accepting.add_done_callback(_watched)
        log.info("tls_door_open", extra={"fields": {"url": self.url}})

    async def _close(self) -> None:
        if self._accepting is None or self._listener is None:
            return
        self._accepting.cancel()
        await asyncio.wait((self._accepting,))
        self._listener.close()
        self._listener, self._accepting, self.url = None, None, ""
        log.info("tls_door_closed")

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("tls_door_stuck", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._receive(connection, _shown(address))
            await asyncio.sleep(0)  # accept() may not wait at all, and others want to run too

    def _receive(self, connection: socket.socket, address: str) -> None:
        self._inside = [handler for handler in self._inside if _is_connected(handler)]
        if len(self._inside) >= self._max_connections:
            connection.close()
            self._refused(address, f"{self._max_connections} connections are open")
            return
        if len(self._handshakes) >= self._max_handshakes:
            oldest = next(iter(self._handshakes))
            self._refused(self._handshakes.pop(oldest), f"{self._max_handshakes} handshakes are not finished")
            oldest.cancel()
        task = asyncio.create_task(self._let_in(connection, address), name=f"tls handshake {address}")
        self._handshakes[task] = address
        task.add_done_callback(lambda done: self._handshakes.pop(done, None))
        task.add_done_callback(_watched)

    async def _let_in(self, connection: socket.socket, address: str) -> None:
        try:
            # asyncio closes its own descriptor with a failed handshake, before the client could be told why.
            spare = connection.dup()
        except OSError as error:
            connection.close()
            self._refused(address, str(error))
            return
        with spare:
            try:
                self._inside.append(await self._shake_hands(connection))
            except HandshakeFailed as error:
                self._refused(address, error.why)
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(ALERT_SECONDS):
                        await _send_away(spare, error)
            except ConnectionAbortedError:
                self._refused(address, f"no handshake within {self._handshake_seconds:g} s")
            except OSError:
                self._refused(address, "the connection was closed in the handshake")

    async def _shake_hands(self, connection: socket.socket) -> asyncio.BaseProtocol:
        _, handler = await asyncio.get_running_loop().connect_accepted_socket(
            self._server,
            connection,
            ssl=self._context,
            ssl_handshake_timeout=self._handshake_seconds,
            ssl_shutdown_timeout=GOODBYE_SECONDS,
        )
        return handler


async def _send_away(connection: socket.socket, error: HandshakeFailed) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, _PLAIN_HTTP if error.why.startswith("plain HTTP") else error.alert)
    connection.shutdown(socket.SHUT_WR)
    # What it has sent already must be read: closed before, the kernel would reset the connection and drop the alert.
    while await loop.sock_recv(connection, 16_384):
        pass


def _listen(remote: Remote) -> socket.socket:
    host, port = remote.address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(f"remote.listen: can not listen on {remote.listen}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def _shown(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_connected(handler: asyncio.BaseProtocol) -> bool:
    return isinstance(handler, web.RequestHandler) and handler.transport is not None


def _watched(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("tls_door_defect", exc_info=task.exception(), extra={"fields": {"task": task.get_name()}})
