"""The same small files of many cgroups, read again and again.

Reading through a descriptor that is kept takes an eighth of the CPU time that open, read and close take. But each one
pins about 5 kB of unreclaimable slab (measured on 6.18: a page-sized buffer of seq_file and five small objects), in the
very memory that is watched. So they are bounded: the cgroups beyond the bound are opened at each poll. One whose
cgroup goes is closed at once.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass

# Share of RLIMIT_NOFILE that this may use: sockets, state and storms need the rest.
_LIMIT_SHARE = 0.5
# A number of 20 digits and its newline; memory.stat and the like. A larger buffer costs time even when it stays empty.
_NUMBER_BYTES = 64
_TABLE_BYTES = 16 * 1024


@dataclass(slots=True)
class Contents:
    """Columns of contents (None: absent or denied), the paths that went meanwhile, and how many files were denied."""

    columns: list[list[bytes | None]]
    gone: set[str]
    denied: int


class KeptFiles:
    """Files ``names`` of the directories below ``mount``. Not for several threads at once.

    After ``follow(paths)``, ``paths`` holds them in the order of every column that ``read`` gives.
    """

    def __init__(self, mount: str, names: Sequence[str], most_kept: int) -> None:
        self._mount = mount
        self._names = tuple(names)
        self._sizes = [_TABLE_BYTES if name.endswith((".stat", ".events")) else _NUMBER_BYTES for name in names]
        self._most = most_kept
        self._kept: dict[str, list[int]] = {}
        self._columns: list[list[int]] = [[] for _ in names]
        self._others: list[str] = []
        self._followed: tuple[str, ...] = ()
        self.paths: tuple[str, ...] = ()

    @property
    def open_count(self) -> int:
        """Descriptors kept now."""
        return len(self._kept) * len(self._names)

    def follow(self, paths: tuple[str, ...]) -> None:
        """These directories from now on: keep what can be kept of them, close the others'."""
        if paths == self._followed:
            return
        wanted = set(paths)
        for path in self._kept.keys() - wanted:
            self._close(path)
        room = min(self._most, _descriptor_share()) // max(1, len(self._names)) - len(self._kept)
        for path in paths:
            if room <= 0:
                break
            if path not in self._kept and self._open(path):
                room -= 1
        # The dict's order is the columns' order: made anew, so that a table comes out as the walk went.
        self._kept = {path: self._kept[path] for path in paths if path in self._kept}
        self._others = [path for path in paths if path not in self._kept]
        self._columns = [list(column) for column in zip(*self._kept.values(), strict=True)] or [[] for _ in self._names]
        self._followed = paths
        self.paths = (*self._others, *self._kept)

    def read(self) -> Contents:
        """One column a name, in the order of ``paths``."""
        contents = Contents([], set(), 0)
        others = [self._read_closed(path, contents) for path in self._others]
        pread = os.pread
        for index, (descriptors, size) in enumerate(zip(self._columns, self._sizes, strict=True)):
            try:
                column: list[bytes | None] = [pread(fd, size, 0) for fd in descriptors]
            except OSError:  # a cgroup has gone: find out which
                column = [_read_or_none(fd, size) for fd in descriptors]
                contents.gone.update(path for path, data in zip(self._kept, column, strict=True) if data is None)
            contents.columns.append([row[index] for row in others] + column)
        if contents.gone:
            for place, path in enumerate(self.paths):
                if path in contents.gone and path in self._kept:
                    self._close(path)
                    # Another may have its name by now: that of a unit that was started again.
                    contents.gone.discard(path)
                    for column, data in zip(contents.columns, self._read_closed(path, contents), strict=True):
                        column[place] = data
            self._followed = ()  # the columns hold closed descriptors: arrange anew before the next read
        return contents

    def close(self) -> None:
        """Close all."""
        self.follow(())

    def _open(self, path: str) -> bool:
        opened: list[int] = []
        try:
            for name in self._names:
                descriptor = os.open(f"{self._mount}{path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
                opened.append(descriptor)
        except OSError:  # absent, denied, gone, or no descriptors: read one by one, it will be told then
            for descriptor in opened:
                os.close(descriptor)
            return False
        self._kept[path] = opened
        return True

    def _close(self, path: str) -> None:
        for descriptor in self._kept.pop(path):
            os.close(descriptor)

    def _read_closed(self, path: str, contents: Contents) -> list[bytes | None]:
        try:
            directory = os.open(self._mount + path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            contents.gone.add(path)
            return [None] * len(self._names)
        try:
            files = zip(self._names, self._sizes, strict=True)
            return [self._read_once(path, name, size, directory, contents) for name, size in files]
        finally:
            os.close(directory)

    def _read_once(self, path: str, name: str, size: int, directory: int, contents: Contents) -> bytes | None:
        """None: this cgroup does not have the file (v2 without the memory controller), or may not be read."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                contents.denied += 1
            return None
        try:
            return os.pread(descriptor, size, 0)
        except OSError:
            contents.gone.add(path)
            return None
        finally:
            os.close(descriptor)


def _descriptor_share() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return int(soft * _LIMIT_SHARE) if soft != resource.RLIM_INFINITY else 1 << 30


def _read_or_none(descriptor: int, size: int) -> bytes | None:
    try:
        return os.pread(descriptor, size, 0)
    except OSError:
        return None
