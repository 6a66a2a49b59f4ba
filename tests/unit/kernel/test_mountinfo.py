"""parse_mountinfo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.kernel.mountinfo import Mount, MountInfo, parse_mountinfo
from tests.hosts import HOSTS, STATES, recorded

MEMORY = b"23 18 0:21 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("state", STATES)
def test_recorded_files_against_another_reading(host: str, state: str) -> None:
    info = parse_mountinfo(recorded(host, state, "proc/self/mountinfo"))
    assert info.skipped == ()
    # /proc/mounts tells the same in another form: source, place, type, options of mount and superblock in one.
    mounts = [line.split() for line in recorded(host, state, "proc/mounts").decode().splitlines()]
    assert [(mount.source, mount.mount_point, mount.fs_type) for mount in info.mounts] == [
        (source, place, kind) for source, place, kind, *_ in mounts
    ]
    for mount, (_, _, _, options, *_) in zip(info.mounts, mounts, strict=True):
        assert mount.options | mount.super_options == set(options.split(","))
    memory = [mount for mount in info.mounts if mount.fs_type == "cgroup" and "memory" in mount.super_options]
    assert [mount.mount_point for mount in memory] == (["/sys/fs/cgroup/memory"] if host.endswith("v1") else [])


def test_all_fields() -> None:
    assert parse_mountinfo(MEMORY).mounts == (
        Mount(
            mount_id=23,
            parent_id=18,
            root="/",
            mount_point="/sys/fs/cgroup/memory",
            options=frozenset({"rw", "relatime"}),
            fs_type="cgroup",
            source="cgroup",
            super_options=frozenset({"rw", "memory"}),
        ),
    )


@pytest.mark.parametrize("optional", [b"", b"shared:9 ", b"shared:9 master:1 propagate_from:2 ", b"unbindable new:x "])
def test_optional_fields(optional: bytes) -> None:
    assert parse_mountinfo(MEMORY.replace(b"- ", optional + b"- ")) == parse_mountinfo(MEMORY)


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        (rb"/a\040b", "/a b"),
        (rb"/a\011b\012c", "/a\tb\nc"),
        (rb"/a\134b", "/a\\b"),
        (rb"/a\134040b", "/a\\040b"),  # a backslash, then digits: not to be decoded twice
        (rb"/a\043b", "/a#b"),
        (rb"/a\40b\9", "/a\\40b\\9"),
        (rb"/a\01b\1", "/a\\01b\\1"),
        (b"/a\xffb", "/a\\xffb"),
        ("/ä".encode(), "/ä"),
    ],
)
def test_octal_escapes(escaped: bytes, plain: str) -> None:
    line = b"1 0 0:1 " + escaped + b" " + escaped + b" rw - tmpfs " + escaped + b" rw,lower=" + escaped + b"\n"
    (mount,) = parse_mountinfo(line).mounts
    assert (mount.root, mount.mount_point, mount.source) == (plain, plain, plain)
    assert mount.super_options == {"rw", "lower=" + plain}


@given(path=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_path_comes_back(path: str) -> None:
    escaped = "".join(f"\\{ord(char):03o}" if char in " \t\n\\" else char for char in path)
    (mount,) = parse_mountinfo(f"1 0 0:1 / {escaped} rw - tmpfs tmpfs rw\n".encode()).mounts
    assert mount.mount_point == path


def test_an_empty_source() -> None:
    (mount,) = parse_mountinfo(b"1 0 0:1 / /mnt rw - tmpfs  rw\n").mounts
    assert (mount.fs_type, mount.source, mount.super_options) == ("tmpfs", "", frozenset({"rw"}))


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"23 18 0:21 / /mnt rw",
        b"23 18 0:21 / /mnt rw cgroup cgroup rw",
        b"23 18 0:21 / /mnt rw - cgroup cgroup",
        b"x 18 0:21 / /mnt rw - cgroup cgroup rw",
        b"23 -1 0:21 / /mnt rw - cgroup cgroup rw",
        b"23 18 0:21 / - rw",
    ],
)
def test_a_bad_line_costs_that_line(bad: bytes) -> None:
    info = parse_mountinfo(MEMORY + bad + b"\n" + MEMORY)
    assert len(info.mounts) == 2
    (error,) = info.skipped
    assert (error.path, error.line_no) == ("/proc/self/mountinfo", 2)


def test_a_last_line_without_an_end_costs_that_line() -> None:
    info = parse_mountinfo(MEMORY + MEMORY.rstrip(b"\n"))
    assert len(info.mounts) == 1
    assert [error.line_no for error in info.skipped] == [2]


def test_no_mounts() -> None:
    assert parse_mountinfo(b"") == MountInfo((), ())
