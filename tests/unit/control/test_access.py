"""Who is who, and who may what."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from slabwatch.config import Config
from slabwatch.control.access import Peer, identify, peer_of, role_of, user_name


def _config(*operators: str) -> Config:
    return Config.model_validate({"control": {"operators": operators}})


def _peer(uid: int) -> Peer:
    return Peer(uid=uid, gid=uid, pid=1)


def test_root_and_the_daemons_own_user_are_operators() -> None:
    assert role_of(_peer(0), _config()) == "operator"
    assert role_of(_peer(os.geteuid()), _config()) == "operator"
    assert role_of(_peer(54321), _config()) == "viewer"


def test_operators_by_name_and_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    assert role_of(_peer(54321), _config("54321")) == "operator"
    assert role_of(_peer(54321), _config("nobody-has-this-name", "5432")) == "viewer"
    assert role_of(_peer(54321), _config("root")) == "viewer"
    assert identify(_peer(0), _config()).user == "root"


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
        assert await seen.get() == Peer(uid=os.geteuid(), gid=os.getegid(), pid=os.getpid())
        writer.close()


@pytest.mark.asyncio
@pytest.mark.skipif(os.geteuid() != 0, reason="to become another user takes root")
async def test_another_user_is_seen_as_such() -> None:
    os.setegid(54322)
    os.seteuid(54321)
    try:
        ours, theirs = socket.socketpair()
    finally:
        os.seteuid(0)
        os.setegid(0)
    with theirs:
        _, writer = await asyncio.open_connection(sock=ours)
        peer = peer_of(writer.transport)
        assert peer == Peer(uid=54321, gid=54322, pid=os.getpid())
        assert role_of(peer, Config()) == "viewer"
        writer.close()
