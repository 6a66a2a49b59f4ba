"""The way in: how many connections there may be, how long each may keep us waiting, and who goes when it is full."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from slabwatch.door import CONNECTIONS, Connections, Door, bound_sockets, connections_of, http_log


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pipe(asyncio.Transport):
    """A transport with a real socket, as far as Connections looks at it."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__({"socket": connection})
        self.aborted = False


class House:
    """Connections with a clock of the test's."""

    def __init__(self, most: int) -> None:
        self.clock = Clock()
        self.connections = Connections(most=most, first_seconds=10, idle_seconds=75, clock=self.clock)
        self.pipes: list[Pipe] = []
        self._others: list[socket.socket] = []

    def enter(self) -> Pipe | None:
        """One more comes; None when it is turned away."""
        one, other = socket.socketpair()
        self._others.append(other)
        self.clock.now += 0.11
        if not self.connections.admit(one):
            one.close()
            return None
        pipe = Pipe(one)
        self.pipes.append(pipe)

        def abort() -> None:
            pipe.aborted = True

        self.connections.ends_by(one, abort)
        return pipe

    def close(self) -> None:
        for connection in (*self._others, *(pipe.get_extra_info("socket") for pipe in self.pipes)):
            connection.close()


@pytest.fixture
def house() -> Iterator[Callable[[int], House]]:
    made: list[House] = []

    def make(most: int) -> House:
        made.append(House(most))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_who_says_nothing_is_closed(house: Callable[[int], House]) -> None:
    h = house(4)
    silent, served, in_hand = h.enter(), h.enter(), h.enter()
    assert silent
    assert served
    assert in_hand
    h.connections.touch(served)
    assert h.connections.sweep() == pytest.approx(10, abs=0.5)
    with h.connections.held(in_hand):
        h.clock.now += 10.1
        assert h.connections.sweep() == pytest.approx(-0.1, abs=0.5)
        assert (silent.aborted, served.aborted, in_hand.aborted) == (True, False, False)
        h.clock.now += 65
        h.connections.sweep()
        assert (served.aborted, in_hand.aborted) == (True, False)
        h.clock.now += 10_000
        h.connections.sweep()
        assert [pipe.aborted for pipe in h.pipes] == [True, True, False]
    assert h.connections.open == 1
    assert h.connections.sweep() == pytest.approx(75, abs=0.5)
    h.clock.now += 75.1
    assert h.connections.sweep() is None
    assert [pipe.aborted for pipe in h.pipes] == [True, True, True]
    assert (h.connections.closed["slow"], h.connections.closed["idle"]) == (1, 2)


def test_when_it_is_full_the_longest_waiting_goes(house: Callable[[int], House]) -> None:
    h = house(3)
    first, second, third = h.enter(), h.enter(), h.enter()
    assert first
    assert second
    assert third
    h.connections.touch(first)  # has just been served, so that the second has waited longest
    assert h.enter()
    assert [pipe.aborted for pipe in (first, second, third)] == [False, True, False]
    assert h.connections.open == 3
    assert h.connections.closed["crowded"] == 1


def test_who_has_just_come_has_a_moment_to_ask(house: Callable[[int], House]) -> None:
    h = house(1)
    assert h.enter()
    h.clock.now -= 0.02
    assert h.enter() is None  # 90 ms later
    assert h.enter()  # 200 ms later
    assert [pipe.aborted for pipe in h.pipes] == [True, False]


def test_who_has_a_request_in_hand_is_not_thrown_out(house: Callable[[int], House]) -> None:
    h = house(2)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(h.connections.held(h.enter()))
        assert h.enter() is None
        with h.connections.waiting(h.pipes[1]):  # its client is to send more first
            assert h.enter()
        assert [pipe.aborted for pipe in h.pipes] == [False, True, False]
        stack.enter_context(h.connections.held(h.pipes[2]))
        assert h.enter() is None
        h.pipes[0].get_extra_info("socket").close()  # gone by itself: there is room again
        assert h.enter()


def test_a_transport_that_has_gone_is_nobody() -> None:
    connections = Connections()
    connections.touch(None)
    with connections.held(None):
        assert connections.open == 0


# At a real socket.


