"""Made-up roots: a few files in a directory that stands for a host, and trees of cgroups in it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from slabwatch.host.root import KernelRoot

V1_MOUNT = "/sys/fs/cgroup/memory"
V2_MOUNT = "/sys/fs/cgroup"
V1_MOUNTINFO = f"23 18 0:21 / {V1_MOUNT} rw,relatime - cgroup cgroup rw,memory\n"
V2_MOUNTINFO = f"31 25 0:27 / {V2_MOUNT} rw,relatime - cgroup2 cgroup2 rw\n"
UNLIMITED_V1 = 9223372036854771712

Content = str | bytes | None


def fabricate(directory: Path, files: Mapping[str, Content]) -> KernelRoot:
    """A root with these files, by their kernel paths; None makes a directory."""
    for kernel_path, content in files.items():
        path = directory / kernel_path.lstrip("/")
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    return KernelRoot(str(directory))


def v2_files(kernel: int = 0, *, populated: bool = True, memory: int = 4096, **stat: int) -> dict[str, str]:
    """The files of one cgroup v2 that are read."""
    values = {"kernel": kernel, "slab_reclaimable": 0, "slab_unreclaimable": kernel, "slab": kernel} | stat
    return {
        "memory.current": f"{memory}\n",
        "memory.peak": f"{2 * memory}\n",
        "memory.stat": "".join(f"{key} {value}\n" for key, value in values.items()),
        "cgroup.events": f"populated {int(populated)}\nfrozen 0\n",
        "cgroup.procs": "1\n" if populated else "",
    }


def v1_files(kernel: int = 0, *, tasks: str = "", memory: int = 4096, limit: int = UNLIMITED_V1) -> dict[str, str]:
    """The files of one cgroup v1 that are read."""
    return {
        "memory.kmem.usage_in_bytes": f"{kernel}\n",
        "memory.kmem.max_usage_in_bytes": f"{2 * kernel}\n",
        "memory.kmem.failcnt": "3\n",
        "memory.kmem.limit_in_bytes": f"{limit}\n",
        "memory.kmem.tcp.usage_in_bytes": "0\n",
        "memory.usage_in_bytes": f"{memory}\n",
        "memory.max_usage_in_bytes": f"{2 * memory}\n",
        "cgroup.procs": tasks,
    }


def v2_root(
    directory: Path, cgroups: Mapping[str, Mapping[str, str]], more: Mapping[str, Content] | None = None
) -> KernelRoot:
    """A host with these cgroups below its root cgroup, whose own files are those that a real one has."""
    files: dict[str, Content] = {
        "/proc/self/mountinfo": V2_MOUNTINFO,
        f"{V2_MOUNT}/cgroup.controllers": "cpu memory pids\n",
        f"{V2_MOUNT}/cgroup.stat": "nr_descendants 2\nnr_dying_descendants 1\n",
        f"{V2_MOUNT}/memory.stat": "kernel_stack 0\nslab 0\n",
        f"{V2_MOUNT}/cgroup.procs": "1\n",
    }
    return _with_cgroups(directory, V2_MOUNT, files, cgroups, more)


def v1_root(
    directory: Path, cgroups: Mapping[str, Mapping[str, str]], more: Mapping[str, Content] | None = None
) -> KernelRoot:
    """As ``v2_root``."""
    files: dict[str, Content] = {
        "/proc/self/mountinfo": V1_MOUNTINFO,
        f"{V1_MOUNT}/release_agent": "\n",
        "/proc/cgroups": f"#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t5\t{len(cgroups) + 3}\t1\n",
        **{f"{V1_MOUNT}/{name}": content for name, content in v1_files(tasks="1\n").items()},
    }
    return _with_cgroups(directory, V1_MOUNT, files, cgroups, more)


def _with_cgroups(
    directory: Path,
    mount: str,
    files: dict[str, Content],
    cgroups: Mapping[str, Mapping[str, str]],
    more: Mapping[str, Content] | None,
) -> KernelRoot:
    for path, contents in cgroups.items():
        files[mount + path] = None
        files |= {f"{mount}{path}/{name}": content for name, content in contents.items()}
    return fabricate(directory, files | dict(more or {}))


def deny(monkeypatch: pytest.MonkeyPatch, names: Iterable[str], error: int = errno.EACCES) -> None:
    """Opening a file that ends in one of the names fails, for root too."""
    opened, ends = os.open, tuple(names)

    def open_some(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        whole = str(path) if dir_fd is None else f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{path}"
        if whole.endswith(ends):
            raise OSError(error, os.strerror(error), path)
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_some)
