"""Reads the kernel memory of every memory cgroup: one directory walk and a few small files each.

cgroup v1: memory.kmem.* and memory.*_in_bytes; v2: memory.stat, memory.current, memory.peak, cgroup.events.
Which of them this kernel has is seen from a directory's own listing. A cgroup that vanishes between listing and
reading is normal: it is counted as skipped.

Kernel documents: admin-guide/cgroup-v1/memory.rst, admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from slabwatch.errors import KernelParseError, SourceDenied, SourceUnavailable
from slabwatch.host.hierarchy import MemoryHierarchy
from slabwatch.host.root import KernelRoot, unavailable
from slabwatch.kernel.cgroup_events import parse_cgroup_events
from slabwatch.kernel.cgroup_stat import parse_cgroup_stat
from slabwatch.kernel.counter import parse_counter, parse_limit
from slabwatch.kernel.memory_stat import kernel_bytes, parse_memory_stat

STORM_PREFIX = "slabwatch-storm-"

# column -> file of cgroup v1
_V1_COUNTERS: Mapping[str, str] = {
    "kernel_bytes": "memory.kmem.usage_in_bytes",
    "kernel_max_bytes": "memory.kmem.max_usage_in_bytes",
    "kernel_failures_total": "memory.kmem.failcnt",
    "tcp_buffer_bytes": "memory.kmem.tcp.usage_in_bytes",
    "memory_bytes": "memory.usage_in_bytes",
    "memory_max_usage_bytes": "memory.max_usage_in_bytes",
}
_V2_COUNTERS: Mapping[str, str] = {"memory_bytes": "memory.current", "memory_max_usage_bytes": "memory.peak"}
# column -> key of v2's memory.stat
_V2_STAT: Mapping[str, str] = {
    "slab_reclaimable_bytes": "slab_reclaimable",
    "slab_unreclaimable_bytes": "slab_unreclaimable",
    "kernel_stack_bytes": "kernel_stack",
    "pagetables_bytes": "pagetables",
    "percpu_bytes": "percpu",
    "sock_bytes": "sock",
    "vmalloc_bytes": "vmalloc",
}


@dataclass(frozen=True, slots=True)
class Tree:
    """Cgroups found: ``paths`` to be read (in walk order, parents first), and how many there are in all.

    ``cut`` holds those of the paths that have descendants which are not read.
    """

    paths: tuple[str, ...]
    visible: int
    cut: frozenset[str] = frozenset()


@dataclass(slots=True)
class Reading:
    """Figures of the cgroups that could be read: path -> column -> decimal text. ``skipped``: reason -> count."""

    figures: dict[str, dict[str, str]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Count one thing that was left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


class MemoryCgroups:
    """The cgroups of one hierarchy. ``populated``: also read who holds tasks, which costs on v1."""

    def __init__(self, root: KernelRoot, hierarchy: MemoryHierarchy, *, max_depth: int, populated: bool) -> None:
        self._root = root
        self._hierarchy = hierarchy
        self._max_depth = max_depth
        self._populated = populated or hierarchy.version == 2
        self._mount = root.path(hierarchy.mount_point)

    def walk(self) -> Tree:
        """All cgroups but those inside a storm's own, which are counted and not read. Raises SourceUnavailable."""
        paths: list[str] = []
        cut: set[str] = set()
        visible = 0
        pending = [("/", 0)]
        while pending:
            path, depth = pending.pop()
            try:
                links = os.stat(self._directory(path)).st_nlink
                # kernfs: a directory's link count is 2 + its subdirectories (kernfs_refresh_inode), so that a
                # leaf, which most cgroups are, needs no listing.
                names = [] if links == 2 else _subdirectories(self._directory(path))
            except OSError as error:
                if path == "/":
                    raise unavailable(self._hierarchy.mount_point, error) from error
                continue
            visible += 1
            if depth <= self._max_depth:
                paths.append(path)
            is_storm = posixpath.basename(path).startswith(STORM_PREFIX)
            if names and (is_storm or depth == self._max_depth):
                cut.add(path)
            if is_storm:
                visible += len(names)
                continue
            pending += [(posixpath.join(path, name), depth + 1) for name in reversed(names)]
        return Tree(tuple(paths), visible, frozenset(cut))

    def dying(self, visible: int) -> int | None:
        """Cgroups that were removed and are still held by the kernel; None where it does not tell.

        v2: cgroup.stat of the root. v1: /proc/cgroups counts them, the directories do not.
        """
        if self._hierarchy.version == 2:
            try:
                stat = parse_cgroup_stat(self._root.read(self._hierarchy.directory("cgroup.stat")))
            except (SourceUnavailable, KernelParseError):
                return None
            return stat.dying_descendants if stat.dying_memory is None else stat.dying_memory
        if self._hierarchy.mounted != "/":
            return None  # only a part of the hierarchy can be seen
        try:
            controllers = self._root.read_controllers()
        except (SourceUnavailable, KernelParseError):
            return None
        for controller in controllers:
            if controller.name == "memory":
                return max(0, controller.num_cgroups - visible)
        return None

    def read(self, tree: Tree) -> Reading:
        """The figures of each of the tree's paths that is still there."""
        reading = Reading()
        read_one = self._read_v1 if self._hierarchy.version == 1 else self._read_v2
        present: dict[bool, frozenset[str]] = {}
        for path in tree.paths:
            is_root = path == "/"
            try:
                if is_root not in present:  # the root has fewer files than the others, which are alike
                    present[is_root] = frozenset(os.listdir(self._directory(path)))
                row = read_one(path, present[is_root], reading)
            except OSError as error:
                reading.skip("denied" if isinstance(error, PermissionError) else "vanished")
                continue
            if row:
                reading.figures[path] = row
        if self._hierarchy.version == 1 and self._populated:
            _count_descendants(reading.figures, tree.cut)
        return reading

    def _read_v1(self, path: str, present: frozenset[str], reading: Reading) -> dict[str, str]:
        row: dict[str, str] = {}
        for column, name in _V1_COUNTERS.items():
            self._number(path, name, present, row, column, reading)
        self._number(path, "memory.kmem.limit_in_bytes", present, row, "kernel_limit_bytes", reading, parse_limit)
        if self._populated and (tasks := self._file(path, "cgroup.procs", present, reading)) is not None:
            row["populated"] = "1" if tasks else "0"
        return row

    def _read_v2(self, path: str, present: frozenset[str], reading: Reading) -> dict[str, str]:
        row: dict[str, str] = {}
        for column, name in _V2_COUNTERS.items():
            self._number(path, name, present, row, column, reading)
        for name, figures in (("memory.stat", _stat_figures), ("cgroup.events", _events_figures)):
            try:
                if (data := self._file(path, name, present, reading)) is not None:
                    row |= figures(data)
            except KernelParseError:
                reading.skip("bad_file")
        return row

    def _number(
        self,
        path: str,
        name: str,
        present: frozenset[str],
        row: dict[str, str],
        column: str,
        reading: Reading,
        parse: Callable[[bytes, str], int | None] = parse_counter,
    ) -> None:
        data = self._file(path, name, present, reading)
        if data is None:
            return
        try:
            value = parse(data, name)
        except KernelParseError:
            reading.skip("bad_file")
            return
        if value is not None:
            row[column] = str(value)

    def _file(self, path: str, name: str, present: frozenset[str], reading: Reading) -> bytes | None:
        """Content; None for a file that this cgroup does not have or does not let us read. OSError: vanished."""
        if name not in present:
            return None
        try:
            return self._root.read(self._hierarchy.directory(posixpath.join(path, name)))
        except SourceDenied:
            reading.skip("denied")
            return None
        except SourceUnavailable as error:
            # v2: a cgroup to which the memory controller is not handed down has none of its files.
            if os.path.exists(self._directory(path)):
                return None
            raise OSError(str(error)) from error

    def _directory(self, path: str) -> str:
        return self._mount if path == "/" else self._mount + path


def _stat_figures(data: bytes) -> dict[str, str]:
    stat = parse_memory_stat(data)
    row = {column: stat[key] for column, key in _V2_STAT.items() if key in stat}
    if (kernel := kernel_bytes(stat)) is not None:
        row["kernel_bytes"] = str(kernel)
    return row


def _events_figures(data: bytes) -> dict[str, str]:
    return {"populated": "1" if parse_cgroup_events(data).populated else "0"}


def spelled(path: str) -> str:
    """A path as text that can be encoded: names may hold any byte, and those that are not UTF-8 are spelled out."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def _count_descendants(figures: Mapping[str, dict[str, str]], cut: frozenset[str]) -> None:
    """v1 tells of each cgroup's own tasks: make ``populated`` mean in or below it, as on v2. No figure: not known."""
    unknown = set(cut)
    for path in reversed(list(figures)):  # children before their parents
        row = figures[path]
        parent = posixpath.dirname(path)
        if row.get("populated") == "1":
            if parent in figures:
                figures[parent]["populated"] = "1"
        elif path in unknown or "populated" not in row:
            row.pop("populated", None)
            unknown.add(parent)


def _subdirectories(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
