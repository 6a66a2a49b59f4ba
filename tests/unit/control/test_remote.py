"""The TLS door, at a real port: who gets in, who does not and why, and what a new configuration changes."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from slabwatch.config import Config
from slabwatch.control.client import ControlClient
from slabwatch.control.remote import MAX_CONNECTIONS, TlsDoor
from slabwatch.control.tls_client import client_context
from slabwatch.errors import ConfigError, ControlError
from tests.certificates import Authority
from tests.unit.control.conftest import Door, Opened
from tests.unit.control.pretended import PretendedStorm, plan, until

pytestmark = pytest.mark.asyncio

Pair = tuple[Path, Path]
Entries = list[dict[str, Any]]


class Pki:
    """A CA that the daemon trusts, one that it does not, and certificates of both."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.stranger = Authority(directory, "stranger")
        self.server = self.authority.issue("server", "DNS:localhost,IP:127.0.0.1")
        self.operator = self.authority.issue("operator", "DNS:box,URI:spiffe://example.org/ops/alice")
        self.viewer = self.authority.issue("viewer", "email:bob@example.org")
        self.nobody = self.authority.issue("nobody", "DNS:nobody.example.org")
        self.expired = self.authority.issue("expired", "email:bob@example.org", days=-1)
        self.unknown = self.stranger.issue("unknown", "URI:spiffe://example.org/ops/alice")

    def settings(self, pair: Pair) -> Mapping[str, str]:
        return {"ca": str(self.authority.certificate), "cert": str(pair[0]), "key": str(pair[1])}

    def remote(self, **changes: object) -> dict[str, object]:
        return {
            "listen": "127.0.0.1:0",
            "cert": str(self.server[0]),
            "key": str(self.server[1]),
            "client_ca": str(self.authority.certificate),
            "viewers": ["EMAIL:bob@*"],
            "operators": ["URI:spiffe://example.org/ops/*"],
            **changes,
        }


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


Open = Callable[..., Any]


@pytest_asyncio.fixture
async def open_tls(open_door: Opened, pki: Pki) -> AsyncIterator[Open]:
    """``await open_tls(crl=..., limits={...})``: both doors of a pretended daemon."""
    opened: list[TlsDoor] = []

    async def start(limits: Mapping[str, Any] = {}, **changes: object) -> tuple[TlsDoor, Door]:
        door: Door = await open_door()
        _configure(door, pki.remote(**changes))
        tls = TlsDoor(door.runner, door.daemon.audit.refused_at_tls_door)
        for name, value in limits.items():
            setattr(tls.connections, name, value)
        opened.append(tls)
        await tls.apply(door.daemon.config.remote)
        return tls, door

    yield start
    for tls in opened:
        await tls.cleanup()


def _configure(door: Door, remote: Mapping[str, object], **sections: object) -> None:
    door.daemon.config = Config.read(
        {"storm": {"enabled": True}, "shrink": {"enabled": True}, "remote": remote, **sections}
    )


def _client(tls: TlsDoor, pki: Pki, pair: Pair) -> ControlClient:
    return ControlClient(tls.url, pki.settings(pair))


async def _refused(tls: TlsDoor, pki: Pki, pair: Pair, path: str = "/v1/status") -> ControlError:
    async with _client(tls, pki, pair) as client:
        with pytest.raises(ControlError) as caught:
            await client.get(path)
    return caught.value


