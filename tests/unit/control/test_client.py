"""The client: targets, and what it says when things go wrong."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.config import default_socket
from slabwatch.control import client as client_module
from slabwatch.control import sockets
from slabwatch.control.client import ControlClient
from slabwatch.control.transports import transport_to
from slabwatch.errors import ControlError
from tests.unit.control.conftest import Door
from tests.unit.control.pretended import PretendedStorm, plan


async def _raw(path: Path, answer: bytes) -> asyncio.Server:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(talk, path)


@pytest.mark.asyncio
async def test_get_post_and_events(door: Door) -> None:
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    # One line of more than a megabyte: a record can be that long.
    ended = await storm.end(snapshots={"baseline": "x" * 1_500_000})
    async with ControlClient(f"unix://{door.path}") as client:
        assert client.name == str(door.path)
        assert (await client.get("/v1/status"))["state"] == "READY"
        assert await client.post("/v1/reload", {}) == {"reloaded": True, "needs_restart": []}
        events = [event async for event in client.events("/v1/storms/storm-1/events")]
    assert events == [{"event": "end", "outcome": "completed", "reason": "", "record": ended}]


@pytest.mark.asyncio
async def test_a_problem_becomes_an_error(door: Door) -> None:
    async with ControlClient(f"unix://{door.path}") as client:
        with pytest.raises(ControlError, match="no storm nothing is known here") as caught:
            await client.get("/v1/storms/nothing")
        assert (caught.value.status, caught.value.code) == (404, "unknown_storm")
        with pytest.raises(ControlError) as caught:
            await anext(client.events("/v1/storms/nothing/events"))
        assert caught.value.code == "unknown_storm"


@pytest.mark.asyncio
async def test_nobody_is_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with ControlClient(f"unix://{path}") as client:
        with pytest.raises(ControlError, match=f"{path}: there is no such socket.*start it with") as caught:
            await client.get("/v1/status")
        assert (caught.value.status, caught.value.code) == (0, "unreachable")
        server = await _raw(path, b"")
        server.close()
        await server.wait_closed()
        with pytest.raises(ControlError, match="nobody listens there"):
            await client.get("/v1/status")


@pytest.mark.asyncio
async def test_not_allowed_to_open_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*args: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", refuse)
    async with ControlClient(f"unix://{tmp_path}/s") as client:
        with pytest.raises(ControlError, match=r"control\.group") as caught:
            await client.get("/v1/status")
    assert caught.value.code == "not_allowed"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (b"", "unreachable", "broke off"),
        (b"rubbish\r\n\r\n", "unreachable", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "unreachable", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops", "bad_answer", "not JSON"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", "failed", "answered 500 Oops: oops"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n[]", "failed", "answered 404"),
    ],
)
async def test_answers_that_are_none(tmp_path: Path, answer: bytes, code: str, words: str) -> None:
    server = await _raw(tmp_path / "s", answer)
    async with server, ControlClient(f"unix://{tmp_path}/s") as client:
        with pytest.raises(ControlError, match=words) as caught:
            await client.get("/v1/status")
    assert caught.value.code == code


@pytest.mark.asyncio
async def test_a_stream_that_breaks_off(tmp_path: Path) -> None:
    chunk = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n'
    async with await _raw(tmp_path / "s", chunk), ControlClient(f"unix://{tmp_path}/s") as client:
        with pytest.raises(ControlError, match="broke off"):
            await anext(client.events("/v1/x"))


@pytest.mark.asyncio
async def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        closed.set()

    server = await asyncio.start_unix_server(silent, tmp_path / "s")
    async with server, ControlClient(f"unix://{tmp_path}/s") as client:
        with pytest.raises(ControlError, match="does not answer in time"):
            await client.post("/v1/reload", {}, seconds=0.05)
        await closed.wait()


class _Chunks:
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def iter_any(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


@given(st.lists(st.text("ab", min_size=1, max_size=5).map(str.encode), max_size=6), st.lists(st.integers(0, 40)))
def test_lines_do_not_depend_on_how_they_arrive(lines: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    chunks = [whole[start:end] for start, end in itertools.pairwise(places)]

    async def read() -> list[bytes]:
        return [line async for line in client_module.lines_of(_Chunks(chunks))]  # type: ignore[arg-type]

    assert asyncio.run(read()) == lines


def test_a_line_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_LINE_BYTES", 10)

    async def read() -> list[bytes]:
        return [line async for line in client_module.lines_of(_Chunks([b"12345678", b"9012"]))]  # type: ignore[arg-type]

    with pytest.raises(ControlError, match="more than 10 bytes"):
        asyncio.run(read())


def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, system = tmp_path / "own", tmp_path / "system"
    monkeypatch.setattr(sockets, "default_socket", lambda: own)
    monkeypatch.setattr(sockets, "SYSTEM_SOCKET", system)
    assert transport_to("unix:///a/b%20c").name == "/a/b c"
    assert transport_to(None).name == str(own), "when neither is there, this user's own is named"
    system.touch()
    assert transport_to("").name == str(system)
    own.touch()
    assert transport_to("").name == str(own)
    assert transport_to("ssh://user@host").name == "ssh://user@host"


def test_a_socket_that_can_not_be_seen_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", denied)
    assert sockets.local_socket() == default_socket()


def test_a_directory_that_others_have_made_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, system = tmp_path / "slabwatch-0", tmp_path / "system"
    own = runtime / "slabwatch" / "s"
    monkeypatch.setattr(sockets, "temporary_runtime", lambda: runtime)
    monkeypatch.setattr(sockets, "default_socket", lambda: own)
    monkeypatch.setattr(sockets, "SYSTEM_SOCKET", system)
    assert sockets.local_socket() == own, "nothing is there"
    own.parent.mkdir(parents=True)
    own.touch()
    os.chmod(runtime, 0o755)
    assert sockets.local_socket() == own
    os.chmod(runtime, 0o757)
    with pytest.raises(ControlError, match="somebody else may listen there: set XDG_RUNTIME_DIR"):
        sockets.local_socket()
    assert transport_to(f"unix://{own}").name == str(own), "what is named is asked"
    system.touch()
    assert sockets.local_socket() == system


@pytest.mark.parametrize("target", ["ftp://host", "unix:relative", "unix://relative", "host", "ssh://"])
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(ControlError) as caught:
        transport_to(target)
    assert caught.value.code == "bad_target"
    assert target in str(caught.value)


@pytest.mark.asyncio
async def test_outside_of_its_with() -> None:
    with pytest.raises(RuntimeError):
        await ControlClient("unix:///x").get("/v1/status")
