"""Roots made by program, for what the recorded hosts lack: ``build_root(directory, name)``.

Each recipe starts from one of the hosts in tests/golden/bases.py and changes one thing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.golden.bases import (
    CACHES,
    CGROUPS,
    DYING,
    ODD_NAMES,
    UNLIMITED,
    V1_MOUNT,
    V2_MOUNT,
    Charged,
    Files,
    Link,
    cgroup_stat,
    charged_below,
    edit,
    move,
    slab_row,
    slabinfo,
    v1,
    v1_cgroup,
    v2,
    v2_cgroup,
    without,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """``config``: what the daemon's configuration file has to say, for things that are off by default."""

    base: Callable[[], Files]
    change: Callable[[Files], None]
    config: str


RECIPES: dict[str, Recipe] = {}


def recipe(base: Callable[[], Files], config: str = "") -> Callable[[Callable[[Files], None]], Callable[[Files], None]]:
    """Enters a function that changes a base's files into RECIPES, with - for _ in its name."""

    def enter(change: Callable[[Files], None]) -> Callable[[Files], None]:
        RECIPES[change.__name__.strip("_").replace("_", "-")] = Recipe(base, change, config)
        return change

    return enter


def build_root(directory: Path, name: str) -> Path:
    """Makes a recipe's root as a new directory below ``directory``. Raises KeyError for an unknown name."""
    root = directory / name
    files = RECIPES[name].base()
    RECIPES[name].change(files)
    for path, data in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, Link):
            os.symlink(data, os.fsencode(file))
        else:
            file.write_bytes(data)
    root.mkdir(exist_ok=True)
    return root


def config_file(directory: Path, name: str) -> Path | None:
    """Writes a recipe's configuration file, if it has one."""
    if not RECIPES[name].config:
        return None
    path = directory / f"{name}.toml"
    path.write_text(RECIPES[name].config)
    return path


@recipe(v1)
def plain_v1(files: Files) -> None:
    """The base itself."""


@recipe(v2)
def plain_v2(files: Files) -> None:
    """The base itself."""


@recipe(v2)
def nothing_there(files: Files) -> None:
    """A directory that is no root at all."""
    files.clear()


# slabinfo


@recipe(v2)
def cache_names_repeated(files: Files) -> None:
    """Caches made for each device, all with one name, whose slabs are not of one size."""
    files["proc/slabinfo"] += "".join(
        f"{slab_row(*row)}\n"
        for row in (
            ("mlx5_fs_ftes", 30, 256, 16, 1, 2),
            ("kvm_vcpu", 3, 9_152, 3, 8, 1),
            ("mlx5_fs_ftes", 64, 256, 32, 2, 3),
            ("mlx5_fs_ftes", 0, 256, 16, 1, 0),
        )
    ).encode()


@recipe(v1)
def cache_names_with_spaces(files: Files) -> None:
    """As old kernels had them; one with a colon too, and one as long as its column."""
    for name in ("fuse request", "nfs: direct cache", "a-name-of-17-char", "btrfs_delayed_tree_ref_and_more"):
        files["proc/slabinfo"] += f"{slab_row(name, 20, 128, 32, 1, 1)}\n".encode()


@recipe(v1)
def slabinfo_with_statistics(files: Files) -> None:
    """The old SLAB allocator with debugging: tunables that mean something, and more columns."""
    columns = (
        " : globalstat <listallocs> <maxobjs> <grown> <reaped> <error> <maxfreeable> <nodeallocs> <remotefrees>"
        " <alienoverflow> : cpustat <allochit> <allocmiss> <freehit> <freemiss>"
    )
    more = " : globalstat   97216   5720   286    3    0    1    0    0    0 : cpustat 104311   6076  98705    377"
    rows = [slab_row(*cache).replace("tunables    0    0    0", "tunables   54   27    8") + more for cache in CACHES]
    files["proc/slabinfo"] = slabinfo(rows, stat=" (statistics)", columns=columns)
    files["proc/config.gz"] = b"CONFIG_SLAB=y\n# CONFIG_SLUB is not set\nCONFIG_MEMCG=y\nCONFIG_MEMCG_KMEM=y\n"
    without(files, "sys/kernel/slab/")


@recipe(v2)
def slabinfo_bad_lines(files: Files) -> None:
    """One line that is none, one number that is none, and the end cut off: three caches lost, seven kept."""
    good = slab_row("bad", 1, 64, 64, 1, 1)
    files["proc/slabinfo"] += f"\x00\n{good.replace(' 64 ', ' x4 ', 1)}\n{good[:60]}".encode()


@recipe(v2)
def slabinfo_absent(files: Files) -> None:
    """A container whose runtime masks it, or a kernel without it."""
    without(files, "proc/slabinfo")


