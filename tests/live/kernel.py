"""The running kernel as these tests see it: read without slabwatch, so that the two can be held side by side."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.requirements import need

MARK = "SLABWATCH_STORM"
# How often a test waits its time: the machines that run this are shared.
PATIENCE = 3
# No storm has such a name (upper case), so that no daemon takes it for what a storm left behind.
OWN_PREFIX = "slabwatch-storm-TESTS-"


def memory_mount() -> tuple[Path, int] | None:
    """The memory hierarchy's mount point and version."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        place = Path(before.split(" ")[4])
        if kind == "cgroup" and "memory" in options.split(" ")[-1].split(","):
            found["v1"] = place
        elif kind == "cgroup2" and "memory" in (place / "cgroup.controllers").read_text(encoding="ascii").split():
            found["v2"] = place
    if "v1" in found:
        return found["v1"], 1
    return (found["v2"], 2) if "v2" in found else None


def need_kernel() -> tuple[Path, int]:
    """Skip where no storm can run: these tests are for root on a kernel with SLUB and a writable memory hierarchy."""
    need(os.geteuid() == 0, "root")
    need(os.path.isdir("/sys/kernel/slab/task_struct"), "/sys/kernel/slab (SLUB)")
    mounted = memory_mount()
    need(mounted is not None, "a memory cgroup hierarchy")
    assert mounted is not None
    mount, version = mounted
    try:
        with own_directory(mount, version) as directory:
            usable = version == 1 or "memory" in (directory / "cgroup.controllers").read_text(encoding="ascii")
    except OSError:
        usable = False
    need(usable, f"a writable memory hierarchy (it is at {mount})")
    return mount, version


def pids_mount() -> Path | None:
    """Where cgroup v1 has the pids controller in a hierarchy of its own."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        controllers = options.split(" ")[-1].split(",")
        if kind == "cgroup" and "pids" in controllers and "memory" not in controllers:
            return Path(before.split(" ")[4])
    return None


@contextmanager
def own_pids_directory(like: Path) -> Iterator[Path | None]:
    """The same directory in the hierarchy of the pids controller, where there is such a hierarchy."""
    mount = pids_mount()
    if mount is None:
        yield None
        return
    with own_directory(mount, 2, like.name.removeprefix(f"{OWN_PREFIX}{os.getpid()}-")) as directory:
        yield directory


@contextmanager
def own_directory(mount: Path, version: int, name: str = "probe") -> Iterator[Path]:
    """A cgroup of the tests' own, a storm's parent. It must be empty in the end, or the test has failed."""
    directory = mount / f"{OWN_PREFIX}{os.getpid()}-{name}"
    directory.mkdir()
    if version == 1:
        with suppress(FileNotFoundError):  # gone from newer kernels, where it is always on
            (directory / "memory.use_hierarchy").write_text("1", encoding="ascii")
    try:
        yield directory
    finally:
        left = [str(path) for path in cgroups_below(directory)]
        for path in reversed(left):
            with suppress(OSError):
                os.rmdir(path)
        with suppress(OSError):
            directory.rmdir()
    assert not left, f"cgroups were left behind: {left}"
    assert not directory.exists()


def cgroups_below(directory: Path) -> list[Path]:
    """All cgroups below one, parents first."""
    return [Path(path) for path, _, _ in os.walk(directory)][1:]


def marked(storm_id: str) -> list[int]:
    """Living processes with a storm's mark."""
    return [pid for pid, environment in _environments() if f"{MARK}={storm_id}".encode() in environment]


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            # One that ends meanwhile reads as ESRCH, a zombie's as empty.
            with suppress(OSError):
                yield int(name), Path("/proc", name, "environ").read_bytes().split(b"\0")


def command_line(pid: int) -> str:
    """A process' command line, "" when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def status(pid: int) -> dict[str, str]:
    """/proc/<pid>/status; empty when the process has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    return status(pid).get("State", "Z")[0] not in "ZX"


def children(pid: int) -> list[int]:
    """Direct children. Not from /proc/<pid>/task/<pid>/children, which leaves some out while others end."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [child for child in pids if _parent(child) == pid]


def _parent(pid: int) -> int:
    try:
        # pid (name) state ppid: the name may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def wait_until(condition: Callable[[], object], seconds: float, what: str, every: float = 0.01) -> float:
    """Poll until it holds, at most so long (a machine with other work may need more); the seconds it took.

    Raises AssertionError after that.
    """
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < PATIENCE * seconds, f"after {PATIENCE * seconds:g} s still not so: {what}"
        time.sleep(every)
    return time.monotonic() - started


def wait_for_no_task(storm_id: str, seconds: float = 5.0) -> None:
    """No process with the storm's mark lives longer than this."""
    started = time.monotonic()
    while left := marked(storm_id):
        assert time.monotonic() - started < PATIENCE * seconds, (
            f"{len(left)} processes of storm {storm_id} live after {PATIENCE * seconds:g} s, among them "
            f"{[(pid, status(pid).get('State'), command_line(pid)[:60]) for pid in left[:5]]}"
        )
        time.sleep(0.05)
