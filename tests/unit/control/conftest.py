"""The control server at a real socket, over a pretended daemon."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from slabwatch.control import gate, listen
from slabwatch.control.access import Peer
from slabwatch.control.server import make_app
from slabwatch.control.streams import EventStreams
from tests.unit.control.pretended import Pretended


@dataclass
class Door:
    """A pretended daemon behind its socket."""

    daemon: Pretended
    streams: EventStreams
    runner: listen.UnixRunner
    path: Path
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON; a body that is bytes goes out as it is."""
        raw = body if isinstance(body, bytes) else None
        sent = None if raw is not None else body
        async with self.session.request(method, path, json=sent, data=raw, headers=headers) as response:
            return response.status, json.loads(await response.read())

    async def lines(self, path: str) -> list[dict[str, Any]]:
        """A whole NDJSON answer."""
        async with self.session.get(path) as response:
            assert response.content_type == "application/x-ndjson"
            return [json.loads(line) async for line in response.content]


Opened = Callable[..., Any]


@pytest_asyncio.fixture
async def open_door(tmp_path: Path) -> AsyncIterator[Opened]:
    """``await open_door(pretended, streams=...)`` starts a server."""
    async with AsyncExitStack() as stack:

        async def start(daemon: Pretended | None = None, **limits: Any) -> Door:
            daemon = daemon or Pretended(state=tmp_path / "state")
            services = daemon.services()
            path = tmp_path / "run" / "s.sock"
            streams = EventStreams(services, **limits)
            runner = await listen.start_unix(make_app(services, streams), path)
            stack.push_async_callback(runner.cleanup)
            session = aiohttp.ClientSession("http://slabwatch", connector=aiohttp.UnixConnector(str(path)))
            await stack.enter_async_context(session)
            return Door(daemon, streams, runner, path, session)

        yield start


@pytest_asyncio.fixture
async def door(open_door: Opened) -> Door:
    """With the usual limits."""
    opened: Door = await open_door()
    return opened


@pytest.fixture
def viewer(monkeypatch: pytest.MonkeyPatch) -> Peer:
    """Whoever connects is a user without any rights."""
    peer = Peer(uid=54321, gid=54321, pid=99)
    monkeypatch.setattr(gate, "peer_of", lambda transport: peer)
    return peer


class Audit(logging.Handler):
    """Keeps what is written to the audit log."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.entries.append(record.__dict__["fields"])


@pytest.fixture
def audit_log() -> Iterator[list[dict[str, Any]]]:
    """The entries of this test."""
    handler, logger = Audit(), logging.getLogger("slabwatch.audit")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler.entries
    logger.removeHandler(handler)
    logger.setLevel(level)