@recipe(v1)
def pages_of_64_kib(files: Files) -> None:
    """arm64 or ppc64: AT_PAGESZ (6) of the aux vector tells, and v1's unlimited is rounded to it."""
    entries = ((33, 0xFFFF_8000_1000), (16, 0x8FF), (6, 65_536), (17, 100), (3, 0xAAAA_0040), (0, 0))
    files["proc/self/auxv"] = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    rows = [
        ("task_struct", 109, 4_672, 14, 1, 9),
        ("filp", 1_700, 256, 256, 1, 7),
        ("dentry", 5_600, 192, 341, 1, 17),
        ("kmalloc-64k", 8, 65_536, 8, 8, 2),
    ]
    files["proc/slabinfo"] = slabinfo(slab_row(*row) for row in rows)
    for path in CGROUPS:
        for name in ("memory.kmem.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"):
            edited = files[f"{V1_MOUNT}{path}/{name}"].replace(b"%d" % UNLIMITED, b"%d" % 0x7FFF_FFFF_FFFF_0000)
            files[f"{V1_MOUNT}{path}/{name}"] = edited


@recipe(v2, '[caches]\nmax_count = 3\nexclude = ["kmalloc-*"]\n')
def more_caches_than_series(files: Files) -> None:
    """The largest of those that are wanted, and the rest's sum. What no cache explains is still told of all."""


@recipe(v2)
def many_open_files(files: Files) -> None:
    """So many that file-nr, an approximate counter, is exact enough whatever number of CPUs there is."""
    files["proc/sys/fs/file-nr"] = b"40000000\t0\t2147483647\n"
    files["proc/slabinfo"] = slabinfo([slab_row("filp", 40_010_000, 256, 16, 1, 2_501_000)])
    edit(files, "proc/meminfo", b"MemTotal:        2028468 kB", b"MemTotal:       16028468 kB")
    edit(files, "proc/meminfo", b"Slab:              10240 kB", b"Slab:           10014240 kB")
    edit(files, "proc/meminfo", b"SUnreclaim:         3936 kB", b"SUnreclaim:     10007936 kB")


@recipe(v2, "[collectors]\nslab_sysfs = true\n")
def numa(files: Files) -> None:
    """Two nodes: sysfs gives each count by node as well, slabinfo the sum as ever. One cache has two names."""
    for name, _, _, _, _, slabs in CACHES:
        here = slabs * 5 // 8
        files[f"sys/kernel/slab/{name}/slabs"] = b"%d N0=%d N1=%d\n" % (slabs, here, slabs - here)
    move(files, "sys/kernel/slab/filp", "sys/kernel/slab/:A-0000256")
    files["sys/kernel/slab/filp"] = files["sys/kernel/slab/cred_jar"] = Link(b":A-0000256")


# meminfo


@recipe(v2)
def meminfo_unknown_keys(files: Files) -> None:
    """Keys of a kernel to come: named by the same rule, in kB or counts, and a unit that is not known yet."""
    files["proc/meminfo"] += (
        b"Slab_Sheaves:       312 kB\nTieredMemory(cxl):    77 kB\nPages-In-Flight:    5\nFarMemory:     3 MB\n"
    )


# cgroups


@recipe(v1)
def nokmem(files: Files) -> None:
    """Accounting of kernel memory turned off: every figure reads 0, and that must not pass for a finding."""
    edit(files, "proc/cmdline", b" quiet\n", b" quiet cgroup.memory=nosocket,nokmem\n")
    for path in CGROUPS:
        for name in ("usage_in_bytes", "max_usage_in_bytes", "tcp.usage_in_bytes"):
            files[f"{V1_MOUNT}{path}/memory.kmem.{name}"] = b"0\n"


@recipe(v2)
def no_memory_row(files: Files) -> None:
    """CONFIG_MEMCG_V1 off (6.11), or about 6.16: /proc/cgroups does not name the controller."""
    edit(files, "proc/cgroups", b"memory\t0\t5\t1\n", b"")
    files["proc/config.gz"] = b"CONFIG_SLUB=y\nCONFIG_MEMCG=y\n# CONFIG_MEMCG_V1 is not set\n"


@recipe(v1)
def no_memory_row_v1(files: Files) -> None:
    """Where nothing counts the dying ones, nothing is said about them."""
    edit(files, "proc/cgroups", b"memory\t5\t7\t1\n", b"pids\t6\t5\t1\n")


@recipe(v2)
def v2_before_5_18(files: Files) -> None:
    """memory.stat without a total, no memory.peak, and a cgroup.stat of two lines."""
    for path in CGROUPS:
        charged = charged_below(path)
        edit(files, f"{V2_MOUNT}{path}/memory.stat", b"kernel %d\n" % charged.kernel, b"")
        edit(files, f"{V2_MOUNT}{path}/memory.stat", b"sec_pagetables 0\n", b"")
        edit(files, f"{V2_MOUNT}{path}/memory.stat", b"vmalloc 0\n", b"")
        files.pop(f"{V2_MOUNT}{path}/memory.peak", None)
    files[f"{V2_MOUNT}/cgroup.stat"] = b"nr_descendants 4\nnr_dying_descendants 2\n"


