"""Made-up hosts on which a storm is possible, but for what a test takes away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from slabwatch.config import Config
from slabwatch.host.root import KernelRoot
from slabwatch.storm.plan import Plan, caps_of, make_plan
from tests.unit.host.fabricated import V1_MOUNT, V2_MOUNT, Content, v1_files, v1_root, v2_files, v2_root

GIB = 1024**3
CPUS = 4

HOST: Mapping[str, Content] = {
    "/proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\nSlab: 9000 kB\nSUnreclaim: 8000 kB\n",
    "/proc/loadavg": "0.00 0.00 0.00 1/300 4711\n",
    "/proc/cmdline": "quiet\n",
    "/proc/slabinfo": "slabinfo - version: 2.1\n#\ndentry 1 21 192 21 1 : tunables 0 0 0 : slabdata 1 1 0\n",
    "/proc/sys/kernel/osrelease": "6.1.0\n",
    "/proc/sys/kernel/pid_max": "4194304\n",
    "/proc/sys/kernel/threads-max": "60000\n",
    "/sys/kernel/slab/dentry/shrink": "",
}


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every root passes for the running kernel's own; the machine has four CPUs."""
    monkeypatch.setattr(KernelRoot, "live", True)
    monkeypatch.setattr("os.cpu_count", lambda: CPUS)


def v2_host(directory: Path, more: Mapping[str, Content] | None = None) -> KernelRoot:
    """A cgroup v2 host whose /storms is there for them."""
    offered = {f"{V2_MOUNT}/storms/cgroup.controllers": "memory pids\n"}
    accounted = {f"{V2_MOUNT}/memory.stat": "percpu 0\nslab 0\n"}
    return v2_root(directory, {"/storms": v2_files()}, {**HOST, **offered, **accounted, **(more or {})})


def v1_host(directory: Path, more: Mapping[str, Content] | None = None) -> KernelRoot:
    """The same on cgroup v1."""
    limits = {f"{V1_MOUNT}{path}/memory.limit_in_bytes": "9223372036854771712\n" for path in ("", "/storms")}
    return v1_root(directory, {"/storms": v1_files()}, {**HOST, **limits, **(more or {})})


def planned(**wishes: object) -> Plan:
    """A plan within the default caps, shrink allowed."""
    config = Config.read({"shrink": {"enabled": True}})
    return make_plan(wishes, caps_of(config))
