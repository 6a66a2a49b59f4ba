"""One poll: each collector reads its part through the host room, and its failure stays its own.

Blocking. The sampler calls it in a thread of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from slabwatch.config import Config
from slabwatch.errors import KernelParseError, SlabwatchError, SourceDenied, SourceUnavailable
from slabwatch.host.hierarchy import MemoryHierarchy, find_memory_hierarchy
from slabwatch.host.memory_cgroups import MemoryCgroups
from slabwatch.host.root import KernelRoot
from slabwatch.host.slab_sysfs import SlabSysfs
from slabwatch.kernel.meminfo import MemInfo, MeminfoReader
from slabwatch.kernel.slabinfo import SlabInfo, SlabinfoReader
from slabwatch.watch.cgroup_table import as_table
from slabwatch.watch.sample import CgroupReadings, CgroupSlabs, CollectorRun, ProcessCounts, Sample
from slabwatch.watch.select import Largest, pattern_filter

Part = TypeVar("Part")
Skipped = dict[str, int]
log = logging.getLogger(__name__)


class Collectors:
    """Everything that is read at a poll, as the configuration has it. Not for two threads at once."""

    def __init__(self, root: KernelRoot, config: Config) -> None:
        self._root = root
        self._config = config
        self._hierarchy: MemoryHierarchy | None = None
        self._memory_cgroups: MemoryCgroups | None = None
        self._largest_cgroups = Largest(config.cgroups.max_count)
        self._cgroup_slabs: tuple[CgroupSlabs, ...] | None = None
        self._slabinfo_reader = SlabinfoReader()
        self._meminfo_reader = MeminfoReader()
        self._slabinfo: SlabInfo | None = None
        self._slabinfo_run: CollectorRun | None = None
        self._slabinfo_due = 0.0
        self._sysfs = SlabSysfs(root)
        self._runs: list[CollectorRun] = []
        self._said: dict[str, str] = {}  # collector -> the error that was logged, so that it is said once
        self._number = 0

    def collect(self, *, fresh: bool = False) -> Sample:
        """Read all that is on. Never raises for what the kernel does or does not have.

        ``fresh``: read slabinfo even while it is kept back for having been slow (a storm's measurement).
        """
        self._runs = []
        self._number += 1
        on = self._config.collectors
        slabinfo = self._slabinfo_or_last(fresh) if on.slabinfo else None
        meminfo = self._run("meminfo", on.meminfo, self._read_meminfo)
        unix_seconds, monotonic_seconds = time.time(), time.monotonic()
        process = self._run("process", on.process, self._read_process)
        cgroups = self._run("cgroup", on.cgroup, self._read_cgroups)
        names = slabinfo.names if slabinfo else ()
        sysfs = self._run("slab_sysfs", on.slab_sysfs, lambda skipped: self._sysfs.caches(names))
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
            cgroup_slabs=self._cgroup_slabs if cgroups else None,
        )

    def close(self) -> None:
        """Give the kept descriptors back."""
        if self._memory_cgroups:
            self._memory_cgroups.close()

    def _slabinfo_or_last(self, fresh: bool) -> SlabInfo | None:
        """slabinfo, not read again before max_read_ratio of the time has gone into it: until then the last one."""
        now = time.monotonic()
        if now < self._slabinfo_due and not fresh and self._slabinfo is not None and self._slabinfo_run is not None:
            self._runs.append(replace(self._slabinfo_run, reused=True, skipped={}))
            return self._slabinfo
        self._slabinfo = self._run("slabinfo", True, self._read_slabinfo)
        run = self._runs[-1]
        poll = self._config.poll
        wait = run.duration_seconds / poll.max_read_ratio
        if wait > poll.interval_seconds:
            run = self._runs[-1] = replace(run, backoff_seconds=wait)
            self._slabinfo_due = now + wait
            if not (self._slabinfo_run and self._slabinfo_run.backoff_seconds):
                fields = {"read_seconds": round(run.duration_seconds, 3), "next_in_seconds": round(wait, 1)}
                log.warning("slabinfo_slow", extra={"fields": fields})
        self._slabinfo_run = run
        return self._slabinfo

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

    def _read_slabinfo(self, skipped: Skipped) -> SlabInfo:
        slabinfo = self._root.read_slabinfo(self._slabinfo_reader.parse)
        self._bad_lines("slabinfo", slabinfo.skipped, skipped)
        return slabinfo

    def _read_meminfo(self, skipped: Skipped) -> MemInfo:
        meminfo = self._root.read_meminfo(self._meminfo_reader.parse)
        self._bad_lines("meminfo", meminfo.skipped, skipped)
        return meminfo

    def _bad_lines(self, name: str, bad: tuple[KernelParseError, ...], skipped: Skipped) -> None:
        if not bad:
            return
        skipped["bad_line"] = len(bad)
        if self._said.get(f"{name} line") != _topic(bad[0]):
            self._said[f"{name} line"] = _topic(bad[0])
            log.warning("bad_line", extra={"fields": {"collector": name, "error": str(bad[0]), "lines": len(bad)}})

    def _read_process(self, skipped: Skipped) -> ProcessCounts:
        root = self._root
        files = _optional(root.read_allocated_files, skipped)
        processes = _optional(root.count_processes, skipped)
        stat = root.read_stat()
        return ProcessCounts(
            processes=processes,
            threads=root.read_loadavg().threads,
            forks=stat.processes,
            allocated_files=files if files is not None and files >= _exact_enough(stat.cpus or 1) else None,
            dentries=_optional(root.read_dentries, skipped),
        )

    def _read_cgroups(self, skipped: Skipped) -> CgroupReadings:
        if self._hierarchy is None or self._memory_cgroups is None:
            self._hierarchy = find_memory_hierarchy(self._root)
            bounds = self._config.cgroups
            self._memory_cgroups = MemoryCgroups(
                self._root,
                self._hierarchy,
                max_depth=bounds.max_depth,
                populated=bounds.populated_v1,
                fold_storms=bounds.fold_storms,
                most_kept=bounds.kept_descriptors,
                wanted=pattern_filter(bounds.include, bounds.exclude),
            )
        hierarchy, cgroups = self._hierarchy, self._memory_cgroups
        try:
            tree = cgroups.walk()
        except SourceUnavailable:
            self.close()
            self._hierarchy = None  # unmounted or moved: look again at the next poll
            raise
        reading = cgroups.read(tree)
        skipped |= reading.skipped
        dying = cgroups.dying(tree.visible)
        fold = self._config.cgroups.fold_storms
        table = as_table(
            hierarchy,
            tree,
            reading,
            dying,
            self._largest_cgroups,
            fold_storms=fold,
            kept_descriptors=cgroups.kept_descriptors,
        )
        if self._config.collectors.cgroup_slabinfo:
            kept = self._largest_cgroups.kept
            rows = {path: row for row, path in enumerate(path for path in reading.paths if path in kept)}
            slabs = cgroups.read_slabs(sorted(rows))
            self._cgroup_slabs = tuple(CgroupSlabs(rows[path], slabinfo) for path, slabinfo in slabs.items())
        return table


def _exact_enough(cpus: int) -> int:
    """From how many open files on file-nr can be told from noise: where its error is below a twentieth.

    It is an approximate counter, off by up to a batch a CPU (percpu_counter_read_positive; lib/percpu_counter.c):
    it reads 0 on hosts with hundreds of open files.
    """
    return 20 * max(32, 2 * cpus) * cpus


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