@recipe(v2)
def v2_cgroup_without_memory(files: Files) -> None:
    """A cgroup for which the controller is not enabled: it is there, with no figure of its own."""
    files[f"{V2_MOUNT}/zz.slice/cgroup.controllers"] = b"pids\n"
    files[f"{V2_MOUNT}/zz.slice/cgroup.events"] = b"populated 1\nfrozen 0\n"
    edit(files, f"{V2_MOUNT}/cgroup.stat", b"nr_descendants 4\n", b"nr_descendants 5\n")


@recipe(v2)
def v2_first_cgroup_without_memory(files: Files) -> None:
    """The same for the one that a walk comes to first: the others' figures do not hang on it."""
    without(files, f"{V2_MOUNT}/old.slice/memory.")
    files[f"{V2_MOUNT}/old.slice/cgroup.controllers"] = b"pids\n"
    edit(files, f"{V2_MOUNT}/cgroup.stat", b"nr_subsys_memory 5\n", b"nr_subsys_memory 4\n")


@recipe(v2)
def v2_memory_in_root_alone(files: Files) -> None:
    """Not handed down to any cgroup: the root's memory.stat is there all the same."""
    for path in filter(None, CGROUPS):
        without(files, f"{V2_MOUNT}{path}/memory.")
    files[f"{V2_MOUNT}/cgroup.stat"] = cgroup_stat(len(CGROUPS) - 1, 0)


@recipe(v2)
def odd_cgroup_names(files: Files) -> None:
    """Any byte but / and NUL. Each with a child, so that the name is in the middle of a path too."""
    for number, name in enumerate(ODD_NAMES, 1):
        directory = f"{V2_MOUNT}/{os.fsdecode(name)}"
        v2_cgroup(files, directory, Charged(0, 4_096 * number, 0, 0, 0, 0, 0, 1))
        v2_cgroup(files, f"{directory}/leaf", Charged(0, 2_048 * number, 0, 0, 0, 0, 0, 1))


@recipe(v2)
def cgroup_names_spelled_alike(files: Files) -> None:
    r"""The byte ff and the four characters \xff: two cgroups, and so two series."""
    for number, name in enumerate((b"\xff", b"\\xff"), 1):
        v2_cgroup(files, f"{V2_MOUNT}/{os.fsdecode(name)}", Charged(0, 4_096 * number, 0, 0, 0, 0, 0, 1))


@recipe(v1)
def odd_mount_point(files: Files) -> None:
    """mountinfo escapes space, tab and backslash by their octal numbers."""
    move(files, V1_MOUNT, "mnt/odd path\tx\\y")
    edit(files, "proc/self/mountinfo", b" /sys/fs/cgroup/memory ", rb" /mnt/odd\040path\011x\134y ")


@recipe(v1)
def container_v1(files: Files) -> None:
    """Only a part of the hierarchy is mounted; /proc/cgroups still counts the whole host's cgroups."""
    edit(files, "proc/self/mountinfo", b" / /sys/fs/cgroup/memory ", b" /docker/abc /sys/fs/cgroup/memory ")
    edit(files, "proc/self/cgroup", b"memory:/app.slice/web.service", b"memory:/docker/abc/app.slice/web.service")
    namespace_v1(files)


@recipe(v1)
def namespace_v1(files: Files) -> None:
    """A cgroup namespace: the part that is seen calls itself the root, and lacks what only the true one has."""
    without(files, f"{V1_MOUNT}/release_agent")
    edit(files, "proc/cgroups", b"\t7\t", b"\t350\t")


@recipe(v2)
def container_v2(files: Files) -> None:
    """A cgroup namespace: what is seen as the root is a cgroup like any other, and the mount's root is the host's."""
    v2_cgroup(files, V2_MOUNT, charged_below(""))
    files[f"{V2_MOUNT}/cgroup.stat"] = cgroup_stat(len(CGROUPS) - 1, DYING)
    edit(files, "proc/self/mountinfo", b" / /sys/fs/cgroup ", b" /../../.. /sys/fs/cgroup ")


@recipe(v2)
def memory_in_v2_beside_v1(files: Files) -> None:
    """Hybrid the other way round: v1 has another controller, v2 has memory."""
    move(files, V2_MOUNT, "sys/fs/cgroup/unified")
    files["proc/self/mountinfo"] = (
        b"25 20 0:22 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n"
        b"26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw\n"
        b"27 25 0:24 / /sys/fs/cgroup/net_cls rw,nosuid shared:11 - cgroup cgroup rw,net_cls\n"
    )


