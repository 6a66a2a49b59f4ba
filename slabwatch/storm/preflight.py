"""Before a storm: what it will need, against what this host has. Nothing is created here.

Each check carries its figure and its limit, for the refusal and for ``--dry-run``. The forecasts err on the side of
too much: per task what was measured on 6.18 (task_struct, 16 KiB stack, and for tasks with a memory map of their
own its page tables and VMAs), per cgroup its structures and per-CPU counters, and on kernels with caches for each
cgroup the 0.5 MiB that a storm was seen to leave there.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from slabwatch.errors import KernelParseError, SourceUnavailable, StormRejected
from slabwatch.host.hierarchy import MemoryHierarchy, find_memory_hierarchy, find_pids_hierarchy
from slabwatch.host.memory_cgroups import MemoryCgroups
from slabwatch.host.root import KernelRoot
from slabwatch.host.shrink import can_shrink
from slabwatch.kernel.cgroup_stat import parse_cgroup_stat
from slabwatch.storm import place
from slabwatch.storm.plan import Plan
from slabwatch.storm.setup import PRESSURE_BYTES

KIB, MIB = 1024, 1024 * 1024

TASK_BYTES = {"light": 40 * KIB, "fork": 160 * KIB, "exec": 400 * KIB, "shell": 1200 * KIB}
CGROUP_BYTES = 64 * KIB
CGROUP_BYTES_PER_CPU = 4 * KIB
RESIDUE_BYTES = 512 * KIB  # a cgroup on kernels that keep slab caches for each cgroup (before 5.9)
MOST_DEPTH = 64
MAX_MEMCG_IDS = 65_535  # MEM_CGROUP_ID_MAX in mm/memcontrol.c
SPARE_PIDS = 512  # left to everybody else
# Of MemTotal, from the guard's floor to that of memory pressure on the host, which must not set off the guard.
PRESSURE_MARGIN_RATIO = 0.02


@dataclass(frozen=True, slots=True)
class Check:
    """``figure`` is what the storm needs, ``limit`` what there is; ``code`` is the refusal's when it is not ok."""

    name: str
    ok: bool
    code: str
    text: str
    figure: int | None = None
    limit: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the control API."""
        return {
            "name": self.name,
            "ok": self.ok,
            "code": self.code,
            "figure": self.figure,
            "limit": self.limit,
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class Forecast:
    """The checks, and where the storm would take place (None when there is no hierarchy)."""

    checks: tuple[Check, ...]
    hierarchy: MemoryHierarchy | None
    parent: str  # kernel path of the parent's directory
    home: str  # and of this process' own cgroup
    memory_bytes: int
    pids_parent: str = ""  # kernel path of the parent in the pids controller's hierarchy; "": none
    pressure_floor_bytes: int = 0  # of MemAvailable, for memory pressure on the host

    def refuse(self) -> None:
        """Raise StormRejected for the first check that failed, with the texts of all that did."""
        failed = [check for check in self.checks if not check.ok]
        if failed:
            first = failed[0]
            raise StormRejected(
                first.code, "; ".join(check.text for check in failed), figure=first.figure, limit=first.limit
            )


def workers_of(plan: Plan) -> int:
    """Processes that load: one a CPU, or as many as asked for; a single one starts all the shells."""
    cpus = os.cpu_count() or 1
    return 1 if plan.kind == "shell" else min(plan.concurrency or cpus, plan.cgroups, 64)


def examine(
    root: KernelRoot, plan: Plan, parent: str, min_available_ratio: float, pressure_floor_ratio: float = 0.20
) -> Forecast:
    """All checks of a plan on this host. Blocking; raises nothing but for defects."""
    try:
        hierarchy = find_memory_hierarchy(root)
    except (SourceUnavailable, KernelParseError) as error:
        check = Check("hierarchy", False, "kernel_can_not", f"no memory cgroups to storm in: {error}")
        return Forecast((check,), None, "", "", 0)
    parent = place.parent_path(root, hierarchy, parent)
    directory = hierarchy.directory(parent)
    home = hierarchy.directory(place.own_path(root, hierarchy))
    per_cgroup = CGROUP_BYTES + CGROUP_BYTES_PER_CPU * (os.cpu_count() or 1)
    if keeps_caches_per_cgroup(root, hierarchy):
        per_cgroup += RESIDUE_BYTES
    # When memory is used up on purpose, the tasks have gone.
    used = max(plan.live_tasks * TASK_BYTES[plan.kind], PRESSURE_BYTES if plan.pressure else 0)
    memory = plan.cgroups * per_cgroup + used
    floor = max(pressure_floor_ratio, min_available_ratio + PRESSURE_MARGIN_RATIO)
    floor_bytes = int(floor * (_meminfo(root, "MemTotal") or 0))
    pids_parent, why_not = find_pids_parent(root, hierarchy, parent)
    limiting = (
        (hierarchy.mount_point, directory)
        if hierarchy.version == 2
        else (find_pids_hierarchy(root) if pids_parent else "", pids_parent)
    )
    checks = (
        _privileges(root, hierarchy, directory),
        *_memory(root, hierarchy, directory, memory, min_available_ratio),
        *_pids(root, plan, *limiting),
        _pids_limit(plan, pids_parent, why_not),
        *_cgroup_ids(root, hierarchy, plan),
        *_programs(plan),
        *_pressure(root, hierarchy, directory, plan, floor_bytes),
        *_shrink(root, plan),
    )
    return Forecast(checks, hierarchy, directory, home, memory, pids_parent, floor_bytes)


def pids_limit(plan: Plan) -> int:
    """pids.max of the storm's own cgroup: what it needs, and as much again."""
    return 2 * plan.live_tasks + 256


