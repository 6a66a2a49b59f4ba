"""From a TARGET to a way of reaching the daemon. One function a scheme."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import aiohttp

from slabwatch.control.sockets import START_HINT, UNIX, local_socket, unix_socket
from slabwatch.control.ssh import SshConnector, SshTarget, ssh_command
from slabwatch.control.tls_client import client_context, https_address
from slabwatch.errors import ControlError

SSH, HTTPS = "ssh://", "https://"


@dataclass(frozen=True, slots=True)
class Transport:
    """``name`` is what messages call the other end; ``start_hint`` is what to do when nobody is there."""

    name: str
    base_url: str
    connector: Callable[[], aiohttp.BaseConnector]
    start_hint: str = ""


def transport_to(target: str | None, settings: Mapping[str, str] = MappingProxyType({})) -> Transport:
    """The transport for a TARGET; None or "": the local socket. Raises ControlError.

    ``settings`` may hold ``ca``, ``cert`` and ``key`` (paths, for https) and ``ssh_options`` and ``ssh_command``.
    """
    if not target:
        return _unix(local_socket())
    if target.startswith(UNIX):
        return _unix(unix_socket(target))
    if target.startswith(SSH):
        return _ssh(target, settings)
    if target.startswith(HTTPS):
        return _https(target, settings)
    raise ControlError(
        f"{target}: not a target: use ssh://user@host, https://host:port or unix:///path/to/slabwatch.sock",
        code="bad_target",
    )


def _unix(path: Path) -> Transport:
    return Transport(
        name=str(path),
        base_url="http://slabwatch",
        # One connection a question: none is kept that a restarted daemon has closed meanwhile.
        connector=lambda: aiohttp.UnixConnector(path=os.fspath(path), force_close=True),
        start_hint=START_HINT,
    )


def _https(target: str, settings: Mapping[str, str]) -> Transport:
    address, context = https_address(target), client_context(target, settings)
    return Transport(
        name=address,
        base_url=address,
        connector=lambda: aiohttp.TCPConnector(ssl=context, force_close=True),
        start_hint="look at remote.listen in its configuration, and at what is between here and there",
    )


def _ssh(target: str, settings: Mapping[str, str]) -> Transport:
    command = ssh_command(SshTarget.parse(target), settings)
    return Transport(name=target, base_url="http://slabwatch", connector=lambda: SshConnector(command, target))
