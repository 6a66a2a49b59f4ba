"""Before a storm: each thing that can be lacking, with its figures; and that nothing is made."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slabwatch.errors import StormRejected
from slabwatch.host.hierarchy import find_memory_hierarchy
from slabwatch.host.root import KernelRoot
from slabwatch.storm import preflight
from slabwatch.storm.plan import Plan
from slabwatch.storm.preflight import (
    KIB,
    MIB,
    Check,
    Forecast,
    examine,
    keeps_caches_per_cgroup,
    pids_limit,
    workers_of,
)
from tests.hosts import HOSTS, STATES, host_root
from tests.unit.host.fabricated import V1_MOUNT, V1_MOUNTINFO, V2_MOUNT, fabricate
from tests.unit.storm.stormable import CPUS, GIB, live, planned, v1_host, v2_host

__all__ = ["live"]

FAIR_RATIO = 0.10


def forecast(
    root: KernelRoot, plan: Plan | None = None, parent: str = "/storms", ratio: float = FAIR_RATIO
) -> Forecast:
    return examine(root, plan or planned(), parent, ratio)


def by_name(made: Forecast) -> dict[str, Check]:
    return {check.name: check for check in made.checks}


def failed(made: Forecast) -> dict[str, str]:
    return {check.name: check.code for check in made.checks if not check.ok}


def refusal(made: Forecast) -> StormRejected:
    with pytest.raises(StormRejected) as caught:
        made.refuse()
    return caught.value


# A host on which it is possible.


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("make", [v1_host, v2_host])
def test_a_storm_that_is_possible(tmp_path: Path, make: Any) -> None:
    root = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    made = forecast(root)
    assert failed(made) == {}
    made.refuse()
    assert sorted(tmp_path.rglob("*")) == before, "nothing was made"
    names = ["privileges", "memory", "pid_max", "threads-max", "pids limit", "cgroup ids", "shrink"]
    assert [check.name for check in made.checks] == names
    assert made.hierarchy == find_memory_hierarchy(root)
    assert made.parent == f"{made.hierarchy.mount_point}/storms"
    assert made.home == made.hierarchy.mount_point, "without /proc/self/cgroup: the root cgroup"
    for check in made.checks:
        figures = {"figure": check.figure, "limit": check.limit}
        expected: dict[str, Any] = {"name": check.name, "ok": True, "text": check.text, **figures}
        assert check.as_dict() | expected == check.as_dict()


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("make", "text", "home"),
    [
        (v2_host, "0::/system.slice/slabwatch.service\n", "/sys/fs/cgroup/system.slice/slabwatch.service"),
        (v1_host, "5:memory:/daemon\n0::/other\n", "/sys/fs/cgroup/memory/daemon"),
        (v1_host, "0::/other\n", "/sys/fs/cgroup/memory"),
        (v2_host, "no such form\n", "/sys/fs/cgroup"),
    ],
)
def test_the_daemons_own_cgroup(tmp_path: Path, make: Any, text: str, home: str) -> None:
    assert forecast(make(tmp_path, {"/proc/self/cgroup": text})).home == home


@pytest.mark.usefixtures("live")
def test_what_a_storm_is_forecast_to_take(tmp_path: Path) -> None:
    root = v2_host(tmp_path)
    per_cgroup = 64 * KIB + CPUS * 4 * KIB
    assert forecast(root, planned(cgroups=10, tasks=20)).memory_bytes == 10 * per_cgroup + 200 * 160 * KIB
    assert forecast(root, planned(cgroups=10, tasks=20, kind="light")).memory_bytes == 10 * per_cgroup + 200 * 40 * KIB
    assert forecast(root, planned(cgroups=10, live_tasks=5)).memory_bytes == 10 * per_cgroup + 5 * 160 * KIB
    shell = forecast(root, planned(preset="seed", concurrency=16))
    assert shell.memory_bytes == 1000 * per_cgroup + 16 * 1200 * KIB


@pytest.mark.usefixtures("live")
def test_kernels_with_caches_for_each_cgroup_keep_more(tmp_path: Path) -> None:
    rows = "slabinfo - version: 2.1\n# name\ntask_struct 1 1 1 1 1 : tunables 0 0 0 : slabdata 1 1 0\n"
    plain = forecast(v1_host(tmp_path / "new", {f"{V1_MOUNT}/storms/memory.kmem.slabinfo": ""}))
    affected = forecast(v1_host(tmp_path / "old", {f"{V1_MOUNT}/storms/memory.kmem.slabinfo": rows}))
    assert affected.memory_bytes - plain.memory_bytes == 20 * 512 * KIB


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("root_has_one", [True, False])
def test_on_v2_it_is_told_by_what_came_with_the_shared_caches(tmp_path: Path, root_has_one: bool) -> None:
    def memory(name: str, rows: str) -> int:
        root = v2_host(tmp_path / name, {f"{V2_MOUNT}{at}/memory.stat": rows for at in ("", "/storms")})
        if not root_has_one:
            Path(root.path(f"{V2_MOUNT}/memory.stat")).unlink()
        return forecast(root).memory_bytes

    new, old = memory("new", "anon 1\npercpu 0\nslab 1\n"), memory("old", "anon 1\nslab 1\nnot_percpu 1\n")
    assert old - new == 20 * 512 * KIB


@pytest.mark.parametrize("host", HOSTS)
def test_which_recorded_kernels_have_caches_for_each_cgroup(host: str) -> None:
    for state in ("idle", "storm", "after"):
        root = KernelRoot(str(host_root(host, state)))
        assert keeps_caches_per_cgroup(root, find_memory_hierarchy(root)) == host.startswith("4.19")


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, CPUS),
        ({"concurrency": 2}, 2),
        ({"concurrency": 500, "cgroups": 100}, 64),
        ({"cgroups": 3}, 3),
        ({"preset": "seed"}, 1),
    ],
)
def test_how_many_workers_load(wishes: dict[str, Any], expected: int) -> None:
    assert workers_of(planned(**wishes)) == expected


# Where it can not be at all.


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("host", HOSTS)
def test_a_recorded_host_is_refused_and_all_else_is_told(host: str, state: str) -> None:
    root = KernelRoot(str(host_root(host, state)))
    made = forecast(root, parent="/")
    error = refusal(made)
    assert error.code == "kernel_can_not"
    assert f"{root.root} is a recorded host" in str(error)
    checks = by_name(made)
    assert checks["privileges"].code == "kernel_can_not"
    assert checks["memory"].ok
    assert checks["cgroup ids"].ok
    assert checks["cgroup ids"].limit is not None
    assert 65_000 < checks["cgroup ids"].limit < 65_535
    assert ("pid_max" in checks) == (state == "idle")


def test_no_hierarchy(tmp_path: Path) -> None:
    made = forecast(fabricate(tmp_path, {"/proc/self/mountinfo": "1 1 0:1 / / rw - ext4 none rw\n"}))
    assert failed(made) == {"hierarchy": "kernel_can_not"}
    assert (made.hierarchy, made.memory_bytes) == (None, 0)
    assert refusal(made).code == "kernel_can_not"
    assert failed(forecast(KernelRoot(str(tmp_path / "nothing")))) == {"hierarchy": "kernel_can_not"}


@pytest.mark.usefixtures("live")
def test_a_parent_that_does_not_exist(tmp_path: Path) -> None:
    error = refusal(forecast(v2_host(tmp_path), parent="/nowhere/storms"))
    assert error.code == "bad_plan"
    assert (
        str(error) == "the storm's parent /sys/fs/cgroup/nowhere/storms does not exist: make it, or change storm.parent"
    )


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("denied", ["/storms", "/storms/cgroup.procs"])
def test_no_right_to_make_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denied: str) -> None:
    root = v2_host(tmp_path)
    monkeypatch.setattr(KernelRoot, "can_write", lambda self, path: path != V2_MOUNT + denied)
    error = refusal(forecast(root))
    assert error.code == "not_permitted"
    assert "have this subtree delegated" in str(error)


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("controllers", ["pids\n", "", None])
def test_a_v2_parent_to_which_no_memory_controller_is_offered(tmp_path: Path, controllers: str | None) -> None:
    root = v2_host(tmp_path)
    file = Path(root.path(f"{V2_MOUNT}/storms/cgroup.controllers"))
    file.unlink() if controllers is None else file.write_text(controllers)
    error = refusal(forecast(root))
    assert error.code == "kernel_can_not"
    assert "the memory controller is not offered to its children" in str(error)


# What may be lacking.


@pytest.mark.usefixtures("live")
def test_memory_above_the_floor(tmp_path: Path) -> None:
    root = v2_host(tmp_path)
    made = forecast(root, ratio=0.70)
    check = by_name(made)["memory"]
    assert (check.figure, check.limit) == (made.memory_bytes, 6 * GIB - int(8 * GIB * 0.70))
    assert check.ok
    tight = forecast(root, ratio=0.75)
    error = refusal(tight)
    assert (error.code, error.figures) == ("lack_of_memory", {"figure": tight.memory_bytes, "limit": 0})
    assert str(error) == (
        f"the storm may take {tight.memory_bytes // MIB} MiB; 0 MiB are available above the floor of 75% of MemTotal "
        "(storm.min_available_ratio)"
    )
    assert by_name(forecast(root, ratio=0.95))["memory"].limit == 0, "never below nothing"


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("spare", [-1, 0])
def test_just_enough_memory(tmp_path: Path, spare: int) -> None:
    root = v2_host(tmp_path)
    needed = forecast(root).memory_bytes // 1024
    available = needed + spare + int(8 * GIB * FAIR_RATIO) // 1024 + 1
    fabricate(tmp_path, {"/proc/meminfo": f"MemTotal: {8 * GIB // 1024} kB\nMemAvailable: {available} kB\n"})
    assert failed(forecast(root)) == ({} if spare == 0 else {"memory": "lack_of_memory"})


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("make", "file", "usage", "limit", "where"),
    [
        (v2_host, "memory.max", "memory.current", 100 * MIB, "/storms"),
        (v1_host, "memory.limit_in_bytes", "memory.usage_in_bytes", 100 * MIB, "/storms"),
        (v1_host, "memory.limit_in_bytes", "memory.usage_in_bytes", 100 * MIB, ""),
    ],
)
def test_a_memory_limit_of_the_parent_or_an_ancestor(
    tmp_path: Path, make: Any, file: str, usage: str, limit: int, where: str
) -> None:
    mount = V1_MOUNT if make is v1_host else V2_MOUNT
    root = make(tmp_path, {f"{mount}{where}/{file}": f"{limit}\n", f"{mount}{where}/{usage}": f"{90 * MIB}\n"})
    error = refusal(forecast(root))
    assert (error.code, error.figures["limit"]) == ("lack_of_memory", 10 * MIB)
    assert f"{mount}{where} leaves 10 MiB below its {file}" in str(error)
    fabricate(tmp_path, {f"{mount}{where}/{file}": "max\n" if make is v2_host else "9223372036854771712\n"})
    assert failed(forecast(root)) == {}


@pytest.mark.usefixtures("live")
def test_a_memory_limit_of_a_grandparent(tmp_path: Path) -> None:
    files = {
        f"{V2_MOUNT}/storms/memory.max": f"{MIB}\n",
        f"{V2_MOUNT}/storms/a/b/cgroup.controllers": "memory\n",
        f"{V2_MOUNT}/storms/a/b/cgroup.procs": "",
        f"{V2_MOUNT}/storms/a/b/memory.max": "max\n",
    }
    made = forecast(v2_host(tmp_path, files), parent="/storms/a/b")
    assert failed(made) == {"memory limit": "lack_of_memory"}


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("file", "room"), [("pid_max", 200 + CPUS), ("pid_max", 201 + CPUS), ("threads-max", 200 + CPUS)]
)
def test_the_hosts_own_limits_of_tasks(tmp_path: Path, file: str, room: int) -> None:
    needed = 200 + CPUS + 1  # smoke's tasks, a worker a CPU, the engine
    root = v2_host(tmp_path, {f"/proc/sys/kernel/{file}": f"{300 + 512 + room}\n"})
    made = forecast(root)
    check = by_name(made)[file]
    assert (check.figure, check.limit, check.ok) == (needed, room, room >= needed)
    if room < needed:
        error = refusal(made)
        assert (error.code, error.figures) == ("lack_of_pids", {"figure": needed, "limit": room})
        assert f"kernel.{file} {300 + 512 + room} leaves {room} (300 threads now, 512 kept for others)" in str(error)


@pytest.mark.usefixtures("live")
def test_a_shell_needs_two_pids_for_each_script(tmp_path: Path) -> None:
    plan = planned(preset="seed", cgroups=100)
    assert by_name(forecast(v2_host(tmp_path), plan))["pid_max"].figure == 2 * 100 + 1 + 1


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("where", ["/storms", ""])
def test_pids_max_of_the_parent_or_an_ancestor(tmp_path: Path, where: str) -> None:
    files = {f"{V2_MOUNT}{where}/pids.max": "150\n", f"{V2_MOUNT}{where}/pids.current": "50\n"}
    root = v2_host(tmp_path, files)
    error = refusal(forecast(root))
    assert (error.code, error.figures) == ("lack_of_pids", {"figure": 205, "limit": 100})
    assert f"pids.max of {V2_MOUNT}{where} leaves 100" in str(error)
    fabricate(tmp_path, {f"{V2_MOUNT}{where}/pids.max": "max\n"})
    assert failed(forecast(root)) == {}


# What the kernel will hold the storm's tasks to.

PIDS_MOUNT = "/sys/fs/cgroup/pids"
BOTH_MOUNTS = V1_MOUNTINFO + f"24 18 0:22 / {PIDS_MOUNT} rw,relatime - cgroup cgroup rw,pids\n"


@pytest.mark.usefixtures("live")
def test_pids_of_v1_are_limited_in_a_hierarchy_of_their_own(tmp_path: Path) -> None:
    root = v1_host(tmp_path, {"/proc/self/mountinfo": BOTH_MOUNTS, f"{PIDS_MOUNT}/storms": None})
    made = forecast(root)
    assert made.pids_parent == f"{PIDS_MOUNT}/storms"
    check = by_name(made)["pids limit"]
    assert (check.ok, check.figure) == (True, pids_limit(planned())) == (True, 2 * 200 + 256)
    assert check.text == f"pids.max of the storm will be 656, below {PIDS_MOUNT}/storms"
    # And what others have set there counts.
    fabricate(tmp_path, {f"{PIDS_MOUNT}/storms/pids.max": "150\n", f"{PIDS_MOUNT}/storms/pids.current": "50\n"})
    assert refusal(forecast(root)).figures == {"figure": 205, "limit": 100}


@pytest.mark.usefixtures("live")
def test_pids_and_memory_of_v1_in_one_hierarchy(tmp_path: Path) -> None:
    mounts = V1_MOUNTINFO.replace("rw,memory", "rw,memory,pids")
    made = forecast(v1_host(tmp_path, {"/proc/self/mountinfo": mounts}))
    assert made.pids_parent == made.parent == f"{V1_MOUNT}/storms"


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("make", "files", "why"),
    [
        (v1_host, {}, "no hierarchy of the pids controller is mounted"),
        (v1_host, {"/proc/self/mountinfo": BOTH_MOUNTS}, f"{PIDS_MOUNT}/storms does not exist"),
        (v2_host, {f"{V2_MOUNT}/storms/cgroup.controllers": "memory\n"},
         f"{V2_MOUNT}/storms does not offer the pids controller"),
    ],
)  # fmt: skip
def test_without_the_pids_controller_there_is_no_limit_and_that_is_said(
    tmp_path: Path, make: Any, files: dict[str, str], why: str
) -> None:
    made = forecast(make(tmp_path, files))
    assert (failed(made), made.pids_parent) == ({}, "")
    check = by_name(made)["pids limit"]
    assert (check.figure, check.text) == (None, f"the kernel will not limit the storm's tasks: {why}")


@pytest.mark.usefixtures("live")
def test_no_right_to_limit_pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = v1_host(tmp_path, {"/proc/self/mountinfo": BOTH_MOUNTS, f"{PIDS_MOUNT}/storms": None})
    monkeypatch.setattr(KernelRoot, "can_write", lambda self, path: not path.startswith(PIDS_MOUNT))
    made = forecast(root)
    assert (failed(made), made.pids_parent) == ({}, "")
    assert f"no right to make cgroups in {PIDS_MOUNT}/storms" in by_name(made)["pids limit"].text


# Memory pressure.


@pytest.mark.usefixtures("live")
def test_pressure_in_the_storm_is_part_of_the_forecast(tmp_path: Path) -> None:
    root = v2_host(tmp_path)
    made = forecast(root, planned(cgroups=1, tasks=1, pressure=True))
    assert made.memory_bytes - forecast(root, planned(cgroups=1, tasks=1)).memory_bytes == 64 * MIB - 160 * KIB
    # The tasks of a larger storm take more, and have gone by then.
    large = planned(cgroups=10, tasks=100)
    assert forecast(root, large).memory_bytes == forecast(root, replace(large, pressure=True)).memory_bytes
    assert by_name(made)["pressure"].figure == 64 * MIB
    assert "OOM killer" in by_name(made)["pressure"].text
    assert "pressure" not in by_name(forecast(root))


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("available_ratio", "pressure_ratio", "floor_ratio"), [(0.10, 0.20, 0.20), (0.20, 0.20, 0.22), (0.5, 0.05, 0.52)]
)
def test_pressure_on_the_host_ends_above_the_guard_s_floor(
    tmp_path: Path, available_ratio: float, pressure_ratio: float, floor_ratio: float
) -> None:
    made = examine(v2_host(tmp_path), pressed_host(), "/storms", available_ratio, pressure_ratio)
    assert made.pressure_floor_bytes == int(8 * GIB * floor_ratio)
    _, on_host = (check for check in made.checks if check.name == "pressure")
    assert (on_host.ok, on_host.figure, on_host.limit) == (True, made.pressure_floor_bytes, 6 * GIB)
    assert f"then {(6 * GIB - made.pressure_floor_bytes) // MIB} MiB on the host" in on_host.text


def pressed_host() -> Plan:
    return replace(planned(), pressure=True, pressure_host=True)


@pytest.mark.usefixtures("live")
def test_pressure_on_a_host_that_has_nothing_to_spare(tmp_path: Path) -> None:
    made = examine(v2_host(tmp_path), pressed_host(), "/storms", 0.10, 0.75)
    assert refusal(made).code == "lack_of_memory"
    assert failed(made) == {"pressure": "lack_of_memory"}


@pytest.mark.usefixtures("live")
def test_pressure_on_the_host_must_not_run_into_the_limit_of_a_parent(tmp_path: Path) -> None:
    files = {f"{V2_MOUNT}/storms/memory.max": f"{2 * GIB}\n", f"{V2_MOUNT}/storms/memory.current": "0\n"}
    made = examine(v2_host(tmp_path, files), pressed_host(), "/storms", 0.10)
    assert f"{V2_MOUNT}/storms leaves 2048 MiB below its memory.max: pressure on the host" in str(refusal(made))
    assert failed(forecast(v2_host(tmp_path / "other", files), replace(planned(), pressure=True))) == {}


def subsystems(memory: int) -> str:
    return f"#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t5\t{memory}\t1\npids\t9\t3\t1\n"


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(("used", "enough"), [(65_535 - 21, True), (65_535 - 20, False)])
def test_cgroup_ids_on_v1(tmp_path: Path, used: int, enough: bool) -> None:
    check = by_name(forecast(v1_host(tmp_path, {"/proc/cgroups": subsystems(used)})))["cgroup ids"]
    assert (check.ok, check.figure, check.limit) == (enough, 21, 65_535 - used)
    assert check.code == "lack_of_cgroup_ids"


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("stat", "used"),
    [
        ("nr_descendants 30000\nnr_dying_descendants 30000\n", 60_001),
        (
            "nr_descendants 30000\nnr_subsys_memory 20001\nnr_dying_descendants 30000\nnr_dying_subsys_memory 9\n",
            20_010,
        ),
    ],
)
def test_cgroup_ids_on_v2_where_proc_cgroups_has_no_row_for_memory(tmp_path: Path, stat: str, used: int) -> None:
    files = {"/proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\npids\t0\t3\t1\n"}
    root = v2_host(tmp_path, {**files, f"{V2_MOUNT}/cgroup.stat": stat})
    assert by_name(forecast(root))["cgroup ids"].limit == 65_535 - used


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("make", [v1_host, v2_host])
def test_cgroup_ids_that_no_one_counts(tmp_path: Path, make: Any) -> None:
    root = make(tmp_path)
    for file in ("/proc/cgroups", f"{V2_MOUNT}/cgroup.stat"):
        Path(root.path(file)).unlink(missing_ok=True)
    check = by_name(forecast(root))["cgroup ids"]
    assert check.ok
    assert check.text == "20 memory cgroups; there are 65535 ids, and this kernel does not tell how many are taken"


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("wishes", "program"),
    [
        ({"kind": "exec"}, "/bin/cat"),
        ({"preset": "seed", "cgroups": 10}, "/bin/bash"),
        ({"preset": "seed-once", "cgroups": 10}, "/bin/sh"),
    ],
)
def test_a_program_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wishes: dict[str, Any], program: str
) -> None:
    root = v2_host(tmp_path)
    real = os.access
    for there in (True, False):
        monkeypatch.setattr(
            os, "access", lambda path, mode, there=there: there if path == program else real(path, mode)
        )
        check = by_name(forecast(root, planned(**wishes)))["program"]
        assert (check.ok, check.code) == (there, "lack_of_program")
        assert check.text == f"{program} is {'there' if there else 'missing: install it'}"


@pytest.mark.usefixtures("live")
def test_kinds_without_a_program_need_none(tmp_path: Path) -> None:
    assert "program" not in by_name(forecast(v2_host(tmp_path), planned(kind="light")))


@pytest.mark.usefixtures("live")
def test_a_shrink_that_is_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = v2_host(tmp_path)
    Path(root.path("/sys/kernel/slab/dentry/shrink")).unlink()
    error = refusal(forecast(root))
    assert error.code == "kernel_can_not"
    assert "With --no-shrink the storm runs, but can not tell retained from pinned" in str(error)
    assert "shrink" not in by_name(forecast(root, planned(shrink=False)))
    forecast(root, planned(shrink=False)).refuse()


# The refusal as a whole.


@pytest.mark.usefixtures("live")
def test_all_that_is_lacking_is_said_and_the_first_gives_the_code(tmp_path: Path) -> None:
    root = v2_host(tmp_path, {"/proc/sys/kernel/pid_max": "900\n", f"{V2_MOUNT}/storms/memory.max": "1\n"})
    made = forecast(root, ratio=0.95)
    assert list(failed(made)) == ["memory", "memory limit", "pid_max"]
    error = refusal(made)
    assert error.code == "lack_of_memory"
    assert error.figures == {"figure": made.memory_bytes, "limit": 0}
    assert str(error).count("; the storm may take") == 1
    assert "kernel.pid_max 900 leaves 88" in str(error)


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("file", "checks"),
    [
        ("/proc/meminfo", {"memory": "kernel_can_not"}),
        ("/proc/loadavg", {"threads": "kernel_can_not"}),
        ("/proc/sys/kernel/pid_max", {}),
        ("/proc/sys/kernel/threads-max", {}),
    ],
)
def test_what_can_not_be_read_is_a_check_that_failed_and_no_error(
    tmp_path: Path, file: str, checks: dict[str, str]
) -> None:
    root = v2_host(tmp_path)
    Path(root.path(file)).unlink()
    assert failed(forecast(root)) == checks
    fabricate(tmp_path, {file: "of no known form"})
    assert failed(forecast(root)) == checks


def test_the_figures_err_on_the_side_of_too_much() -> None:
    costs = preflight.TASK_BYTES
    assert costs["light"] < costs["fork"] < costs["exec"] < costs["shell"]
    assert costs["light"] >= 10 * KIB + 16 * KIB, "a task_struct and a stack"
