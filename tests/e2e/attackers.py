"""Clients that mean no good: ``python -m tests.e2e.attackers NAME ADDRESS SECONDS``. Loopback and unix sockets only.

Each is bounded in connections and in time, ends by itself, and prints as JSON what it has done.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import resource
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /v1/storms HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
PATHS = [
    b"/../../../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/metrics/..%2f..%2fetc/passwd", b"//metrics",
    b"/v1/storms/..%2f..%2fetc%2fpasswd", b"/v1/storms/%00", b"/v1/storms/../status", b"/./metrics%00.html",
    b"/" + b"a/" * 3000, b"/%" + b"2f" * 2000, b"/metrics?" + b"a=b&" * 1500, b"http://[::1]:1/", b"*", b"/\xff\xfe",
]  # fmt: skip
JSON = [
    b"[" * 60_000, b'{"cgroups":' * 5000, b'{"cgroups": 1e999}', b'{"cgroups": ' + b"9" * 60_000 + b"}", b"\xff\xfe",
    b'{"preset": "' + b"a" * 60_000 + b'"}', b'{"dry_run": true, "tasks": -1}', b"null", b"[]", b'{"cgroups": "1"}',
    b'{"a": 1, "a": 2}', b'{"preset": "\\u0000"}', b'{"hold_seconds": NaN}', b"{" + b'"x":{},' * 8000 + b'"y":1}',
]  # fmt: skip


class Attack:
    """One attacker; ``done`` counts what it did and what it met."""

    def __init__(self, address: str, seconds: float) -> None:
        self.address = address
        self.seconds = seconds
        self.over = False
        self.done: Counter[str] = Counter()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        if self.address.startswith("/"):
            reader, writer = await asyncio.open_unix_connection(self.address)
        else:
            host, _, port = self.address.rpartition(":")
            assert host == "127.0.0.1"
            reader, writer = await asyncio.open_connection(host, int(port))
        self.done["connections"] += 1
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def crowd(self, count: int, each: Callable[[int], Awaitable[None]], *, again: bool = True) -> None:
        """So many at one time, until the time is over; who is thrown out comes again."""

        async def one(number: int) -> None:
            while True:
                with suppress(OSError, asyncio.IncompleteReadError):
                    await each(number)
                if not again or self.over:
                    return
                await asyncio.sleep(0.02)

        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await asyncio.gather(*(one(number) for number in range(count)))

    # The attacks.

    async def idle(self) -> None:
        """1,000 connections that say nothing."""

        async def each(_: int) -> None:
            async with self.connection() as (reader, _writer):
                await reader.read(1)

        await self.crowd(1000, each)

    async def dribble(self) -> None:
        """300 heads, each a few bytes at a time, without an end."""

        async def each(number: int) -> None:
            async with self.connection() as (_, writer):
                writer.write(b"GET /metrics HTTP/1.1\r\nX-%d: " % number)
                while not writer.is_closing():
                    writer.write(b"a")
                    await asyncio.sleep(0.05)

        await self.crowd(300, each)

    async def burst(self) -> None:
        """10,000 scrapes as fast as they are answered, half of them on connections of their own."""
        left = itertools.count()
        # It ends by itself, and is to come to that end on a slow machine too.
        self.seconds += 25

        async def each(number: int) -> None:
            async with self.connection() as (reader, writer):
                while next(left) < 10_000:
                    writer.write(GET % b"/metrics")
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    self.done[head.split(b" ")[1].decode()] += 1
                    if number % 2:
                        return
                self.over = True

        await self.crowd(50, each)

    async def heads(self) -> None:
        """Heads of a megabyte, of 5,000 fields, and of one line without an end."""
        shapes = [
            b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
            b"".join(b"X-%d: y\r\n" % number for number in range(5000)) + b"\r\n",
            b"a" * 1_000_000,
        ]

        async def each(number: int) -> None:
            async with self.connection() as (reader, writer):
                writer.write(b"GET /metrics HTTP/1.1\r\n" + shapes[number % 3])
                self.done[(await reader.read(12))[9:].decode() or "closed"] += 1

        await self.crowd(50, each)

    async def bodies(self) -> None:
        """Bodies of a terabyte, by length and in chunks."""
        block = b"0" * 65_536
        chunk = b"10000\r\n" + block + b"\r\n"

        async def each(number: int) -> None:
            async with self.connection() as (reader, writer):
                kind = b"Transfer-Encoding: chunked" if number % 2 else b"Content-Length: 1099511627776"
                writer.write(POST + kind + b"\r\n\r\n")
                answer = asyncio.ensure_future(reader.read(12))
                while not answer.done() and not writer.is_closing():
                    writer.write(chunk if number % 2 else block)
                    await writer.drain()
                self.done[(await answer)[9:].decode() or "closed"] += 1

        await self.crowd(20, each)

    async def slow_bodies(self) -> None:
        """300 bodies that never come."""

        async def each(_: int) -> None:
            async with self.connection() as (reader, writer):
                writer.write(POST + b"Content-Length: 100\r\n\r\n{")
                await reader.read(1)

        await self.crowd(300, each)

    async def json(self) -> None:
        """Deep and wrong JSON, and paths that lead elsewhere."""

        async def each(number: int) -> None:
            async with self.connection() as (reader, writer):
                if number % 2:
                    body = random.choice(JSON)
                    writer.write(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                else:
                    writer.write(GET % random.choice(PATHS))
                self.done[(await reader.read(12))[9:].decode() or "closed"] += 1

        await self.crowd(20, each)

    async def doctors(self) -> None:
        """200 clients that ask without end for what takes the daemon longest."""

        async def each(_: int) -> None:
            async with self.connection() as (reader, writer):
                writer.write(b"GET /v1/doctor HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                self.done[(await reader.read())[9:12].decode() or "closed"] += 1

        await self.crowd(200, each)

    async def pipelines(self) -> None:
        """Each writes 20,000 requests at once and reads no answer."""

        async def each(_: int) -> None:
            async with self.connection() as (_reader, writer):
                _reader._transport.pause_reading()  # type: ignore[attr-defined]
                for _ in range(200):
                    writer.write((GET % b"/metrics") * 100)
                    await writer.drain()

        await self.crowd(50, each)

    async def garbage(self) -> None:
        """Any bytes, after a request and without."""

        async def each(number: int) -> None:
            async with self.connection() as (reader, writer):
                writer.write((GET % b"/metrics" if number % 2 else b"") + random.randbytes(4000) * 5 + b"\r\n\r\n" * 50)
                self.done[(await reader.read(12))[9:].decode(errors="replace") or "closed"] += 1

        await self.crowd(50, each)

    async def unread(self) -> None:
        """300 scrapes whose answers nobody reads, on connections that are to be closed and on others."""

        async def each(number: int) -> None:
            async with self.connection() as (reader, writer):
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                last = b"GET /metrics HTTP/1.0\r\n\r\n" if number % 2 else b""
                writer.write((GET % b"/metrics") * 20 + last)
                await asyncio.sleep(self.seconds)

        await self.crowd(300, each)

    async def handshakes(self) -> None:
        """300 TLS handshakes that stop in the middle, and plain HTTP where TLS is spoken."""

        async def each(number: int) -> None:
            async with self.connection() as (reader, writer):
                writer.write(GET % b"/" if number % 10 == 0 else b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
                await reader.read(1)

        await self.crowd(300, each)

    async def hellos(self) -> None:
        """Whole TLS handshakes, one after the other on 50 connections: what costs the server most."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host, _, port = self.address.rpartition(":")

        async def each(_: int) -> None:
            _reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            self.done["connections"] += 1
            writer.transport.abort()

        await self.crowd(50, each)

    async def passwords(self) -> None:
        """Guesses, on 50 connections, for a name that exists and for others."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host, _, port = self.address.rpartition(":")

        async def each(number: int) -> None:
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            self.done["connections"] += 1
            try:
                while True:
                    guess = b"%s:%d" % (b"alice" if number % 2 else b"bob", random.getrandbits(30))
                    head = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic %s\r\n\r\n"
                    writer.write(head % base64.b64encode(guess))
                    answer = await reader.readuntil(b"\r\n\r\n")
                    length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    self.done[answer.split(b" ")[1].decode()] += 1
            finally:
                writer.transport.abort()

        await self.crowd(50, each)


def main() -> None:
    """Attack, and say what was done."""
    name, address, seconds = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    random.seed(5)
    attack = Attack(address, float(seconds))
    asyncio.run(getattr(attack, name)())
    print(json.dumps(attack.done))


if __name__ == "__main__":
    main()
