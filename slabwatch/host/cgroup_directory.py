"""What is asked of one cgroup's directory: its children, and who lives there."""

from __future__ import annotations

import os


def children(directory: str) -> list[tuple[str, bool]]:
    """Subdirectories, sorted, and whether each is known to be a leaf. Raises OSError.

    kernfs: a directory's link count is 2 + its subdirectories (kernfs_refresh_inode), so that a leaf, which most
    cgroups are, needs no listing. Each leaf is looked at again at each poll: it may have got children.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_nlink == 2:
            return []
        with os.scandir(descriptor) as entries:
            names = sorted([entry.name for entry in entries if entry.is_dir(follow_symlinks=False)])
        stat = os.stat
        found: list[tuple[str, bool]] = []
        for name in names:
            try:
                found.append((name, stat(name, dir_fd=descriptor).st_nlink == 2))
            except OSError:
                continue  # vanished since it was listed
        return found
    finally:
        os.close(descriptor)


def holds_task(directory: str, *, deep: bool) -> bool:
    """v1: whether a process is in this cgroup itself; ``deep``: or below it, up to the first one. Raises OSError."""
    pending = [directory]
    while pending:
        current = pending.pop()
        # Opened anew each time: the kernel lists them at open.
        descriptor = os.open(f"{current}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.read(descriptor, 1):
                return True
        finally:
            os.close(descriptor)
        if deep:
            pending += [f"{current}/{name}" for name, _ in children(current)]
    return False
