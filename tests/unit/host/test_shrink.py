"""Shrinking, on files that only pretend: each real cache once, and what went back."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from slabwatch.errors import SourceDenied, SourceUnavailable, StormRejected
from slabwatch.host.root import KernelRoot
from slabwatch.host.shrink import CacheShrunk, can_shrink, shrink
from tests.unit.host.fabricated import Content, deny, fabricate

SLAB = "/sys/kernel/slab"
HEADER = "slabinfo - version: 2.1\n# name <active_objs> ...\n"


def row(name: str, slabs: int) -> str:
    """A line of slabinfo; slabs of 8 pages with 5 objects each."""
    return f"{name} {slabs} {5 * slabs} 5888 5 8 : tunables 0 0 0 : slabdata {slabs} {slabs} 0\n"


def meminfo(slab: int, sunreclaim: int) -> str:
    return f"MemTotal: 1000000 kB\nSlab: {slab} kB\nSUnreclaim: {sunreclaim} kB\n"


def files(**slabs: int) -> dict[str, Content]:
    rows = {"task_struct": 100, "pid": 20, "dentry": 50} | slabs
    return {
        "/proc/slabinfo": HEADER + "".join(row(name, count) for name, count in rows.items()),
        "/proc/meminfo": meminfo(9000, 8000),
        f"{SLAB}/task_struct/shrink": "",
        f"{SLAB}/dentry/shrink": "",
        f"{SLAB}/:A-0000192/shrink": "",
    }


@pytest.fixture
def root(tmp_path: Path) -> KernelRoot:
    root = fabricate(tmp_path, files())
    for name in ("cred", "pid"):
        os.symlink(":A-0000192", tmp_path / SLAB.lstrip("/") / name)
    return root


@pytest.fixture
def writes(root: KernelRoot, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was written to; task_struct then gives back 60 slabs, the merged cache 5."""
    written: Counter[str] = Counter()
    real = os.write

    def counting(descriptor: int, data: bytes) -> int:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.startswith(root.root + SLAB):
            written[path.removeprefix(root.root + SLAB + "/")] += 1
            fabricate(Path(root.root), {"/proc/slabinfo": files(task_struct=40, pid=15)["/proc/slabinfo"]})
            fabricate(Path(root.root), {"/proc/meminfo": meminfo(7000, 6000)})
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", counting)
    return written


SLAB_BYTES = 8 * os.sysconf("SC_PAGE_SIZE")


def test_every_real_cache_is_shrunk_once(root: KernelRoot, writes: Counter[str]) -> None:
    result = shrink(root)
    assert writes == {"task_struct/shrink": 1, "dentry/shrink": 1, ":A-0000192/shrink": 1}
    for name in ("task_struct", "dentry", ":A-0000192"):
        assert Path(root.path(f"{SLAB}/{name}/shrink")).read_bytes() == b"1"
    assert result.caches == (
        CacheShrunk("task_struct", 100 * SLAB_BYTES, 40 * SLAB_BYTES, 60 * SLAB_BYTES, ""),
        CacheShrunk("pid", 20 * SLAB_BYTES, 15 * SLAB_BYTES, 5 * SLAB_BYTES, ""),
        CacheShrunk("dentry", 50 * SLAB_BYTES, 50 * SLAB_BYTES, 0, ""),
    )
    kib = 1024
    assert (result.slab_before_bytes, result.slab_after_bytes) == (9000 * kib, 7000 * kib)
    assert (result.sunreclaim_before_bytes, result.sunreclaim_after_bytes) == (8000 * kib, 6000 * kib)
    assert result.as_dict()["caches"][0] == {
        "cache": "task_struct",
        "before_bytes": 100 * SLAB_BYTES,
        "after_bytes": 40 * SLAB_BYTES,
        "released_bytes": 60 * SLAB_BYTES,
        "error": "",
    }


@pytest.mark.parametrize("asked", [["pid"], ["cred"], ["cred", "pid"], [":A-0000192"]])
def test_any_of_its_names_shrinks_a_merged_cache_once(root: KernelRoot, writes: Counter[str], asked: list[str]) -> None:
    result = shrink(root, asked)
    assert writes == {":A-0000192/shrink": 1}
    assert [row.cache for row in result.caches] == ["pid"], "the name that slabinfo shows"


def test_an_unknown_cache_is_refused_and_nothing_is_written(root: KernelRoot, writes: Counter[str]) -> None:
    with pytest.raises(StormRejected, match="no such cache: nope, ../dentry") as caught:
        shrink(root, ["task_struct", "nope", "../dentry"])
    assert caught.value.code == "unknown_cache"
    assert not writes


def test_a_cache_that_may_not_be_written_is_named_and_the_others_go_on(
    root: KernelRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    deny(monkeypatch, ["dentry/shrink"])
    rows = {row.cache: row for row in shrink(root).caches}
    assert rows["dentry"].error == f"{SLAB}/dentry/shrink: permission denied"
    assert rows["task_struct"].error == rows["pid"].error == ""
    assert Path(root.path(f"{SLAB}/task_struct/shrink")).read_bytes() == b"1"


def test_a_cache_that_has_gone_meanwhile_is_no_error(root: KernelRoot) -> None:
    Path(root.path(f"{SLAB}/task_struct/shrink")).unlink()
    assert {row.error for row in shrink(root, ["task_struct"]).caches} == {""}


def test_no_right_at_all(root: KernelRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KernelRoot, "can_write", lambda self, path: False)
    with pytest.raises(SourceDenied, match="writing needs root or CAP_DAC_OVERRIDE"):
        shrink(root)


def test_a_kernel_without_shrink_files(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="/sys/kernel/slab: No such file"):
        can_shrink(KernelRoot(str(tmp_path)))
    with pytest.raises(SourceUnavailable, match="built without SLUB_DEBUG"):
        can_shrink(fabricate(tmp_path, {f"{SLAB}/task_struct/order": "3\n"}))


def test_without_slabinfo_and_meminfo_it_shrinks_all_the_same(root: KernelRoot) -> None:
    for name in ("slabinfo", "meminfo"):
        Path(root.path(f"/proc/{name}")).unlink()
    result = shrink(root, ["pid", "task_struct"])
    assert result.caches == (
        CacheShrunk(":A-0000192", None, None, None, ""),
        CacheShrunk("task_struct", None, None, None, ""),
    )
    assert result.slab_before_bytes is result.sunreclaim_after_bytes is None


def test_the_time_is_that_of_the_writing_alone(root: KernelRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 10.25])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    assert shrink(root, ["pid"]).seconds == 0.25
