"""The form "flat keyed" that many files of cgroups and of /proc share: one key and one number a line.

Kernel document: Documentation/admin-guide/cgroup-v2.rst ("Format"). A sample::

    populated 1
    frozen 0
"""

from __future__ import annotations

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import is_number, whole_lines


def parse_flat_keyed(data: bytes, path: str) -> dict[str, str]:
    """All keys, in the file's order, with their numbers as decimal text. Raises KernelParseError."""
    lines = whole_lines(data, path)
    # Read once for each cgroup at each poll, so the good case makes no call for a single line.
    try:
        values = dict([line.split(" ") for line in lines])
    except ValueError:
        raise _first_problem(lines, path) from None
    if len(values) != len(lines) or "" in values or not values or not all(map(is_number, values.values())):
        raise _first_problem(lines, path)
    return values


def _first_problem(lines: list[str], path: str) -> KernelParseError:
    seen: set[str] = set()
    for line_no, line in enumerate(lines, 1):
        key, _, value = line.partition(" ")
        if not key or not is_number(value):
            return KernelParseError(path, line_no, line, "line (not of the form key number)")
        if key in seen:
            return KernelParseError(path, line_no, line, "key (repeated)")
        seen.add(key)
    return KernelParseError(path, 0, "", "file (empty)")