def find_pids_parent(root: KernelRoot, hierarchy: MemoryHierarchy, parent: str) -> tuple[str, str]:
    """The directory (kernel path) whose child can limit the storm's tasks; or "", and why there is none."""
    if hierarchy.version == 2:
        directory = hierarchy.directory(parent)
        offered = _offers(root, directory, b"pids")
        return (directory, "") if offered else ("", f"{directory} does not offer the pids controller")
    mount = find_pids_hierarchy(root)
    if not mount:
        return "", "no hierarchy of the pids controller is mounted"
    own = posixpath.normpath(f"{mount}/{parent}")
    if not root.exists(own):
        return "", f"{own} does not exist"
    return (own, "") if root.can_write(own) else ("", f"no right to make cgroups in {own}")


def storm_parents(root: KernelRoot, configured: str) -> list[str]:
    """Directories below which storms have their cgroups: of memory, and of pids where that is another hierarchy.

    Raises SourceUnavailable, KernelParseError.
    """
    hierarchy = find_memory_hierarchy(root)
    parent = place.parent_path(root, hierarchy, configured)
    pids_parent, _ = find_pids_parent(root, hierarchy, parent)
    return list(dict.fromkeys(filter(None, (hierarchy.directory(parent), pids_parent))))


def _pids_limit(plan: Plan, pids_parent: str, why_not: str) -> Check:
    most = pids_limit(plan)
    if pids_parent:
        return Check("pids limit", True, "", f"pids.max of the storm will be {most}, below {pids_parent}", most)
    return Check("pids limit", True, "", f"the kernel will not limit the storm's tasks: {why_not}")


def keeps_caches_per_cgroup(root: KernelRoot, hierarchy: MemoryHierarchy) -> bool:
    """Whether this kernel has slab caches for each cgroup: on v1 memory.kmem.slabinfo then has content.

    The file is there and empty since commit 9855609bde03 ("mm: memcg/slab: use a single set of kmem_caches for all
    accounted allocations") (in v5.9). On v2 it never was: there memory.stat has a row percpu since commit 772616b031f0
    ("mm: memcg/percpu: per-memcg percpu memory statistics") (in v5.9).
    """
    try:
        cgroups = MemoryCgroups(root, hierarchy, max_depth=MOST_DEPTH, populated=False).walk().paths
    except SourceUnavailable:
        return False
    directories = map(hierarchy.directory, cgroups)
    if hierarchy.version == 1:
        # That of the root, and of a slice whose tasks are all further down, is empty on every kernel.
        return any(_read(root, f"{directory}/memory.kmem.slabinfo").count(b"\n") > 2 for directory in directories)
    # The root has no such file before about v5.10.
    stat = next(filter(None, (_read(root, f"{directory}/memory.stat") for directory in directories)), b"percpu 0")
    return not any(row.startswith(b"percpu ") for row in stat.splitlines())


