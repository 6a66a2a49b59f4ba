"""Who is at the other end of a connection, and what they may do.

At the local socket the kernel says who it is; the socket's owner, group and mode decide who may ask at all. At the
TLS door the client's certificate says it, by its subject alternative names. ``may`` is the whole of who may do what.
"""

from __future__ import annotations

import asyncio
import functools
import grp
import os
import pwd
import re
import socket
import ssl
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from msgspec.structs import asdict

from slabwatch.config import LOCAL_KINDS, Config

Door = Literal["unix", "tls"]
Role = Literal["operator", "viewer"]
# "look" is every GET but the audit log's.
Verb = Literal["look", "storm", "stop", "shrink", "reload", "lock", "audit"]
VERBS: tuple[Verb, ...] = get_args(Verb)

# struct ucred of unix(7): pid_t, uid_t, gid_t.
_UCRED = struct.Struct("iII")
# Of asm-generic/socket.h; Python has no name for it, and takes no more than 1024 bytes from getsockopt.
_SO_PEERGROUPS = 59
_GROUPS_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, by the kernel's word. Ids are as seen from the daemon's own namespaces.

    ``groups`` is None where the kernel does not tell: before Linux 4.13, and for more than 256 of them.
    """

    uid: int
    gid: int
    pid: int
    groups: tuple[int, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    ``names`` are all by which the configuration may mean this caller: ``user:alice``, ``group:2000``, ``DNS:...``; an
    owner needs none. ``owner`` is root or the daemon's own user, at the local socket. ``address`` and ``serial`` (of
    the certificate) are the TLS door's.
    """

    user: str
    door: Door
    names: tuple[str, ...]
    owner: bool = False
    peer: Peer | None = None
    address: str = ""
    serial: str = ""

    def __str__(self) -> str:
        return f"{self.user} (uid {self.peer.uid})" if self.peer else self.user


def may(caller: Caller, verb: Verb, config: Config) -> bool:
    """Whether the configuration lets this caller use this verb."""
    if caller.owner:
        return True
    if verb == "look":
        # Who could open the socket may look; a certificate must be named for something.
        return caller.door == "unix" or _named(caller, _everyone(config))
    return _named(caller, getattr(config.rights, verb, ()) or _operators(config))


def role_of(caller: Caller, config: Config) -> Role:
    """In one word, whatever [rights] adds or takes."""
    return "operator" if caller.owner or _named(caller, _operators(config)) else "viewer"


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
    return Peer(uid=uid, gid=gid, pid=pid, groups=_groups_of(connection))


def _groups_of(connection: socket.socket) -> tuple[int, ...] | None:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return None
    return tuple(group for (group,) in struct.iter_unpack("I", raw))


def user_name(uid: int) -> str:
    """The user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@functools.cache
def owner_name(uid: int) -> str:
    """Of root or the daemon's own user: looked up once, so that a directory server that hangs can not lock them out."""
    return user_name(uid)


def is_owner(peer: Peer) -> bool:
    """Whether it is root or the daemon's own user."""
    return peer.uid in (0, os.geteuid())


def local_caller(peer: Peer, config: Config) -> Caller:
    """Who a process is. Blocks, but for an owner that has been named before: names may come from a directory server."""
    if is_owner(peer):
        return Caller(owner_name(peer.uid), "unix", (), owner=True, peer=peer)
    user = user_name(peer.uid)
    groups = os.getgrouplist(user, peer.gid) if peer.groups is None else (peer.gid, *peer.groups)
    entries = sorted({entry for entry in _everyone(config) if entry.startswith(LOCAL_KINDS)})
    names = tuple(entry for entry in entries if _is_meant(entry, peer.uid, groups))
    return Caller(user, "unix", names, peer=peer)


def remote_caller(session: ssl.SSLObject, address: str, config: Config) -> Caller:
    """Who bears the certificate that this connection was opened with. It is called by the name that gives it rights."""
    certificate = session.getpeercert() or {}
    names = tuple(_sans(certificate.get("subjectAltName", ())))
    entries = _everyone(config)
    known = [name for name in names if any(_means(entry, name) for entry in entries)]
    user = (known or list(names) or ["a certificate without a name"])[0]
    return Caller(user, "tls", names, address=address, serial=str(certificate.get("serialNumber", "")))


def _sans(alternatives: Any) -> Iterable[str]:
    for kind, name in alternatives:
        if kind == "DNS":
            yield f"DNS:{name.lower()}"
        elif kind == "URI":
            yield f"URI:{name}"
        elif kind == "email":
            yield f"EMAIL:{name}"


def _operators(config: Config) -> tuple[str, ...]:
    return (*_local_operators(config), *config.remote.operators)


def _local_operators(config: Config) -> Iterator[str]:
    for entry in config.control.operators:
        yield entry if entry.startswith(LOCAL_KINDS) else f"user:{entry}"


def _everyone(config: Config) -> tuple[str, ...]:
    rights = config.rights
    return (
        *_operators(config), *config.remote.viewers,
        *rights.storm, *rights.stop, *rights.shrink, *rights.reload, *rights.lock,
    )  # fmt: skip


def _named(caller: Caller, entries: Iterable[str]) -> bool:
    return any(_means(entry, name) for entry in entries for name in caller.names)


def _means(entry: str, name: str) -> bool:
    if entry.startswith(LOCAL_KINDS):
        return entry == name
    if entry.startswith("DNS:"):
        entry = f"DNS:{entry[4:].lower()}"
    return re.fullmatch(".*".join(map(re.escape, entry.split("*"))), name, re.DOTALL) is not None


def unknown_names(config: Config) -> Iterator[str]:
    """Users and groups of the configuration that this host does not have (yet): they may nothing. Blocks."""
    lists = {
        "control.operators": _local_operators(config),
        **{f"rights.{verb}": entries for verb, entries in asdict(config.rights).items()},
    }
    for key, entries in lists.items():
        for entry in entries:
            kind, _, name = entry.partition(":")
            if entry.startswith(LOCAL_KINDS) and id_of(entry) is None:
                yield f"{key}: there is no {kind} {name!r} on this host"


def _is_meant(entry: str, uid: int, groups: Collection[int]) -> bool:
    return id_of(entry) in ((uid,) if entry.startswith("user:") else groups)


def id_of(entry: str) -> int | None:
    """Of ``user:NAME`` or ``group:NAME``, or with a number; None: this host has no such one. Blocks."""
    kind, _, name = entry.partition(":")
    try:
        # A number is an id, even if some user should bear it as a name.
        if name.isascii() and name.isdigit():
            return int(name)
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):  # no such name, or one with a NUL in it; a number of thousands of digits
        return None
