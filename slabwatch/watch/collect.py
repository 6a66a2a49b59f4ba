"""One poll: each collector reads its part through the host room, and its failure stays its own.

Blocking. The sampler calls it in a thread of its own.
"""

from __future__ import annotations

import logging
import posixpath
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from slabwatch.config import Config
from slabwatch.errors import KernelParseError, SlabwatchError, SourceDenied, SourceUnavailable
from slabwatch.host.hierarchy import MemoryHierarchy, find_memory_hierarchy
from slabwatch.host.memory_cgroups import MemoryCgroups, Reading, Tree, spelled
from slabwatch.host.root import KernelRoot
from slabwatch.host.slab_sysfs import SlabSysfs
from slabwatch.kernel.meminfo import MemInfo
from slabwatch.kernel.slabinfo import SlabInfo
from slabwatch.watch.sample import CGROUP_COLUMNS, CacheInfo, CgroupReadings, CollectorRun, ProcessCounts, Sample

OTHER = "__other__"
# Columns whose sum over several cgroups means something.
_SUMMED = frozenset(CGROUP_COLUMNS) - {"kernel_max_bytes", "kernel_limit_bytes", "memory_max_usage_bytes", "populated"}

Part = TypeVar("Part")
Skipped = dict[str, int]
log = logging.getLogger(__name__)


class Collectors:
    """Everything that is read at a poll, as the configuration has it. Not for two threads at once."""

    def __init__(self, root: KernelRoot, config: Config) -> None:
        self._root = root
        self._config = config
        self._hierarchy: MemoryHierarchy | None = None
        self._sysfs = SlabSysfs(root)
        self._runs: list[CollectorRun] = []
        self._said: dict[str, str] = {}  # collector -> the error that was logged, so that it is said once
        self._number = 0

    def collect(self) -> Sample:
        """Read all that is on. Never raises for what the kernel does or does not have."""
        self._runs = []
        self._number += 1
        on = self._config.collectors
        slabinfo = self._run("slabinfo", on.slabinfo, self._slabinfo)
        meminfo = self._run("meminfo", on.meminfo, self._meminfo)
        unix_seconds, monotonic_seconds = time.time(), time.monotonic()
        process = self._run("process", on.process, self._process)
        cgroups = self._run("cgroup", on.cgroup, self._cgroups)
        names = slabinfo.names if slabinfo else ()
        sysfs = self._run("slab_sysfs", on.slab_sysfs, lambda skipped: self._slab_sysfs(names))
        return Sample(
            number=self._number,
            unix_seconds=unix_seconds,
            monotonic_seconds=monotonic_seconds,
            page_size=self._root.page_size,
            slabinfo=slabinfo,
            meminfo=meminfo,
            process=process,
            cgroups=cgroups,
            slab_sysfs=sysfs,
            collectors=tuple(self._runs),
        )

    def _run(self, name: str, on: bool, read: Callable[[Skipped], Part]) -> Part | None:
        if not on:
            return None
        skipped: Skipped = {}
        error = ""
        part: Part | None = None
        started = time.perf_counter()
        try:
            part = read(skipped)
        except SlabwatchError as failure:
            error = str(failure)
            self._say_once(name, failure)
        except Exception as failure:  # the border: a defect in one collector must not take the others' series
            error = f"{type(failure).__name__}: {failure}"
            if self._said.get(name) != error:
                log.exception("collector_defect", extra={"fields": {"collector": name}})
            self._said[name] = error
        else:
            if self._said.pop(name, None):
                log.info("collector_recovered", extra={"fields": {"collector": name}})
        seconds = time.perf_counter() - started
        self._runs.append(CollectorRun(name, not error, seconds, error, skipped))
        return part

    def _say_once(self, name: str, failure: SlabwatchError) -> None:
        if self._said.get(name) == _topic(failure):
            return
        self._said[name] = _topic(failure)
        fields = {"collector": name, "error": str(failure), "remedy": remedy(name, failure)}
        log.warning("collector_failed", extra={"fields": fields})

    def _slabinfo(self, skipped: Skipped) -> SlabInfo:
        slabinfo = self._root.read_slabinfo()
        self._bad_lines("slabinfo", slabinfo.skipped, skipped)
        return slabinfo

    def _meminfo(self, skipped: Skipped) -> MemInfo:
        meminfo = self._root.read_meminfo()
        self._bad_lines("meminfo", meminfo.skipped, skipped)
        return meminfo

    def _bad_lines(self, name: str, bad: tuple[KernelParseError, ...], skipped: Skipped) -> None:
        if not bad:
            return
        skipped["bad_line"] = len(bad)
        if self._said.get(f"{name} line") != _topic(bad[0]):
            self._said[f"{name} line"] = _topic(bad[0])
            log.warning("bad_line", extra={"fields": {"collector": name, "error": str(bad[0]), "lines": len(bad)}})

    def _process(self, skipped: Skipped) -> ProcessCounts:
        root = self._root
        files = _optional(root.read_allocated_files, skipped)
        return ProcessCounts(
            processes=_optional(root.count_processes, skipped),
            threads=root.read_loadavg().threads,
            forks=root.read_stat().processes,
            # An approximate per-CPU counter on many kernels, which reads 0 on a host with hundreds of open files.
            allocated_files=files or None,
            dentries=_optional(root.read_dentries, skipped),
        )

    def _cgroups(self, skipped: Skipped) -> CgroupReadings:
        bounds = self._config.cgroups
        if self._hierarchy is None:
            self._hierarchy = find_memory_hierarchy(self._root)
        hierarchy = self._hierarchy
        cgroups = MemoryCgroups(self._root, hierarchy, max_depth=bounds.max_depth, populated=bounds.populated_v1)
        try:
            tree = cgroups.walk()
        except SourceUnavailable:
            self._hierarchy = None  # unmounted or moved: look again at the next poll
            raise
        reading = cgroups.read(tree)
        skipped |= reading.skipped
        return _as_columns(hierarchy, tree, reading, cgroups.dying(tree.visible), bounds.max_count)

    def _slab_sysfs(self, names: tuple[str, ...]) -> tuple[CacheInfo, ...]:
        return self._sysfs.caches(names)


