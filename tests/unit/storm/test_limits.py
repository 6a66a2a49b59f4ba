"""What is set in the kernel on a storm's root, what could not be, and where the OOM killer is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from slabwatch.storm.limits import offer_controllers, set_limits
from slabwatch.storm.oom import event, oom_kills, times


def cgroup(directory: Path, *files: str, **contents: str) -> Path:
    directory.mkdir(parents=True)
    for name in files:
        (directory / name).write_text("")
    for name, text in contents.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def test_v1_has_both_limits_in_two_places(tmp_path: Path) -> None:
    root = cgroup(tmp_path / "memory", "memory.use_hierarchy", "memory.limit_in_bytes")
    pids = cgroup(tmp_path / "pids", "pids.max")
    assert set_limits(str(root), str(pids), 1, 1000, 50) == {"memory_bytes": 1000, "pids": 50}
    assert (root / "memory.use_hierarchy").read_text() == "1"
    assert (root / "memory.limit_in_bytes").read_text() == "1000"
    assert (pids / "pids.max").read_text() == "50"


def test_v2_has_both_in_one_and_offers_them_to_its_children(tmp_path: Path) -> None:
    root = cgroup(tmp_path / "root", "memory.max", "pids.max", cgroup__subtree_control="cpu memory\n")
    assert set_limits(str(root), str(root), 2, 1000, 50) == {"memory_bytes": 1000, "pids": 50}
    assert (root / "cgroup.subtree_control").read_text() == "+pids", "memory was there already"
    assert ((root / "memory.max").read_text(), (root / "pids.max").read_text()) == ("1000", "50")


def test_what_is_not_wanted_is_left_alone(tmp_path: Path) -> None:
    root = cgroup(tmp_path / "root", "memory.limit_in_bytes", "pids.max")
    assert set_limits(str(root), "", 1, 0, 50) == {"memory_bytes": None, "pids": None}
    assert (root / "memory.limit_in_bytes").read_text() == (root / "pids.max").read_text() == ""


def test_what_can_not_be_set_is_said_and_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = cgroup(tmp_path / "root")
    (root / "memory.limit_in_bytes").mkdir()
    assert set_limits(str(root), str(tmp_path / "nowhere"), 1, 1000, 50) == {"memory_bytes": None, "pids": None}
    assert capsys.readouterr().err.splitlines() == [
        f"engine: {root}/memory.limit_in_bytes not set: Is a directory",
        f"engine: {tmp_path}/nowhere/pids.max not set: No such file or directory",
    ]


def test_without_the_memory_controller_there_is_no_storm(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        offer_controllers(str(tmp_path))


@pytest.mark.parametrize(
    ("version", "file", "before"),
    [(1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n"), (2, "memory.events", "max 9\noom 2\n")],
)
def test_kills_are_summed_over_cgroups(tmp_path: Path, version: int, file: str, before: str) -> None:
    paths = [str(cgroup(tmp_path / name, **{file.replace(".", "__"): text})) for name, text in
             (("a", f"{before}oom_kill 3\n"), ("b", f"{before}oom_kill 4\n"), ("old", before))]  # fmt: skip
    assert oom_kills([*paths, str(tmp_path / "gone")], version) == 7
    assert oom_kills(paths[2:], version) is None, "this kernel does not count: that is not none at all"
    assert oom_kills([], version) is None


@pytest.mark.parametrize("text", ["", "oom_kill\n", "oom_kill x\n", "oom_kills 5\n", "\n", "other 1\n"])
def test_a_row_that_is_not_there(tmp_path: Path, text: str) -> None:
    (tmp_path / "events").write_text(text)
    assert event(str(tmp_path / "events"), "oom_kill") == -1
    assert event(str(tmp_path / "none"), "oom_kill") == -1


def test_in_words() -> None:
    assert [times(count) for count in (1, 2, 0)] == ["once", "2 times", "0 times"]
