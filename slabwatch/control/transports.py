"""From a TARGET to a way of reaching the daemon. One function a scheme."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

import aiohttp

from slabwatch.config import default_socket
from slabwatch.control.tls_client import client_context, https_address
from slabwatch.errors import ControlError

SYSTEM_SOCKET = Path("/run/slabwatch/slabwatch.sock")


@dataclass(frozen=True, slots=True)
class Transport:
    """``name`` is what messages call the other end; ``start_hint`` is what to do when nobody is there."""

    name: str
    base_url: str
    connector: Callable[[], aiohttp.BaseConnector]
    start_hint: str = ""


def transport_to(target: str | None, settings: Mapping[str, str] = MappingProxyType({})) -> Transport:
    """The transport for a TARGET; None or "": $SLABWATCH_HOST, else the local socket. Raises ControlError.

    ``settings`` may hold ``ca``, ``cert`` and ``key`` (paths, for https).
    """
    target = target or os.environ.get("SLABWATCH_HOST")
    if not target:
        return _unix(local_socket())
    if target.startswith("unix://"):
        path = unquote(target.removeprefix("unix://"))
        if not path.startswith("/"):
            raise ControlError(
                f"{target}: the path must be absolute: unix:///run/slabwatch/slabwatch.sock", code="bad_target"
            )
        return _unix(Path(path))
    if target.startswith("https://"):
        return _https(target, settings)
    if target.startswith("ssh://"):
        raise ControlError(
            f"{target}: this release has no ssh of its own yet: ssh HOST slabwatchctl ...", code="bad_target"
        )
    raise ControlError(
        f"{target}: not a target: use unix:///path/to/slabwatch.sock, or leave it out", code="bad_target"
    )


def local_socket() -> Path:
    """This user's own daemon if its socket is there, else the system's."""
    own = default_socket()
    return own if _may_be_there(own) or not _may_be_there(SYSTEM_SOCKET) else SYSTEM_SOCKET


def _may_be_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # it is not for us to see: connecting will say why
    return True


def _unix(path: Path) -> Transport:
    return Transport(
        name=str(path),
        base_url="http://slabwatch",
        # One connection a question: none is kept that a restarted daemon has closed meanwhile.
        connector=lambda: aiohttp.UnixConnector(path=os.fspath(path), force_close=True),
        start_hint="start it with `systemctl start slabwatch`, or `slabwatch` in another terminal; "
        "--host unix:///path names another socket",
    )


def _https(target: str, settings: Mapping[str, str]) -> Transport:
    address, context = https_address(target), client_context(target, settings)
    return Transport(
        name=address,
        base_url=address,
        connector=lambda: aiohttp.TCPConnector(ssl=context, force_close=True),
        start_hint="look at remote.listen in its configuration, and at what is between here and there",
    )