def _read(root: KernelRoot, path: str) -> bytes:
    try:
        return root.read(path)
    except (SourceUnavailable, KernelParseError):
        return b""


def _privileges(root: KernelRoot, hierarchy: MemoryHierarchy, directory: str) -> Check:
    name = "privileges"
    if not root.live:
        return Check(
            name, False, "kernel_can_not", f"{root.root} is a recorded host: storms need the running kernel's root"
        )
    if not root.exists(directory):
        text = f"the storm's parent {directory} does not exist: make it, or change storm.parent"
        return Check(name, False, "bad_plan", text)
    writable = root.can_write(directory) and root.can_write(directory + "/cgroup.procs")
    if not writable:
        text = (
            f"no right to make cgroups in {directory}: run as root, or have this subtree delegated and set storm.parent"
        )
        return Check(name, False, "not_permitted", text)
    if hierarchy.version == 2 and not _offers(root, directory, b"memory"):
        text = f"{directory}: the memory controller is not offered to its children (cgroup.controllers)"
        return Check(name, False, "kernel_can_not", text)
    return Check(name, True, "", f"may make cgroups in {directory}")


def _offers(root: KernelRoot, directory: str, controller: bytes) -> bool:
    try:
        return controller in root.read(directory + "/cgroup.controllers").split()
    except SourceUnavailable:
        return False


def _memory(
    root: KernelRoot, hierarchy: MemoryHierarchy, directory: str, memory: int, min_ratio: float
) -> Iterator[Check]:
    try:
        meminfo = root.read_meminfo()
        available, total = meminfo.get("MemAvailable"), meminfo.get("MemTotal")
    except (SourceUnavailable, KernelParseError) as error:
        yield Check("memory", False, "kernel_can_not", f"what memory there is can not be told: {error}")
        available = total = None
    if available is not None and total is not None:
        spare = max(0, available - int(total * min_ratio))
        text = (
            f"the storm may take {memory // MIB} MiB; {spare // MIB} MiB are available above the floor of "
            f"{min_ratio:.0%} of MemTotal (storm.min_available_ratio)"
        )
        yield Check("memory", memory <= spare, "lack_of_memory", text, memory, spare)
    for path, file, room in _rooms(root, hierarchy, directory):
        text = f"{path} leaves {room // MIB} MiB below its {file}; the storm may take {memory // MIB} MiB"
        yield Check("memory limit", memory <= room, "lack_of_memory", text, memory, room)


