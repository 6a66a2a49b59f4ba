"""/proc/meminfo: the host's memory by use.

Kernel document: Documentation/filesystems/proc.rst ("meminfo"). A sample::

    SUnreclaim:        25424 kB
    HugePages_Total:       0

Nearly all values are in kB (of 1,024 bytes); a few are counts without a unit. Drift: each kernel has keys that
others lack, so no list of keys is kept here. Slab = SReclaimable + SUnreclaim; it is more than the sum of
all caches, because large kmallocs are in no cache.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import changed, decode, is_number

PATH = "/proc/meminfo"

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NOT_WORD = re.compile(r"[^0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class MemInfo:
    """Every key as the kernel spells it, in the file's order.

    ``values`` are bytes, except those of the keys in ``counts``, which have no unit. ``skipped`` has one error
    for each line that did not fit.
    """

    values: Mapping[str, int]
    counts: frozenset[str]
    skipped: tuple[KernelParseError, ...] = ()

    def get(self, key: str) -> int | None:
        """The value of a key, None where this kernel does not have it."""
        return self.values.get(key)


def parse_meminfo(data: bytes) -> MemInfo:
    """All keys of /proc/meminfo. A bad line costs that line; raises KernelParseError when none fits."""
    lines = decode(data).split("\n")
    cut = lines.pop()
    if cut.endswith(" kB"):
        lines.append(cut)  # lacks its end, but the number is whole, because the unit follows it
        cut = ""
    names: set[str] = set()
    values: dict[str, int] = {}
    counts: list[str] = []
    skipped: list[KernelParseError] = []
    for line_no, line in enumerate(lines, 1):
        key, _, rest = line.partition(":")
        words = rest.split()
        problem = _problem(key, words, names)
        if problem:
            skipped.append(KernelParseError(PATH, line_no, line, problem))
            continue
        names.add(metric_name(key))
        if len(words) == 2:
            values[key] = int(words[0]) * 1024
        else:
            values[key] = int(words[0])
            counts.append(key)
    if cut:
        skipped.append(KernelParseError(PATH, len(lines) + 1, cut, "end of file (cut off)"))
    if not values:
        raise skipped[0] if skipped else KernelParseError(PATH, 0, "", "file (empty)")
    return MemInfo(values, frozenset(counts), tuple(skipped))


class MeminfoReader:
    """``parse_meminfo`` for a file that is read again and again: only lines that changed are taken apart.

    The result is that of ``parse_meminfo`` for any sequence of contents. Not for two threads at once.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._last: MemInfo | None = None

    def parse(self, data: bytes) -> MemInfo:
        """As ``parse_meminfo``."""
        lines = data.split(b"\n")
        self._last = self._updated(lines) or parse_meminfo(data)
        # Only where each line has a key of its own, in order, does a line's place tell its key.
        self._lines = lines if len(lines) == len(self._last.values) + 1 and not lines[-1] else []
        return self._last

    def _updated(self, lines: list[bytes]) -> MemInfo | None:
        places = changed(lines, self._lines)
        if self._last is None or places is None:
            return None
        values = dict(self._last.values)
        keys = tuple(values)
        for place in places:
            key, _, rest = decode(lines[place]).partition(":")
            words = rest.split()
            if place >= len(keys) or key != keys[place] or _problem(key, words, set()):
                return None
            if (len(words) == 1) != (key in self._last.counts):
                return None
            values[key] = int(words[0]) * (1024 if len(words) == 2 else 1)
        return MemInfo(values, self._last.counts)


def _problem(key: str, words: list[str], names: set[str]) -> str:
    """What is wrong with a line, "" when nothing is. ``names`` are the metrics of the lines before it."""
    if not words or not is_number(words[0]):
        return "value"
    if len(words) > 2 or (len(words) == 2 and words[1] != "kB"):
        return "unit (only kB is known)"
    name = metric_name(key)
    if not name:
        return "key"
    if name in names:
        return "key (repeated: two series of one name would spoil the whole exposition)"
    return ""


@lru_cache(maxsize=1024)
def metric_name(key: str) -> str:
    """A key in snake case, with neither prefix nor unit: ``Active(anon)`` is ``active_anon``."""
    words = _NOT_WORD.sub("_", _HUMP.sub("_", key))
    return words.strip("_").lower()