def _as_columns(
    hierarchy: MemoryHierarchy, tree: Tree, reading: Reading, dying: int | None, max_count: int
) -> CgroupReadings:
    figures = reading.figures
    # The largest keep a series of their own. Those beyond the depth were not read: their ancestors' figures hold them.
    kept = list(figures)
    if len(kept) > max_count:
        largest = sorted(kept, key=lambda path: -int(figures[path].get("kernel_bytes", 0)))[:max_count]
        largest_set = set(largest)
        kept = [path for path in kept if path in largest_set]
    rest = [figures[path] for path in figures.keys() - set(kept)]
    rows: list[Mapping[str, str]] = [figures[path] for path in kept]
    if rest:
        rows.append(_sum_of(rest))
    columns = {
        column: tuple([row.get(column) for row in rows])
        for column in CGROUP_COLUMNS
        if any(column in row for row in rows)
    }
    return CgroupReadings(
        mode=hierarchy.mode,
        version=hierarchy.version,
        paths=tuple(map(spelled, kept)) + ((OTHER,) if rest else ()),
        columns=columns,
        visible=tree.visible,
        dying=dying,
        omitted=len(rest),
        unpopulated_kernel_bytes=_unpopulated_kernel_bytes(figures),
    )


def _sum_of(rows: list[dict[str, str]]) -> dict[str, str]:
    return {
        column: str(sum(int(row[column]) for row in rows if column in row))
        for column in CGROUP_COLUMNS
        if column in _SUMMED and any(column in row for row in rows)
    }


def _unpopulated_kernel_bytes(figures: Mapping[str, Mapping[str, str]]) -> int | None:
    """Kernel memory of cgroups without any task in or below them; each byte once, as figures include descendants."""
    if not any("populated" in row for row in figures.values()):
        return None
    total = 0
    empty: set[str] = set()
    for path, row in figures.items():  # parents come before their children
        if row.get("populated") != "0":
            continue
        if path == "/" or posixpath.dirname(path) not in empty:
            total += int(row.get("kernel_bytes", 0))
        empty.add(path)
    return total


def _topic(failure: SlabwatchError) -> str:
    """What is said once. The text and number of a bad line change from poll to poll, its file and field do not."""
    return f"{failure.path}: bad {failure.field}" if isinstance(failure, KernelParseError) else str(failure)


def _optional(read: Callable[[], int], skipped: Skipped) -> int | None:
    """A figure whose absence does not fail its collector."""
    try:
        return read()
    except (SourceUnavailable, KernelParseError) as error:
        reason = "denied" if isinstance(error, SourceDenied) else "absent_file"
        skipped[reason] = skipped.get(reason, 0) + 1
        return None


def remedy(collector: str, failure: Exception) -> str:
    """What an operator can do about a collector that failed."""
    if isinstance(failure, SourceDenied) and collector == "slabinfo":
        return "run as root or with CAP_DAC_READ_SEARCH, or set collectors.slabinfo = false"
    if isinstance(failure, SourceDenied):
        return f"give this user the right to read it, or set collectors.{collector} = false"
    if isinstance(failure, SourceUnavailable):
        return f"this kernel or container does not have it: set collectors.{collector} = false to silence this"
    return "please report this line: the file's form is not known yet"