async def test_roles_by_the_names_in_the_certificate(open_tls: Open, pki: Pki, audit_log: Entries) -> None:
    tls, door = await open_tls()
    async with _client(tls, pki, pki.viewer) as client:
        assert client.name == tls.url
        you = (await client.get("/v1/status"))["you"]
        assert you == {
            "user": "EMAIL:bob@example.org", "uid": None, "door": "tls", "role": "viewer", "may": ["look"],
        }  # fmt: skip
        for verb, path in (("storm", "storms"), ("stop", "storms/x/stop"), ("shrink", "shrink"), ("lock", "lock")):
            with pytest.raises(ControlError, match=f"{verb} is not for EMAIL:bob@example.org") as caught:
                await client.post(f"/v1/{path}", {})
            assert caught.value.code == "not_allowed"
        with pytest.raises(ControlError, match="remote.operators"):
            await client.get("/v1/audit")
    assert door.daemon.storms.running is None
    async with _client(tls, pki, pki.operator) as client:
        assert (await client.post("/v1/storms", {}))["id"] == "storm-1"
        storm: Any = door.daemon.storms.running
        assert storm.requested_by == "URI:spiffe://example.org/ops/alice"
    assert [entry["allowed"] for entry in audit_log] == [False] * 5 + [True]
    last = audit_log[-1]
    assert (last["command"], last["user"], last["door"]) == ("storm", "URI:spiffe://example.org/ops/alice", "tls")
    assert (last["outcome"], last["storm_id"]) == ("done", "storm-1")
    assert last["address"].startswith("127.0.0.1:")
    assert int(last["certificate"], 16)
    assert "uid" not in last


async def test_a_certificate_without_a_role_sees_nothing(open_tls: Open, pki: Pki, audit_log: Entries) -> None:
    tls, _ = await open_tls()
    for path in ("/v1/status", "/v1/storms/x/events", "/v1/nothing", "/"):
        error = await _refused(tls, pki, pki.nobody, path)
        assert (error.status, error.code) == (403, "not_allowed")
        assert "DNS:nobody.example.org has no role here" in str(error)
    assert [entry["command"] for entry in audit_log][:2] == ["GET /v1/status", "GET /v1/storms/x/events"]
    assert {(entry["user"], entry["allowed"], entry["outcome"]) for entry in audit_log} == {
        ("DNS:nobody.example.org", False, "not_allowed")
    }


async def test_a_certificate_without_a_name_needs_one(open_tls: Open, pki: Pki) -> None:
    tls, _ = await open_tls()
    nameless = pki.authority.issue("nameless", "IP:192.0.2.1")
    assert "no role here: have it signed with a subjectAltName that is in" in str(await _refused(tls, pki, nameless))


@pytest.mark.parametrize(
    ("who", "heard", "audited"),
    [
        ("expired", "your certificate has expired", "certificate refused: certificate has expired"),
        ("unknown", "is of a CA that the daemon does not know", "unable to get local issuer certificate"),
        ("operator", "your certificate has been revoked", "certificate refused: certificate revoked"),
    ],
)
async def test_certificates_that_are_refused(
    open_tls: Open, pki: Pki, audit_log: Entries, who: str, heard: str, audited: str
) -> None:
    tls, _ = await open_tls(crl=pki.authority.revocation_list(pki.operator[0]).as_posix())
    error = await _refused(tls, pki, getattr(pki, who))
    assert error.code == "not_allowed"
    assert heard in str(error)
    await until(lambda: audit_log)
    entry = audit_log[0]
    assert audited in entry["reason"]
    assert (entry["command"], entry["door"], entry["allowed"]) == ("connect", "tls", False)
    assert entry["address"].startswith("127.0.0.1:")
    async with _client(tls, pki, pki.viewer) as client:
        assert (await client.get("/v1/status"))["state"] == "READY"


async def test_a_list_that_has_expired_lets_nobody_in(
    open_tls: Open, pki: Pki, audit_log: Entries, caplog: pytest.LogCaptureFixture
) -> None:
    tls, _ = await open_tls(crl=pki.authority.revocation_list(expired=True).as_posix())
    (warned,) = [record for record in caplog.records if record.message == "remote_expired"]
    assert warned.__dict__["fields"]["name"] == "remote.crl"
    error = await _refused(tls, pki, pki.viewer)
    assert error.code == "not_allowed"
    assert "or the daemon's revocation list has (remote.crl)" in str(error)
    await until(lambda: audit_log)
    assert "CRL has expired" in audit_log[0]["reason"]


