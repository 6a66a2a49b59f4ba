"""/proc/sys/fs/{file-nr,dentry-state}: how many of these objects exist.

Kernel document: Documentation/admin-guide/sysctl/fs.rst. Samples (one a file, tabs between the fields)::

    27	0	145211
    5935	3814	45	0	1	0

The first field of each is wanted: allocated files, dentries. Many kernels give the files by an approximate
per-CPU counter, which reads 0 on a small host with hundreds of open files (seen on 4.19, 5.10 and 6.1).
"""

from __future__ import annotations

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import number, whole_lines


def parse_file_nr(data: bytes) -> int:
    """Open files (struct file) of the whole host. Raises KernelParseError."""
    return _first(data, 3, "/proc/sys/fs/file-nr")


def parse_dentry_state(data: bytes) -> int:
    """Dentries, used and unused. Raises KernelParseError."""
    return _first(data, 6, "/proc/sys/fs/dentry-state")


def _first(data: bytes, fields: int, path: str) -> int:
    lines = whole_lines(data, path)
    line = lines[0] if lines else ""
    words = line.split()
    if len(lines) != 1 or len(words) != fields:
        raise KernelParseError(path, min(len(lines), 1), line, f"number of fields ({fields} on one line are expected)")
    return number(words[0], path, 1, line, "first field")
