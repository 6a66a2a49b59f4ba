"""``KernelRoot``: every kernel path is looked up below one directory, "/" on a live host.

A recorded host in a test or the host's filesystem in a container (``/host``) are roots like any other. Reads are
bounded, because a path below a foreign root may be anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from slabwatch.errors import KernelParseError, SourceDenied, SourceUnavailable
from slabwatch.kernel.auxv import PATH as AUXV
from slabwatch.kernel.auxv import parse_page_size
from slabwatch.kernel.cgroups import Controller, parse_cgroups
from slabwatch.kernel.cmdline import parse_cmdline
from slabwatch.kernel.counter import parse_counter
from slabwatch.kernel.kernel_config import parse_kernel_config
from slabwatch.kernel.loadavg import LoadAvg, parse_loadavg
from slabwatch.kernel.meminfo import MemInfo, parse_meminfo
from slabwatch.kernel.mountinfo import MountInfo, parse_mountinfo
from slabwatch.kernel.pid_cgroup import PidCgroup, parse_pid_cgroup
from slabwatch.kernel.pid_stat import PidStat, parse_pid_stat
from slabwatch.kernel.pressure import Pressure, parse_pressure
from slabwatch.kernel.slabinfo import SlabInfo, parse_slabinfo
from slabwatch.kernel.stat import Stat, parse_stat
from slabwatch.kernel.sys_fs import parse_dentry_state, parse_file_nr
from slabwatch.kernel.vmstat import parse_vmstat

MOST_BYTES = 64 * 1024 * 1024
_CHUNK = 32 * 1024  # seq files give about a page a read, whatever is asked for


class KernelRoot:
    """Reads kernel files below ``root``. All ``read_*`` raise SourceUnavailable, SourceDenied or KernelParseError."""

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.abspath(root)
        self.page_size = self._page_size()

    @property
    def live(self) -> bool:
        """Whether this is the running kernel's own root, so that writing and killing make sense."""
        return self.root == "/"

    def path(self, kernel_path: str) -> str:
        """Where ``kernel_path`` (absolute, as on a live host) is found."""
        return kernel_path if self.root == "/" else self.root + kernel_path

    def _page_size(self) -> int:
        """A recorded host may have been one with other pages than this one: its auxv tells."""
        if not self.live:
            try:
                return parse_page_size(self.read(AUXV))
            except (SourceUnavailable, KernelParseError):
                pass
        return os.sysconf("SC_PAGE_SIZE")

    def read(self, kernel_path: str) -> bytes:
        """The whole file. Raises SourceUnavailable or SourceDenied."""
        try:
            descriptor = os.open(self.path(kernel_path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _read_all(descriptor, kernel_path)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unavailable(kernel_path, error) from error

    def read_slabinfo(self, parse: Callable[[bytes], SlabInfo] = parse_slabinfo) -> SlabInfo:
        """/proc/slabinfo. ``parse``: that of a reader which remembers the last content."""
        return parse(self.read("/proc/slabinfo"))

    def read_meminfo(self, parse: Callable[[bytes], MemInfo] = parse_meminfo) -> MemInfo:
        """/proc/meminfo. ``parse``: as for slabinfo."""
        return parse(self.read("/proc/meminfo"))

    def read_loadavg(self) -> LoadAvg:
        """/proc/loadavg."""
        return parse_loadavg(self.read("/proc/loadavg"))

    def read_stat(self) -> Stat:
        """/proc/stat."""
        return parse_stat(self.read("/proc/stat"))

    def read_vmstat(self) -> dict[str, int]:
        """/proc/vmstat."""
        return parse_vmstat(self.read("/proc/vmstat"))

    def read_memory_pressure(self) -> Pressure:
        """/proc/pressure/memory."""
        return parse_pressure(self.read("/proc/pressure/memory"))

    def read_allocated_files(self) -> int:
        """/proc/sys/fs/file-nr."""
        return parse_file_nr(self.read("/proc/sys/fs/file-nr"))

    def read_dentries(self) -> int:
        """/proc/sys/fs/dentry-state."""
        return parse_dentry_state(self.read("/proc/sys/fs/dentry-state"))

    def read_controllers(self) -> tuple[Controller, ...]:
        """/proc/cgroups."""
        return parse_cgroups(self.read("/proc/cgroups"))

    def read_mountinfo(self) -> MountInfo:
        """/proc/self/mountinfo."""
        return parse_mountinfo(self.read("/proc/self/mountinfo"))

    def read_own_cgroup(self) -> PidCgroup:
        """/proc/self/cgroup."""
        return parse_pid_cgroup(self.read("/proc/self/cgroup"))

    def read_own_stat(self) -> PidStat:
        """/proc/self/stat."""
        return parse_pid_stat(self.read("/proc/self/stat"))

    def read_cmdline(self) -> dict[str, tuple[str, ...]]:
        """/proc/cmdline: the kernel's parameters."""
        return parse_cmdline(self.read("/proc/cmdline"))

    def read_counter(self, kernel_path: str) -> int | None:
        """A file with one number; None: ``max``."""
        return parse_counter(self.read(kernel_path), kernel_path)

    def read_release(self) -> str:
        """/proc/sys/kernel/osrelease."""
        return self.read("/proc/sys/kernel/osrelease").decode("utf-8", "backslashreplace").strip()

    def read_kernel_config(self) -> dict[str, str]:
        """/proc/config.gz, or /boot/config-<release>."""
        paths = ("/proc/config.gz", f"/boot/config-{self.read_release()}")
        for path in paths:
            try:
                return parse_kernel_config(self.read(path), path)
            except SourceUnavailable:
                continue
        raise SourceUnavailable(" and ".join(paths), "neither is there: this kernel does not tell how it was built")

    def count_processes(self) -> int:
        """Directories of /proc that are processes, as ``ps`` counts them."""
        try:
            count = sum(map(str.isdigit, os.listdir(self.path("/proc"))))
        except OSError as error:
            raise unavailable("/proc", error) from error
        if not count:
            raise SourceUnavailable("/proc", "holds no process")
        return count

    def exists(self, kernel_path: str) -> bool:
        """Presence, never the version, tells what a kernel can do."""
        return os.path.exists(self.path(kernel_path))

    def can_write(self, kernel_path: str) -> bool:
        """Whether this process may write the file or directory."""
        path = self.path(kernel_path)
        if os.path.isdir(path):
            return os.access(path, os.W_OK)
        try:  # access(2) leaves the capabilities of a user other than root out of account
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return False
        return True


def unavailable(kernel_path: str, error: OSError) -> SourceUnavailable:
    """The error that an OSError at a kernel file stands for."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return SourceDenied(kernel_path, "permission denied")
    return SourceUnavailable(kernel_path, error.strerror or str(error))


def _read_all(descriptor: int, kernel_path: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := os.read(descriptor, _CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > MOST_BYTES:
            raise KernelParseError(kernel_path, 0, "", f"size (more than {MOST_BYTES} bytes)")
    return b"".join(chunks)
