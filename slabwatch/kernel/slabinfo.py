"""/proc/slabinfo: every slab cache of this kernel, one line each.

Kernel document: Documentation/filesystems/proc.rst, slabinfo(5); written by mm/slab_common.c. A sample::

    slabinfo - version: 2.1
    # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables ... : slabdata ...
    task_struct         1397   1397   2112   15    8 : tunables    0    0    0 : slabdata     93     93      0

``active_objs`` counts objects that sit in per-CPU slabs, partial lists or sheaves as active, so it is no count of
objects in use. The file is no snapshot either: the kernel drops its lock at every 4 KiB or so, and a cache that is
made or destroyed meanwhile can make another one appear twice or not at all.

Drift: the format is 2.1 with 16 fields from 4.19 to 7.3 at least. The old SLAB allocator with debugging appends
`` : globalstat ... : cpustat ...`` to each line and `` (statistics)`` to the first one. Names may repeat
(per-device caches), and in old kernels they may hold spaces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import mul
from typing import TypeVar

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import changed, decode

PATH = "/proc/slabinfo"

_VERSION = re.compile(r"slabinfo - version: 2\.[0-9].*")
_FIELDS = 16
# name, active_objs, num_objs, objsize, objperslab, pagesperslab, active_slabs, num_slabs
_KEPT = (0, 1, 2, 3, 4, 5, 13, 14)
_SUMMED = (1, 2, 6, 7)  # of those kept: what adds up when a name repeats
_NUMBERS = (1, 2, 3, 4, 5, 8, 9, 10, 13, 14, 15)
# No kernel writes lines near this; the bound keeps the numbers, and products of two, printable.
_LONGEST_LINE = 1000

_COLUMN_NAMES = (
    "names", "active_objects", "objects", "object_size_bytes", "objects_per_slab", "pages_per_slab", "active_slabs",
    "slabs",
)  # fmt: skip

_Columns = tuple[tuple[str, ...], ...]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class SlabInfo:
    """All caches as columns of equal length, in the file's order; names are unique.

    Numbers stay decimal text (ASCII digits), because they leave as text. Caches of one name are summed
    (objects and slabs), with the sizes of the first. ``skipped`` has one error for each line that did not fit.
    """

    names: tuple[str, ...]
    active_objects: tuple[str, ...]
    objects: tuple[str, ...]
    object_size_bytes: tuple[str, ...]
    objects_per_slab: tuple[str, ...]
    pages_per_slab: tuple[str, ...]
    active_slabs: tuple[str, ...]
    slabs: tuple[str, ...]
    skipped: tuple[KernelParseError, ...] = ()
    # Slabs x pages per slab, where nothing else is given: caches that were summed need not have slabs of one size.
    pages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.pages:
            pages = tuple(map(mul, map(int, self.slabs), map(int, self.pages_per_slab)))
            object.__setattr__(self, "pages", pages)

    def index(self, name: str) -> int | None:
        """The position of a cache in the columns."""
        try:
            return self.names.index(name)
        except ValueError:
            return None

    def size_bytes(self, page_size: int) -> tuple[int, ...]:
        """The memory that each cache holds."""
        return tuple([count * page_size for count in self.pages])


def parse_slabinfo(data: bytes) -> SlabInfo:
    """All caches of /proc/slabinfo. A bad line costs that line.

    Raises KernelParseError when the first line is not that of format 2.x, or no line fits.
    """
    table = parse_table(data, PATH)
    if not table.names:
        raise table.skipped[0] if table.skipped else KernelParseError(PATH, 0, "", "table (no cache in it)")
    return table


class SlabinfoReader:
    """``parse_slabinfo`` for a file that is read again and again: only lines that changed are taken apart.

    Between two polls nine of ten caches stand still. Whatever is not such a small change is parsed anew, so the
    result is that of ``parse_slabinfo`` for any sequence of contents. Not for two threads at once.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._last: SlabInfo | None = None

    def parse(self, data: bytes) -> SlabInfo:
        """As ``parse_slabinfo``; columns without a change are the very objects of the last result."""
        lines = data.split(b"\n")
        self._last = self._updated(lines) or parse_slabinfo(data)
        # Only where each line is a row of its own, in order, does a line's place tell its row.
        rows = len(self._last.names)
        self._lines = lines if len(lines) == rows + 3 and not lines[-1] and lines[1].startswith(b"#") else []
        return self._last

    def _updated(self, lines: list[bytes]) -> SlabInfo | None:
        places = changed(lines, self._lines)
        if self._last is None or places is None:
            return None
        if not places:
            return self._last
        rows = [place - 2 for place in places]
        new = _split_all([decode(lines[place]) for place in places])
        names = self._last.names
        if new is None or rows[0] < 0 or rows[-1] >= len(names) or new[0] != tuple([names[row] for row in rows]):
            return None
        columns = {
            column: _replaced(getattr(self._last, column), rows, values)
            for column, values in zip(_COLUMN_NAMES, new, strict=True)
        }
        pages = tuple([int(slabs) * int(pages) for slabs, pages in zip(new[7], new[5], strict=True)])
        return SlabInfo(**columns, pages=_replaced(self._last.pages, rows, pages))


