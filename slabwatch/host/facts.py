"""What does not change while this kernel runs: its release, allocator, cgroups and whether it accounts slab memory."""

from __future__ import annotations

from dataclasses import dataclass

from slabwatch.errors import KernelParseError, SourceUnavailable
from slabwatch.host.hierarchy import find_memory_hierarchy
from slabwatch.host.root import KernelRoot

# The options that the storm's finding depends on, for records and `doctor`.
RELEVANT_OPTIONS = (
    "CONFIG_SLUB",
    "CONFIG_SLAB",
    "CONFIG_SLUB_CPU_PARTIAL",
    "CONFIG_SLUB_DEBUG",
    "CONFIG_SLAB_MERGE_DEFAULT",
    "CONFIG_MEMCG",
    "CONFIG_MEMCG_V1",
    "CONFIG_MEMCG_KMEM",
    "CONFIG_SLUB_MEMCG_SYSFS_ON",
    "CONFIG_CGROUP_PIDS",
    "CONFIG_PSI",
)


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What can not be found out is unknown.

    ``allocator``: slub or slab. ``cgroup_mode``: v1, v2, hybrid or none. ``kmem_accounting``: on or off.
    """

    release: str
    allocator: str
    cgroup_mode: str
    kmem_accounting: str

    def as_dict(self) -> dict[str, str]:
        """For status and metrics."""
        return {
            "release": self.release,
            "allocator": self.allocator,
            "cgroup_mode": self.cgroup_mode,
            "kmem_accounting": self.kmem_accounting,
        }


def read_facts(root: KernelRoot) -> KernelFacts:
    """Never raises: what can not be found out is said to be unknown."""
    try:
        release = root.read_release()
    except SourceUnavailable:
        release = "unknown"
    try:
        mode = find_memory_hierarchy(root).mode
    except (SourceUnavailable, KernelParseError):
        mode = "none"
    return KernelFacts(release, _allocator(root), mode, kmem_accounting(root, mode))


def has_sheaves(root: KernelRoot) -> bool:
    """Whether freed task_structs wait in per-CPU sheaves, which keep them active (some caches in 6.18, all in 7.0)."""
    try:
        return bool(root.read_counter("/sys/kernel/slab/task_struct/sheaf_capacity"))
    except (SourceUnavailable, KernelParseError):
        return False


def relevant_config(root: KernelRoot) -> dict[str, str]:
    """The options that the finding depends on, as far as this kernel tells."""
    try:
        config = root.read_kernel_config()
    except (SourceUnavailable, KernelParseError):
        return {}
    return {option: config[option] for option in RELEVANT_OPTIONS if option in config}


def kmem_accounting(root: KernelRoot, mode: str) -> str:
    """Whether slab objects are charged to cgroups: on, off (``cgroup.memory=nokmem``) or unknown."""
    try:
        options = ",".join(root.read_cmdline().get("cgroup.memory", ())).split(",")
    except (SourceUnavailable, KernelParseError):
        return "unknown"
    if "nokmem" in options or mode == "none":
        return "off"
    config = relevant_config(root)
    # CONFIG_MEMCG_KMEM was folded into CONFIG_MEMCG: commit 3a3b7fec3974 ("mm: remove CONFIG_MEMCG_KMEM") (in v6.11)
    return "off" if config.get("CONFIG_MEMCG_KMEM") == "n" or config.get("CONFIG_MEMCG") == "n" else "on"


def _allocator(root: KernelRoot) -> str:
    # /sys/kernel/slab is SLUB's; the old SLAB and SLOB never had it.
    if root.exists("/sys/kernel/slab"):
        return "slub"
    config = relevant_config(root)
    if config.get("CONFIG_SLUB") == "y":
        return "slub"
    return "slab" if config.get("CONFIG_SLAB") == "y" else "unknown"
