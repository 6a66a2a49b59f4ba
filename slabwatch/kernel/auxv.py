"""/proc/self/auxv: what the kernel tells a program at its start, the page size among it.

Kernel document: getauxval(3), include/uapi/linux/auxvec.h. The file is a row of pairs of native words (type, value)
up to type 0 (AT_NULL); 64-bit little-endian is read here.
"""

from __future__ import annotations

import struct

from slabwatch.errors import KernelParseError

PATH = "/proc/self/auxv"

AT_PAGESZ = 6
_PAIR = struct.Struct("<QQ")


def parse_page_size(data: bytes) -> int:
    """The page size in bytes. Raises KernelParseError."""
    whole = data[: len(data) - len(data) % _PAIR.size]
    for kind, value in _PAIR.iter_unpack(whole):
        if kind == AT_PAGESZ and value >= 1024 and value & (value - 1) == 0:
            return int(value)
        if kind == 0:
            break
    raise KernelParseError(PATH, 0, "", "vector (no page size in it)")
