"""Logs: an event name and fields, for people on a terminal, as JSON lines otherwise. Always to stderr.

``log.info("storm_started", extra={"fields": {...}})`` is the one form in which the project logs.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


def set_up(level: str, form: str) -> None:
    """Make the root logger write to stderr; ``form`` is auto, human or json. May be called again."""
    human = form == "human" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Human() if human else _Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel("WARNING")


def utc(seconds: float) -> str:
    """A Unix time as it stands in logs: ISO 8601, to the millisecond."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _json(line)


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "  ".join(f"{key}={_plain(value)}" for key, value in _fields(record).items())
        event = _plain(record.getMessage())  # those of other packages may take several lines
        text = f"{clock} {record.levelname.lower():<7} {event}  {fields}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _plain(value: object) -> str:
    # One event is one line: what came from outside (a path, a kernel line) must not make two of it.
    return _json(value) if isinstance(value, (dict, list, tuple)) else repr(str(value))[1:-1]


def _json(value: object) -> str:
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except ValueError:  # Python would write NaN and Infinity bare, which no other reader takes
        return json.dumps(json.loads(json.dumps(value, default=str), parse_constant=str))
