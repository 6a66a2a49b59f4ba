"""The memory cgroups: the walk, the figures, and what is left out."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from slabwatch.errors import SourceUnavailable
from slabwatch.host.hierarchy import MemoryHierarchy, find_memory_hierarchy
from slabwatch.host.memory_cgroups import MemoryCgroups, Reading, Tree, spelled
from slabwatch.host.root import KernelRoot
from tests.hosts import HOSTS, STATES, host_root
from tests.unit.host.fabricated import V1_MOUNT, V2_MOUNT, deny, v1_files, v1_root, v2_files, v2_root

STORM = "/slabwatch-storm-20260101-000000-abcd"


def cgroups_of(root: KernelRoot, **bounds: Any) -> MemoryCgroups:
    return MemoryCgroups(root, find_memory_hierarchy(root), **bounds)


def read_all(root: KernelRoot, **bounds: Any) -> tuple[Tree, Reading]:
    cgroups = cgroups_of(root, **bounds)
    tree = cgroups.walk()
    return tree, cgroups.read(tree)


def rows(reading: Reading) -> dict[str, dict[str, str]]:
    """Path -> column -> figure, for those that have any."""
    found: dict[str, dict[str, str]] = {}
    for column, values in reading.columns.items():
        for path, value in zip(reading.paths, values, strict=True):
            if value is not None:
                found.setdefault(path, {})[column] = value
    return {path: found[path] for path in reading.paths if path in found}


# Against the recorded hosts, by a reading that shares no code.

V1_FILES = {
    "memory.kmem.usage_in_bytes": "kernel_bytes",
    "memory.kmem.max_usage_in_bytes": "kernel_max_bytes",
    "memory.kmem.limit_in_bytes": "kernel_limit_bytes",
    "memory.kmem.failcnt": "kernel_failures_total",
    "memory.kmem.tcp.usage_in_bytes": "tcp_buffer_bytes",
    "memory.usage_in_bytes": "memory_bytes",
    "memory.max_usage_in_bytes": "memory_max_usage_bytes",
}
V2_STAT = ("slab_reclaimable", "slab_unreclaimable", "kernel_stack", "pagetables", "percpu", "sock", "vmalloc")


def told(directory: Path) -> dict[str, str]:
    """What the files of a recorded cgroup say, in the names of the columns."""
    row = {
        column: (directory / name).read_text().strip()
        for name, column in V1_FILES.items()
        if (directory / name).exists()
    }
    if row.get("kernel_limit_bytes", "").startswith("92233720368547"):
        del row["kernel_limit_bytes"]
    if row:
        return row
    for name, column in (("memory.current", "memory_bytes"), ("memory.peak", "memory_max_usage_bytes")):
        if (directory / name).exists():
            row[column] = (directory / name).read_text().strip()
    if (directory / "memory.stat").exists():
        stat = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
        row |= {f"{key}_bytes": stat[key] for key in V2_STAT if key in stat}
        parts = ("slab", "kernel_stack", "pagetables", "percpu", "sock", "vmalloc")
        row["kernel_bytes"] = stat.get("kernel") or str(sum(int(stat.get(part, 0)) for part in parts))
    if (directory / "cgroup.events").exists():
        row["populated"] = (directory / "cgroup.events").read_text().split()[1]
    return row


def below(mount: Path) -> Iterator[tuple[str, Path]]:
    for directory, _, _ in os.walk(mount):
        yield "/" + os.path.relpath(directory, mount).removeprefix("."), Path(directory)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("host", HOSTS)
def test_the_recorded_cgroups(host: str, state: str) -> None:
    root = KernelRoot(str(host_root(host, state)))
    mount = Path(root.path(find_memory_hierarchy(root).mount_point))
    expected = {path: row for path, directory in below(mount) if (row := told(directory))}
    tree, reading = read_all(root)
    assert rows(reading) == expected
    assert reading.skipped == {}
    assert tree.visible == len(list(below(mount)))
    assert len(expected) >= 3


@pytest.mark.parametrize("host", HOSTS)
def test_dying_cgroups_of_the_recorded_hosts(host: str) -> None:
    before, after = (
        cgroups.dying(cgroups.walk().visible)
        for state in ("dying-before", "dying")
        for cgroups in [cgroups_of(KernelRoot(str(host_root(host, state))))]
    )
    assert before is not None
    assert after is not None
    # The recording keeps some of the 50 directories only, so that on v1 all that is counted and not seen is dying.
    assert after >= (0 if host.startswith("7.") else 50)
    if host.endswith("v2"):
        assert before == 0


# The walk.


def test_parents_come_first_and_names_in_order(tmp_path: Path) -> None:
    paths = ["/b", "/b/z", "/b/a", "/a", "/a/x"]
    tree = cgroups_of(v2_root(tmp_path, {path: v2_files() for path in paths})).walk()
    assert tree == Tree(("/", "/a", "/a/x", "/b", "/b/a", "/b/z"), 6)


def test_depth_is_bounded_and_what_is_below_is_counted(tmp_path: Path) -> None:
    paths = ["/a", "/a/b", "/a/b/c", "/a/b/c/d", "/e"]
    root = v2_root(tmp_path, {path: v2_files() for path in paths})
    assert cgroups_of(root, max_depth=2).walk() == Tree(("/", "/a", "/a/b", "/e"), 6, frozenset({"/a/b"}))
    assert cgroups_of(root, max_depth=0).walk() == Tree(("/",), 6, frozenset({"/"}))


def test_a_storms_own_cgroups_are_counted_and_not_read(tmp_path: Path) -> None:
    inside = {f"{STORM}/c{index:04d}": v2_files(100) for index in range(5)}
    root = v2_root(tmp_path, {STORM: v2_files(500), **inside, "/x": v2_files(), f"/x{STORM}": v2_files()})
    tree, reading = read_all(root)
    assert tree == Tree(("/", STORM, "/x", f"/x{STORM}"), 9)
    assert rows(reading)[STORM]["kernel_bytes"] == "500"


def test_files_and_links_are_no_cgroups(tmp_path: Path) -> None:
    root = v2_root(tmp_path, {"/a": v2_files()})
    os.symlink("a", Path(root.path(V2_MOUNT)) / "link")
    assert cgroups_of(root).walk().paths == ("/", "/a")


def test_without_its_root_there_is_no_walk(tmp_path: Path) -> None:
    root = v2_root(tmp_path, {})
    cgroups = cgroups_of(root)
    shutil.rmtree(root.path(V2_MOUNT))
    with pytest.raises(SourceUnavailable, match="/sys/fs/cgroup: No such file"):
        cgroups.walk()


def test_a_cgroup_that_vanishes_during_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = v2_root(tmp_path, {"/a": v2_files(), "/b": v2_files(), "/b/c": v2_files()})
    real = os.stat

    def stat(path: str, *, dir_fd: int | None = None) -> os.stat_result:
        if path == "b":
            shutil.rmtree(root.path(f"{V2_MOUNT}/b"))
        return real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "stat", stat)
    assert cgroups_of(root).walk() == Tree(("/", "/a"), 2)


# The figures.


def test_v2_and_its_root_which_has_fewer_files(tmp_path: Path) -> None:
    root = v2_root(tmp_path, {"/a": v2_files(8192, memory=16384, kernel_stack=32, vmalloc=1)})
    _, reading = read_all(root)
    assert rows(reading) == {
        "/": {"kernel_bytes": "0", "kernel_stack_bytes": "0"},
        "/a": {
            "memory_bytes": "16384",
            "memory_max_usage_bytes": "32768",
            "kernel_bytes": "8192",
            "slab_reclaimable_bytes": "0",
            "slab_unreclaimable_bytes": "8192",
            "kernel_stack_bytes": "32",
            "vmalloc_bytes": "1",
            "populated": "1",
        },
    }


@pytest.mark.parametrize("limit", [9223372036854771712, 9223372036854710272, 2**63 - 1])
def test_an_unlimited_v1_cgroup_has_no_limit(tmp_path: Path, limit: int) -> None:
    root = v1_root(tmp_path, {"/a": v1_files(limit=limit), "/b": v1_files(limit=1 << 30)})
    figures = rows(read_all(root)[1])
    assert "kernel_limit_bytes" not in figures["/a"]
    assert figures["/b"]["kernel_limit_bytes"] == str(1 << 30)
    assert figures["/b"]["kernel_failures_total"] == "3"
    assert "populated" not in figures["/a"], "who holds tasks costs a list of them on v1: only when asked for"


def test_a_v1_cgroup_is_populated_by_tasks_in_or_below_it(tmp_path: Path) -> None:
    cgroups = {
        "/system.slice": v1_files(),
        "/system.slice/a.service": v1_files(),
        "/system.slice/a.service/worker": v1_files(tasks="4711\n"),
        "/system.slice/b.service": v1_files(),
        "/idle": v1_files(),
        "/idle/leaf": v1_files(),
    }
    figures = rows(read_all(v1_root(tmp_path, cgroups), populated=True)[1])
    assert {path: row["populated"] for path, row in figures.items()} == {
        "/": "1",
        "/system.slice": "1",
        "/system.slice/a.service": "1",
        "/system.slice/a.service/worker": "1",
        "/system.slice/b.service": "0",
        "/idle": "0",
        "/idle/leaf": "0",
    }


def told_populated(root: KernelRoot, **bounds: Any) -> dict[str, str]:
    figures = rows(read_all(root, populated=True, **bounds)[1])
    return {path: row["populated"] for path, row in figures.items() if "populated" in row}


def test_on_v1_it_is_not_known_whether_what_is_not_read_holds_tasks(tmp_path: Path) -> None:
    cgroups = {
        "/a": v1_files(),
        "/a/b": v1_files(),
        "/a/b/c": v1_files(tasks="4711\n"),
        "/full": v1_files(tasks="1\n"),
        "/full/b": v1_files(),
        "/full/b/c": v1_files(),
        "/none": v1_files(),
    }
    root = v1_root(tmp_path, cgroups)
    assert told_populated(root, max_depth=2) == {"/": "1", "/full": "1", "/none": "0"}
    assert len(rows(read_all(root, max_depth=2)[1])) == 6


@pytest.mark.parametrize("inside", ["", "/b"])
def test_on_v1_it_is_not_known_whether_what_is_not_wanted_holds_tasks(tmp_path: Path, inside: str) -> None:
    # A leaf and a cgroup with children are come to on different ways.
    cgroups = {"/job": v1_files(), "/job/a": v1_files(), "/other": v1_files(), "/other/x": v1_files()}
    cgroups[f"/job/a{inside}"] = v1_files(tasks="4711\n")
    told = told_populated(v1_root(tmp_path, cgroups), wanted=lambda path: not path.startswith("/job/a"))
    assert told == {"/": "1", "/other": "0", "/other/x": "0"}


def test_a_v1_root_without_tasks_of_its_own_is_its_childrens_parent_too(tmp_path: Path) -> None:
    cgroups = {"/x": v1_files(), "/x/y": v1_files(tasks="4711\n")}
    root = v1_root(tmp_path, cgroups, {f"{V1_MOUNT}/cgroup.procs": ""})
    assert told_populated(root, max_depth=1) == {}
    assert told_populated(root) == {"/": "1", "/x": "1", "/x/y": "1"}


def test_a_storms_own_cgroups_on_v1_are_asked_for_tasks(tmp_path: Path) -> None:
    cgroups = {
        path: v1_files()
        for path in ("/emptied", f"/emptied{STORM}", "/running", f"/running{STORM}", "/odd", f"/odd{STORM}")
    }
    for index in range(3):
        cgroups[f"/emptied{STORM}/c{index:04}"] = v1_files()
        cgroups[f"/running{STORM}/c{index:04}"] = v1_files(tasks="4711\n" if index == 1 else "")
    cgroups[f"/odd{STORM}/c0000"] = v1_files()
    cgroups[f"/odd{STORM}/c0000/made-by-someone-else"] = v1_files(tasks="4711\n")
    root = v1_root(tmp_path, cgroups)
    expected = {"/": "1"}
    for path, populated in (("/emptied", "0"), ("/odd", "1"), ("/running", "1")):
        expected |= {path: populated, f"{path}{STORM}": populated}
    assert told_populated(root) == expected
    Path(root.path(f"{V1_MOUNT}/emptied{STORM}/c0001/cgroup.procs")).unlink()
    assert told_populated(root).keys() == expected.keys() - {"/emptied", f"/emptied{STORM}"}


def test_a_v1_list_of_tasks_that_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = v1_root(tmp_path, {"/a": v1_files(), "/a/b": v1_files(tasks="7\n"), "/c": v1_files()})
    deny(monkeypatch, ["/b/cgroup.procs"])
    _, reading = read_all(root, populated=True)
    assert [path for path, row in rows(reading).items() if "populated" in row] == ["/", "/c"]
    assert reading.skipped == {"denied": 1}


def test_a_cgroup_that_vanishes_between_walk_and_read(tmp_path: Path) -> None:
    root = v2_root(tmp_path, {"/a": v2_files(), "/b": v2_files(), "/b/c": v2_files(), "/d": v2_files(7)})
    cgroups = cgroups_of(root)
    tree = cgroups.walk()
    shutil.rmtree(root.path(f"{V2_MOUNT}/a"))  # the first, from whose listing the files' names are taken
    shutil.rmtree(root.path(f"{V2_MOUNT}/b"))
    reading = cgroups.read(tree)
    assert list(rows(reading)) == ["/", "/d"]
    assert reading.skipped == {"vanished": 3}


def test_a_cgroup_that_vanishes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = v2_root(tmp_path, {"/a": v2_files(), "/b": v2_files()})
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/b/memory.stat"):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))  # what kernfs says of an open file
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    _, reading = read_all(root)
    assert list(rows(reading)) == ["/", "/a"]
    assert reading.skipped == {"vanished": 1}


def test_a_v2_cgroup_without_the_memory_controller_has_not_vanished(tmp_path: Path) -> None:
    inner = {"cgroup.events": "populated 0\nfrozen 0\n", "cgroup.procs": ""}
    root = v2_root(tmp_path, {"/a": v2_files(), "/a/user": inner})
    _, reading = read_all(root)
    assert rows(reading)["/a/user"] == {"populated": "0"}
    assert reading.skipped == {}


def test_denied_files_cost_their_figures_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = v2_root(tmp_path, {"/a": v2_files(5), "/b": v2_files(6)})
    deny(monkeypatch, ["/a/memory.stat", "/b/memory.peak"])
    _, reading = read_all(root)
    assert set(rows(reading)["/a"]) == {"memory_bytes", "memory_max_usage_bytes", "populated"}
    assert rows(reading)["/b"]["kernel_bytes"] == "6"
    assert "memory_max_usage_bytes" not in rows(reading)["/b"]
    assert reading.skipped == {"denied": 2}


@pytest.mark.parametrize(
    ("name", "content", "lost"),
    [
        ("memory.current", "many\n", {"memory_bytes"}),
        ("memory.peak", "", {"memory_max_usage_bytes"}),
        (
            "memory.stat",
            "kernel many\n",
            {"kernel_bytes", "slab_reclaimable_bytes", "slab_unreclaimable_bytes"},
        ),
        ("cgroup.events", "populated 5\n", {"populated"}),
    ],
)
def test_a_file_of_unknown_form_costs_what_it_tells(tmp_path: Path, name: str, content: str, lost: set[str]) -> None:
    root = v2_root(tmp_path, {"/a": v2_files(), "/b": v2_files() | {name: content}})
    _, reading = read_all(root)
    assert set(rows(reading)["/a"]) - set(rows(reading)["/b"]) == lost
    assert reading.skipped == {"bad_file": 1}


def test_max_is_no_figure(tmp_path: Path) -> None:
    root = v2_root(tmp_path, {"/a": v2_files() | {"memory.peak": "max\n"}})
    assert "memory_max_usage_bytes" not in rows(read_all(root)[1])["/a"]


# Names.

ODD = ["new\nline", 'quo"te', "back\\slash", "sp ace", "ünïcode", os.fsdecode(b"\xff\xfe"), "-", "...", "a" * 200]


def test_names_of_any_bytes_are_read(tmp_path: Path) -> None:
    root = v2_root(tmp_path, {f"/{name}": v2_files(index) for index, name in enumerate(ODD)})
    _, reading = read_all(root)
    assert {path: row["kernel_bytes"] for path, row in rows(reading).items() if path != "/"} == {
        f"/{name}": str(index) for index, name in enumerate(ODD)
    }
    assert reading.skipped == {}


def test_a_spelled_path_can_always_be_encoded() -> None:
    assert spelled("/a/b") == "/a/b"
    assert spelled("/ünï") == "/ünï"
    assert spelled("/" + os.fsdecode(b"\xff-\xc3\xbc")) == "/\\xff-ü"


# Dying cgroups.


def dying(root: KernelRoot, hierarchy: MemoryHierarchy, visible: int = 3) -> int | None:
    return MemoryCgroups(root, hierarchy, max_depth=8, populated=False).dying(visible)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nr_descendants 2\nnr_dying_descendants 7\n", 7),
        ("nr_descendants 2\nnr_subsys_memory 3\nnr_dying_descendants 7\nnr_dying_subsys_memory 5\n", 5),
        ("nr_descendants many\n", None),
        (None, None),
    ],
)
def test_dying_on_v2(tmp_path: Path, text: str | None, expected: int | None) -> None:
    root = v2_root(tmp_path, {}, {f"{V2_MOUNT}/cgroup.stat": text} if text else None)
    if text is None:
        Path(root.path(f"{V2_MOUNT}/cgroup.stat")).unlink()
    assert dying(root, MemoryHierarchy(2, "v2", V2_MOUNT, "/")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t90\t1\nmemory\t5\t10\t1\n", 7),
        ("#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t5\t2\t1\n", 0),
        ("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t90\t1\n", None),
        ("no table\n", None),
        (None, None),
    ],
)
def test_dying_on_v1(tmp_path: Path, text: str | None, expected: int | None) -> None:
    more: Mapping[str, str] = {} if text is None else {"/proc/cgroups": text}
    root = v1_root(tmp_path, {}, more)
    if text is None:
        Path(root.path("/proc/cgroups")).unlink()
    assert dying(root, MemoryHierarchy(1, "v1", V1_MOUNT, "/")) == expected


@pytest.mark.parametrize("mounted", ["/", "/docker/x", "/../.."])
def test_dying_on_v1_is_known_where_the_whole_hierarchy_is_seen(tmp_path: Path, mounted: str) -> None:
    hierarchy = MemoryHierarchy(1, "v1", V1_MOUNT, mounted)
    root = v1_root(tmp_path, {"/a": v1_files()})
    assert dying(root, hierarchy, visible=2) == 2
    Path(root.path(f"{V1_MOUNT}/release_agent")).unlink()  # a container, or a cgroup namespace: mounted may be "/" too
    assert dying(root, hierarchy, visible=2) is None
