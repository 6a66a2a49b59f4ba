"""The client of the control API. Every failure is a ControlError that says what to do."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

import aiohttp

from slabwatch.control.sockets import denied, nobody_there
from slabwatch.control.ssh import SshConnector
from slabwatch.control.tls_client import tls_failure
from slabwatch.control.transports import transport_to
from slabwatch.errors import ControlError

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
# A whole record is one line of a storm's events.
MAX_LINE_BYTES = 64 * 1024 * 1024


class ControlClient:
    """``async with ControlClient(target, settings) as client``; both as in ``transports.transport_to``."""

    def __init__(self, target: str | None = None, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self._transport = transport_to(target, settings)
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """What messages call the other end."""
        return self._transport.name

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(base_url=self._transport.base_url, connector=self._transport.connector())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> Any:
        """The answer's JSON."""
        return await self._ask("GET", path, seconds=ANSWER_SECONDS)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float | None = ANSWER_SECONDS,
    ) -> Any:
        """The answer's JSON; ``seconds`` is how long to wait for it (None: as long as it takes)."""
        return await self._ask("POST", path, body=body, headers=headers, seconds=seconds)

    async def events(self, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """Each line of an NDJSON stream, until it ends. To leave earlier, ``aclose()`` it."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        try:
            async with self._opened().get(path, timeout=timeout) as response:
                await _raise_for(response)
                async for line in lines_of(response.content):
                    yield _decoded(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise await self._unreachable(error) from error

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        seconds: float | None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with self._opened().request(method, path, json=body, headers=headers, timeout=timeout) as response:
                await _raise_for(response)
                return _decoded(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise await self._unreachable(error) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("ControlClient is used outside of its `async with`")
        return self._session

    async def _unreachable(self, error: Exception) -> ControlError:
        told = tls_failure(self.name, error)
        if told is not None:
            return told
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(cause, PermissionError):
            return denied(self.name)
        if isinstance(cause, TimeoutError):
            return ControlError(
                f"{self.name}: the daemon does not answer in time: look at its log (journalctl -u slabwatch)"
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            return nobody_there(self.name, cause, self._transport.start_hint)
        connector = self._opened().connector
        told = await connector.failure() if isinstance(connector, SshConnector) else None
        return told or ControlError(
            f"{self.name}: the daemon broke off the answer: look at its log (journalctl -u slabwatch)"
        )


async def _raise_for(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    text = await response.text(errors="replace")
    try:
        problem = json.loads(text)
        message, code = str(problem["detail"]), str(problem["code"])
    except (ValueError, KeyError, TypeError, RecursionError):
        message, code = f"the daemon answered {response.status} {response.reason}: {text[:200].strip()}", "failed"
    raise ControlError(message, status=response.status, code=code)


async def lines_of(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a stream, however they arrive."""
    # Not the reader's own lines: these are limited to what fits into its buffer, and a record does not.
    parts: list[bytes] = []
    size = 0
    async for chunk in stream.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield b"".join([*parts, end])
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > MAX_LINE_BYTES:
            raise ControlError(f"the daemon sent a line of more than {MAX_LINE_BYTES} bytes", code="bad_answer")
    if any(parts):
        yield b"".join(parts)


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"the daemon's answer is not JSON: {line[:80]!r}", code="bad_answer") from error
