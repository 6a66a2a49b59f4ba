"""What this kernel is: release, allocator, accounting. Never an error, always a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from slabwatch.host.facts import KernelFacts, kmem_accounting, read_facts, relevant_config
from slabwatch.host.root import KernelRoot
from tests.hosts import HOSTS, host_root, kernel_config
from tests.unit.host.fabricated import V1_MOUNTINFO, fabricate

RELEASE = {"/proc/sys/kernel/osrelease": "5.0.0\n"}


@pytest.mark.parametrize("host", HOSTS)
def test_the_recorded_hosts(host: str) -> None:
    release, _, version = host.rpartition("-cgroup-")
    facts = read_facts(KernelRoot(str(host_root(host, "idle"))))
    assert facts.release.startswith(release.rpartition(".")[0] + ".")
    assert facts.as_dict() == {
        "release": facts.release,
        "allocator": "slub",
        "cgroup_mode": "hybrid" if version == "v1" else "v2",
        "kmem_accounting": "on",
    }


@pytest.mark.parametrize("host", HOSTS)
def test_the_options_that_matter_from_a_recorded_config(host: str, tmp_path: Path) -> None:
    root = fabricate(tmp_path, RELEASE | {"/boot/config-5.0.0": kernel_config(host)})
    options = relevant_config(root)
    assert options["CONFIG_SLUB"] == options["CONFIG_MEMCG"] == "y"
    assert all(name.startswith("CONFIG_") for name in options)
    assert "CONFIG_HZ" not in options


def test_nothing_is_known_of_an_empty_root(tmp_path: Path) -> None:
    root = KernelRoot(str(tmp_path))
    assert read_facts(root) == KernelFacts("unknown", "unknown", "none", "unknown")
    assert relevant_config(root) == {}


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        ("quiet cgroup.memory=nokmem\n", "off"),
        ("cgroup.memory=nosocket,nokmem ro\n", "off"),
        ("cgroup.memory=nosocket cgroup.memory=nokmem\n", "off"),
        ("cgroup.memory=nosocket\n", "on"),
        ("nokmem\n", "on"),
        ("\n", "on"),
    ],
)
def test_nokmem_turns_accounting_off(tmp_path: Path, cmdline: str, expected: str) -> None:
    root = fabricate(tmp_path, RELEASE | {"/proc/cmdline": cmdline, "/proc/self/mountinfo": V1_MOUNTINFO})
    assert read_facts(root).kmem_accounting == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("# CONFIG_MEMCG_KMEM is not set\nCONFIG_MEMCG=y\n", "off"),
        ("# CONFIG_MEMCG is not set\n", "off"),
        ("CONFIG_MEMCG=y\nCONFIG_MEMCG_KMEM=y\n", "on"),
        ("CONFIG_MEMCG=y\n", "on"),  # from 6.11 on there is no option of its own
    ],
)
def test_a_kernel_that_was_built_without_accounting(tmp_path: Path, config: str, expected: str) -> None:
    root = fabricate(tmp_path, RELEASE | {"/proc/cmdline": "\n", "/boot/config-5.0.0": config})
    assert kmem_accounting(root, "v1") == expected
    assert kmem_accounting(root, "none") == "off"


@pytest.mark.parametrize(
    ("config", "expected"), [("CONFIG_SLUB=y\n", "slub"), ("CONFIG_SLAB=y\n", "slab"), ("CONFIG_SLOB=y\n", "unknown")]
)
def test_the_allocator_by_config_where_sysfs_has_none(tmp_path: Path, config: str, expected: str) -> None:
    root = fabricate(tmp_path, RELEASE | {"/boot/config-5.0.0": config})
    assert read_facts(root).allocator == expected


def test_the_allocator_by_sysfs(tmp_path: Path) -> None:
    root = fabricate(tmp_path, RELEASE | {"/sys/kernel/slab": None, "/boot/config-5.0.0": "CONFIG_SLAB=y\n"})
    assert read_facts(root).allocator == "slub"


def test_a_config_that_can_not_be_read_is_no_config(tmp_path: Path) -> None:
    root = fabricate(tmp_path, RELEASE | {"/proc/config.gz": b"\x1f\x8bnot gzip"})
    assert relevant_config(root) == {}
