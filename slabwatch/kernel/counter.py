"""Files that hold a single number: memory.kmem.usage_in_bytes, memory.current, pids.max, pid_max and their like.

Kernel documents: Documentation/admin-guide/cgroup-v2.rst ("Format"), cgroup-v1/memory.rst, sysctl/kernel.rst.
Samples (one a file)::

    411648
    max
    9223372036854771712

Unlimited is ``max`` in v2. In v1 it is the highest number that is a multiple of the page size.
"""

from __future__ import annotations

from collections.abc import Sequence

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import number, whole_lines

# The highest signed number rounded down to pages of 64 KiB, the largest in use; with smaller pages it is higher.
UNLIMITED_FROM = 0x7FFF_FFFF_FFFF_0000


def parse_counter(data: bytes, path: str) -> int | None:
    """The number, None for ``max``. Raises KernelParseError."""
    lines = whole_lines(data, path)
    line = lines[0] if lines else ""
    if len(lines) != 1:
        raise KernelParseError(path, min(len(lines), 1), line, "number of lines (one is expected)")
    return None if line == "max" else number(line, path, 1, line, "number")


def parse_limit(data: bytes, path: str) -> int | None:
    """A limit, None for an unlimited one in v2 or v1. Raises KernelParseError."""
    limit = parse_counter(data, path)
    return None if limit is None or limit >= UNLIMITED_FROM else limit


def parse_counter_column(values: Sequence[bytes]) -> list[str] | None:
    """Many such files at once, each with one number: their decimal texts; None when any of them is otherwise."""
    text = b"".join(values).decode("ascii", "replace")
    numbers = text.split("\n")
    if len(numbers) != len(values) + 1 or numbers.pop():
        return None
    joined = "".join(numbers)
    return numbers if joined.isdigit() and joined.isascii() and "" not in numbers else None
