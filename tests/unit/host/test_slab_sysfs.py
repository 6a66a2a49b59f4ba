"""/sys/kernel/slab: links, names and flags, read again only when the set of caches has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slabwatch.errors import SourceDenied, SourceUnavailable
from slabwatch.host import slab_sysfs as module
from slabwatch.host.root import KernelRoot
from slabwatch.host.slab_sysfs import CacheInfo, SlabSysfs, cache_directories
from tests.hosts import HOSTS, host_root
from tests.unit.host.fabricated import Content, fabricate

SLAB = "/sys/kernel/slab"
CACHES: dict[str, Content] = {
    f"{SLAB}/:A-0000192/reclaim_account": "0\n",
    f"{SLAB}/:aA-0000096/reclaim_account": "1\n",
    f"{SLAB}/:0000064/reclaim_account": "0\n",
    f"{SLAB}/task_struct/reclaim_account": "0\n",
    f"{SLAB}/odd/reclaim_account": "maybe\n",
    f"{SLAB}/bare": None,
}
LINKS = {
    "cred": ":A-0000192",
    "pid": ":A-0000192",
    "eventpoll_epi": ":A-0000192",
    "rcl": ":aA-0000096",
    "lone": ":0000064",
}


def slab_root(directory: Path) -> KernelRoot:
    root = fabricate(directory, CACHES)
    for name, target in LINKS.items():
        # The kernel's links are relative to the cache's own kobject.
        os.symlink(target if name != "lone" else f"../slab/{target}", directory / SLAB.lstrip("/") / name)
    return root


def test_real_caches_with_the_names_that_link_to_them(tmp_path: Path) -> None:
    found = {name: sorted(links) for name, links in cache_directories(slab_root(tmp_path)).items()}
    assert found == {
        ":A-0000192": ["cred", "eventpoll_epi", "pid"],
        ":aA-0000096": ["rcl"],
        ":0000064": ["lone"],
        "task_struct": [],
        "odd": [],
        "bare": [],
    }


def test_a_cache_has_the_name_that_slabinfo_shows(tmp_path: Path) -> None:
    caches = SlabSysfs(slab_root(tmp_path)).caches(("pid", "task_struct", "odd", "lone"))
    assert set(caches) == {
        CacheInfo("pid", ("cred", "eventpoll_epi"), reclaimable=False, accounted=True),
        CacheInfo("rcl", (), reclaimable=True, accounted=True),
        CacheInfo("lone", (), reclaimable=False, accounted=False),
        CacheInfo("task_struct", (), reclaimable=False, accounted=None),
        CacheInfo("odd", (), reclaimable=None, accounted=None),
        CacheInfo("bare", (), reclaimable=None, accounted=None),
    }


def test_a_cache_that_slabinfo_does_not_show_has_its_first_name(tmp_path: Path) -> None:
    names = {cache.name for cache in SlabSysfs(slab_root(tmp_path)).caches(())}
    assert names == {"cred", "rcl", "lone", "task_struct", "odd", "bare"}


def test_a_merged_cache_without_any_link_keeps_its_own_name(tmp_path: Path) -> None:
    root = fabricate(tmp_path, {f"{SLAB}/:Ad-0000032/reclaim_account": "0\n"})
    assert SlabSysfs(root).caches(()) == (CacheInfo(":Ad-0000032", (), reclaimable=False, accounted=True),)


def test_read_again_only_when_the_names_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def counted(root: KernelRoot) -> dict[str, list[str]]:
        reads.append(root.root)
        return cache_directories(root)

    monkeypatch.setattr(module, "cache_directories", counted)
    sysfs = SlabSysfs(slab_root(tmp_path))
    first = sysfs.caches(("pid", "odd"))
    assert sysfs.caches(("pid", "odd")) is first
    assert len(reads) == 1
    assert {cache.name for cache in sysfs.caches(("cred", "odd"))} >= {"cred", "odd"}
    assert len(reads) == 2


@pytest.mark.parametrize("names", [(), ("pid", "odd")])
def test_caches_that_come_and_go_are_seen_whatever_slabinfo_shows(
    tmp_path: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sysfs = SlabSysfs(slab_root(tmp_path))
    first = {cache.name for cache in sysfs.caches(names)}
    directory = tmp_path / SLAB.lstrip("/")
    if directory.stat().st_nlink == 1:  # btrfs does not count subdirectories, sysfs does
        monkeypatch.setattr(module, "_LIST_EVERY", 1)
    (directory / "new").mkdir()
    assert {cache.name for cache in sysfs.caches(names)} == first | {"new"}
    (directory / "bare").rmdir()
    assert {cache.name for cache in sysfs.caches(names)} == (first | {"new"}) - {"bare"}


def test_an_alias_that_comes_later_is_seen_after_some_polls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sysfs = SlabSysfs(slab_root(tmp_path))
    first = sysfs.caches(("pid",))
    os.symlink(":A-0000192", tmp_path / SLAB.lstrip("/") / "dm_thing")
    listed: list[str] = []
    real = os.listdir

    def counted(path: str) -> list[str]:
        listed.append(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", counted)
    polls = 0
    while (now := sysfs.caches(("pid",))) is first:
        polls += 1
        assert polls < 100
    assert next(cache for cache in now if cache.name == "pid").aliases == ("cred", "dm_thing", "eventpoll_epi")
    assert len(listed) == 1, "a listing takes longer than the rest of a poll's look at it"


def test_a_failure_is_not_remembered_as_an_answer(tmp_path: Path) -> None:
    sysfs = SlabSysfs(KernelRoot(str(tmp_path)))
    for _ in range(2):
        with pytest.raises(SourceUnavailable):
            sysfs.caches(("pid",))
    slab_root(tmp_path)
    assert sysfs.caches(("pid",))


def test_no_slub(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="/sys/kernel/slab: No such file"):
        cache_directories(KernelRoot(str(tmp_path)))
    with pytest.raises(SourceUnavailable, match="is empty"):
        cache_directories(fabricate(tmp_path, {SLAB: None}))


def test_no_right_to_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(SourceDenied, match="/sys/kernel/slab"):
        cache_directories(slab_root(tmp_path))


@pytest.mark.parametrize("host", HOSTS)
def test_the_recorded_hosts(host: str) -> None:
    root = KernelRoot(str(host_root(host, "idle")))
    names = root.read_slabinfo().names
    caches = {cache.name: cache for cache in SlabSysfs(root).caches(names)}
    # A selection of caches was recorded, among them these.
    assert caches["dentry"].reclaimable is True
    assert caches["task_struct"].reclaimable is False
    assert set(caches) <= set(names)
    linked = [name for cache in caches.values() for name in cache.aliases]
    assert not set(linked) & set(caches)
