"""The storm's cgroups on plain directories: found and removed by name and place, and nothing else is touched."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slabwatch.storm import lifecycle
from slabwatch.storm.lifecycle import MARK, Swept, cgroup_name, find_roots, own_children, remove_orphans, remove_root

STORM = "20260101-000000-abcd"
ROOT = f"slabwatch-storm-{STORM}"

FOREIGN_ROOTS = [
    "slabwatch-storm-",
    "slabwatch-storm-UPPER",
    "slabwatch-storm-a.b",
    "slabwatch-storm-a b",
    "slabwatch-storm-a\n",
    f"slabwatch-storm-{'a' * 65}",
    f"x{ROOT}",
    "slabwatch-storms",
    "slabwatch",
    "system.slice",
]
FOREIGN_CGROUPS = ["c000", "c0000000", "c0000\n", "C0000", "c00x0", "xc0000", "c0000.service", "d0000", "docker"]


def made(parent: Path, *names: str) -> Path:
    for name in names:
        (parent / name).mkdir(parents=True, exist_ok=True)
    return parent


def remove(root: Path, storm_seconds: float = 0.0) -> Swept:
    """One try, unless more time is given; never really waits."""
    return remove_root(str(root), deadline_seconds=storm_seconds, pause=lambda seconds: None)


@pytest.fixture(autouse=True)
def no_killing(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[int]:
    """No test kills anything, but for the one that makes its own processes."""
    killed: list[int] = []
    if "processes" not in request.fixturenames:

        def note(pid: int, storm_id: str) -> bool:
            killed.append(pid)
            return True

        monkeypatch.setattr(lifecycle, "_kill", note)
        monkeypatch.setattr(os, "kill", lambda pid, number: pytest.fail(f"kill {pid}"))
    return killed


# Names.


def test_names() -> None:
    assert lifecycle.storm_root("/sys/fs/cgroup/memory", STORM) == f"/sys/fs/cgroup/memory/{ROOT}"
    assert [cgroup_name(index) for index in (0, 42, 9999, 59_999)] == ["c0000", "c0042", "c9999", "c59999"]


def test_roots_are_found_by_their_exact_names(tmp_path: Path) -> None:
    made(tmp_path, *FOREIGN_ROOTS, ROOT, "slabwatch-storm-0", f"slabwatch-storm-{'z' * 64}")
    (tmp_path / "slabwatch-storm-file").write_text("no directory")
    os.symlink(ROOT, tmp_path / "slabwatch-storm-link")
    made(tmp_path, f"deeper/{ROOT}")
    assert find_roots(str(tmp_path)) == [
        f"{tmp_path}/slabwatch-storm-0",
        f"{tmp_path}/{ROOT}",
        f"{tmp_path}/slabwatch-storm-{'z' * 64}",
    ]


def test_roots_of_a_parent_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_roots(str(tmp_path / "nothing"))


def test_children_are_found_by_their_exact_names(tmp_path: Path) -> None:
    own = ["c0000", "c0001", "c12345", "c123456"]
    made(tmp_path, *own, *FOREIGN_CGROUPS, "c0000/c0000")
    assert own_children(str(tmp_path)) == [f"{tmp_path}/{name}" for name in own]
    assert own_children(str(tmp_path / "nothing")) == []


# Removal.


def test_a_storm_is_removed_as_a_whole(tmp_path: Path) -> None:
    root = made(tmp_path / ROOT, *(cgroup_name(index) for index in range(100)))
    assert remove(root) == Swept(removed=101, killed=0, left={})
    assert list(tmp_path.iterdir()) == []


def test_a_storm_that_is_gone_needs_no_removal(tmp_path: Path) -> None:
    assert remove(tmp_path / ROOT) == Swept()


def test_what_others_made_stays_and_is_named(tmp_path: Path) -> None:
    root = made(tmp_path / ROOT, "c0000", "c0001", "docker", os.fsdecode(b"\xff"))
    swept = remove(root)
    assert swept.removed == 2
    assert sorted(path.name for path in root.iterdir()) == sorted(["docker", os.fsdecode(b"\xff")])
    assert set(swept.left) == {str(root)}
    reason = swept.left[str(root)]
    assert reason.startswith("holds cgroups that are not the storm's: ")
    assert "docker" in reason
    assert "\\xff" in reason
    reason.encode("utf-8")


def test_what_others_made_inside_a_cgroup_stays_and_is_named(tmp_path: Path) -> None:
    root = made(tmp_path / ROOT, "c0000", "c0001/theirs")
    swept = remove(root)
    assert swept.removed == 1
    assert swept.left == {
        str(root / "c0001"): "holds cgroups that are not the storm's: theirs",
        str(root): "still busy, or not ours to remove",
    }
    assert (root / "c0001" / "theirs").is_dir()


def test_nothing_beside_the_storms_root_is_touched(tmp_path: Path) -> None:
    made(tmp_path, *FOREIGN_ROOTS, "c0000", f"{ROOT}/c0000", "slabwatch-storm-other/c0000")
    remove(tmp_path / ROOT)
    expected = {*FOREIGN_ROOTS, "c0000", "slabwatch-storm-other"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert (tmp_path / "slabwatch-storm-other" / "c0000").is_dir()


def test_a_foreign_process_is_not_killed_and_is_named(tmp_path: Path, no_killing: list[int]) -> None:
    root = made(tmp_path / ROOT, "c0000", "c0001")
    (root / "c0001" / "cgroup.procs").write_text(f"1\n{os.getpid()}\n")
    swept = remove(root)
    assert no_killing == []
    assert swept.killed == 0
    assert swept.left[str(root / "c0001")] == f"holds processes that are not the storm's: 1, {os.getpid()}"


def test_a_busy_cgroup_is_tried_again_until_it_goes(
    tmp_path: Path, no_killing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = made(tmp_path / ROOT, "c0000", "c0001")
    procs = root / "c0001" / "cgroup.procs"
    procs.write_text("4711\n4712\n")
    monkeypatch.setattr(lifecycle, "is_marked", lambda pid, storm_id: (pid, storm_id) == (4711, STORM))
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            procs.unlink()  # the last task has been taken down

    swept = remove_root(str(root), deadline_seconds=60.0, pause=pause)
    assert swept == Swept(removed=3, killed=3, left={})
    assert set(no_killing) == {4711}
    assert len(pauses) == 3


def test_the_deadline_ends_the_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = made(tmp_path / ROOT, "c0000")
    (root / "c0000" / "cgroup.procs").write_text("")
    now = [1000.0]
    monkeypatch.setattr("slabwatch.storm.lifecycle.time.monotonic", lambda: now[0])

    def pause(seconds: float) -> None:
        now[0] += seconds

    swept = remove_root(str(root), deadline_seconds=1.0, pause=pause)
    assert now[0] == pytest.approx(1001.0, abs=0.1)
    assert swept.left == dict.fromkeys([str(root / "c0000"), str(root)], "still busy, or not ours to remove")


def test_no_right_to_remove_kills_nothing(
    tmp_path: Path, no_killing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = made(tmp_path / ROOT, "c0000")
    (root / "c0000" / "cgroup.procs").write_text("4711\n")
    monkeypatch.setattr(lifecycle, "is_marked", lambda pid, storm_id: True)

    def denied(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "rmdir", denied)
    assert set(remove(root).left) == {str(root / "c0000"), str(root)}
    assert no_killing == []


# Processes.


def test_the_processes_of_a_cgroup(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("1\n4711\n")
    assert lifecycle.processes(str(tmp_path)) == [1, 4711]
    assert lifecycle.processes(str(tmp_path / "gone")) == []


def test_entering_a_cgroup_is_writing_0(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    lifecycle.enter(str(tmp_path))
    assert (tmp_path / "cgroup.procs").read_text() == "0"
    with pytest.raises(FileNotFoundError):
        lifecycle.enter(str(tmp_path / "gone"))


def test_this_process_is_no_storms() -> None:
    assert not lifecycle.is_marked(os.getpid(), STORM)
    assert not lifecycle.is_marked(2**22 + 1, STORM), "no such process"


@pytest.fixture
def processes() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Three that wait for their input: one of the storm, one of another, one of nobody."""
    environments = {"own": {MARK: STORM}, "other": {MARK: f"{STORM}0"}, "nobodys": {"X": f"{MARK}={STORM}"}}
    started = {
        name: subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, env=environment)
        for name, environment in environments.items()
    }
    try:
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.communicate()


