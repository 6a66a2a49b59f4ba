"""What all of these files have in common: text in lines, with decimal numbers in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import ne

from slabwatch.errors import KernelParseError

# 2^64 - 1 has 20 digits. The bound also keeps int() away from texts that it refuses for their length.
_MOST_DIGITS = 20


def decode(data: bytes) -> str:
    """The file as text; a byte that is not UTF-8 (in a name) becomes ``\\xNN``."""
    return data.decode("utf-8", "backslashreplace")


def is_number(text: str) -> bool:
    """Whether this is an unsigned decimal number that the kernel can have written."""
    # str.isdigit alone would take other scripts' digits.
    return text.isdigit() and text.isascii() and len(text) <= _MOST_DIGITS


def number(text: str, path: str, line_no: int, line: str, field: str) -> int:
    """An unsigned decimal number, or KernelParseError that names the field."""
    if not is_number(text):
        raise KernelParseError(path, line_no, line, field)
    return int(text)


def whole_lines(data: bytes, path: str) -> list[str]:
    """The lines without their ends. Raises KernelParseError when the last one has no end: it may have been cut."""
    lines = decode(data).split("\n")
    last = lines.pop()
    if last:
        raise KernelParseError(path, len(lines) + 1, last, "end of file (cut off)")
    return lines


def changed(now: Sequence[object], before: Sequence[object]) -> list[int] | None:
    """The places at which a column or the lines of a file differ from the last reading; None: in their number too."""
    if len(now) != len(before):
        return None
    return list(compress(range(len(now)), map(ne, now, before)))
