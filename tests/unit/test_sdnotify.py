"""The notification protocol, against real datagram sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slabwatch import sdnotify
from slabwatch.sdnotify import Notifier, ServiceManager


class Receiver:
    """A manager's socket."""

    def __init__(self, name: str, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(name)

    def read(self) -> list[bytes]:
        """All datagrams that have come."""
        read = []
        with contextlib.suppress(BlockingIOError):
            while True:
                read.append(self.socket.recv(65536))
        return read

    def fill(self) -> None:
        """Until it takes no more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sendto(b"x", self.socket.getsockname())


@pytest.fixture(params=["path", "abstract"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    if request.param == "path":
        made = Receiver(str(tmp_path / "notify"), str(tmp_path / "notify"))
    else:
        name = f"slabwatch-test-{os.getpid()}"
        made = Receiver(f"\0{name}", f"@{name}")
    yield made
    made.socket.close()


# The datagrams.


def test_one_datagram_with_a_line_for_each_assignment(receiver: Receiver) -> None:
    notifier = Notifier(receiver.address)
    assert notifier.send(READY=1, MAINPID=4711)
    assert notifier.send(STATUS="ünï: 100 %")
    assert receiver.read() == [b"READY=1\nMAINPID=4711\n", "STATUS=ünï: 100 %\n".encode()]


@pytest.mark.parametrize("value", ["a\nREADY=1", "a\r\nREADY=1", "a\u2028READY=1", "a\x0bREADY=1"])
def test_a_value_makes_no_second_assignment(receiver: Receiver, value: str) -> None:
    assert Notifier(receiver.address).send(STATUS=value)
    assert receiver.read() == [b"STATUS=a READY=1\n"]


def test_a_value_that_is_no_utf8(receiver: Receiver) -> None:
    assert Notifier(receiver.address).send(STATUS=os.fsdecode(b"a\xff"))
    assert receiver.read() == [b"STATUS=a\\udcff\n"]


def test_without_a_manager_nothing_is_sent() -> None:
    notifier = Notifier.from_environment({})
    assert (notifier.address, notifier.watchdog_seconds) == ("", None)
    assert not notifier.send(READY=1)


@pytest.mark.parametrize("address", ["/nowhere/at/all", f"/{'x' * 200}", "/a\0b", "@nobody-listens-here", "/dev/null"])
def test_a_socket_that_can_not_be_reached_is_said_once(address: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(address)
    assert [notifier.send(READY=1) for _ in range(3)] == [False] * 3
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.WARNING, "service_manager_not_told")
    assert record.__dict__["fields"]["socket"] == address


def test_a_manager_that_does_not_read_blocks_nobody(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(receiver.address)
    receiver.fill()
    began = time.monotonic()
    assert not notifier.send(WATCHDOG=1)
    assert time.monotonic() - began < 1
    receiver.read()
    assert notifier.send(WATCHDOG=1)
    receiver.fill()
    assert not notifier.send(WATCHDOG=1)
    assert len(caplog.records) == 2, "after it has gone well, a failure is news again"


# The environment.


def test_the_environment_is_taken_and_cleared() -> None:
    others = {"PATH": "/bin", "INVOCATION_ID": "0"}
    environment = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": str(os.getpid()),
        **others,
    }
    notifier = Notifier.from_environment(environment)
    assert (notifier.address, notifier.watchdog_seconds) == ("/run/n", 60.0)
    assert environment == others


@pytest.mark.parametrize(
    ("environment", "address", "seconds"),
    [
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "1500000"}, "@n", 1.5),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, "@n", None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "0"}, "@n", None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "-5"}, "@n", None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, "@n", None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "9" * 5000}, "@n", None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "\u0663"}, "@n", None),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1500000"}, "", None),
        ({"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "1500000"}, "", None),
        ({"WATCHDOG_USEC": "1500000"}, "", None),
    ],
)
def test_what_is_meant_for_this_process(environment: dict[str, str], address: str, seconds: float | None) -> None:
    notifier = Notifier.from_environment(environment)
    assert (notifier.address, notifier.watchdog_seconds) == (address, seconds)
    assert environment == {}


# What is told, and when.


@dataclass
class Daemon:
    """What a daemon knows of itself."""

    sampled: bool = True
    behind: float = 0.0
    status: str = "fine"

    def manager(self, notifier: Notifier) -> ServiceManager:
        return ServiceManager(
            notifier,
            sampled=lambda: self.sampled,
            behind_seconds=lambda: self.behind,
            status=lambda: self.status,
        )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty times as fast."""
    monkeypatch.setattr(sdnotify, "_TICK_SECONDS", 0.1)
    monkeypatch.setattr(sdnotify, "_STARTING_TICK_SECONDS", 0.002)
    monkeypatch.setattr(sdnotify, "FIRST_SAMPLE_SECONDS", 0.2)


@contextlib.asynccontextmanager
async def running(manager: ServiceManager) -> AsyncIterator[None]:
    task = asyncio.create_task(manager.run())
    try:
        yield
    finally:
        assert not task.done(), "it reports until it is cancelled"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def receive(receiver: Receiver, wanted: bytes, seconds: float = 5) -> list[bytes]:
    """All that comes, up to the one that is wanted."""
    loop = asyncio.get_running_loop()
    come: list[bytes] = []
    async with asyncio.timeout(seconds):
        while not come or wanted not in come[-1]:
            come.append(await loop.sock_recv(receiver.socket, 65536))
    return come


def run(story: Callable[[], object]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


READY = f"READY=1\nMAINPID={os.getpid()}\n".encode()


@pytest.mark.usefixtures("quick")
def test_ready_waits_for_the_first_sample(receiver: Receiver) -> None:
    async def story() -> None:
        daemon = Daemon(sampled=False)
        async with running(daemon.manager(Notifier(receiver.address, 0.1))):
            await asyncio.sleep(0.05)
            assert receiver.read() == [], "neither ready nor alive, for the manager"
            daemon.sampled = True
            assert await receive(receiver, b"STATUS") == [READY, b"WATCHDOG=1\n", b"STATUS=fine\n"]

    run(story)


@pytest.mark.usefixtures("quick")
def test_ready_does_not_wait_for_ever(receiver: Receiver) -> None:
    async def story() -> None:
        began = time.monotonic()
        async with running(Daemon(sampled=False, behind=9.0).manager(Notifier(receiver.address, 0.1))):
            assert await receive(receiver, b"READY") == [READY]
            assert time.monotonic() - began >= 0.2
            assert await receive(receiver, b"STATUS") == [b"STATUS=fine\n"], "and no sign of life"

    run(story)


@pytest.mark.usefixtures("quick")
def test_signs_of_life_follow_the_sampler(receiver: Receiver) -> None:
    async def story() -> None:
        daemon = Daemon()
        async with running(daemon.manager(Notifier(receiver.address, 0.1))):
            await receive(receiver, b"STATUS")
            began = time.monotonic()
            for _ in range(3):
                assert await receive(receiver, b"WATCHDOG") == [b"WATCHDOG=1\n"], "an unchanged status is told once"
            assert time.monotonic() - began > 0.09, "twice in each of its times, not more"
            daemon.behind, daemon.status = 0.05, "stuck"
            assert (await receive(receiver, b"stuck"))[-1] == b"STATUS=stuck\n"
            receiver.read()
            await asyncio.sleep(0.2)
            assert receiver.read() == []
            daemon.behind = 0.04
            await receive(receiver, b"WATCHDOG")

    run(story)


@pytest.mark.usefixtures("quick")
def test_without_a_watchdog_there_are_no_signs_of_life(receiver: Receiver) -> None:
    async def story() -> None:
        async with running(Daemon().manager(Notifier(receiver.address))):
            assert await receive(receiver, b"STATUS") == [READY, b"STATUS=fine\n"]
            await asyncio.sleep(0.25)
            assert receiver.read() == []

    run(story)


@pytest.mark.usefixtures("quick")
def test_a_reload_is_framed_whichever_way_it_ends(receiver: Receiver) -> None:
    async def story() -> None:
        manager = Daemon().manager(Notifier(receiver.address))
        with manager.reloading():
            pass
        assert receiver.read() == [], "READY before it is would end the start"
        async with running(manager):
            await receive(receiver, b"STATUS")
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            with contextlib.suppress(ValueError), manager.reloading():
                (told,) = receiver.read()
                raise ValueError("bad")
            after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            first, second, end = told.split(b"\n")
            assert (first, end) == (b"RELOADING=1", b"")
            assert before <= int(second.removeprefix(b"MONOTONIC_USEC=")) <= after
            assert receiver.read() == [b"READY=1\n"]
            with manager.reloading():
                manager.stopping()
            assert receiver.read()[1:] == [b"STOPPING=1\n"], "one that stops is not ready any more"
            with manager.reloading():
                pass
            assert b"READY=1\n" not in receiver.read()

    run(story)


@pytest.mark.usefixtures("quick")
def test_a_stop_asks_for_time_until_it_is_over(receiver: Receiver) -> None:
    async def story() -> None:
        manager = Daemon().manager(Notifier(receiver.address, 0.1))
        async with running(manager):
            await receive(receiver, b"STATUS")
            manager.stopping()
            told = await receive(receiver, b"EXTEND_TIMEOUT_USEC")
            assert told[0] == b"STOPPING=1\n"
            assert told[-1] == b"EXTEND_TIMEOUT_USEC=15050000\n"
            assert b"WATCHDOG=1\n" in await receive(receiver, b"EXTEND_TIMEOUT_USEC"), "it is alive meanwhile"

    run(story)


@pytest.mark.usefixtures("quick")
def test_a_stop_before_it_was_ready(receiver: Receiver) -> None:
    async def story() -> None:
        daemon = Daemon(sampled=False)
        manager = daemon.manager(Notifier(receiver.address))
        async with running(manager):
            manager.stopping()
            daemon.sampled = True
            told = await receive(receiver, b"STATUS")
            assert (told[0], READY in told) == (b"STOPPING=1\n", False)

    run(story)


@pytest.mark.usefixtures("quick")
def test_a_state_that_was_not_taken_is_told_again(receiver: Receiver) -> None:
    async def story() -> None:
        receiver.fill()
        async with running(Daemon().manager(Notifier(receiver.address))):
            await asyncio.sleep(0.05)
            assert set(receiver.read()) == {b"x"}
            assert await receive(receiver, b"STATUS") == [READY, b"STATUS=fine\n"]

    run(story)


def test_without_a_manager_the_report_is_over_at_once() -> None:
    asyncio.run(asyncio.wait_for(Daemon().manager(Notifier()).run(), 5))