@recipe(v2)
def no_cgroup_hierarchy(files: Files) -> None:
    """Nothing mounted: the other collectors do not mind."""
    edit(files, "proc/self/mountinfo", files["proc/self/mountinfo"].splitlines(keepends=True)[1], b"")
    files["proc/self/cgroup"] = b""
    without(files, V2_MOUNT)


@recipe(v1, "[collectors]\ncgroup_slabinfo = true\n")
def cgroup_slabinfo_empty(files: Files) -> None:
    """From 5.9 on memory.kmem.slabinfo is there and empty: presence is not support."""


@recipe(v1, "[collectors]\ncgroup_slabinfo = true\n")
def cgroup_slabinfo_with_rows(files: Files) -> None:
    """Before 5.9 each cgroup has caches of its own; one without any has the two head lines alone."""
    for path in CGROUPS:
        files[f"{V1_MOUNT}{path}/memory.kmem.slabinfo"] = slabinfo([])
    for path, factor in (("/app.slice/web.service", 2), ("/old.slice", 1)):
        rows = [("task_struct", 3 * factor, 4_544, 7, 8, factor), ("dentry", 40 * factor, 192, 21, 1, 2 * factor)]
        files[f"{V1_MOUNT}{path}/memory.kmem.slabinfo"] = slabinfo(slab_row(*row) for row in rows)
    edit(files, "proc/sys/kernel/osrelease", b"5.10.0-32-amd64", b"5.4.0-190-generic")


@recipe(v1, "[collectors]\ncgroup_slabinfo = true\n")
def cgroup_slabinfo_without_objects(files: Files) -> None:
    """Caches that a cgroup had and uses no more have rows of zeros: no series, and so no family."""
    files[f"{V1_MOUNT}/old.slice/memory.kmem.slabinfo"] = slabinfo([slab_row("dentry", 0, 192, 21, 1, 0)])


@recipe(v1, "[collectors]\ncgroup_slabinfo = true\n")
def cgroup_slabinfo_spelled_alike(files: Files) -> None:
    r"""The byte ff and the four characters \xff again, with caches of their own."""
    for number, name in enumerate((b"\xff", b"\\xff"), 1):
        directory = f"{V1_MOUNT}/{os.fsdecode(name)}"
        v1_cgroup(files, directory, Charged(0, 4_096 * number, 0, 0, 0, 0, 0, 1), 1)
        files[f"{directory}/memory.kmem.slabinfo"] = slabinfo([slab_row("dentry", number, 192, 21, 1, number)])


@recipe(v1, "[collectors]\ncgroup_slabinfo = true\n")
def storms(files: Files) -> None:
    """A running storm and the remains of another: told as one series each, whatever their names; all are counted."""
    for storm, cgroups in (("20261124-0a1b", 3), ("20261123-ffee", 1)):
        at = f"{V1_MOUNT}/slabwatch-storm-{storm}"
        one = Charged(8_192, 65_536, 16_384, 8_192, 0, 0, 131_072, 10)
        v1_cgroup(files, at, sum([one] * cgroups, Charged(0, 0, 0, 0, 0, 0, 0, 0)), 0)
        files[f"{at}/memory.kmem.slabinfo"] = slabinfo([slab_row("task_struct", 7, 4_544, 7, 8, cgroups)])
        for number in range(cgroups):
            v1_cgroup(files, f"{at}/c{number:04}", one, 10)
    edit(files, "proc/cgroups", b"\t7\t", b"\t13\t")


@recipe(v1, "[cgroups]\npopulated_v1 = true\n")
def populated_v1(files: Files) -> None:
    """v1 tells of each cgroup's own tasks only; the figure means in it or below it, as on v2."""


@recipe(v2, "[cgroups]\nmax_count = 2\n")
def more_cgroups_than_series(files: Files) -> None:
    """Beyond the cap the figures are summed in one series, so that nothing is lost."""
    for number in range(6):
        charged = Charged(4_096, 16_384 * (number + 1), 0, 8_192, 0, 0, 65_536, number % 2)
        v2_cgroup(files, f"{V2_MOUNT}/user-{number}.slice", charged)
    files[f"{V2_MOUNT}/cgroup.stat"] = cgroup_stat(len(CGROUPS) + 5, DYING)


@recipe(v2, "[cgroups]\nmax_depth = 1\n")
def deeper_than_read(files: Files) -> None:
    """What is below is counted, and in its ancestors' figures."""


@recipe(v2, '[cgroups]\nexclude = ["/app.slice/*"]\n')
def cgroups_excluded(files: Files) -> None:
    """Some are not wanted: they are counted, and not in __other__."""
