"""What the process says of itself is what psutil says of it."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import psutil
import pytest

from slabwatch.errors import SourceUnavailable
from slabwatch.host.own_process import OwnProcess
from slabwatch.host.root import KernelRoot


def test_the_figures_are_those_of_psutil() -> None:
    usage, other = OwnProcess().read(), psutil.Process()
    assert usage is not None
    memory, times = other.memory_info(), other.cpu_times()
    assert usage.cpu_seconds_total == pytest.approx(times.user + times.system, abs=0.5)
    assert usage.start_time_seconds == pytest.approx(other.create_time(), abs=1.5)
    assert usage.virtual_memory_bytes == pytest.approx(memory.vms, rel=0.05)
    assert usage.resident_memory_bytes == pytest.approx(memory.rss, rel=0.05)
    assert usage.open_fds == other.num_fds() - 1  # which counts the one that it counts with
    assert usage.max_fds == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_descriptor_more_is_counted_also_where_the_kernel_gives_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        usage = OwnProcess().read()
        assert usage is not None
        return usage.open_fds

    with open(tmp_path / "file", "w", encoding="ascii"):
        counted = count()
        before_6_2 = os.stat_result([0] * 10)
        monkeypatch.setattr(os, "stat", lambda path: before_6_2)
        assert count() == counted
    assert count() == counted - 1


def test_without_proc_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: KernelRoot, path: str) -> bytes:
        raise SourceUnavailable(path, os.strerror(errno.ENOENT))

    process = OwnProcess()
    monkeypatch.setattr(KernelRoot, "read", refuse)
    assert process.read() is None
    assert OwnProcess().read() is None


def test_no_limit_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    usage = OwnProcess().read()
    assert usage is not None
    assert usage.max_fds is None
