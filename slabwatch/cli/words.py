"""Numbers and times as people read them. Sizes are in MiB everywhere, so that any two can be compared at a glance."""

from __future__ import annotations

import time

MIB = 1024 * 1024


def mib(size_bytes: int | None) -> str:
    """A size for a sentence."""
    return "unknown" if size_bytes is None else f"{size_bytes / MIB:,.1f} MiB"


def clock(unix_seconds: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))


def duration(seconds: float) -> str:
    """Two or three significant digits: 0.6 ms, 842 ms, 3.2 s, 4 min 22 s, 3 h 12 min, 5 d 4 h."""
    if seconds < 0.00005:
        return "0 s"
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.1f} ms" if milliseconds < 99.95 else f"{milliseconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    units = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
    size, unit, lesser_size, lesser = next(row for row in units if whole >= row[0])
    rest = whole % size // lesser_size
    return f"{whole // size} {unit} {rest} {lesser}" if rest else f"{whole // size} {unit}"


def many(count: int, thing: str) -> str:
    """1 cgroup, 1,000 cgroups."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """Safe for a terminal: cgroups may be named with any byte, escape sequences and line ends included."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
