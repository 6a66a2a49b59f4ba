"""Certificates and revocation lists of [remote] that have expired: TLS loads them without a word, and then refuses."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from slabwatch.config import Remote
from slabwatch.storm.doctor import Finding

# By key: what it holds, and what comes of it when that has expired.
_HELD = {
    "cert": ("certificate", "clients do not trust the daemon"),
    "client_ca": ("certificate", "whoever it has signed for is refused"),
    "crl": ("revocation list", "whoever its CA has signed for is refused, unless a newer one is in the file"),
}
_BLOCK = re.compile(r"-----BEGIN [A-Z0-9 ]*(?:CERTIFICATE|CRL)-----(.+?)-----END", re.DOTALL)
# Python's ssl does not tell the dates of what it loads. RFC 5280 leaves one form for each kind of time, and in both
# structures one place with two of them in a row: from when, and until when. A list without an end has no such place.
_TIME = rb"(?:\x17\x0d([0-9]{12})|\x18\x0f([0-9]{14}))Z"
_PERIOD = re.compile(_TIME + _TIME)


def expired(remote: Remote) -> list[Finding]:
    """One finding for each file that holds something expired; none while the door is off. Reads files, so it blocks."""
    return list(_expired(remote, datetime.now(UTC))) if remote.listen else []


def _expired(remote: Remote, now: datetime) -> Iterator[Finding]:
    for key, (what, consequence) in _HELD.items():
        path = getattr(remote, key)
        first = min(_ends(path), default=now)
        if first < now:
            finding = f"{path} holds a {what} that has expired on {first:%Y-%m-%d %H:%M} UTC: {consequence}"
            yield Finding(f"remote.{key}", "warn", finding, "put a new one in its place, and reload")


def _ends(path: str) -> Iterator[datetime]:
    try:
        text = Path(path).read_text(encoding="ascii", errors="ignore") if path else ""
    except OSError:
        return  # whoever loads it says so
    for block in _BLOCK.findall(text):
        try:
            period = _PERIOD.search(base64.b64decode(block))
            if period is not None:
                yield _time(period[3], period[4])
        except ValueError:  # no base64, no date: the same
            continue


def _time(short: bytes | None, full: bytes) -> datetime:
    if short is not None:  # two digits of a year are one of 1950 to 2049
        full = (b"19" if short >= b"5" else b"20") + short
    return datetime.strptime(full.decode("ascii"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
