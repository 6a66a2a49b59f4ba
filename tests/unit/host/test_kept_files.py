"""Descriptors that are kept: what they read, how many there are, and that none outlives its directory."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from slabwatch.host import kept_files
from slabwatch.host.kept_files import KeptFiles

NAMES = ("usage", "memory.stat")


def cgroup(mount: Path, path: str, usage: int = 1, **more: str) -> None:
    directory = mount / path.removeprefix("/")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "usage").write_text(f"{usage}\n")
    (directory / "memory.stat").write_text(f"slab {usage}\n")


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    for index in range(5):
        cgroup(tmp_path, f"/c{index}", index)
    return tmp_path


@pytest.fixture(autouse=True)
def no_descriptor_is_lost(request: pytest.FixtureRequest) -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) - before == set()


def paths(*numbers: int) -> tuple[str, ...]:
    return tuple(f"/c{number}" for number in numbers)


@pytest.mark.parametrize("most", [0, 1, 2, 5, 1000])
def test_the_same_is_read_however_many_are_kept(mount: Path, most: int) -> None:
    files = KeptFiles(str(mount), NAMES, most)
    for numbers in ((0, 1, 2, 3, 4), (1, 3), (0, 1, 2, 3, 4), ()):
        files.follow(paths(*numbers))
        contents = files.read()
        assert sorted(files.paths) == list(paths(*numbers))
        assert contents.columns == [
            [b"%d\n" % int(path[2:]) for path in files.paths],
            [b"slab %d\n" % int(path[2:]) for path in files.paths],
        ]
        assert files.open_count <= most
        assert files.open_count == min(len(numbers), most // 2) * 2
    files.close()


def test_changed_content_is_seen(mount: Path) -> None:
    files = KeptFiles(str(mount), NAMES, 1000)
    files.follow(paths(0, 1))
    files.read()
    (mount / "c1" / "usage").write_text("77\n")
    assert files.read().columns[0] == [b"0\n", b"77\n"]
    files.close()


def remove(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {os.stat(directory / name).st_ino for name in NAMES}
    shutil.rmtree(directory)
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino in gone:
            raise OSError(19, "No such device")  # what kernfs says; a plain file would still read
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)


@pytest.mark.parametrize("most", [0, 2, 1000])
def test_one_that_is_gone_is_named_and_closed(mount: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    files = KeptFiles(str(mount), NAMES, most)
    files.follow(paths(0, 1, 2))
    files.read()
    kept = files.open_count
    remove(mount / "c0", monkeypatch)
    contents = files.read()
    assert contents.gone == {"/c0"}
    assert [column[files.paths.index("/c2")] for column in contents.columns] == [b"2\n", b"slab 2\n"]
    assert files.open_count == max(0, kept - 2)
    files.follow(paths(1, 2, 3))
    assert files.read().gone == set()
    assert set(files.paths) == set(paths(1, 2, 3))
    files.close()


@pytest.mark.parametrize("most", [2, 1000])
def test_one_that_was_removed_and_made_again_is_read(mount: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    files = KeptFiles(str(mount), NAMES, most)
    files.follow(paths(0, 1, 2))
    files.read()
    remove(mount / "c0", monkeypatch)
    cgroup(mount, "/c0", 70)
    for _ in range(2):
        contents = files.read()
        assert contents.gone == set()
        told = dict(zip(files.paths, zip(*contents.columns, strict=True), strict=True))
        assert told == {"/c0": (b"70\n", b"slab 70\n"), "/c1": (b"1\n", b"slab 1\n"), "/c2": (b"2\n", b"slab 2\n")}
        files.follow(paths(0, 1, 2))
    files.close()


def test_room_that_one_leaves_is_given_to_another(mount: Path) -> None:
    files = KeptFiles(str(mount), NAMES, 2)
    files.follow(paths(0, 1))
    assert files.paths == paths(1, 0), "those that are not kept come first"
    files.follow(paths(1, 2))
    assert files.open_count == 2
    assert files.read().columns[0] == [b"2\n", b"1\n"]
    files.close()


def test_never_more_than_a_share_of_the_limit(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (8, 8))
    files = KeptFiles(str(mount), NAMES, 1000)
    files.follow(paths(0, 1, 2, 3, 4))
    assert files.open_count == 4
    assert len(files.read().columns[0]) == 5
    files.close()


def test_without_any_descriptor_to_spare_it_still_answers(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*arguments: object, **more: object) -> int:
        raise OSError(24, "Too many open files")

    files = KeptFiles(str(mount), NAMES, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", none_left)
        files.follow(paths(0, 1))
        contents = files.read()
    assert contents.columns == [[None, None], [None, None]]
    files.follow(paths(0, 1, 2))
    assert files.read().columns[0] == [b"0\n", b"1\n", b"2\n"]
    files.close()


def test_an_absent_file_is_absent_and_a_denied_one_is_counted(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mount / "c0" / "memory.stat").unlink()
    real = os.open

    def open_some(path: str, flags: int, *, dir_fd: int | None = None) -> int:
        if path == "usage" or path.endswith("c1/usage"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_some)
    files = KeptFiles(str(mount), NAMES, 1000)
    files.follow(paths(0, 1))
    contents = files.read()
    assert contents.columns == [[None, None], [None, b"slab 1\n"]]
    assert contents.denied == 2
    assert contents.gone == set()
    files.close()


def test_the_share_is_of_the_soft_limit() -> None:
    assert 0 < kept_files._descriptor_share() <= resource.getrlimit(resource.RLIMIT_NOFILE)[0]
