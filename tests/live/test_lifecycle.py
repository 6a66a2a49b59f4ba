"""Removing a storm's cgroups on this kernel: its own go, what is somebody else's stays and is named."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slabwatch.storm import lifecycle
from tests.live.kernel import alive, cgroups_below, wait_until

pytestmark = pytest.mark.live

STORM_ID = "20200101-000000-0000"


@pytest.fixture
def root(parent: Path) -> Path:
    """A storm's root with three cgroups, as an engine that was killed leaves it."""
    root = Path(lifecycle.storm_root(str(parent), STORM_ID))
    root.mkdir()
    for index in range(3):
        (root / lifecycle.cgroup_name(index)).mkdir()
    return root


@contextmanager
def sleeper(cgroup: Path, mark: str | None) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"PATH": "/usr/bin:/bin"} | ({lifecycle.MARK: mark} if mark else {})
    process = subprocess.Popen(["sleep", "60"], env=environment)
    try:
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text(encoding="ascii") == "sleep\n", 5, "exec")
        (cgroup / "cgroup.procs").write_text(str(process.pid), encoding="ascii")
        yield process
    finally:
        process.kill()
        process.wait()


def remove(root: Path, deadline_seconds: float = 0.3) -> lifecycle.Swept:
    return lifecycle.remove_root(str(root), deadline_seconds=deadline_seconds)


def test_all_of_a_storm_s_cgroups_are_removed(root: Path) -> None:
    assert remove(root) == lifecycle.Swept(removed=4)
    assert not root.exists()


def test_what_is_gone_already_is_no_fault(root: Path, parent: Path) -> None:
    (root / "c0001").rmdir()
    assert remove(root) == lifecycle.Swept(removed=3)
    assert remove(root) == lifecycle.Swept()
    assert remove(parent / "slabwatch-storm-never-was") == lifecycle.Swept()


def test_the_storm_s_own_processes_are_killed(root: Path) -> None:
    with sleeper(root / "c0001", STORM_ID) as one, sleeper(root, STORM_ID) as other:
        swept = remove(root, 5)
        assert (swept.removed, swept.left) == (4, {})
        assert (one.wait(5), other.wait(5)) == (-9, -9)
    assert not root.exists()


@pytest.mark.parametrize("mark", [None, STORM_ID + "1", STORM_ID[:-1], ""])
def test_a_foreign_process_is_not_killed(root: Path, mark: str | None) -> None:
    """Neither one without a mark nor one of another storm."""
    with sleeper(root / "c0001", mark) as foreign:
        swept = remove(root)
        assert alive(foreign.pid)
        assert swept.killed == 0
        assert swept.removed == 2
        assert set(swept.left) == {str(root / "c0001"), str(root)}
        assert str(foreign.pid) in swept.left[str(root / "c0001")]
        # Where it is, it stays.
        assert str(foreign.pid) in (root / "c0001" / "cgroup.procs").read_text(encoding="ascii").split()
    swept = remove(root, 5)
    assert (swept.removed, swept.left) == (2, {})


def test_a_foreign_process_in_the_root_is_not_killed(root: Path) -> None:
    with sleeper(root, None) as foreign:
        swept = remove(root)
        assert alive(foreign.pid)
        assert swept.removed == 3
        assert list(swept.left) == [str(root)]
        assert str(foreign.pid) in swept.left[str(root)]
    assert remove(root, 5).left == {}


@pytest.mark.parametrize("name", ["x-foreign", "c0001x", "c001", "C0001", "c0000000"])
def test_a_foreign_cgroup_is_not_removed(root: Path, name: str) -> None:
    foreign = root / name
    foreign.mkdir()
    swept = remove(root)
    assert foreign.is_dir()
    assert cgroups_below(root) == [foreign]
    assert swept.removed == 3
    assert list(swept.left) == [str(root)]
    assert name in swept.left[str(root)]
    foreign.rmdir()
    assert remove(root).left == {}


