"""KernelRoot: paths below a root, bounded reads, and what each failure becomes."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest

from slabwatch.errors import KernelParseError, SourceDenied, SourceUnavailable
from slabwatch.host import root as module
from slabwatch.host.root import KernelRoot, unavailable
from tests.hosts import HOSTS, host_root, recorded
from tests.unit.host.fabricated import deny, fabricate


def test_only_the_running_kernels_root_is_live(tmp_path: Path) -> None:
    assert KernelRoot().live
    assert KernelRoot("/usr/..").live
    assert KernelRoot().path("/proc/slabinfo") == "/proc/slabinfo"
    other = KernelRoot(str(tmp_path) + "/")
    assert not other.live
    assert other.path("/proc/slabinfo") == f"{tmp_path}/proc/slabinfo"


def test_a_missing_file_is_unavailable_and_names_the_kernels_path(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        KernelRoot(str(tmp_path)).read("/proc/slabinfo")
    assert not isinstance(caught.value, SourceDenied)
    assert str(caught.value) == "/proc/slabinfo: No such file or directory"


def test_a_directory_in_a_files_place_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="directory"):
        fabricate(tmp_path, {"/proc/slabinfo": None}).read_slabinfo()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_no_right_is_denied(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fabricate(tmp_path, {"/proc/slabinfo": "x"})
    deny(monkeypatch, ["slabinfo"], number)
    with pytest.raises(SourceDenied, match="/proc/slabinfo: permission denied"):
        root.read_slabinfo()


def test_an_error_without_a_text_still_has_one() -> None:
    assert str(unavailable("/proc/x", OSError("odd"))) == "/proc/x: odd"


def test_reads_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    root = fabricate(tmp_path, {"/proc/most": bytes(100_000), "/proc/more": bytes(100_001)})
    assert root.read("/proc/most") == bytes(100_000)
    with pytest.raises(KernelParseError, match="/proc/more: bad size"):
        root.read("/proc/more")


@pytest.mark.parametrize("host", HOSTS)
def test_every_reader_reads_the_recorded_file(host: str) -> None:
    root = KernelRoot(str(host_root(host, "idle")))
    assert root.read_release() == recorded(host, "idle", "proc/sys/kernel/osrelease").decode().strip()
    assert "task_struct" in root.read_slabinfo().names
    assert root.read_meminfo().get("SUnreclaim")
    assert root.read_loadavg().threads > 10
    assert root.read_stat().processes
    assert "nr_slab_unreclaimable" in root.read_vmstat()
    assert root.read_dentries() > 0
    assert root.read_allocated_files() >= 0
    assert any(row.name == "pids" for row in root.read_controllers())
    assert any(mount.fs_type.startswith("cgroup") for mount in root.read_mountinfo().mounts)
    assert root.read_own_cgroup().unified == "/"
    assert isinstance(root.read_cmdline(), dict)
    assert root.read_counter("/proc/sys/kernel/pid_max") == 32768
    assert root.exists("/proc/pressure") == (not host.startswith("4."))
    if root.exists("/proc/pressure"):
        assert root.read_memory_pressure().some_avg10 is not None


def test_processes_are_the_directories_named_by_digits(tmp_path: Path) -> None:
    root = fabricate(tmp_path, {"/proc/1": None, "/proc/4711": None, "/proc/self": None, "/proc/12x": None})
    assert root.count_processes() == 2


def test_a_proc_without_processes_is_no_count_of_zero(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="holds no process"):
        fabricate(tmp_path, {"/proc/self": None}).count_processes()
    with pytest.raises(SourceUnavailable, match="/proc: No such"):
        KernelRoot(str(tmp_path / "nothing")).count_processes()


def test_the_kernels_config_from_proc_then_from_boot(tmp_path: Path) -> None:
    files: dict[str, str | bytes | None] = {
        "/proc/sys/kernel/osrelease": "6.1.0\n",
        "/boot/config-6.1.0": "CONFIG_SLUB=y\n",
        "/boot/config-5.0.0": "CONFIG_SLAB=y\n",
    }
    assert fabricate(tmp_path, files).read_kernel_config() == {"CONFIG_SLUB": "y"}
    files["/proc/config.gz"] = gzip.compress(b"CONFIG_SLUB=m\n")
    assert fabricate(tmp_path, files).read_kernel_config() == {"CONFIG_SLUB": "m"}


def test_no_kernel_config_says_where_it_was_looked_for(tmp_path: Path) -> None:
    root = fabricate(tmp_path, {"/proc/sys/kernel/osrelease": "6.1.0\n"})
    with pytest.raises(SourceUnavailable, match="/proc/config.gz and /boot/config-6.1.0"):
        root.read_kernel_config()


def test_max_is_no_number(tmp_path: Path) -> None:
    root = fabricate(tmp_path, {"/limit": "max\n", "/other": "12\n"})
    assert root.read_counter("/limit") is None
    assert root.read_counter("/other") == 12
    assert root.can_write("/other")
    assert not root.can_write("/missing")


def test_writing_is_tried_where_the_kernel_would_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """access(2) does not know the capabilities of a user other than root: for files it is not asked."""
    root = fabricate(tmp_path, {"/directory/file": "as it is\n"})
    monkeypatch.setattr(os, "access", lambda path, mode: os.path.isdir(path) and mode == os.W_OK)
    assert root.can_write("/directory")
    assert root.can_write("/directory/file")
    assert root.read("/directory/file") == b"as it is\n"
    deny(monkeypatch, ["file"])
    assert not root.can_write("/directory/file")
    os.mkfifo(tmp_path / "fifo")
    assert not root.can_write("/fifo"), "and one that nobody reads does not block"
