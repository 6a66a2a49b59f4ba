"""Where the memory controller's hierarchy is mounted: v1, v2, both side by side ("hybrid"), or nowhere.

Found in /proc/self/mountinfo, never by a fixed path: v1 hierarchies can be mounted anywhere, and a cgroup2 mount
without controllers beside them is common.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, replace

from slabwatch.errors import SourceUnavailable
from slabwatch.host.root import KernelRoot
from slabwatch.kernel.mountinfo import Mount

MOUNTINFO = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class MemoryHierarchy:
    """``version`` is that of the hierarchy with the memory controller; ``mode`` describes the host as a whole.

    ``mount_point`` is a kernel path (below the KernelRoot); ``mounted`` the part of the hierarchy that is there.
    """

    version: int
    mode: str
    mount_point: str
    mounted: str

    def directory(self, cgroup: str) -> str:
        """Kernel path of a cgroup given as a path below the mount."""
        return posixpath.normpath(self.mount_point + "/" + cgroup)

    def below_mount(self, hierarchy_path: str) -> str:
        """A path of /proc/self/cgroup as a path below the mount; "/" where it lies outside of what is mounted."""
        if self.mounted == "/":
            return hierarchy_path
        if hierarchy_path == self.mounted or hierarchy_path.startswith(self.mounted + "/"):
            return hierarchy_path[len(self.mounted) :] or "/"
        return "/"


def find_memory_hierarchy(root: KernelRoot) -> MemoryHierarchy:
    """Raises SourceUnavailable when no memory hierarchy is mounted."""
    mounts = _mounts_below(root)
    v1 = _widest(mount for mount in mounts if mount.fs_type == "cgroup" and "memory" in mount.super_options)
    v2 = _widest(mount for mount in mounts if mount.fs_type == "cgroup2")
    any_v1 = any(mount.fs_type == "cgroup" for mount in mounts)
    if v1 is not None:
        return MemoryHierarchy(1, "hybrid" if v2 else "v1", v1.mount_point, v1.root)
    if v2 is None:
        raise SourceUnavailable(MOUNTINFO, "no cgroup hierarchy with the memory controller is mounted")
    if not _has_memory(root, v2):
        raise SourceUnavailable(v2.mount_point, "cgroup v2 is mounted, but without the memory controller")
    return MemoryHierarchy(2, "hybrid" if any_v1 else "v2", v2.mount_point, v2.root)


def find_pids_hierarchy(root: KernelRoot) -> str:
    """Where the pids controller's own hierarchy (v1) is mounted, as a kernel path; "" where there is none."""
    mounts = (mount for mount in _mounts_below(root) if mount.fs_type == "cgroup" and "pids" in mount.super_options)
    found = _widest(mounts)
    return found.mount_point if found else ""


def _mounts_below(root: KernelRoot) -> list[Mount]:
    """The mounts as the root has them. A later mount hides an earlier one at the same place.

    In a container /host/proc/self is the reader itself, so that the host's mounts begin with /host there, beside those
    of the container.
    """
    mounts = root.read_mountinfo().mounts
    if not root.live and (seen := [mount for mount in mounts if mount.mount_point.startswith(root.root + "/")]):
        mounts = tuple(replace(mount, mount_point=mount.mount_point.removeprefix(root.root)) for mount in seen)
    return list({mount.mount_point: mount for mount in mounts}.values())


def _has_memory(root: KernelRoot, mount: Mount) -> bool:
    try:
        return b"memory" in root.read(mount.mount_point + "/cgroup.controllers").split()
    except SourceUnavailable:
        return False


def _widest(mounts: Iterable[Mount]) -> Mount | None:
    """The whole hierarchy rather than a part of it that is bound to some other place; else the last mount."""
    found = None
    for mount in mounts:
        if found is None or mount.root == "/" or found.root != "/":
            found = mount
    return found
