"""What this kernel and this configuration can do, each with its reason and remedy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from slabwatch.config import Config
from slabwatch.host.root import KernelRoot
from slabwatch.storm.doctor import config_file, examine
from tests.hosts import HOSTS, STATES, host_root, kernel_config
from tests.unit.host.fabricated import V1_MOUNT, V2_MOUNT, Content, deny, fabricate
from tests.unit.storm.stormable import live, v1_host, v2_host

__all__ = ["live"]

ALLOWED = Config.read({"storm": {"enabled": True, "parent": "/storms"}, "shrink": {"enabled": True}})
Findings = dict[str, tuple[str, str, str]]


def found(root: KernelRoot, config: Config = ALLOWED) -> Findings:
    """name -> (state, finding, remedy)."""
    rows = examine(root, config)
    assert all(set(row) == {"name", "state", "finding", "remedy"} for row in rows)
    assert all(row["state"] in ("ok", "info", "warn", "fail") and row["finding"] for row in rows)
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: (row["state"], row["finding"], row["remedy"]) for row in rows}


# Recorded hosts.


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("host", HOSTS)
def test_every_question_has_an_answer_on_every_recorded_host(host: str, state: str) -> None:
    findings = found(KernelRoot(str(host_root(host, state))), Config.read({"storm": {"enabled": True}}))
    assert list(findings) == [
        "slabinfo",
        "memory cgroups",
        "kernel memory accounting",
        "slab caches",
        "kernel config",
        "merged caches",
        "shrink",
        "storm smoke",
        "storm full",
    ]
    assert findings["slabinfo"][0] == "ok"
    version = "v1 (hybrid) at /sys/fs/cgroup/memory" if host.endswith("v1") else "v2 (v2) at /sys/fs/cgroup"
    assert findings["memory cgroups"] == ("ok", version, "")
    for name in ("storm smoke", "storm full"):
        assert findings[name][0] == "warn"
        assert "is a recorded host: storms need the running kernel's root" in findings[name][1]


@pytest.mark.parametrize("host", HOSTS)
def test_how_the_recorded_kernels_keep_their_caches(host: str) -> None:
    state, text, remedy = found(KernelRoot(str(host_root(host, "idle"))))["slab caches"]
    if host.startswith("4.19"):
        assert (state, "before 5.9" in text) == ("warn", True)
        assert "slabwatchctl shrink" in remedy
    elif host.startswith("7."):
        assert (state, "per-CPU sheaves" in text) == ("info", True)
    else:
        assert (state, "since 5.9" in text, remedy) == ("ok", True, "")


@pytest.mark.parametrize("host", HOSTS)
def test_accounting_is_on_in_the_recorded_kernels(host: str) -> None:
    assert found(KernelRoot(str(host_root(host, "idle"))))["kernel memory accounting"][0] == "ok"


# A host on which all is well, and what can be wrong with it.


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("make", [v1_host, v2_host])
def test_all_is_well(tmp_path: Path, make: Any) -> None:
    findings = found(make(tmp_path))
    expected = dict.fromkeys(findings, "ok") | {"kernel config": "info"}
    assert {name: state for name, (state, _, _) in findings.items()} == expected
    assert findings["shrink"][1] == "possible and allowed"
    # 20 cgroups of 64 KiB and 4 x 4 KiB, 200 tasks of 160 KiB that may all be alive.
    assert findings["storm smoke"][1] == "possible: forecast 32 MiB, 4 CPUs"


@pytest.mark.usefixtures("live")
def test_all_is_possible_and_nothing_is_allowed(tmp_path: Path) -> None:
    findings = found(v2_host(tmp_path), Config.read({"storm": {"parent": "/storms"}}))
    assert findings["storm"] == ("info", "off", "set storm.enabled = true to allow it")
    assert findings["shrink"] == ("info", "possible, but off", "set shrink.enabled = true to allow it")
    assert findings["storm smoke"][0] == findings["storm full"][0] == "ok"


@pytest.mark.usefixtures("live")
def test_a_shrink_that_is_neither_possible_nor_allowed_does_not_stop_a_storm(tmp_path: Path) -> None:
    root = v2_host(tmp_path)
    Path(root.path("/sys/kernel/slab/dentry/shrink")).unlink()
    without = Config.read({"storm": {"enabled": True, "parent": "/storms"}})
    assert found(root, without)["storm smoke"][0] == "ok"
    state, text, _ = found(root)["storm smoke"]
    assert (state, "can not shrink" in text) == ("warn", True)


@pytest.mark.usefixtures("live")
def test_caps_that_a_preset_does_not_fit(tmp_path: Path) -> None:
    config = Config.read({"storm": {"enabled": True, "parent": "/storms", "max_cgroups": 500}})
    findings = found(v2_host(tmp_path), config)
    assert findings["storm smoke"][0] == "ok"
    assert findings["storm full"][:2] == (
        "warn",
        "1000 cgroups: the configuration allows 500 (storm.max_cgroups)",
    )


@pytest.mark.usefixtures("live")
def test_a_host_that_is_too_small(tmp_path: Path) -> None:
    small = "MemTotal: 524288 kB\nMemAvailable: 300000 kB\n"
    findings = found(v2_host(tmp_path, {"/proc/meminfo": small, "/proc/sys/kernel/pid_max": "2000\n"}))
    assert findings["storm smoke"][0] == "ok"
    state, text, _ = findings["storm full"]
    assert state == "warn"
    assert "the storm may take" in text
    assert "kernel.pid_max 2000 leaves" in text


@pytest.mark.usefixtures("live")
def test_slabinfo_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = v2_host(tmp_path)
    deny(monkeypatch, ["/proc/slabinfo"])
    assert found(root)["slabinfo"] == (
        "fail",
        "/proc/slabinfo may not be read by this user",
        "run the daemon as root or with CAP_DAC_READ_SEARCH",
    )


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("content", "state", "words"), [(None, "fail", "CONFIG_SLUB_DEBUG"), ("slabinfo - version: 9\n", "warn", "")]
)
def test_slabinfo_that_is_missing_or_of_another_form(tmp_path: Path, content: Content, state: str, words: str) -> None:
    root = v2_host(tmp_path)
    path = Path(root.path("/proc/slabinfo"))
    path.unlink() if content is None else fabricate(tmp_path, {"/proc/slabinfo": content})
    finding = found(root)["slabinfo"]
    assert finding[0] == state
    assert "/proc/slabinfo" in finding[1]
    assert words in finding[2]


@pytest.mark.usefixtures("live")
def test_no_memory_hierarchy(tmp_path: Path) -> None:
    findings = found(v2_host(tmp_path, {"/proc/self/mountinfo": "1 1 0:1 / / rw - ext4 none rw\n"}))
    assert findings["memory cgroups"][0] == "fail"
    assert "cgroup_disable=memory" in findings["memory cgroups"][2]
    assert "slab caches" not in findings
    assert "no memory cgroups to storm in" in findings["storm smoke"][1]


@pytest.mark.usefixtures("live")
def test_accounting_that_was_turned_off(tmp_path: Path) -> None:
    findings = found(v2_host(tmp_path, {"/proc/cmdline": "cgroup.memory=nokmem\n"}))
    assert findings["kernel memory accounting"] == (
        "warn",
        "off: cgroups' kernel memory reads 0",
        "boot without cgroup.memory=nokmem; until then a storm says nothing about cgroups",
    )


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(("capacity", "state"), [("32\n", "info"), ("0\n", "ok"), ("odd\n", "ok")])
def test_sheaves(tmp_path: Path, capacity: str, state: str) -> None:
    root = v2_host(tmp_path, {"/sys/kernel/slab/task_struct/sheaf_capacity": capacity})
    assert found(root)["slab caches"][0] == state


@pytest.mark.usefixtures("live")
def test_caches_for_each_cgroup(tmp_path: Path) -> None:
    root = v1_host(tmp_path, {f"{V1_MOUNT}/storms/memory.kmem.slabinfo": "version\n# name\ntask_struct 1\n"})
    assert found(root)["slab caches"][0] == "warn"


@pytest.mark.usefixtures("live")
def test_the_options_that_are_set_and_merged_caches(tmp_path: Path) -> None:
    root = v2_host(tmp_path, {"/boot/config-6.1.0": kernel_config("6.1.176-cgroup-v2")})
    for name in ("cred", "pid"):
        os.symlink("dentry", root.path(f"/sys/kernel/slab/{name}"))
    findings = found(root)
    assert findings["kernel config"][0] == "ok"
    assert "MEMCG" in findings["kernel config"][1].split(", ")
    assert findings["merged caches"][:2] == (
        "info",
        "2 of 3 cache names share another's slabs: a row may hold several kinds of objects",
    )


@pytest.mark.usefixtures("live")
def test_a_kernel_without_slub(tmp_path: Path) -> None:
    root = v2_host(tmp_path)
    Path(root.path("/sys/kernel/slab/dentry/shrink")).unlink()
    Path(root.path("/sys/kernel/slab/dentry")).rmdir()
    findings = found(root)
    assert findings["merged caches"][0] == "info"
    assert findings["shrink"][:2] == (
        "warn",
        "/sys/kernel/slab: is empty: the kernel was built without SLUB_DEBUG or sysfs for slabs",
    )


@pytest.mark.usefixtures("live")
def test_no_right_to_shrink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = v2_host(tmp_path)
    monkeypatch.setattr(KernelRoot, "can_write", lambda self, path: not path.endswith("/shrink"))
    assert found(root)["shrink"] == (
        "warn",
        "/sys/kernel/slab/dentry/shrink: writing needs root or CAP_DAC_OVERRIDE",
        "run the daemon as root or with CAP_DAC_OVERRIDE",
    )


def test_an_empty_root_is_no_error(tmp_path: Path) -> None:
    findings = found(KernelRoot(str(tmp_path)))
    assert {name: state for name, (state, _, _) in findings.items()} == {
        "slabinfo": "fail",
        "memory cgroups": "fail",
        "kernel config": "info",
        "merged caches": "info",
        "shrink": "warn",
        "storm smoke": "warn",
        "storm full": "warn",
    }


@pytest.mark.usefixtures("live")
def test_looking_changes_nothing(tmp_path: Path) -> None:
    root = v2_host(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found(root)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert Path(root.path(V2_MOUNT)).is_dir()


# Who may change the configuration.


@pytest.mark.skipif(os.geteuid() != 0, reason="root's files are made by root")
@pytest.mark.parametrize(
    ("mode", "owner", "group", "said"),
    [
        (0o644, 0, 0, ""),
        (0o664, 0, 0, ""),
        (0o640, 0, 54321, ""),
        (0o664, 0, 54321, "can be written by group 54321 (mode 0664)"),
        (0o646, 0, 0, "can be written by everybody (mode 0646)"),
        (0o600, 54321, 0, "belongs to user 54321"),
    ],
)
def test_a_configuration_that_others_can_change(tmp_path: Path, mode: int, owner: int, group: int, said: str) -> None:
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    path = directory / "slabwatch.toml"
    path.write_text("", encoding="ascii")
    for name, place in (("config file", path), ("config directory", directory)):
        os.chown(place, owner, group)
        os.chmod(place, mode | (0o111 if place == directory else 0))
        findings = [finding for finding in config_file(path) if finding["name"] == name]
        assert bool(findings) == bool(said)
        if said:
            expected = said.replace("(mode 0664)", "(mode 0775)").replace("(mode 0646)", "(mode 0757)")
            assert findings[0]["finding"] == f"{place} {said if place == path else expected}"
            assert "chown root" in findings[0]["remedy"]
        os.chown(place, 0, 0)
        os.chmod(place, 0o755)


def test_a_sticky_directory_is_safe_and_a_missing_one_is_no_finding(tmp_path: Path) -> None:
    directory = tmp_path / "sticky"
    directory.mkdir()
    os.chmod(directory, 0o1777)
    (directory / "slabwatch.toml").write_text("", encoding="ascii")
    found_there = [
        finding for finding in config_file(directory / "slabwatch.toml") if "everybody" in finding["finding"]
    ]
    assert found_there == []
    assert config_file(tmp_path / "no" / "slabwatch.toml") == []
