"""Reads the kernel memory of every memory cgroup: one walk over directories, and columns of small files.

cgroup v1: memory.kmem.* and memory.*_in_bytes; v2: memory.stat, memory.current, memory.peak, cgroup.events.
Which of them this kernel has is seen from a directory's own listing. A cgroup that vanishes between listing and
reading is normal: it is counted as skipped.

Kernel documents: admin-guide/cgroup-v1/memory.rst, admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from slabwatch.errors import KernelParseError, SourceUnavailable
from slabwatch.host.cgroup_directory import children, holds_task
from slabwatch.host.hierarchy import MemoryHierarchy
from slabwatch.host.kept_files import Contents, KeptFiles
from slabwatch.host.root import KernelRoot, unavailable
from slabwatch.kernel.cgroup_events import parse_cgroup_events
from slabwatch.kernel.cgroup_stat import parse_cgroup_stat
from slabwatch.kernel.counter import parse_counter, parse_counter_column, parse_limit
from slabwatch.kernel.kmem_slabinfo import parse_kmem_slabinfo
from slabwatch.kernel.memory_stat import StatPicker, kernel_bytes
from slabwatch.kernel.slabinfo import SlabInfo

STORM_PREFIX = "slabwatch-storm-"

Column = list[str | None]

_MOST_ASKED = 64  # cgroups that are asked which files this kernel has

# Column -> file of one number.
_COUNTERS: Mapping[int, Mapping[str, str]] = {
    1: {
        "kernel_bytes": "memory.kmem.usage_in_bytes",
        "kernel_max_bytes": "memory.kmem.max_usage_in_bytes",
        "kernel_failures_total": "memory.kmem.failcnt",
        "kernel_limit_bytes": "memory.kmem.limit_in_bytes",
        "tcp_buffer_bytes": "memory.kmem.tcp.usage_in_bytes",
        "memory_bytes": "memory.usage_in_bytes",
        "memory_max_usage_bytes": "memory.max_usage_in_bytes",
    },
    2: {"memory_bytes": "memory.current", "memory_max_usage_bytes": "memory.peak"},
}
# Column -> key of v2's memory.stat.
_STAT_KEYS: Mapping[str, str] = {
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

    ``cut`` holds the paths with descendants that are not read; not those of storms.
    """

    paths: tuple[str, ...]
    visible: int
    cut: frozenset[str] = frozenset()


