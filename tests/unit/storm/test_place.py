"""Where storms take place: a named cgroup, or the daemon's own with a leaf for itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from slabwatch.errors import SourceUnavailable, StormRejected
from slabwatch.host.root import KernelRoot
from slabwatch.storm import place, preflight
from tests.unit.host.fabricated import V1_MOUNT, V2_MOUNT, Content, fabricate
from tests.unit.storm.stormable import live, v1_host, v2_host

__all__ = ["live"]

UNIT = "/system.slice/slabwatch.service"
DIRECTORY = V2_MOUNT + UNIT


def unit(directory: Path, **files: Content) -> KernelRoot:
    """A v2 host whose daemon runs as a unit, alone in its cgroup; a leaf's cgroup.procs is there as the kernel's is."""
    me = str(os.getpid())
    there: dict[str, Content] = {
        "/proc/self/cgroup": f"0::{UNIT}\n",
        f"{DIRECTORY}/cgroup.type": "domain\n",
        f"{DIRECTORY}/cgroup.procs": f"{me}\n",
        f"{DIRECTORY}/slabwatch-daemon/cgroup.procs": "",
    }
    return v2_host(directory, there | files)


def entered(root: KernelRoot) -> str:
    return Path(root.path(f"{DIRECTORY}/slabwatch-daemon/cgroup.procs")).read_text(encoding="ascii")


@pytest.mark.parametrize(
    ("make", "own", "parent"),
    [
        (v2_host, f"0::{UNIT}\n", DIRECTORY),
        (v2_host, f"0::{UNIT}/slabwatch-daemon\n", DIRECTORY),
        (v2_host, f"0::{UNIT}/.control\n", DIRECTORY),
        (v2_host, "0::/slabwatch-daemon\n", V2_MOUNT),
        (v2_host, "0::/\n", V2_MOUNT),
        (v2_host, "no such form\n", V2_MOUNT),
        (v1_host, f"5:memory:{UNIT}\n0::/other\n", V1_MOUNT + UNIT),
        (v1_host, f"5:memory:{UNIT}/.control\n", V1_MOUNT + UNIT),
    ],
)
def test_the_parent_of_storms(tmp_path: Path, make: Any, own: str, parent: str) -> None:
    root = make(tmp_path, {"/proc/self/cgroup": own})
    assert preflight.storm_parents(root, "self")[0] == parent
    assert preflight.storm_parents(root, "/storms")[0] == parent.partition("/system.slice")[0] + "/storms"


def test_without_a_hierarchy_there_is_no_parent(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        preflight.storm_parents(fabricate(tmp_path, {"/proc/self/mountinfo": ""}), "self")


@pytest.mark.usefixtures("live")
def test_the_daemon_moves_into_a_leaf(tmp_path: Path) -> None:
    root = unit(tmp_path)
    place.make_room(root, "self")
    assert entered(root) == "0"
    place.make_room(root, "self")  # again: it is there already


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("configured", ["/", "/storms", UNIT])
def test_a_parent_that_is_named_needs_no_room(tmp_path: Path, configured: str) -> None:
    root = unit(tmp_path)
    place.make_room(root, configured)
    assert entered(root) == ""


@pytest.mark.usefixtures("live")
def test_where_no_leaf_is_needed(tmp_path: Path) -> None:
    """v1 has no such rule, nor has the real root of v2, and without a hierarchy the checks will say so."""
    own = {"/proc/self/cgroup": f"5:memory:{UNIT}\n0::{UNIT}\n"}
    for root in (
        v1_host(tmp_path / "v1", own),
        v2_host(tmp_path / "root", {"/proc/self/cgroup": "0::/\n"}),
        fabricate(tmp_path / "none", {"/proc/self/mountinfo": ""}),
    ):
        before = sorted(tmp_path.rglob("*"))
        place.make_room(root, "self")
        assert sorted(tmp_path.rglob("*")) == before


def test_nothing_moves_on_a_recorded_host(tmp_path: Path) -> None:
    root = unit(tmp_path)
    place.make_room(root, "self")
    assert entered(root) == ""


@pytest.mark.usefixtures("live")
def test_other_processes_are_in_the_way(tmp_path: Path) -> None:
    root = unit(tmp_path, **{f"{DIRECTORY}/cgroup.procs": f"1\n{os.getpid()}\n"})
    with pytest.raises(StormRejected, match="holds other processes \\(1\\)") as caught:
        place.make_room(root, "self")
    assert caught.value.code == "not_permitted"
    assert entered(root) == ""


@pytest.mark.usefixtures("live")
def test_a_cgroup_that_is_not_delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = unit(tmp_path)
    monkeypatch.setattr(os, "makedirs", lambda path, exist_ok: os.mkdir("/proc/no-such-place"))
    with pytest.raises(StormRejected, match="Delegate=memory pids") as caught:
        place.make_room(root, "self")
    assert caught.value.code == "not_permitted"
    assert DIRECTORY in str(caught.value)
