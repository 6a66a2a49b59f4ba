"""The small consistent hosts that the made roots start from: v1 (as on 5.10) and v2 (as on 6.12).

The files' forms are those of the kernel's sources (mm/slab_common.c, fs/proc/meminfo.c, mm/memcontrol.c); the figures
are invented, and agree with each other: a parent's are those of its children and its own, Slab is more than the caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Path below the root -> content. Bytes of a path that are not UTF-8 are surrogates, as os.fsdecode makes them.
Files = dict[str, bytes]


class Link(bytes):
    """In place of a content: a symbolic link to this."""


V1_MOUNT = "sys/fs/cgroup/memory"
V2_MOUNT = "sys/fs/cgroup"
UNLIMITED = 0x7FFF_FFFF_FFFF_F000


@dataclass(frozen=True, slots=True)
class Charged:
    """What one cgroup's own tasks were charged for; bytes."""

    slab_reclaimable: int
    slab_unreclaimable: int
    kernel_stack: int
    pagetables: int
    percpu: int
    sock: int
    anon: int
    tasks: int

    def __add__(self, other: Charged) -> Charged:
        return Charged(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def slab(self) -> int:
        return self.slab_reclaimable + self.slab_unreclaimable

    @property
    def kernel(self) -> int:
        """As the kernel counts it: without the buffers of sockets."""
        return self.slab + self.kernel_stack + self.pagetables + self.percpu

    @property
    def all(self) -> int:
        return self.kernel + self.sock + self.anon


NOTHING = Charged(0, 0, 0, 0, 0, 0, 0, 0)
# The last one's tasks have gone, and slab memory has stayed.
CGROUPS: Mapping[str, Charged] = {
    "": Charged(40_960, 131_072, 65_536, 57_344, 8_192, 0, 4_194_304, 4),
    "/app.slice": NOTHING,
    "/app.slice/db.service": Charged(262_144, 524_288, 131_072, 98_304, 12_288, 4_096, 33_554_432, 8),
    "/app.slice/web.service": Charged(163_840, 393_216, 98_304, 81_920, 12_288, 16_384, 16_777_216, 6),
    "/old.slice": Charged(8_192, 204_800, 0, 0, 4_096, 0, 0, 0),
}
DYING = 2

# Directory names as bytes allow them, and how each must come out as a label value (before escaping).
ODD_NAMES = {
    b"line\nbreak": "line\nbreak",
    b'quo"ted': 'quo"ted',
    b"dev-disk\\x2dby.swap": "dev-disk\\x2dby.swap",
    b"ends-in-backslash\\": "ends-in-backslash\\",
    b"latin-\xe9": "latin-\\xe9",
    b"\xff": "\\xff",
    "\u00fcn\u00efcode \u2603".encode(): "\u00fcn\u00efcode \u2603",
    b"cut-utf8-\xe2\x98": "cut-utf8-\\xe2\\x98",
    b'{a="b"} 1 # \t': '{a="b"} 1 # \t',
    b"\xed\xa0\x80": "\\xed\\xa0\\x80",
}

CGROUPS_HEADER = b"#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
SLAB_HEADER = (
    "slabinfo - version: 2.1{stat}\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> "
    ": tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>{columns}\n"
)
# Name, active objects, object size, objects per slab, pages per slab, slabs.
CACHES = (
    ("ext4_inode_cache", 1_290, 1_176, 27, 8, 50),
    ("task_struct", 109, 4_544, 7, 8, 16),
    ("filp", 1_760, 256, 16, 1, 116),
    ("inode_cache", 3_300, 632, 25, 4, 133),
    ("dentry", 5_600, 192, 21, 1, 270),
    ("kmalloc-1k", 432, 1_024, 16, 4, 28),
    ("kmalloc-64", 2_112, 64, 64, 1, 33),
)
MEMINFO = """\
MemTotal:        2028468 kB
MemFree:         1651028 kB
MemAvailable:    1743240 kB
Buffers:            8964 kB
Cached:           192420 kB
Active(anon):      53264 kB
KReclaimable:       6304 kB
Slab:              10240 kB
SReclaimable:       6304 kB
SUnreclaim:         3936 kB
KernelStack:        1504 kB
PageTables:         1204 kB
Committed_AS:     214380 kB
VmallocTotal:   34359738367 kB
HugePages_Total:       4
Hugepagesize:       2048 kB
DirectMap4k:       79744 kB
"""


def slab_row(name: str, active: int, size: int, per_slab: int, pages: int, slabs: int) -> str:
    """One line of slabinfo, without its end."""
    return (
        f"{name:<17} {active:6} {slabs * per_slab:6} {size:6} {per_slab:4} {pages:4} "
        f": tunables {0:4} {0:4} {0:4} : slabdata {slabs:6} {slabs:6} {0:6}"
    )


def slabinfo(rows: Iterable[str], *, stat: str = "", columns: str = "") -> bytes:
    """A whole file of such lines."""
    return (SLAB_HEADER.format(stat=stat, columns=columns) + "".join(f"{row}\n" for row in rows)).encode()


def host(release: str) -> Files:
    """What both hosts have: everything but cgroups."""
    files = {
        "proc/slabinfo": slabinfo(slab_row(*cache) for cache in CACHES),
        "proc/meminfo": MEMINFO.encode(),
        "proc/loadavg": b"0.08 0.02 0.01 1/98 702\n",
        "proc/stat": b"cpu  9 0 9 9 0\ncpu0 5 0 5 5 0\ncpu1 4 0 4 4 0\nbtime 1795419545\nprocesses 1702\n",
        # So few that this approximate counter says nothing, on one CPU or on many.
        "proc/sys/fs/file-nr": b"601\t0\t199021\n",
        "proc/sys/fs/dentry-state": b"5561\t3814\t45\t0\t1102\t0\n",
        "proc/sys/kernel/osrelease": f"{release}\n".encode(),
        "proc/cmdline": b"BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro quiet\n",
        "proc/config.gz": b"CONFIG_SLUB=y\n# CONFIG_SLAB is not set\nCONFIG_MEMCG=y\nCONFIG_MEMCG_KMEM=y\n",
    }
    for pid in (1, 2, 700):
        files[f"proc/{pid}/stat"] = b""
    for name, _, size, per_slab, pages, slabs in CACHES:
        at = f"sys/kernel/slab/{name}"
        files |= {
            f"{at}/object_size": b"%d\n" % size,
            f"{at}/objs_per_slab": b"%d\n" % per_slab,
            f"{at}/order": b"%d\n" % (pages.bit_length() - 1),
            f"{at}/slabs": b"%d\n" % slabs,
            f"{at}/reclaim_account": b"%d\n" % ("inode" in name or name == "dentry"),
        }
    return files


def charged_below(path: str) -> Charged:
    """A cgroup's figures as the kernel gives them: with those of its descendants."""
    return sum((own for below, own in CGROUPS.items() if below == path or below.startswith(f"{path}/")), NOTHING)


def v1() -> Files:
    """A hybrid host: the memory controller in v1, and a v2 hierarchy without it."""
    files = host("5.10.0-32-amd64")
    files["proc/self/mountinfo"] = (
        b"25 20 0:22 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n"
        b"26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw\n"
        b"27 25 0:24 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory\n"
    )
    files["proc/self/cgroup"] = b"5:memory:/app.slice/web.service\n0::/\n"
    files["proc/cgroups"] = CGROUPS_HEADER + b"memory\t5\t%d\t1\n" % (len(CGROUPS) + DYING)
    files[f"{V1_MOUNT}/release_agent"] = b"\n"
    for path in CGROUPS:
        v1_cgroup(files, V1_MOUNT + path, charged_below(path), CGROUPS[path].tasks)
    limited = V1_MOUNT + "/app.slice/web.service"
    files[f"{limited}/memory.kmem.limit_in_bytes"] = b"67108864\n"
    files[f"{limited}/memory.kmem.failcnt"] = b"17\n"
    return files


def v1_cgroup(files: Files, directory: str, charged: Charged, own_tasks: int) -> None:
    """One directory of the memory hierarchy."""
    numbers = {
        "memory.kmem.usage_in_bytes": charged.kernel,
        "memory.kmem.max_usage_in_bytes": charged.kernel + 524_288,
        "memory.kmem.failcnt": 0,
        "memory.kmem.limit_in_bytes": UNLIMITED,
        "memory.kmem.tcp.usage_in_bytes": charged.sock,
        "memory.kmem.tcp.limit_in_bytes": UNLIMITED,
        "memory.usage_in_bytes": charged.all,
        "memory.max_usage_in_bytes": charged.all + 1_048_576,
    }
    for name, value in numbers.items():
        files[f"{directory}/{name}"] = b"%d\n" % value
    files[f"{directory}/memory.stat"] = b"cache 0\nrss %d\n" % charged.anon
    files[f"{directory}/memory.kmem.slabinfo"] = b""
    files[f"{directory}/cgroup.procs"] = b"".join(b"%d\n" % (700 + task) for task in range(own_tasks))


def v2() -> Files:
    """A host with the unified hierarchy alone."""
    files = host("6.12.0-amd64")
    files["proc/self/mountinfo"] = (
        b"24 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        b"30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
    )
    files["proc/self/cgroup"] = b"0::/app.slice/web.service\n"
    files["proc/cgroups"] = CGROUPS_HEADER + b"memory\t0\t%d\t1\npids\t0\t%d\t1\n" % (len(CGROUPS), len(CGROUPS))
    for path in CGROUPS:
        v2_cgroup(files, V2_MOUNT + path, charged_below(path))
    # The root has fewer files: no events, no limits and none of the usage counters.
    for name in ("cgroup.events", "memory.current", "memory.peak"):
        del files[f"{V2_MOUNT}/{name}"]
    files[f"{V2_MOUNT}/cgroup.stat"] = cgroup_stat(len(CGROUPS) - 1, DYING)
    return files


def v2_cgroup(files: Files, directory: str, charged: Charged) -> None:
    """One directory with the memory controller."""
    stat = {
        "anon": charged.anon,
        "file": 0,
        "kernel": charged.kernel,
        "kernel_stack": charged.kernel_stack,
        "pagetables": charged.pagetables,
        "sec_pagetables": 0,
        "percpu": charged.percpu,
        "sock": charged.sock,
        "vmalloc": 0,
        "slab_reclaimable": charged.slab_reclaimable,
        "slab_unreclaimable": charged.slab_unreclaimable,
        "slab": charged.slab,
        "pgfault": 1_234,
    }
    files[f"{directory}/memory.stat"] = b"".join(b"%b %d\n" % (key.encode(), value) for key, value in stat.items())
    files[f"{directory}/memory.current"] = b"%d\n" % charged.all
    files[f"{directory}/memory.peak"] = b"%d\n" % (charged.all + 1_048_576)
    files[f"{directory}/cgroup.events"] = b"populated %d\nfrozen 0\n" % (charged.tasks > 0)
    files[f"{directory}/cgroup.controllers"] = b"memory pids\n"
    files[f"{directory}/cgroup.stat"] = cgroup_stat(0, 0)


def cgroup_stat(descendants: int, dying: int) -> bytes:
    """With the lines by controller that 6.12 has; the count of living ones includes the cgroup itself."""
    return (
        b"nr_descendants %d\nnr_subsys_memory %d\nnr_subsys_pids %d\n"
        b"nr_dying_descendants %d\nnr_dying_subsys_memory %d\nnr_dying_subsys_pids 0\n"
    ) % (descendants, descendants + 1, descendants + 1, dying, dying)


def edit(files: Files, path: str, old: bytes, new: bytes) -> None:
    """Replace a text that must be there once."""
    assert files[path].count(old) == 1, (path, old)
    files[path] = files[path].replace(old, new)


def move(files: Files, old: str, new: str) -> None:
    """Rename a directory."""
    for path in [path for path in files if path.startswith(f"{old}/")]:
        files[new + path.removeprefix(old)] = files.pop(path)


def without(files: Files, prefix: str) -> None:
    """Remove what begins so."""
    found = [path for path in files if path.startswith(prefix)]
    assert found, prefix
    for path in found:
        del files[path]