@dataclass(slots=True)
class Reading:
    """Figures of the cgroups that could be read: columns of decimal text, as long as ``paths``.

    ``skipped``: reason -> how many cgroups or files were left out. ``alone``: the empty ones whose figures leave out
    those of their descendants (v1 without use_hierarchy).
    """

    paths: tuple[str, ...] = ()
    columns: dict[str, Column] = field(default_factory=dict)
    alone: frozenset[str] = frozenset()
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count things that were left out."""
        if count:
            self.skipped[reason] = self.skipped.get(reason, 0) + count


class MemoryCgroups:
    """The cgroups of one hierarchy. Holds descriptors: ``close`` it.

    ``wanted`` says which are read. ``populated``: read who holds tasks also on v1, where it costs a list of them.
    ``fold_storms``: a storm's own cgroups are counted, and read as their root alone.
    """

    def __init__(
        self,
        root: KernelRoot,
        hierarchy: MemoryHierarchy,
        *,
        max_depth: int = 8,
        populated: bool = False,
        fold_storms: bool = True,
        most_kept: int = 0,
        wanted: Callable[[str], bool] = lambda path: True,
    ) -> None:
        self._root = root
        self._hierarchy = hierarchy
        self._max_depth = max_depth
        self._populated = populated or hierarchy.version == 2
        self._fold_storms = fold_storms
        self._wanted = wanted
        self._most_kept = most_kept
        self._mount = root.path(hierarchy.mount_point)
        self._files: KeptFiles | None = None
        self._names: tuple[str, ...] = ()
        self._stat = StatPicker(())

    @property
    def kept_descriptors(self) -> int:
        """Descriptors that stay open from one poll to the next."""
        return self._files.open_count if self._files else 0

    def close(self) -> None:
        """Give all descriptors back."""
        if self._files:
            self._files.close()

    def walk(self) -> Tree:
        """All cgroups but those inside a storm's own, which are counted and not read. Raises SourceUnavailable."""
        found: list[str] = []
        cut: set[str] = set()
        visible = 0
        # A directory is looked at through a descriptor of its parent: half the cost of its whole path.
        pending = [("/", 0, False)]
        while pending:
            path, depth, in_storm = pending.pop()
            try:
                below = children(self._directory(path))
            except OSError as error:
                if path == "/":
                    raise unavailable(self._hierarchy.mount_point, error) from error
                continue
            visible += 1
            if depth <= self._max_depth and not in_storm:
                found.append(path)
            in_storm |= self._is_storm(path)
            if below and not in_storm and depth == self._max_depth:
                cut.add(path)
            parent = "" if path == "/" else path
            for name, is_leaf in below:
                child = f"{parent}/{name}"
                if is_leaf:
                    visible += 1
                    if depth < self._max_depth and not in_storm:
                        found.append(child)
                else:
                    pending.append((child, depth + 1, in_storm))
        paths = sorted(filter(self._wanted, found))  # parents before their children
        if len(paths) < len(found):
            cut.update(map(posixpath.dirname, set(found).difference(paths)))
        return Tree(tuple(paths), visible, frozenset(cut))

    def dying(self, visible: int) -> int | None:
        """Cgroups that were removed and are still held by the kernel; None where it does not tell.

        v2: cgroup.stat of the root. v1: /proc/cgroups counts them, the directories do not; but it counts the whole
        host's, whatever part of the hierarchy can be seen.
        """
        if self._hierarchy.version == 2:
            try:
                stat = parse_cgroup_stat(self._root.read(self._hierarchy.directory("cgroup.stat")))
            except (SourceUnavailable, KernelParseError):
                return None
            return stat.dying_descendants if stat.dying_memory is None else stat.dying_memory
        # The true root alone has this file. In a cgroup namespace mountinfo calls that of the namespace "/" too.
        if not self._root.exists(self._hierarchy.directory("release_agent")):
            return None
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
        files = self._files_of(tree)
        files.follow(tree.paths)
        contents = files.read()
        gone = contents.gone
        reading.skip("vanished", len(gone))
        reading.skip("denied", contents.denied)
        reading.paths = files.paths
        self._take_columns(contents, reading)
        if self._hierarchy.version == 1 and self._populated:
            reading.columns["populated"] = self._tasks(reading)
        if gone:
            keep = [path not in gone for path in reading.paths]
            reading.paths = tuple(path for path, kept in zip(reading.paths, keep, strict=True) if kept)
            for name, column in reading.columns.items():
                reading.columns[name] = [value for value, kept in zip(column, keep, strict=True) if kept]
        if self._hierarchy.version == 1 and self._populated:
            _count_descendants(reading, tree.cut)
            reading.alone = self._alone(reading)
        return reading

    def _alone(self, reading: Reading) -> frozenset[str]:
        """Empty cgroups with an empty child whose charges are in their figures only with memory.use_hierarchy.

        It can be off until commit bef8620cd8e0 ("mm: memcg: deprecate the non-hierarchical mode") (in v5.11), and not
        below a cgroup that has it on.
        """
        rows = zip(reading.paths, reading.columns["populated"], strict=True)
        empty = {path for path, populated in rows if populated == "0"}
        return frozenset(filter(self._is_alone, empty.intersection(map(posixpath.dirname, empty))))

    def _is_alone(self, path: str) -> bool:
        try:
            return self._root.read(self._hierarchy.directory(path) + "/memory.use_hierarchy").strip() == b"0"
        except SourceUnavailable:
            return False

    def read_slabs(self, paths: Sequence[str]) -> dict[str, SlabInfo]:
        """memory.kmem.slabinfo of each path that has rows in it. A bad file is left out."""
        found: dict[str, SlabInfo] = {}
        for path in paths:
            try:
                data = self._root.read(self._hierarchy.directory(posixpath.join(path, "memory.kmem.slabinfo")))
                slabinfo = parse_kmem_slabinfo(data)
            except (SourceUnavailable, KernelParseError):
                continue
            if slabinfo is not None:
                found[path] = slabinfo
        return found

    def _files_of(self, tree: Tree) -> KeptFiles:
        """The files that this kernel has, as the first cgroups show; asked again while no cgroup has its usage."""
        counters = tuple(_COUNTERS[self._hierarchy.version].values())
        if self._files is None or counters[0] not in self._names:
            candidates = counters if self._hierarchy.version == 1 else (*counters, "memory.stat", "cgroup.events")
            names = self._present(candidates, tree.paths)
            if self._files is None or names != self._names:
                self.close()
                self._names = names
                self._files = KeptFiles("" if self._mount == "/" else self._mount, names, self._most_kept)
        return self._files

    def _present(self, candidates: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
        # v2: the root has memory.stat and no counter; a cgroup to which memory is not handed down has neither.
        listed: set[str] = set()
        for path in paths[:_MOST_ASKED]:
            with contextlib.suppress(OSError):
                listed.update(os.listdir(self._directory(path)))
            if listed.issuperset(candidates):
                break
        return tuple(name for name in candidates if name in listed)

    def _take_columns(self, contents: Contents, reading: Reading) -> None:
        by_name = dict(zip(self._names, contents.columns, strict=True))
        for column, name in _COUNTERS[self._hierarchy.version].items():
            if name in by_name:
                values = _numbers(by_name[name], name, reading)
                reading.columns[column] = _without_unlimited(values, name) if "limit" in column else values
        if "memory.stat" in by_name:
            self._take_stat(by_name["memory.stat"], reading)
        if "cgroup.events" in by_name:
            reading.columns["populated"] = [_populated(data, reading) for data in by_name["cgroup.events"]]

    def _take_stat(self, files: Sequence[bytes | None], reading: Reading) -> None:
        """memory.stat's figures, and kernel memory where ``kernel`` or the parts to sum are there."""
        keys = ("kernel", "slab", *_STAT_KEYS.values())
        rows = [self._pick(data, keys, reading) for data in files]
        columns = (
            dict(zip(keys, map(list, zip(*rows, strict=True)), strict=True)) if rows else {key: [] for key in keys}
        )
        for column, key in _STAT_KEYS.items():
            reading.columns[column] = columns[key]
        reading.columns["kernel_bytes"] = columns["kernel"]
        if None in columns["kernel"]:
            stats = [{key: value for key, value in zip(keys, row, strict=True) if value is not None} for row in rows]
            reading.columns["kernel_bytes"] = [_text(kernel_bytes(stat)) for stat in stats]

    def _pick(self, data: bytes | None, keys: tuple[str, ...], reading: Reading) -> list[str | None]:
        if data is None:
            return [None] * len(keys)
        if self._stat.keys != keys:
            self._stat = StatPicker(keys)
        try:
            return self._stat.pick(data)
        except KernelParseError:
            reading.skip("bad_file")
            return [None] * len(keys)

    def _tasks(self, reading: Reading) -> Column:
        """v1: "1" for each cgroup that holds a process itself, or for a storm in one of its own, which are not read."""
        column: Column = []
        for path in reading.paths:
            try:
                column.append("1" if holds_task(self._directory(path), deep=self._is_storm(path)) else "0")
            except OSError as error:
                reading.skip("denied", isinstance(error, PermissionError))
                column.append(None)
        return column

    def _is_storm(self, path: str) -> bool:
        return self._fold_storms and posixpath.basename(path).startswith(STORM_PREFIX)

    def _directory(self, path: str) -> str:
        return self._mount if path == "/" else self._mount + path


def spelled(path: str) -> str:
    """A path as text that can be encoded: names may hold any byte, and those that are not UTF-8 are spelled out."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def _numbers(files: Sequence[bytes | None], name: str, reading: Reading) -> Column:
    if None not in files:
        fast = parse_counter_column(files)  # type: ignore[arg-type]
        if fast is not None:
            return list(fast)
    return [_number(data, name, reading) for data in files]


def _number(data: bytes | None, name: str, reading: Reading) -> str | None:
    if data is None:
        return None
    try:
        value = parse_counter(data, name)
    except KernelParseError:
        reading.skip("bad_file")
        return None
    return _text(value)


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _without_unlimited(values: Column, name: str) -> Column:
    """No figure for a limit that is none. There are few different ones: each is looked at once."""
    unlimited = {value for value in set(values) if value and parse_limit(value.encode() + b"\n", name) is None}
    return [None if value in unlimited else value for value in values]


def _populated(data: bytes | None, reading: Reading) -> str | None:
    if data is None:
        return None
    try:
        return "1" if parse_cgroup_events(data).populated else "0"
    except KernelParseError:
        reading.skip("bad_file")
        return None


def _count_descendants(reading: Reading, cut: frozenset[str]) -> None:
    """v1 tells of each cgroup's own tasks: make ``populated`` mean in or below it, as on v2. None: not known."""
    populated = dict(zip(reading.paths, reading.columns["populated"], strict=True))
    unknown = set(cut)
    for path in sorted(populated, key=lambda path: -path.rstrip("/").count("/")):  # children before their parents
        parent = posixpath.dirname(path)
        if populated[path] == "1":
            if parent in populated and path != "/":
                populated[parent] = "1"
        elif path in unknown or populated[path] is None:
            populated[path] = None
            unknown.add(parent)
    reading.columns["populated"] = [populated[path] for path in reading.paths]