def test_a_foreign_cgroup_within_one_of_the_storm_s_stays_too(root: Path) -> None:
    foreign = root / "c0002" / "c0000"  # even by this name: it is in the wrong place
    foreign.mkdir()
    swept = remove(root)
    assert foreign.is_dir()
    assert swept.removed == 2
    assert set(swept.left) == {str(root / "c0002"), str(root)}
    foreign.rmdir()
    assert remove(root).left == {}


def test_both_are_named(root: Path) -> None:
    foreign = root / "x-foreign"
    foreign.mkdir()
    with sleeper(root / "c0000", None) as process, sleeper(foreign, STORM_ID) as not_ours_to_look_for:
        swept = remove(root)
        assert alive(process.pid)
        assert alive(not_ours_to_look_for.pid)
        assert set(swept.left) == {str(root / "c0000"), str(root)}
        assert str(process.pid) in swept.left[str(root / "c0000")]
        assert "x-foreign" in swept.left[str(root)]
    foreign.rmdir()
    assert remove(root, 5).left == {}


def test_a_process_is_entered_where_it_is_told(root: Path) -> None:
    home = root / "c0000"
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            lifecycle.enter(str(home))
            status = 0 if os.getpid() in lifecycle.processes(str(home)) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert lifecycle.processes(str(root / "gone")) == []
    assert remove(root, 5).left == {}


def test_orphans_are_found_by_name_and_place(root: Path, parent: Path) -> None:
    strangers = [parent / "slabwatch-storm-Upper", parent / "slabwatch-stormy", parent / "other"]
    for stranger in strangers:
        stranger.mkdir()
    try:
        assert lifecycle.find_roots(str(parent)) == [str(root)]
        swept = lifecycle.remove_orphans(str(parent), deadline_seconds=5)
        assert swept == lifecycle.Swept(removed=4)
        assert set(cgroups_below(parent)) == set(strangers)
    finally:
        for stranger in strangers:
            stranger.rmdir()


def test_a_parent_that_is_missing_is_said(parent: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lifecycle.remove_orphans(str(parent / "missing"), deadline_seconds=1)


def test_who_only_looks_like_an_engine_keeps_nobody_from_cleaning_up(root: Path, parent: Path) -> None:
    """Any user can start a process with such an environment and command line."""
    pretender: subprocess.Popen[bytes] = subprocess.Popen(
        ["/bin/sh", "-c", "read nothing", "slabwatch.storm.engine"],
        stdin=subprocess.PIPE,
        env={lifecycle.MARK: STORM_ID},
        user=65_501,
        group=65_501,
        extra_groups=[],
    )
    try:
        wait_until(lambda: lifecycle.is_marked(pretender.pid, STORM_ID), 5, "it has the mark")
        assert lifecycle.remove_orphans(str(parent), deadline_seconds=1) == lifecycle.Swept(removed=4)
        assert alive(pretender.pid)
    finally:
        pretender.kill()
        pretender.communicate()


def test_a_root_that_can_not_be_listed_is_tried_again_and_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir, failures = os.scandir, [3]

    def no_descriptor(path: str) -> object:
        if failures[0]:
            failures[0] -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", no_descriptor)
    swept = lifecycle.remove_root(str(root), deadline_seconds=0)
    assert swept.left == {str(root): "can not be looked at: Too many open files"}
    assert lifecycle.remove_root(str(root), deadline_seconds=5) == lifecycle.Swept(removed=4)


def test_it_gives_up_when_told_to(root: Path, parent: Path) -> None:
    (root / "x-foreign").mkdir()
    started = time.monotonic()
    swept = lifecycle.remove_orphans(str(parent), deadline_seconds=20, give_up=lambda: True)
    assert time.monotonic() - started < 2
    assert list(swept.left) == [str(root)]
    (root / "x-foreign").rmdir()
    assert remove(root).left == {}
