r"""/proc/self/mountinfo: what is mounted where, as this process sees it.

Kernel document: Documentation/filesystems/proc.rst ("/proc/<pid>/mountinfo"). A sample::

    23 18 0:21 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory

After the options come any number of optional fields (here ``shared:9``), up to the ``-``. Space, tab, newline and
backslash in paths are written as \040 \011 \012 \134. A cgroup hierarchy can be mounted anywhere, and only a part
of it (``root``) in a container: this file is the only one that tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import decode, is_number

PATH = "/proc/self/mountinfo"

# Up to \177: above it the kernel escapes nothing, and one escape alone would be no character.
_ESCAPE = re.compile(r"\\([01][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount; ``root`` is the part of the filesystem that is mounted at ``mount_point``."""

    mount_id: int
    parent_id: int
    root: str
    mount_point: str
    options: frozenset[str]
    fs_type: str
    source: str
    super_options: frozenset[str]


@dataclass(frozen=True, slots=True)
class MountInfo:
    """All mounts in the file's order: a later one may hide an earlier one. ``skipped``: the lines that did not fit."""

    mounts: tuple[Mount, ...]
    skipped: tuple[KernelParseError, ...] = ()


def parse_mountinfo(data: bytes) -> MountInfo:
    """All mounts. A bad line costs that line; an empty file is one without mounts (a chroot may see none)."""
    lines = decode(data).split("\n")
    cut = lines.pop()
    mounts: list[Mount] = []
    skipped: list[KernelParseError] = []
    for line_no, line in enumerate(lines, 1):
        mount = _mount(line_no, line)
        if isinstance(mount, KernelParseError):
            skipped.append(mount)
        else:
            mounts.append(mount)
    if cut:
        skipped.append(KernelParseError(PATH, len(lines) + 1, cut, "end of file (cut off)"))
    return MountInfo(tuple(mounts), tuple(skipped))


def _mount(line_no: int, line: str) -> Mount | KernelParseError:
    # Never split at runs of spaces: a source may be empty.
    fields = line.split(" ")
    if "-" not in fields[6:]:
        return KernelParseError(PATH, line_no, line, "line (no separator after the optional fields)")
    end = fields.index("-", 6)
    if len(fields) < end + 4:
        return KernelParseError(PATH, line_no, line, "number of fields")
    for position, name in ((0, "mount id"), (1, "parent id")):
        if not is_number(fields[position]):
            return KernelParseError(PATH, line_no, line, name)
    return Mount(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        root=_unescape(fields[3]),
        mount_point=_unescape(fields[4]),
        options=frozenset(fields[5].split(",")),
        fs_type=_unescape(fields[end + 1]),
        source=_unescape(fields[end + 2]),
        super_options=frozenset(map(_unescape, " ".join(fields[end + 3 :]).split(","))),
    )


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text