def test_only_what_carries_the_storms_own_mark_is_killed(
    tmp_path: Path, processes: dict[str, subprocess.Popen[bytes]]
) -> None:
    root = made(tmp_path / ROOT, "c0000")
    procs = root / "c0000" / "cgroup.procs"
    procs.write_text("".join(f"{process.pid}\n" for process in processes.values()))
    swept = remove(root)
    assert swept.killed == 1
    assert processes["own"].wait(10) == -signal.SIGKILL
    assert processes["other"].poll() is processes["nobodys"].poll() is None
    others = f"{processes['other'].pid}, {processes['nobodys'].pid}"
    assert swept.left[str(root / "c0000")].endswith(others)


def test_without_pidfds_it_is_killed_all_the_same(
    tmp_path: Path, processes: dict[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", unknown)
    (tmp_path / "cgroup.procs").write_text(f"{processes['own'].pid}\n")
    assert lifecycle.kill_marked(str(tmp_path), STORM) == 1
    assert processes["own"].wait(10) == -signal.SIGKILL


def test_a_pid_that_is_someone_elses_by_now_is_not_killed(
    tmp_path: Path, processes: dict[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, False])
    monkeypatch.setattr(lifecycle, "is_marked", lambda pid, storm_id: next(answers))
    (tmp_path / "cgroup.procs").write_text(f"{processes['nobodys'].pid}\n")
    assert lifecycle.kill_marked(str(tmp_path), STORM) == 0
    assert processes["nobodys"].poll() is None


# What earlier daemons left.


def test_orphans_are_removed_and_a_living_daemons_storm_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["slabwatch-storm-1", "slabwatch-storm-2", "slabwatch-storm-3"]
    made(tmp_path, *(f"{name}/c0000" for name in names), "slabwatch-storm-3/theirs", *FOREIGN_ROOTS)
    monkeypatch.setattr(lifecycle, "_engine_of", lambda root, storm_id: 4711 if storm_id == "2" else None)
    monkeypatch.setattr("slabwatch.storm.lifecycle.time.sleep", lambda seconds: pytest.fail("no time was given"))
    clock = itertools.count(1000.0, 0.6)  # each look at it takes as long
    monkeypatch.setattr("slabwatch.storm.lifecycle.time.monotonic", lambda: next(clock))
    swept = remove_orphans(str(tmp_path), deadline_seconds=0.0)
    assert swept.removed == 3
    assert set(swept.left) == {f"{tmp_path}/slabwatch-storm-2", f"{tmp_path}/slabwatch-storm-3"}
    assert "process 4711, is at work for another daemon" in swept.left[f"{tmp_path}/slabwatch-storm-2"]
    assert (tmp_path / "slabwatch-storm-2" / "c0000").is_dir()
    assert set(FOREIGN_ROOTS) <= {path.name for path in tmp_path.iterdir()}


def test_an_engine_that_cleans_up_by_itself_is_given_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "slabwatch-storm-1")
    left = [4711, 4711, 4711]
    monkeypatch.setattr(lifecycle, "_engine_of", lambda root, storm_id: left.pop() if left else None)
    sleeps: list[float] = []
    monkeypatch.setattr("slabwatch.storm.lifecycle.time.sleep", sleeps.append)
    assert remove_orphans(str(tmp_path), deadline_seconds=60.0) == Swept(removed=1)
    assert len(sleeps) == 3


def test_who_stops_meanwhile_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "slabwatch-storm-1", "slabwatch-storm-2/c0000/theirs")
    monkeypatch.setattr(lifecycle, "_engine_of", lambda root, storm_id: 4711 if storm_id == "1" else None)
    monkeypatch.setattr("slabwatch.storm.lifecycle.time.sleep", lambda seconds: pytest.fail("it waits all the same"))
    swept = remove_orphans(str(tmp_path), deadline_seconds=60.0, give_up=lambda: True)
    assert set(swept.left) == {
        f"{tmp_path}/slabwatch-storm-1",
        f"{tmp_path}/slabwatch-storm-2",
        f"{tmp_path}/slabwatch-storm-2/c0000",
    }
    root = made(tmp_path / ROOT, "c0000/theirs")
    never: list[float] = []
    assert remove_root(str(root), deadline_seconds=60.0, pause=never.append, give_up=lambda: True).left
    assert never == []


@pytest.mark.parametrize("theirs", [False, True])
def test_an_engine_is_a_marked_process_of_the_user_who_made_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: bool
) -> None:
    """Anyone can start a process that looks like an engine."""
    root = made(tmp_path, ROOT) / ROOT
    if theirs:
        real = os.stat
        other = os.stat_result((0o40755, 0, 0, 2, os.getuid() + 1, 0, 0, 0, 0, 0))
        monkeypatch.setattr(os, "stat", lambda path, **options: other if path == str(root) else real(path, **options))
    looks_alike = ["slabwatch.storm.engine"]
    with subprocess.Popen(looks_alike, executable="/bin/cat", stdin=subprocess.PIPE, env={MARK: STORM}) as process:
        swept = remove_orphans(str(tmp_path), deadline_seconds=0.0)
    if theirs:
        assert swept == Swept(removed=1)
    else:
        assert swept.left == {str(root): f"its engine, process {process.pid}, is at work for another daemon"}


def test_orphans_of_a_parent_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remove_orphans(str(tmp_path / "nothing"), deadline_seconds=0.0)
