"""All parsers of slabwatch.kernel, with what the tests that hold for every one of them need to know."""

from __future__ import annotations

import dataclasses
import functools
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slabwatch.kernel.cgroup_events import parse_cgroup_events
from slabwatch.kernel.cgroup_stat import parse_cgroup_stat
from slabwatch.kernel.cgroups import parse_cgroups
from slabwatch.kernel.cmdline import parse_cmdline
from slabwatch.kernel.counter import parse_counter, parse_limit
from slabwatch.kernel.kernel_config import parse_kernel_config
from slabwatch.kernel.kmem_slabinfo import parse_kmem_slabinfo
from slabwatch.kernel.loadavg import parse_loadavg
from slabwatch.kernel.meminfo import MemInfo, parse_meminfo
from slabwatch.kernel.memory_stat import parse_memory_stat
from slabwatch.kernel.mountinfo import MountInfo, parse_mountinfo
from slabwatch.kernel.pid_cgroup import PidCgroup, parse_pid_cgroup
from slabwatch.kernel.pressure import parse_pressure
from slabwatch.kernel.slabinfo import SlabInfo, parse_slabinfo
from slabwatch.kernel.stat import parse_stat
from slabwatch.kernel.sys_fs import parse_dentry_state, parse_file_nr
from slabwatch.kernel.vmstat import parse_vmstat
from tests.hosts import HOSTS, kernel_config, recorded_all

CGROUP = "sys/fs/cgroup"
V1 = frozenset(host for host in HOSTS if host.endswith("v1"))
V2 = frozenset(HOSTS) - V1
NO_PSI = frozenset({"4.19.40-cgroup-v1"})
NO_PEAK = V1 | frozenset(host for host in HOSTS if host.startswith("5."))


@dataclass(frozen=True)
class Parser:
    """A parser; ``file`` is its recorded file, or the name of its files in all cgroups."""

    name: str
    parse: Callable[[bytes], Any]
    file: str
    absent: frozenset[str] = frozenset()  # the hosts that do not have the file
    empty_is_fine: bool = False

    def recorded(self, host: str, state: str) -> list[bytes]:
        """All recorded files of a host in one state."""
        if self.name.startswith("kernel_config"):
            return [kernel_config(host)]
        directory, _, file = self.file.rpartition("/")
        return list(recorded_all(host, state, directory or CGROUP, file).values())

    def sample(self) -> bytes:
        """The longest recorded file of the first host that has one with something in it."""
        return _sample(self)


@functools.cache
def _sample(parser: Parser) -> bytes:
    for host in HOSTS:
        texts = parser.recorded(host, "idle")
        if any(texts):
            return max(texts, key=len)
    raise AssertionError(f"no recorded {parser.file}")


PARSERS = (
    Parser("slabinfo", parse_slabinfo, "proc/slabinfo"),
    Parser("meminfo", parse_meminfo, "proc/meminfo"),
    Parser("loadavg", parse_loadavg, "proc/loadavg"),
    Parser("stat", parse_stat, "proc/stat"),
    Parser("cgroups", parse_cgroups, "proc/cgroups"),
    Parser("mountinfo", parse_mountinfo, "proc/self/mountinfo", empty_is_fine=True),
    Parser("pid_cgroup", parse_pid_cgroup, "proc/self/cgroup", empty_is_fine=True),
    Parser("memory_stat", parse_memory_stat, "memory.stat"),
    Parser("cgroup_stat", parse_cgroup_stat, "cgroup.stat"),
    Parser("cgroup_events", parse_cgroup_events, "cgroup.events", absent=V1),
    Parser("counter", lambda data: parse_counter(data, "pids.max"), "pids.max"),
    Parser("counter_v2", lambda data: parse_counter(data, "memory.current"), "memory.current", absent=V1),
    Parser("counter_peak", lambda data: parse_counter(data, "memory.peak"), "memory.peak", absent=NO_PEAK),
    Parser("limit", lambda data: parse_limit(data, "kmem.limit"), "memory.kmem.limit_in_bytes", absent=V2),
    Parser("kernel_config", parse_kernel_config, "proc/config.gz"),
    Parser("kernel_config_gz", lambda data: parse_kernel_config(gzip.compress(data, mtime=0)), "proc/config.gz"),
    Parser("pressure", parse_pressure, "proc/pressure/memory", absent=NO_PSI),
    Parser("vmstat", parse_vmstat, "proc/vmstat"),
    Parser("file_nr", parse_file_nr, "proc/sys/fs/file-nr"),
    Parser("dentry_state", parse_dentry_state, "proc/sys/fs/dentry-state"),
    Parser("kmem_slabinfo", parse_kmem_slabinfo, "memory.kmem.slabinfo", absent=V2, empty_is_fine=True),
    Parser("cmdline", parse_cmdline, "proc/cmdline"),
)


def facts(record: object) -> set[object]:
    """Every single figure that a record states, so that two records can be compared where both say something."""
    if record is None:
        return set()
    if isinstance(record, SlabInfo):
        columns = [field.name for field in dataclasses.fields(record) if field.name not in ("skipped",)]
        rows = zip(*(getattr(record, column) for column in columns), strict=True)
        return {(row[0], column, value) for row in rows for column, value in zip(columns, row, strict=True)}
    if isinstance(record, MemInfo):
        return {(key, value, key in record.counts) for key, value in record.values.items()}
    if isinstance(record, MountInfo):
        return set(record.mounts)
    if isinstance(record, PidCgroup):
        return set(record.by_controller.items()) | {("0", record.unified)} - {("0", None)}
    if isinstance(record, Mapping):
        return set(record.items())
    if isinstance(record, tuple):
        return set(record)
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {item for item in dataclasses.asdict(record).items() if item[1] is not None}
    return {record}