def _replaced(column: tuple[Value, ...], rows: list[int], values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The column with these values in these rows; the same one where it has them already."""
    if tuple([column[row] for row in rows]) == values:
        return column
    result = list(column)
    for row, value in zip(rows, values, strict=True):
        result[row] = value
    return tuple(result)


def parse_table(data: bytes, path: str) -> SlabInfo:
    """A file in slabinfo's format, which may have no rows. Raises KernelParseError for a foreign first line."""
    lines = decode(data).split("\n")
    if not _VERSION.fullmatch(lines[0]):
        raise KernelParseError(path, 1, lines[0], "version (slabinfo 2.x is known)")
    if not lines[-1]:
        lines.pop()  # what follows the last line's end
    start = 2 if lines[1:2] and lines[1].startswith("#") else 1
    rows = lines[start:]
    skipped: tuple[KernelParseError, ...] = ()
    columns = _split_all(rows)
    if columns is None:
        columns, skipped = _split_each(rows, start + 1, path)
    pages: tuple[int, ...] = ()
    if len(set(columns[0])) < len(columns[0]):
        columns, pages = _sum_repeated(columns)
    names, active_objects, objects, object_size_bytes, objects_per_slab, pages_per_slab, active_slabs, slabs = columns
    return SlabInfo(
        names,
        active_objects,
        objects,
        object_size_bytes,
        objects_per_slab,
        pages_per_slab,
        active_slabs,
        slabs,
        skipped,
        pages,
    )


def _split_all(rows: list[str]) -> _Columns | None:
    """The kept columns when every row has exactly the usual fields, else None.

    This is the way nearly every read goes, so it works on columns and never on a single field.
    """
    if not rows or max(map(len, rows)) > _LONGEST_LINE:
        return None
    try:
        # Lists: a tuple of what has no length begins with 10 places and is cut, and CPython keeps up to 2,000 of each
        # length for later use, until its next full collection, which in a daemon may be days away.
        columns = list(zip(*[row.split() for row in rows], strict=True))
    except ValueError:
        return None
    if len(columns) != _FIELDS:
        return None
    for position, literal in ((6, ":"), (7, "tunables"), (11, ":"), (12, "slabdata")):
        if columns[position].count(literal) != len(rows):
            return None
    digits = "".join(["".join(columns[position]) for position in _NUMBERS])
    if not (digits.isdigit() and digits.isascii()):
        return None
    return tuple([columns[position] for position in _KEPT])


def _split_each(rows: list[str], first_line_no: int, path: str) -> tuple[_Columns, tuple[KernelParseError, ...]]:
    """The kept columns of the rows that fit, whatever the others look like."""
    good: list[list[str]] = []
    skipped: list[KernelParseError] = []
    for line_no, line in enumerate(rows, first_line_no):
        if line.startswith("#"):
            continue
        row = _split_one(line, line_no, path)
        if isinstance(row, KernelParseError):
            skipped.append(row)
        else:
            good.append(row)
    columns = tuple(zip(*good, strict=True)) or ((),) * len(_KEPT)
    return columns, tuple(skipped)


def _split_one(line: str, line_no: int, path: str) -> list[str] | KernelParseError:
    """The kept fields of one row; its name may hold spaces and more parts may follow slabdata's.

    An error is returned, not raised: it is kept with the sample, and a raised one would keep its frames with it.
    """
    if len(line) > _LONGEST_LINE:
        return KernelParseError(path, line_no, line, "line (too long)")
    cache, is_row, rest = line.partition(" : tunables ")
    tunables, is_whole, rest = rest.partition(" : slabdata ")
    if not is_row or not is_whole:
        return KernelParseError(path, line_no, line, "line (not of the form name : tunables : slabdata)")
    named = cache.rsplit(None, 5)
    # A line that ends in the third number may have been cut within it, but that one is not kept.
    data = rest.split(None, 3)[:3]
    numbers = (*named[1:], *tunables.split(), *data)
    if len(named) != 6 or len(numbers) != 11:
        return KernelParseError(path, line_no, line, "number of fields")
    for text in numbers:
        if not (text.isdigit() and text.isascii()):
            return KernelParseError(path, line_no, line, f"number {text[:20]!r}")
    return [named[0].strip(), *named[1:], data[0], data[1]]


def _sum_repeated(columns: _Columns) -> tuple[_Columns, tuple[int, ...]]:
    """One row a name, in order of first appearance, and the pages of each."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(columns[0]):
        places.setdefault(name, []).append(place)

    def merge(position: int, column: tuple[str, ...]) -> tuple[str, ...]:
        if position not in _SUMMED:
            return tuple([column[where[0]] for where in places.values()])
        return tuple(
            [
                column[where[0]] if len(where) == 1 else str(sum([int(column[place]) for place in where]))
                for where in places.values()
            ]
        )

    pages_per_slab, slabs = columns[5], columns[7]
    pages = tuple(
        [sum([int(slabs[place]) * int(pages_per_slab[place]) for place in where]) for where in places.values()]
    )
    return tuple([merge(position, column) for position, column in enumerate(columns)]), pages