class Served:
    """One app behind a door; ``gate`` holds its answers back."""

    def __init__(self, address: tuple[str, int], connections: Connections) -> None:
        self.address = address
        self.connections = connections
        self.gate = asyncio.Event()
        self.door: Door

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def ask(self, request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") -> bytes:
        reader, writer = await self.connect()
        writer.write(request)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


Open = Callable[..., Awaitable[Served]]


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until it holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 there is no event for what a table holds
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def open_door() -> AsyncIterator[Open]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(**bounds: Any) -> Served:
            app = web.Application()
            app[CONNECTIONS] = connections = Connections(**bounds)
            sockets = bound_sockets("127.0.0.1", 0)
            served = Served(sockets[0].getsockname(), connections)

            async def answer(request: web.Request) -> web.Response:
                with connections.held(request.transport):
                    if request.path == "/wait":
                        await served.gate.wait()
                    return web.Response(text="here" if request.path != "/big" else "x" * 8_000_000)

            app.router.add_get("/{any:.*}", answer)
            runner = web.AppRunner(app, access_log=None, logger=http_log, shutdown_timeout=1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            served.door = door = Door(runner, sockets)
            stack.push_async_callback(door.close)
            door.open()
            return served

        yield start


@pytest.mark.asyncio
async def test_idle_crowds_keep_nobody_out(open_door: Open) -> None:
    served = await open_door(most=16)
    crowd = [await served.connect() for _ in range(100)]
    assert (await served.ask()).endswith(b"here")
    assert served.connections.open <= 16
    assert served.connections.closed["crowded"] >= 84
    for _, writer in crowd:
        writer.close()


@pytest.mark.asyncio
async def test_those_with_a_request_in_hand_stay(open_door: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await open_door(most=4)
    waiting = [asyncio.ensure_future(served.ask(b"GET /wait HTTP/1.0\r\n\r\n")) for _ in range(4)]
    await until(lambda: sum(each.busy for each in served.connections._all.values()) == 4)
    monkeypatch.setattr("slabwatch.door._ROOM_SECONDS", 0.05)
    # EOF or a reset: its request may not have been read when it is closed.
    with contextlib.suppress(ConnectionError):
        assert await served.ask() == b""
    assert served.connections.closed["refused"] == 1
    monkeypatch.setattr("slabwatch.door._ROOM_SECONDS", 10)
    newcomer = asyncio.ensure_future(served.ask())
    served.gate.set()
    assert all(answer.endswith(b"here") for answer in await asyncio.gather(newcomer, *waiting))
    assert (await served.ask()).endswith(b"here")


@pytest.mark.asyncio
async def test_all_but_those_with_a_request_in_hand_are_sent_away(open_door: Open) -> None:
    served = await open_door()
    waiting = asyncio.ensure_future(served.ask(b"GET /wait HTTP/1.0\r\n\r\n"))
    idle, writer = await served.connect()
    writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    await idle.readuntil(b"\r\n\r\n")
    await until(lambda: sorted(each.busy for each in served.connections._all.values()) == [0, 1])
    served.connections.dismiss()
    # What was being sent arrives whole.
    assert await asyncio.wait_for(idle.read(), 10) == b"x" * 8_000_000
    writer.close()
    served.gate.set()
    assert (await waiting).endswith(b"here")


@pytest.mark.asyncio
@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX: "])
async def test_a_head_that_does_not_come_is_not_waited_for(open_door: Open, sent: bytes) -> None:
    served = await open_door(first_seconds=0.01)
    assert await served.ask(sent) == b""
    assert served.connections.closed["slow"] == 1


@pytest.mark.asyncio
async def test_nobody_is_looked_for_before_the_first_may_have_to_go(open_door: Open) -> None:
    served = await open_door(first_seconds=20, idle_seconds=75)
    loop = asyncio.get_running_loop()

    def planned() -> float:
        assert served.door._sweeping is not None
        return served.door._sweeping.when() - loop.time()

    reader, writer = await served.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"here")
    assert planned() == pytest.approx(20, abs=5)
    served.door._sweep()
    assert planned() == pytest.approx(75, abs=5)
    _, another = await served.connect()
    await until(lambda: served.connections.open == 2)
    assert planned() == pytest.approx(20, abs=5)
    for each in (writer, another):
        each.close()


@pytest.mark.asyncio
async def test_an_answer_that_is_not_read_is_not_kept(open_door: Open) -> None:
    served = await open_door(idle_seconds=0.01)
    reader, writer = await served.connect()
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    # The server closes: what it could not send must not keep its descriptor.
    writer.write(b"GET /big HTTP/1.0\r\n\r\n")
    await until(lambda: served.connections.closed["idle"] == 1)
    assert served.connections.open == 0
    writer.transport.abort()


@pytest.mark.asyncio
async def test_garbage_leaves_no_trace_in_the_log(open_door: Open, caplog: pytest.LogCaptureFixture) -> None:
    served = await open_door()
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nA B: c", b"GET / HTTP/x", b"\x00" * 99):
        answer = await served.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + garbage + b"\r\n\r\n")
        assert b" 400 " in answer
    assert caplog.text == ""


@pytest.mark.asyncio
async def test_without_descriptors_it_tries_again(open_door: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, real, failures = asyncio.get_running_loop(), asyncio.get_running_loop().sock_accept, [24, 23]

    async def accept(listener: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "Too many open files")
        return await real(listener)

    monkeypatch.setattr(loop, "sock_accept", accept)
    monkeypatch.setattr("slabwatch.door._RETRY_SECONDS", 0.01)
    served = await open_door()
    assert (await served.ask()).endswith(b"here")
    assert not failures


def test_addresses() -> None:
    (one,) = bound_sockets("127.0.0.1", 0)
    with one:
        one.listen()
        with pytest.raises(OSError, match="in use"):
            bound_sockets("127.0.0.1", one.getsockname()[1])
    with pytest.raises(OSError, match="Name or service not known"):
        bound_sockets("256.0.0.1", 0)
    for name in ("host..example", "a" * 64):
        with pytest.raises(OSError, match=f"'{name}' is no name of a host"):
            bound_sockets(name, 0)


@pytest.mark.asyncio
async def test_each_app_has_connections_of_its_own() -> None:
    one, other = web.Application(), web.Application()
    assert connections_of(one) is connections_of(one) is not connections_of(other)
