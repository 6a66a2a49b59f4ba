"""Where the memory hierarchy is found: v1, v2, both, none, and in containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from slabwatch.errors import SourceUnavailable
from slabwatch.host.hierarchy import MemoryHierarchy, find_memory_hierarchy
from slabwatch.host.root import KernelRoot
from tests.hosts import HOSTS, STATES, host_root
from tests.unit.host.fabricated import V1_MOUNTINFO, V2_MOUNTINFO, fabricate

V2_ALONE = {"/sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n"}
SYSTEMD_V1 = "42 27 0:39 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"


def found(directory: Path, mountinfo: str, files: dict[str, str] | None = None) -> MemoryHierarchy:
    return find_memory_hierarchy(fabricate(directory, {"/proc/self/mountinfo": mountinfo} | (files or {})))


@pytest.mark.parametrize("host", HOSTS)
def test_the_recorded_hosts(host: str) -> None:
    for state in STATES:
        hierarchy = find_memory_hierarchy(KernelRoot(str(host_root(host, state))))
        if host.endswith("v1"):  # each has a cgroup2 without controllers beside it
            assert hierarchy == MemoryHierarchy(1, "hybrid", "/sys/fs/cgroup/memory", "/")
        else:
            assert hierarchy == MemoryHierarchy(2, "v2", "/sys/fs/cgroup", "/")


def test_v1_alone(tmp_path: Path) -> None:
    assert found(tmp_path, V1_MOUNTINFO + SYSTEMD_V1) == MemoryHierarchy(1, "v1", "/sys/fs/cgroup/memory", "/")


def test_v2_beside_a_v1_that_has_other_controllers(tmp_path: Path) -> None:
    assert found(tmp_path, SYSTEMD_V1 + V2_MOUNTINFO, V2_ALONE) == MemoryHierarchy(2, "hybrid", "/sys/fs/cgroup", "/")


def test_memory_mounted_together_with_another_controller_anywhere(tmp_path: Path) -> None:
    mountinfo = "23 18 0:21 / /dev/memctl rw,relatime shared:9 - cgroup none rw,cpu,memory\n"
    assert found(tmp_path, mountinfo) == MemoryHierarchy(1, "v1", "/dev/memctl", "/")


def test_none_is_mounted(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="no cgroup hierarchy with the memory controller is mounted"):
        found(tmp_path, SYSTEMD_V1)
    with pytest.raises(SourceUnavailable, match="/proc/self/mountinfo: No such file"):
        find_memory_hierarchy(KernelRoot(str(tmp_path / "nothing")))


@pytest.mark.parametrize("controllers", ["cpu pids\n", "memory_of_old\n", None])
def test_v2_without_the_memory_controller(tmp_path: Path, controllers: str | None) -> None:
    files = {} if controllers is None else {"/sys/fs/cgroup/cgroup.controllers": controllers}
    with pytest.raises(SourceUnavailable, match="/sys/fs/cgroup: cgroup v2 is mounted, but without the memory"):
        found(tmp_path, V2_MOUNTINFO, files)


def test_an_escaped_mount_point_and_its_paths(tmp_path: Path) -> None:
    mountinfo = r"23 18 0:21 / /mnt/with\040space\134and\011tab rw - cgroup cgroup rw,memory" + "\n"
    hierarchy = found(tmp_path, mountinfo)
    assert hierarchy.mount_point == "/mnt/with space\\and\ttab"
    assert hierarchy.directory("/a/b") == "/mnt/with space\\and\ttab/a/b"


def test_a_containers_mount_shows_only_a_part(tmp_path: Path) -> None:
    hierarchy = found(tmp_path, "23 18 0:21 /docker/4711 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n")
    assert hierarchy == MemoryHierarchy(1, "v1", "/sys/fs/cgroup/memory", "/docker/4711")
    assert hierarchy.below_mount("/docker/4711") == "/"
    assert hierarchy.below_mount("/docker/4711/child/leaf") == "/child/leaf"
    assert hierarchy.below_mount("/docker/47110") == "/", "another container, whose name begins alike"
    assert hierarchy.below_mount("/system.slice") == "/"


def test_paths_of_the_whole_hierarchy() -> None:
    hierarchy = MemoryHierarchy(2, "v2", "/sys/fs/cgroup", "/")
    assert hierarchy.below_mount("/system.slice/a.service") == "/system.slice/a.service"
    assert hierarchy.directory("/") == hierarchy.directory("") == "/sys/fs/cgroup"
    assert hierarchy.directory("/system.slice/") == "/sys/fs/cgroup/system.slice"


def test_a_later_mount_hides_an_earlier_one_at_the_same_place(tmp_path: Path) -> None:
    over = "50 23 0:40 / /sys/fs/cgroup/memory rw - tmpfs tmpfs rw\n"
    with pytest.raises(SourceUnavailable, match="no cgroup hierarchy"):
        found(tmp_path, V1_MOUNTINFO + over)
    again = "51 50 0:21 /inner /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    assert found(tmp_path, V1_MOUNTINFO + over + again).mounted == "/inner"


@pytest.mark.parametrize("own_root", ["/", "/docker/4711"])
def test_the_hosts_mounts_as_a_container_sees_them(tmp_path: Path, own_root: str) -> None:
    """With ``--root /host``: /host/proc/self is this process, whose mounts begin with /host."""
    host = tmp_path / "host"
    own = f"23 18 0:21 {own_root} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    hosts = f"68 67 0:29 / {host}/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    beside = f"69 67 0:30 / {host}-backup/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    hierarchy = found(host, own + hosts + beside)
    assert hierarchy == MemoryHierarchy(1, "v1", "/sys/fs/cgroup/memory", "/")


@pytest.mark.parametrize("first", [True, False])
def test_the_whole_hierarchy_rather_than_a_part_that_is_bound_elsewhere(tmp_path: Path, first: bool) -> None:
    part = "90 25 0:27 /user.slice /var/lib/part rw - cgroup2 cgroup2 rw\n"
    mountinfo = V2_MOUNTINFO + part if first else part + V2_MOUNTINFO
    assert found(tmp_path, mountinfo, V2_ALONE).mount_point == "/sys/fs/cgroup"