async def test_a_list_of_another_ca_lets_nobody_in(open_tls: Open, pki: Pki, audit_log: Entries) -> None:
    tls, _ = await open_tls(crl=pki.stranger.revocation_list().as_posix())
    assert "or has no revocation list of (remote.crl)" in str(await _refused(tls, pki, pki.viewer))
    await until(lambda: audit_log)
    assert "unable to get certificate CRL" in audit_log[0]["reason"]


async def test_a_server_certificate_is_none_for_a_client(open_tls: Open, pki: Pki, audit_log: Entries) -> None:
    tls, _ = await open_tls()
    pair = pki.authority.issue("webserver", "email:bob@example.org", use="serverAuth")
    await _refused(tls, pki, pair)
    await until(lambda: audit_log)
    assert "purpose" in audit_log[0]["reason"]


async def _say(tls: TlsDoor, context: ssl.SSLContext | None, *words: bytes) -> bytes:
    host, _, port = tls.url.removeprefix("https://").rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=context, server_hostname="localhost" if context else None
    )
    try:
        for word in words:
            writer.write(word)
        return await reader.read()
    finally:
        writer.close()


async def test_without_a_certificate(open_tls: Open, pki: Pki, audit_log: Entries) -> None:
    tls, _ = await open_tls()
    anonymous = ssl.create_default_context(cafile=str(pki.authority.certificate))
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        await _say(tls, anonymous, b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: audit_log)
    assert audit_log[0]["reason"] == "no client certificate"


async def test_older_tls_is_refused(open_tls: Open, pki: Pki, audit_log: Entries) -> None:
    tls, _ = await open_tls()
    context = client_context(tls.url, pki.settings(pki.operator))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await _say(tls, context)
    await until(lambda: audit_log)
    assert audit_log[0]["reason"] == "a version of TLS before 1.3"


