"""Where a storm takes place: below a cgroup that the configuration names, or below the daemon's own.

``storm.parent = "self"`` is for a daemon whose own cgroup has been delegated to it, such as a systemd unit with
``Delegate=memory pids``. On v2 a cgroup whose children have controllers holds no processes itself, so the daemon first
moves into a leaf of its own beside the storms. (systemd 254 can do that by ``DelegateSubgroup=``.)

Kernel document: admin-guide/cgroup-v2.rst ("No Internal Process Constraint", "Delegation").
"""

from __future__ import annotations

import os
import posixpath

from slabwatch.errors import KernelParseError, SourceUnavailable, StormRejected
from slabwatch.host.hierarchy import MemoryHierarchy, find_memory_hierarchy
from slabwatch.host.root import KernelRoot
from slabwatch.storm import lifecycle

SELF = "self"
LEAF = "slabwatch-daemon"
# systemd's own leaf for a delegated unit's ExecReload= and ExecStopPost= commands.
_LEAVES = (LEAF, ".control")


def parent_path(root: KernelRoot, hierarchy: MemoryHierarchy, configured: str) -> str:
    """Where storms are made, as a path below the hierarchy's mount; ``configured``: storm.parent."""
    if configured != SELF:
        return configured
    own = own_path(root, hierarchy)
    above, name = posixpath.split(own)
    return above if name in _LEAVES else own


def own_path(root: KernelRoot, hierarchy: MemoryHierarchy) -> str:
    """This process' cgroup as a path below the hierarchy's mount; "/" where it can not be told."""
    try:
        own = root.read_own_cgroup()
    except (SourceUnavailable, KernelParseError):
        return "/"
    path = own.unified if hierarchy.version == 2 else own.by_controller.get("memory")
    return hierarchy.below_mount(path or "/")


def make_room(root: KernelRoot, configured: str) -> None:
    """Have this process in a leaf, so that storms can be made beside it. Blocking. Raises StormRejected.

    Does nothing where that is not needed, and where the checks before a storm will say that there can be none.
    """
    if configured != SELF or not root.live:
        return
    try:
        hierarchy = find_memory_hierarchy(root)
    except (SourceUnavailable, KernelParseError):
        return
    parent = hierarchy.directory(parent_path(root, hierarchy, configured))
    # The hierarchy's real root has no type, and may hold processes and children with controllers.
    if hierarchy.version != 2 or not root.exists(f"{parent}/cgroup.type"):
        return
    others = [pid for pid in lifecycle.processes(root.path(parent)) if pid != os.getpid()]
    if others:
        shown = ", ".join(map(str, others[:5]))
        text = f"storm.parent is self, but {parent} holds other processes ({shown}): run the daemon as a service"
        raise StormRejected("not_permitted", text)
    try:
        leaf = root.path(f"{parent}/{LEAF}")
        os.makedirs(leaf, exist_ok=True)
        lifecycle.enter(leaf)
    except OSError as error:
        text = (
            f"storm.parent is self, but the daemon can not make a leaf of its own in {parent}: {error.strerror}. "
            "Have it delegated to the daemon's user and writable: in a unit by Delegate=memory pids and ReadWritePaths="
        )
        raise StormRejected("not_permitted", text) from error