def _rooms(root: KernelRoot, hierarchy: MemoryHierarchy, directory: str) -> Iterator[tuple[str, str, int]]:
    """The directory and those above it that have a memory limit: path, the limit's file, and bytes that it leaves."""
    limit_file, usage_file = (
        ("memory.max", "memory.current")
        if hierarchy.version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    for path in _ancestors(hierarchy.mount_point, directory):
        limit, usage = _limit(root, f"{path}/{limit_file}"), _limit(root, f"{path}/{usage_file}") or 0
        if limit is not None and limit < 1 << 62:
            yield path, limit_file, max(0, limit - usage)


def _pids(root: KernelRoot, plan: Plan, mount_point: str, directory: str) -> Iterator[Check]:
    # A shell and its sleep, for each script; one worker a CPU and the engine.
    needed = plan.live_tasks * (2 if plan.kind == "shell" else 1) + workers_of(plan) + 1
    try:
        threads = root.read_loadavg().threads
    except (SourceUnavailable, KernelParseError) as error:
        yield Check("threads", False, "kernel_can_not", f"how many threads there are can not be told: {error}")
        threads = 0
    for file in ("pid_max", "threads-max"):
        limit = _limit(root, f"/proc/sys/kernel/{file}")
        if limit is not None:
            room = max(0, limit - threads - SPARE_PIDS)
            text = (
                f"{needed} tasks at one time; kernel.{file} {limit} leaves {room} "
                f"({threads} threads now, {SPARE_PIDS} kept for others)"
            )
            yield Check(file, needed <= room, "lack_of_pids", text, needed, room)
    for path in _ancestors(mount_point, directory) if directory else ():
        limit = _limit(root, f"{path}/pids.max")
        if limit is not None:
            room = max(0, limit - (_limit(root, f"{path}/pids.current") or 0))
            text = f"{needed} tasks at one time; pids.max of {path} leaves {room}"
            yield Check("pids.max", needed <= room, "lack_of_pids", text, needed, room)


def _cgroup_ids(root: KernelRoot, hierarchy: MemoryHierarchy, plan: Plan) -> Iterator[Check]:
    used = _memory_cgroups(root, hierarchy)
    room = MAX_MEMCG_IDS - (used or 0)
    free = f"{room} of {MAX_MEMCG_IDS} ids are free (dying cgroups hold theirs)"
    if used is None:
        free = f"there are {MAX_MEMCG_IDS} ids, and this kernel does not tell how many are taken"
    text = f"{plan.cgroups} memory cgroups; {free}"
    yield Check("cgroup ids", plan.cgroups + 1 <= room, "lack_of_cgroup_ids", text, plan.cgroups + 1, room)


def _memory_cgroups(root: KernelRoot, hierarchy: MemoryHierarchy) -> int | None:
    """Those that there are, dying ones included. On v2 /proc/cgroups may have no ``memory`` row (from about 6.16)."""
    try:
        if hierarchy.version == 1:
            return next((row.num_cgroups for row in root.read_controllers() if row.name == "memory"), None)
        stat = parse_cgroup_stat(root.read(hierarchy.directory("cgroup.stat")))
    except (SourceUnavailable, KernelParseError):
        return None
    if stat.memory is not None and stat.dying_memory is not None:
        return stat.memory + stat.dying_memory
    return 1 + stat.descendants + stat.dying_descendants


def _programs(plan: Plan) -> Iterator[Check]:
    wanted = {"exec": "/bin/cat", "shell": f"/bin/{plan.shell}"}.get(plan.kind)
    if wanted:
        found = os.access(wanted, os.X_OK)
        yield Check("program", found, "lack_of_program", f"{wanted} is {'there' if found else 'missing: install it'}")


def _pressure(
    root: KernelRoot, hierarchy: MemoryHierarchy, directory: str, plan: Plan, floor_bytes: int
) -> Iterator[Check]:
    if not plan.pressure:
        return
    name = "pressure"
    text = (
        f"{PRESSURE_BYTES // MIB} MiB will be used up in the storm's own cgroup, until the OOM killer ends that "
        "process (one line in the kernel's log, one more oom_kill)"
    )
    yield Check(name, True, "", text, PRESSURE_BYTES)
    if not plan.pressure_host:
        return
    available = _meminfo(root, "MemAvailable") or 0
    spare = max(0, available - floor_bytes)
    text = (
        f"then {spare // MIB} MiB on the host, until {floor_bytes // MIB} MiB are available "
        "(storm.pressure_host, storm.pressure_floor_ratio)"
    )
    yield Check(name, spare > 0, "lack_of_memory", text, floor_bytes, available)
    for path, file, room in _rooms(root, hierarchy, directory):
        text = f"{path} leaves {room // MIB} MiB below its {file}: pressure on the host would end there"
        yield Check(name, room > spare, "lack_of_memory", text, spare, room)


def _meminfo(root: KernelRoot, key: str) -> int | None:
    try:
        return root.read_meminfo().get(key)
    except (SourceUnavailable, KernelParseError):
        return None


def _shrink(root: KernelRoot, plan: Plan) -> Iterator[Check]:
    if not plan.shrink:
        return
    try:
        can_shrink(root)
    except SourceUnavailable as error:
        text = f"can not shrink: {error}. With --no-shrink the storm runs, but can not tell retained from pinned"
        yield Check("shrink", False, "kernel_can_not", text)
    else:
        yield Check("shrink", True, "", "may shrink caches")


def _ancestors(mount_point: str, directory: str) -> Iterator[str]:
    """The directory and those above it, up to the hierarchy's mount."""
    while True:
        yield directory
        if directory == mount_point or len(directory) <= len(mount_point):
            return
        directory = posixpath.dirname(directory)


def _limit(root: KernelRoot, path: str) -> int | None:
    try:
        return root.read_counter(path)
    except (SourceUnavailable, KernelParseError):
        return None