@pytest.mark.parametrize(
    ("words", "answer", "audited"),
    [
        (b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", b"use https://", "plain HTTP, not TLS"),
        (b"\x00" * 3000, b"", ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"", ""),
    ],
)
async def test_what_is_no_tls(open_tls: Open, audit_log: Entries, words: bytes, answer: bytes, audited: str) -> None:
    tls, _ = await open_tls()
    assert answer in await _say(tls, None, words)
    await until(lambda: audit_log)
    assert audited in audit_log[0]["reason"]
    assert audit_log[0]["reason"]


async def test_one_request_a_connection(open_tls: Open, pki: Pki) -> None:
    tls, door = await open_tls()
    context = client_context(tls.url, pki.settings(pki.operator))
    post = b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    answer = await _say(tls, context, post + post + post)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in answer
    assert door.daemon.reloads == 1


async def test_a_web_page_can_not_use_somebody_s_certificate(open_tls: Open, pki: Pki, audit_log: Entries) -> None:
    tls, door = await open_tls()
    context = client_context(tls.url, pki.settings(pki.operator))
    head = b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n"
    assert b"HTTP/1.1 403" in await _say(tls, context, head)
    assert door.daemon.reloads == 0
    assert audit_log[0]["command"] == "POST /v1/reload"


async def test_the_local_door_goes_on_as_before(open_tls: Open) -> None:
    _, door = await open_tls()
    assert (await door.ask("GET", "/v1/status"))[1]["you"]["door"] == "unix"


# Who takes too long, and too many of them.


@asynccontextmanager
async def _idle(tls: TlsDoor, count: int = 1) -> AsyncIterator[list[socket.socket]]:
    host, _, port = tls.url.removeprefix("https://").rpartition(":")
    crowd = [socket.create_connection((host, int(port)), timeout=10) for _ in range(count)]
    for one in crowd:
        one.setblocking(False)
    try:
        yield crowd
    finally:
        for one in crowd:
            one.close()


async def test_a_handshake_has_its_time(open_tls: Open, audit_log: Entries) -> None:
    tls, _ = await open_tls(limits={"first_seconds": 1.0})
    async with _idle(tls) as (silent,):
        assert await asyncio.get_running_loop().sock_recv(silent, 1) == b""
    await until(lambda: audit_log)
    assert audit_log[0]["reason"] == "no handshake within 1 s"
    assert tls.connections.closed["handshake"] == 1


async def test_a_crowd_of_strangers_keeps_nobody_out(open_tls: Open, pki: Pki, audit_log: Entries) -> None:
    tls, _ = await open_tls(limits={"most": 3})
    async with _idle(tls, 30) as crowd:
        async with _client(tls, pki, pki.operator) as client:
            assert (await client.get("/v1/status"))["state"] == "READY"
        assert tls.connections.open <= 3
        assert await asyncio.get_running_loop().sock_recv(crowd[0], 1) == b""
    # A flood does not fill the disk, either.
    assert 0 < len(audit_log) <= 20
    assert audit_log[0]["reason"] == "made room for others, or for new certificates, before its handshake was done"


async def test_a_connection_that_is_closed_in_the_handshake(open_tls: Open, audit_log: Entries) -> None:
    tls, _ = await open_tls()
    async with _idle(tls) as (early,):
        early.close()
        await until(lambda: audit_log)
    assert audit_log[0]["reason"] == "the connection was closed in the handshake"


async def test_connections_are_bounded(
    open_tls: Open, pki: Pki, audit_log: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slabwatch.door._ROOM_SECONDS", 0.05)
    tls, door = await open_tls(limits={"most": 1})
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    await storm.enter("load", 0.0)
    async with _client(tls, pki, pki.viewer) as follower:
        events = follower.events("/v1/storms/storm-1/events")
        assert (await anext(events))["phase"] == "load"
        assert (await _refused(tls, pki, pki.operator)).code == "unreachable"
        await storm.end()
        assert [event["event"] async for event in events] == ["end"]
    assert audit_log[0]["reason"] == "1 connections are open"

    async def gets_in() -> bool:
        async with _client(tls, pki, pki.operator) as client:
            return bool(await client.get("/v1/status"))

    assert await gets_in()


# A new configuration.


async def test_who_only_looks_can_not_fill_the_door_with_streams(open_tls: Open, pki: Pki) -> None:
    tls, door = await open_tls()
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    await storm.enter("load", 0.0)
    async with _client(tls, pki, pki.viewer) as watcher, _client(tls, pki, pki.operator) as operator:
        streams = [watcher.events("/v1/storms/storm-1/events") for _ in range(MAX_CONNECTIONS)]
        try:
            firsts = await asyncio.gather(*(anext(stream) for stream in streams), return_exceptions=True)
            refused = {first.code for first in firsts if isinstance(first, ControlError)}
            assert refused == {"too_many_streams"}
            assert (await operator.post("/v1/storms/storm-1/stop", {}))["stopping"]
        finally:
            for stream in streams:
                await stream.aclose()
    assert storm.stop_reasons


async def test_what_a_reload_takes_away_is_gone_for_new_connections_and_streams_go_on(open_tls: Open, pki: Pki) -> None:
    tls, door = await open_tls()
    storm = door.daemon.storms.running = PretendedStorm("storm-1", plan())
    await storm.enter("load", 0.0)
    async with _client(tls, pki, pki.viewer) as follower, _client(tls, pki, pki.unknown) as unknown:
        events = follower.events("/v1/storms/storm-1/events")
        assert (await anext(events))["phase"] == "load"
        # Another CA in place of the old one; a key of its own for the server.
        renewed = pki.authority.issue("renewed", "DNS:localhost,IP:127.0.0.1")
        remote = pki.remote(cert=str(renewed[0]), key=str(renewed[1]), client_ca=str(pki.stranger.certificate))
        _configure(door, remote)
        await tls.apply(door.daemon.config.remote)
        assert "does not know" in str(await _refused(tls, pki, pki.viewer))
        assert (await unknown.get("/v1/status"))["you"]["role"] == "operator"
        with pytest.raises(ControlError, match="no storm other is known"):
            await unknown.get("/v1/storms/other/events")
        await storm.progress(1.0)
        await storm.end()
        assert [event["event"] async for event in events] == ["progress", "end"]


async def test_a_role_that_is_taken_away_is_gone_at_once(open_tls: Open, pki: Pki) -> None:
    tls, door = await open_tls()
    async with _client(tls, pki, pki.viewer) as client:
        await client.get("/v1/status")
        _configure(door, pki.remote(viewers=[]))
        with pytest.raises(ControlError, match="has no role here"):
            await client.get("/v1/status")


@pytest.mark.parametrize("changes", [{"client_ca": ""}, {"cert": "missing.pem"}, {"listen": "192.0.2.1:1"}])
async def test_a_configuration_that_can_not_be_used_changes_nothing(
    open_tls: Open, pki: Pki, changes: dict[str, object]
) -> None:
    tls, _ = await open_tls()
    before = tls.url
    (key,) = changes
    with pytest.raises(ConfigError, match=f"^remote.{key}: "):
        await tls.apply(Config.read({"remote": pki.remote(**changes)}).remote)
    assert tls.url == before
    async with _client(tls, pki, pki.viewer) as client:
        assert (await client.get("/v1/status"))["state"] == "READY"


async def test_it_is_closed_opened_and_moved(open_tls: Open, pki: Pki) -> None:
    tls, _ = await open_tls()
    first = tls.url
    await tls.apply(Config().remote)
    assert tls.url == ""
    async with ControlClient(first, pki.settings(pki.viewer)) as client:
        with pytest.raises(ControlError, match="nobody listens there"):
            await client.get("/v1/status")
    await tls.apply(Config.read({"remote": pki.remote()}).remote)
    async with _client(tls, pki, pki.viewer) as client:
        assert (await client.get("/v1/status"))["state"] == "READY"
    second = tls.url
    await tls.apply(Config.read({"remote": pki.remote(listen="127.0.0.2:0")}).remote)
    assert tls.url.startswith("https://127.0.0.2:")
    assert tls.url != second


async def test_a_port_that_is_taken_is_named(open_tls: Open, pki: Pki) -> None:
    tls, _ = await open_tls()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"remote.listen: can not listen on {listen}: Address already in use"):
            await tls.apply(Config.read({"remote": pki.remote(listen=listen)}).remote)


async def test_a_daemon_that_the_client_can_not_trust(open_tls: Open, pki: Pki) -> None:
    tls, _ = await open_tls()
    settings = {**pki.settings(pki.viewer), "ca": str(pki.stranger.certificate)}
    async with ControlClient(tls.url, settings) as client:
        with pytest.raises(ControlError, match="certificate is not to be trusted: .*SLABWATCH_CA") as caught:
            await client.get("/v1/status")
    assert caught.value.code == "unreachable"
    async with ControlClient(tls.url.replace("127.0.0.1", "127.0.0.3"), pki.settings(pki.viewer)) as client:
        with pytest.raises(ControlError, match="nobody listens"):
            await client.get("/v1/status")


async def test_what_is_audited_is_json(open_tls: Open, pki: Pki, audit_log: Entries) -> None:
    tls, _ = await open_tls()
    await _refused(tls, pki, pki.nobody)
    assert json.loads(json.dumps(audit_log)) == audit_log


@pytest.mark.parametrize(
    ("sans", "days", "words"),
    [
        ("DNS:elsewhere", 2, "'127.0.0.1'. Use a name of its subjectAltName in --host"),
        ("IP:127.0.0.1", -1, "not to be trusted: certificate has expired"),
    ],
)
async def test_a_certificate_of_the_daemon_that_another_ca_would_not_mend(
    open_tls: Open, pki: Pki, sans: str, days: int, words: str
) -> None:
    server = pki.authority.issue("bad-server", sans, days=days)
    tls, _ = await open_tls(cert=str(server[0]), key=str(server[1]))
    assert str(await _refused(tls, pki, pki.viewer)).endswith(words)
