"""Kernel files below a root, read by the shortest means: every series that slabwatch should have, worked out once more.

Nothing of slabwatch is imported here, and nothing of pytest: the virtual machines' guests use it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

Series = tuple[str, tuple[tuple[str, str], ...]]

V1_MOUNT, V2_MOUNT = "sys/fs/cgroup/memory", "sys/fs/cgroup"
UNLIMITED = 0x7FFF_FFFF_FFFF_0000  # for pages of 64 KiB and less

# Names that dashboards and alerts rely on: a change here is a breaking one.
MEMINFO_NAMES = dict(
    line.split()
    for line in """\
MemTotal mem_total_bytes
MemFree mem_free_bytes
MemAvailable mem_available_bytes
Buffers buffers_bytes
Cached cached_bytes
SwapCached swap_cached_bytes
Active active_bytes
Inactive inactive_bytes
Active(anon) active_anon_bytes
Inactive(anon) inactive_anon_bytes
Active(file) active_file_bytes
Inactive(file) inactive_file_bytes
Unevictable unevictable_bytes
Mlocked mlocked_bytes
SwapTotal swap_total_bytes
SwapFree swap_free_bytes
Zswap zswap_bytes
Zswapped zswapped_bytes
Dirty dirty_bytes
Writeback writeback_bytes
AnonPages anon_pages_bytes
Mapped mapped_bytes
Shmem shmem_bytes
KReclaimable kreclaimable_bytes
Slab slab_bytes
SReclaimable sreclaimable_bytes
SUnreclaim sunreclaim_bytes
KernelStack kernel_stack_bytes
PageTables page_tables_bytes
SecPageTables secpage_tables_bytes
NFS_Unstable nfs_unstable_bytes
Bounce bounce_bytes
WritebackTmp writeback_tmp_bytes
CommitLimit commit_limit_bytes
Committed_AS committed_as_bytes
VmallocTotal vmalloc_total_bytes
VmallocUsed vmalloc_used_bytes
VmallocChunk vmalloc_chunk_bytes
Percpu percpu_bytes
HardwareCorrupted hardware_corrupted_bytes
AnonHugePages anon_huge_pages_bytes
ShmemHugePages shmem_huge_pages_bytes
ShmemPmdMapped shmem_pmd_mapped_bytes
FileHugePages file_huge_pages_bytes
FilePmdMapped file_pmd_mapped_bytes
CmaTotal cma_total_bytes
CmaFree cma_free_bytes
Unaccepted unaccepted_bytes
Balloon balloon_bytes
GPUActive gpuactive_bytes
GPUReclaim gpureclaim_bytes
HugePages_Total huge_pages
HugePages_Free huge_pages_free
HugePages_Rsvd huge_pages_rsvd
HugePages_Surp huge_pages_surp
Hugepagesize hugepagesize_bytes
Hugetlb hugetlb_bytes
DirectMap4k direct_map4k_bytes
DirectMap2M direct_map2m_bytes
""".splitlines()
)
V1_FILES = {
    "kernel_bytes": "memory.kmem.usage_in_bytes",
    "kernel_max_bytes": "memory.kmem.max_usage_in_bytes",
    "kernel_limit_bytes": "memory.kmem.limit_in_bytes",
    "kernel_failures_total": "memory.kmem.failcnt",
    "tcp_buffer_bytes": "memory.kmem.tcp.usage_in_bytes",
    "memory_bytes": "memory.usage_in_bytes",
    "memory_max_usage_bytes": "memory.max_usage_in_bytes",
}
V2_FILES = {"memory_bytes": "memory.current", "memory_max_usage_bytes": "memory.peak"}
V2_STAT = {
    "slab_reclaimable_bytes": "slab_reclaimable",
    "slab_unreclaimable_bytes": "slab_unreclaimable",
    "kernel_stack_bytes": "kernel_stack",
    "pagetables_bytes": "pagetables",
    "percpu_bytes": "percpu",
    "sock_bytes": "sock",
    "vmalloc_bytes": "vmalloc",
}
KERNEL_PARTS = ("slab", "kernel_stack", "pagetables", "percpu", "sock", "vmalloc")


def key(name: str, **labels: str) -> Series:
    """One series, by its name without the prefix."""
    return f"slabwatch_{name}", tuple(sorted(labels.items()))


def expected_series(root: Path) -> dict[Series, float]:
    """All of them; none is worked out twice."""
    expected: dict[Series, float] = {}
    for part in (slab_series, meminfo_series, host_series, cgroup_series):
        for series, value in part(root):
            assert series not in expected, series
            expected[series] = value
    return expected


def number(file: Path) -> int:
    return int(file.read_text())


def pairs(file: Path) -> dict[str, int]:
    return {words[0]: int(words[1]) for line in file.read_text().splitlines() if (words := line.split())}


def kib(root: Path, name: str) -> int:
    found = re.search(rf"^{name}: +(\d+) kB$", (root / "proc/meminfo").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def slab_series(root: Path) -> Iterator[tuple[Series, float]]:
    """awk 'NR > 2 { print $1, $2, $3, $4, $5, $6, $14, $15, $15 * $6 * 4096 }' proc/slabinfo"""
    total = 0
    caches = set()
    for line in (root / "proc/slabinfo").read_text().splitlines()[2:]:
        words = line.split()
        cache, active, objects, size, per_slab, pages = words[0], *map(int, words[1:6])
        active_slabs, slabs = int(words[13]), int(words[14])
        caches.add(cache)
        total += slabs * pages * 4096
        yield key("slab_active_objects", cache=cache), active
        yield key("slab_objects", cache=cache), objects
        yield key("slab_object_size_bytes", cache=cache), size
        yield key("slab_objects_per_slab", cache=cache), per_slab
        yield key("slab_pages_per_slab", cache=cache), pages
        yield key("slab_active_slabs", cache=cache), active_slabs
        yield key("slab_slabs", cache=cache), slabs
        yield key("slab_size_bytes", cache=cache), slabs * pages * 4096
    yield key("slab_unattributed_bytes"), kib(root, "Slab") - total
    # file-nr is no more than 27 on these hosts, an approximate counter that says nothing then: no series for filp.
    assert caches >= {"task_struct", "dentry"}
    yield key("slab_expected_objects", cache="task_struct"), threads(root)
    yield key("slab_expected_objects", cache="dentry"), int((root / "proc/sys/fs/dentry-state").read_text().split()[0])


def meminfo_series(root: Path) -> Iterator[tuple[Series, float]]:
    """awk '{ print $1, $3 == "kB" ? $2 * 1024 : $2 }' proc/meminfo"""
    for line in (root / "proc/meminfo").read_text().splitlines():
        words = line.replace(":", "").split()
        factor = 1024 if words[2:] == ["kB"] else 1
        yield key(f"meminfo_{MEMINFO_NAMES[words[0]]}"), int(words[1]) * factor


def threads(root: Path) -> int:
    return int((root / "proc/loadavg").read_text().split()[3].split("/")[1])


def host_series(root: Path) -> Iterator[tuple[Series, float]]:
    processes = sum(path.name.isdigit() for path in (root / "proc").iterdir())
    if processes:
        yield key("processes"), processes
    yield key("threads"), threads(root)
    yield key("forks_total"), pairs_of_stat(root)["processes"]


def pairs_of_stat(root: Path) -> dict[str, int]:
    found = re.findall(r"^(\w+) (\d+)$", (root / "proc/stat").read_text(), re.MULTILINE)
    return {name: int(value) for name, value in found}


def cgroup_series(root: Path) -> Iterator[tuple[Series, float]]:
    """find sys/fs/cgroup/memory -name memory.kmem.usage_in_bytes, and so on; or memory.stat of each for v2."""
    is_v1 = (root / V1_MOUNT).is_dir()
    mount = root / (V1_MOUNT if is_v1 else V2_MOUNT)
    directories = [mount, *(path for path in mount.rglob("*") if path.is_dir())]
    for directory in directories:
        cgroup = "/" + "/".join(directory.relative_to(mount).parts)
        for column, name in (V1_FILES if is_v1 else V2_FILES).items():
            if (directory / name).exists() and (value := number(directory / name)) < UNLIMITED:
                yield key(f"cgroup_{column}", cgroup=cgroup), value
        if not is_v1 and (directory / "memory.stat").exists():  # memory may not be handed down to it
            stat = pairs(directory / "memory.stat")
            for column, name in V2_STAT.items():
                if name in stat:
                    yield key(f"cgroup_{column}", cgroup=cgroup), stat[name]
            yield key("cgroup_kernel_bytes", cgroup=cgroup), kernel_bytes(directory)
        if not is_v1 and (directory / "cgroup.events").exists():
            yield key("cgroup_populated", cgroup=cgroup), pairs(directory / "cgroup.events")["populated"]
    yield key("cgroups"), len(directories)
    yield key("cgroups_omitted"), 0
    if is_v1:
        counted = re.search(r"^memory\t\d+\t(\d+)\t1$", (root / "proc/cgroups").read_text(), re.MULTILINE)
        assert counted
        # Of a storm's 50 cgroups three were recorded, so that this counts the others as dying in some states.
        yield key("cgroups_dying"), int(counted[1]) - len(directories)
    else:
        yield key("cgroups_dying"), pairs(mount / "cgroup.stat")["nr_dying_descendants"]
        # Told by nobody where the root is all that there is.
        if any((directory / "cgroup.events").exists() for directory in directories):
            yield key("cgroups_unpopulated_kernel_bytes"), unpopulated_kernel_bytes(mount)


def kernel_bytes(directory: Path) -> int:
    """memory.stat of a cgroup v2."""
    stat = pairs(directory / "memory.stat")
    return stat["kernel"] if "kernel" in stat else sum(stat.get(part, 0) for part in KERNEL_PARTS)


def unpopulated_kernel_bytes(directory: Path) -> int:
    """From the top down: an empty cgroup's figure has those of its descendants in it."""
    events = directory / "cgroup.events"
    if events.exists() and "populated 0" in events.read_text():
        return kernel_bytes(directory) if (directory / "memory.stat").exists() else 0
    return sum(unpopulated_kernel_bytes(path) for path in directory.iterdir() if path.is_dir())
