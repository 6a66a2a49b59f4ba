"""The audit log: one structured line for each command, whatever became of it."""

from __future__ import annotations

import logging
from typing import Any

from slabwatch.control.access import Caller

_log = logging.getLogger("slabwatch.audit")


def entry(command: str, caller: Caller, door: str = "unix") -> dict[str, Any]:
    """The fields that every line has; the outcome is what stays, should the command be cancelled or crash."""
    return {
        "command": command,
        "user": caller.user,
        "uid": caller.peer.uid,
        "pid": caller.peer.pid,
        "door": door,
        "allowed": caller.role == "operator",
        "outcome": "broken_off",
    }


def write(fields: dict[str, Any]) -> None:
    """Hand the line to the logger ``slabwatch.audit``."""
    _log.info("audit", extra={"fields": fields})
