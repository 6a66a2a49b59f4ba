"""Who is who, and who may what."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.config import Config
from slabwatch.control.access import (
    VERBS,
    Caller,
    Peer,
    Verb,
    local_caller,
    may,
    peer_of,
    remote_caller,
    role_of,
    unknown_names,
    user_name,
)


def _config(**sections: Any) -> Config:
    return Config.read(sections)


def _local(uid: int, config: Config, *groups: int) -> Caller:
    return local_caller(Peer(uid=uid, gid=uid, pid=1, groups=groups), config)


def _remote(*names: str) -> Caller:
    return Caller(names[0] if names else "", "tls", names, address="192.0.2.1:4711")


def _verbs(caller: Caller, config: Config) -> set[Verb]:
    return {verb for verb in VERBS if may(caller, verb, config)}


def test_root_and_the_daemons_own_user_may_everything() -> None:
    config = _config(rights={verb: ["user:999"] for verb in ("storm", "stop", "shrink", "reload", "lock")})
    for uid in (0, os.geteuid()):
        assert _verbs(_local(uid, config), config) == set(VERBS)
        assert role_of(_local(uid, config), config) == "operator"


def test_who_could_open_the_socket_may_look() -> None:
    config = Config()
    assert _verbs(_local(54321, config), config) == {"look"}
    assert role_of(_local(54321, config), config) == "viewer"


@pytest.mark.parametrize("entry", ["54321", "user:54321", "group:54399"])
def test_operators_by_user_and_by_group(entry: str) -> None:
    config = _config(control={"operators": [entry]})
    caller = _local(54321, config, 54398, 54399)
    assert _verbs(caller, config) == set(VERBS)
    assert role_of(caller, config) == "operator"
    assert _verbs(_local(54322, config), config) == {"look"}


def test_names_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    config = _config(control={"operators": ["daemon", "group:daemon", "nobody-has-this-name", "a\0b", "5432"]})
    assert _local(1, config).user == "daemon"
    assert _local(1, config).names == ("group:daemon", "user:daemon")
    assert _local(54321, config, 1).names == ("group:daemon",)
    assert _local(54321, config).names == ()


def test_names_that_nobody_bears_are_told_with_their_keys() -> None:
    config = _config(
        control={"operators": ["daemon", "nosuch", "group:nosuch", "group:daemon", "4711"]},
        rights={"storm": ["user:daemon", "user:a\0b", "EMAIL:*@example.org"], "lock": ["group:sre"]},
        remote={"operators": ["DNS:nosuch"]},
    )
    assert list(unknown_names(config)) == [
        "control.operators: there is no user 'nosuch' on this host",
        "control.operators: there is no group 'nosuch' on this host",
        "rights.storm: there is no user 'a\\x00b' on this host",
        "rights.lock: there is no group 'sre' on this host",
    ]


def test_the_main_group_counts() -> None:
    config = _config(control={"operators": ["group:54321"]})
    assert may(_local(54321, config), "storm", config)


def test_a_right_replaces_the_operators_for_its_verb_alone() -> None:
    config = _config(control={"operators": ["100"]}, rights={"storm": ["user:200", "group:300"], "lock": ["user:200"]})
    operator, alice, member = _local(100, config), _local(200, config), _local(400, config, 300)
    assert _verbs(operator, config) == {"look", "stop", "shrink", "reload", "audit"}
    assert _verbs(alice, config) == {"look", "storm", "lock"}
    assert _verbs(member, config) == {"look", "storm"}
    assert role_of(alice, config) == "viewer"


def test_a_certificate_without_a_role_may_nothing() -> None:
    config = _config(control={"operators": ["0"]}, remote={"viewers": ["DNS:a.example.org"]})
    for caller in (_remote(), _remote("DNS:b.example.org"), _remote("URI:a.example.org"), _remote("URI:user:0")):
        assert _verbs(caller, config) == set()


def test_roles_of_certificates() -> None:
    config = _config(
        remote={"viewers": ["EMAIL:*@example.org"], "operators": ["URI:spiffe://example.org/ops/*"]},
        rights={"shrink": ["DNS:Shrink.example.org"]},
    )
    assert _verbs(_remote("EMAIL:bob@example.org"), config) == {"look"}
    operator = _remote("DNS:x", "URI:spiffe://example.org/ops/alice")
    assert _verbs(operator, config) == set(VERBS) - {"shrink"}
    assert role_of(operator, config) == "operator"
    assert _verbs(_remote("DNS:shrink.example.org"), config) == {"look", "shrink"}


@pytest.mark.parametrize(
    "name",
    [
        "URI:spiffe://example.org/op",
        "URI:spiffe://example.org.evil/ops/alice",
        "URI:xspiffe://example.org/ops/alice",
        "DNS:spiffe://example.org/ops/alice",
        "URI:spiffe://exampleXorg/ops/alice",
    ],
)
def test_a_pattern_is_the_whole_name(name: str) -> None:
    config = _config(remote={"operators": ["URI:spiffe://example.org/ops/*"]})
    assert not may(_remote(name), "look", config)


@given(st.text(max_size=20), st.text(max_size=20))
def test_without_a_star_only_the_name_itself_is_meant(entry: str, name: str) -> None:
    entry = entry.replace("*", "")
    config = _config(remote={"viewers": [f"URI:{entry}"]} if entry else {})
    assert may(_remote(f"URI:{name}"), "look", config) == (bool(entry) and entry == name)


class _Session:
    def __init__(self, **certificate: Any) -> None:
        self._certificate = certificate

    def getpeercert(self) -> dict[str, Any]:
        return self._certificate


def _certified(config: Config, *sans: tuple[str, str]) -> Caller:
    session: Any = _Session(subjectAltName=sans, serialNumber="0A")
    return remote_caller(session, "192.0.2.1:1", config)


def test_a_caller_is_called_by_the_name_that_gives_it_rights() -> None:
    sans = (("IP Address", "192.0.2.1"), ("DNS", "Box.Example.org"), ("email", "bob@example.org"), ("URI", "x:y"))
    caller = _certified(_config(remote={"viewers": ["EMAIL:bob@*"]}), *sans)
    assert caller.names == ("DNS:box.example.org", "EMAIL:bob@example.org", "URI:x:y")
    assert (caller.user, caller.door, caller.serial, caller.owner) == ("EMAIL:bob@example.org", "tls", "0A", False)
    assert _certified(Config(), *sans).user == "DNS:box.example.org"
    assert _certified(Config()).user == "a certificate without a name"


def test_a_user_without_a_name() -> None:
    assert user_name(54321) == "54321"


def test_no_peer_without_a_connection() -> None:
    assert peer_of(None) is None


@pytest.mark.asyncio
async def test_the_kernel_says_who_connected(tmp_path: Path) -> None:
    seen: asyncio.Queue[Peer | None] = asyncio.Queue()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.put_nowait(peer_of(writer.transport))
        writer.close()

    path = tmp_path / "s"
    async with await asyncio.start_unix_server(met, path):
        _, writer = await asyncio.open_unix_connection(path)
        peer = await seen.get()
        assert peer == Peer(os.geteuid(), os.getegid(), os.getpid(), groups=tuple(os.getgroups()))
        writer.close()


@pytest.mark.asyncio
@pytest.mark.skipif(os.geteuid() != 0, reason="to become another user takes root")
async def test_another_user_is_seen_with_all_groups() -> None:
    groups = os.getgroups()
    os.setgroups([54330, 54331])
    os.setegid(54322)
    os.seteuid(54321)
    try:
        ours, theirs = socket.socketpair()
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
    with theirs:
        _, writer = await asyncio.open_connection(sock=ours)
        peer = peer_of(writer.transport)
        writer.close()
        assert peer == Peer(uid=54321, gid=54322, pid=os.getpid(), groups=(54330, 54331))
        config = _config(rights={"lock": ["group:54331"]})
        assert _verbs(local_caller(peer, config), config) == {"look", "lock"}


def test_where_the_kernel_does_not_tell_the_groups_the_database_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [gid, 54_331] if user == "daemon" else [gid])
    config = _config(rights={"lock": ["group:54331"]})
    assert may(local_caller(Peer(1, 1, 1, groups=None), config), "lock", config)
    assert not may(local_caller(Peer(54321, 1, 1, groups=None), config), "lock", config)
