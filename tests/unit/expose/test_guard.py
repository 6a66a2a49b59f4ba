"""Rate limit, names in certificates, passwords: what passes and what does not."""

from __future__ import annotations

import asyncio
import base64
import threading
import time

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.expose import credentials
from slabwatch.expose.credentials import MAX_WAITING, MAX_WAITING_OF_ONE, Credentials, TooManyGuesses
from slabwatch.expose.guard import Bucket, basic_auth, certificate_names
from slabwatch.expose.web_config import RateLimit

HASH = bcrypt.hashpw(b"sesame", bcrypt.gensalt(4)).decode()
USERS = {"alice": HASH, "bob": bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()}


@pytest.mark.asyncio
async def test_passwords() -> None:
    known = Credentials(USERS)
    assert await known.verify("alice", b"sesame", "")
    assert await known.verify("alice", b"sesame", "")
    assert not await known.verify("alice", b"Sesame", "")
    assert not await known.verify("alice", b"", "")
    assert not await known.verify("Alice", b"sesame", "")
    assert not await known.verify("", b"", "")
    assert not await known.verify("alice\udcff", b"\xff\x00\xff", "")
    assert await known.verify("bob", b"x" * 72 + b"ignored by bcrypt", "")
    known.close()


@pytest.mark.asyncio
async def test_passwords_where_a_sandbox_forbids_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("slabwatch.expose.credentials.os.setpriority", denied)
    known = Credentials(USERS)
    assert await known.verify("alice", b"sesame", "")
    known.close()


@pytest.mark.asyncio
async def test_what_was_verified_is_remembered_until_the_hash_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def fits(password: bytes, digest: str) -> bool:
        asked.append(password)
        return password == b"right"

    monkeypatch.setattr(credentials, "_fits", fits)
    known = Credentials(dict(USERS))
    for _ in range(3):
        assert await known.verify("alice", b"right", "")
    assert len(asked) == 1
    for _ in range(3):
        assert not await known.verify("alice", b"wrong", "")
    assert len(asked) == 4
    known.users = {"alice": USERS["bob"]}
    assert await known.verify("alice", b"right", "")
    assert len(asked) == 5
    known.users = {}
    assert not await known.verify("alice", b"right", "")
    assert len(asked) == 6
    known.close()


@pytest.mark.asyncio
async def test_an_unknown_name_costs_as_much_as_the_dearest_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[str] = []

    def fits(password: bytes, digest: str) -> bool:
        costs.append(digest[4:6])
        return True

    monkeypatch.setattr(credentials, "_fits", fits)
    known = Credentials({"cheap": HASH, "dear": HASH.replace("$04$", "$09$")})
    # Even a hash that would fit lets no unknown name in, nor is it remembered.
    for _ in range(2):
        assert not await known.verify("nobody", b"any", "")
    assert set(costs) == {"09"}
    known.close()
    assert not bcrypt.checkpw(b"any", credentials._nobody({}).encode())


@pytest.mark.asyncio
async def test_guesses_wait_in_bounded_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, running, most = threading.Event(), 0, 0
    lock = threading.Lock()

    def slowly(password: bytes, digest: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go_on.wait(5)
        with lock:
            running -= 1
        return password == b"right"

    monkeypatch.setattr(credentials, "_fits", slowly)
    known = Credentials(USERS)
    guesses = [asyncio.ensure_future(known.verify("alice", b"%d" % n, "10.0.0.1")) for n in range(MAX_WAITING_OF_ONE)]
    # All that come with the same password wait for one check.
    scrapes = [asyncio.ensure_future(known.verify("alice", b"right", "10.0.0.2")) for _ in range(100)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyGuesses):
        await known.verify("alice", b"one more", "10.0.0.1")
    others = [
        asyncio.ensure_future(known.verify("alice", b"other %d" % n, f"10.0.1.{n}"))
        for n in range(MAX_WAITING - MAX_WAITING_OF_ONE - 1)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TooManyGuesses):
        await known.verify("alice", b"one more", "10.0.0.9")
    go_on.set()
    assert not any(await asyncio.gather(*guesses, *others))
    assert all(await asyncio.gather(*scrapes))
    assert most == 1
    assert not await known.verify("alice", b"there is room again", "10.0.0.1")
    assert not known._waiting
    known.close()


@pytest.mark.asyncio
async def test_the_loop_goes_on_while_a_password_is_checked() -> None:
    known = Credentials({"alice": bcrypt.hashpw(b"sesame", bcrypt.gensalt(10)).decode()})
    check = asyncio.ensure_future(known.verify("alice", b"sesame", ""))
    turns = 0
    while not check.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert await check
    assert turns > 5
    known.close()


def test_a_bucket_of_requests() -> None:
    now = 100.0
    bucket = Bucket(RateLimit.read({"interval": "500ms", "burst": 3}), lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now += 0.49
    assert not bucket.take()
    now += 0.02
    assert [bucket.take(), bucket.take()] == [True, False]
    now += 1000
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert all(Bucket(RateLimit(), time.monotonic).take() for _ in range(100))


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (f"Basic {encoded(b'alice:sesame')}", ("alice", b"sesame")),
        (f"bAsIc   {encoded(b'alice:a:b')} ", ("alice", b"a:b")),
        (f"Basic {encoded(b':')}", ("", b"")),
        (f"Basic {encoded('é:ü'.encode())}", ("é", "ü".encode())),
        (f"Basic {encoded(b'no colon')}", None),
        (f"Basic {encoded(bytes([0xFF, 58]))}", None),
        (f"Bearer {encoded(b'alice:sesame')}", None),
        ("Basic", None),
        ("Basic !!!!", None),
        ("Basic YTpi\u0661", None),
        ("", None),
    ],
)
def test_authorization_headers(header: str, found: tuple[str, bytes] | None) -> None:
    assert basic_auth(header) == found


@given(header=st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: f"Basic {encoded(raw)}"))
def test_any_header_is_read_or_is_none(header: str) -> None:
    found = basic_auth(header)
    assert found is None or isinstance(found[1], bytes)


def test_names_of_a_certificate() -> None:
    names = certificate_names(
        {
            "subject": ((("commonName", "not.this"),),),
            "subjectAltName": (
                ("DNS", "prom.example"),
                ("IP Address", "10.0.0.1"),
                ("IP Address", "0:0:0:0:0:0:0:1"),
                ("email", "a@b.example"),
                ("URI", "spiffe://example/prom"),
                ("DirName", (("x",),)),
                ("IP Address", "<invalid>"),
            ),
        }
    )
    assert list(names) == ["prom.example", "10.0.0.1", "::1", "a@b.example", "spiffe://example/prom"]
    assert list(certificate_names({})) == []
