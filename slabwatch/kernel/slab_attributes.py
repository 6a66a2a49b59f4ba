"""/sys/kernel/slab/<cache>/: small attribute files of one slab cache.

Kernel document: Documentation/ABI/testing/sysfs-kernel-slab. Samples (one a file)::

    1
    97 N0=97

Values of counts carry a part a NUMA node where the kernel has NUMA. Which files exist depends on the kernel's
options.
"""

from __future__ import annotations

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import is_number, whole_lines

PATH = "/sys/kernel/slab"


def parse_attribute(data: bytes, path: str = PATH) -> int:
    """The total, without the parts by node. Raises KernelParseError."""
    lines = whole_lines(data, path)
    words = lines[0].split() if len(lines) == 1 else []
    if not words or not is_number(words[0]):
        raise KernelParseError(path, 1 if lines else 0, lines[0] if lines else "", "attribute")
    return int(words[0])
