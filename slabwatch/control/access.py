"""Who is at the other end of the control socket, and what they may do.

The socket's owner, group and mode decide who may ask at all; whoever could open it is at least a viewer.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from slabwatch.config import Config

Role = Literal["operator", "viewer"]

# struct ucred of unix(7): pid_t, uid_t, gid_t.
_UCRED = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, by the kernel's word. Ids are as seen from the daemon's own namespaces."""

    uid: int
    gid: int
    pid: int


@dataclass(frozen=True, slots=True)
class Caller:
    """A peer with its name and its role."""

    peer: Peer
    user: str
    role: Role


def peer_of(transport: asyncio.BaseTransport | None) -> Peer | None:
    """The peer by SO_PEERCRED, or None when the connection is gone."""
    connection = transport.get_extra_info("socket") if transport else None
    if connection is None:
        return None
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    pid, uid, gid = _UCRED.unpack(raw)
    return Peer(uid=uid, gid=gid, pid=pid)


def role_of(peer: Peer, config: Config) -> Role:
    """Root, the daemon's own user, and ``control.operators`` are operators."""
    if peer.uid in (0, os.geteuid()) or any(_is_user(name, peer.uid) for name in config.control.operators):
        return "operator"
    return "viewer"


def user_name(uid: int) -> str:
    """The user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def identify(peer: Peer, config: Config) -> Caller:
    """Peer, name and role. Blocks: names may come from a directory server."""
    return Caller(peer, user_name(peer.uid), role_of(peer, config))


def _is_user(name: str, uid: int) -> bool:
    # A number is a uid, even if some user should bear it as a name.
    if name.isascii() and name.isdigit():
        return int(name) == uid
    try:
        return pwd.getpwnam(name).pw_uid == uid
    except KeyError:
        return False
