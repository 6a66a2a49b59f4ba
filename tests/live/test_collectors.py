"""What the collectors say about this kernel, held against readings by other means.

The host lives meanwhile: a figure that moves must lie between the readings before and after, with some slack where
it may also go up and down in between.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from slabwatch.config import Collectors as Which
from slabwatch.config import Config
from slabwatch.expose.render import KernelPage
from slabwatch.form import fields_of
from slabwatch.host.root import KernelRoot
from slabwatch.watch.collect import Collectors
from slabwatch.watch.derive import derive
from slabwatch.watch.sample import Sample
from tests.live.kernel import OWN_PREFIX, own_directory, wait_until
from tests.requirements import need

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("hierarchy")]

# The tests' own cgroups alone: on a host with thousands of others, small ones have no series of their own.
OWN = {"include": [f"/{OWN_PREFIX}*"]}
T = TypeVar("T")
TRIES = 20


def there(part: T | None) -> T:
    """This part of a sample, which must not be missing."""
    assert part is not None
    return part


def collect(**sections: object) -> Sample:
    collectors = Collectors(KernelRoot("/"), Config.read(sections))
    try:
        return collectors.collect()
    finally:
        collectors.close()


def rows_of_slabinfo() -> dict[str, list[str]]:
    """As `awk 'NR > 2 { print $1, $2 ... }' /proc/slabinfo` sees it."""
    lines = Path("/proc/slabinfo").read_text(encoding="ascii").splitlines()
    return {line.split()[0]: line.split() for line in lines[2:]}


def between(read: Callable[[], T], **sections: object) -> Iterator[tuple[T, Sample, T]]:
    """Readings by other means before and after a sample, some times over: load from outside must not decide."""
    for _ in range(TRIES):
        before = read()
        sample = collect(**sections)
        yield before, sample, read()


def test_every_collector_succeeds() -> None:
    everything = dict.fromkeys(fields_of(Which), True)
    sample = collect(collectors=everything)
    assert {run.name: run.error for run in sample.collectors if run.error} == {}
    # memory.kmem.slabinfo of each cgroup is a part of cgroup's.
    assert {run.name for run in sample.collectors} == everything.keys() - {"cgroup_slabinfo"}
    assert [dict(run.skipped) for run in sample.collectors if run.name in ("slabinfo", "meminfo")] == [{}, {}]


def test_all_caches_are_there_with_their_constants() -> None:
    for before, sample, after in between(rows_of_slabinfo):
        info = there(sample.slabinfo)
        if before.keys() == after.keys():
            break
    assert set(info.names) == before.keys()
    for index, name in enumerate(info.names):
        row = before[name]
        assert info.object_size_bytes[index] == row[3], name
        # The order of a cache does not change while it lives.
        assert (info.objects_per_slab[index], info.pages_per_slab[index]) == (row[4], row[5]), name


def test_counts_of_objects_are_those_of_slabinfo() -> None:
    for before, sample, after in between(rows_of_slabinfo):
        info = there(sample.slabinfo)
        steady = [name for name in info.names if before.get(name) == after.get(name)]
        for name in steady:
            index = info.names.index(name)
            found = [info.active_objects[index], info.objects[index], info.active_slabs[index], info.slabs[index]]
            expected = [before[name][column] for column in (1, 2, 13, 14)]
            if found != expected:
                break  # it has moved there and back
        else:
            assert len(steady) > len(info.names) / 2
            return
    pytest.fail(f"in {TRIES} tries, never were all caches that stood still as slabinfo has them: {name}")


def rows_of_slabtop() -> dict[str, tuple[str, str, str, str]]:
    """slabtop -o (procps): name -> objects, active objects, slabs, KiB of the cache."""
    need(shutil.which("slabtop") is not None, "slabtop")
    shown = subprocess.run(["slabtop", "-o", "-s", "n"], check=True, stdout=subprocess.PIPE, text=True).stdout
    fields = [line.split() for line in shown.splitlines() if line.strip()[:1].isdigit() and "K " in line]
    return {row[-1]: (row[0], row[1], row[4], row[6].removesuffix("K")) for row in fields if len(row) == 8}


def test_caches_are_those_of_slabtop() -> None:
    for before, sample, after in between(rows_of_slabtop):
        info = there(sample.slabinfo)
        sizes = derive(sample).cache_bytes
        ours = {
            name: (info.objects[index], info.active_objects[index], info.slabs[index], str(sizes[index] // 1024))
            for index, name in enumerate(info.names)
        }
        steady = [name for name, row in before.items() if row == after.get(name)]
        wrong = [name for name in steady if ours.get(name) != before[name]]
        if not wrong:
            assert len(steady) > len(info.names) / 2
            return
    pytest.fail(f"in {TRIES} tries, never were all caches that stood still as slabtop has them: {wrong}")


@pytest.mark.parametrize("cache", ["task_struct", "dentry", "kmalloc-64", "mm_struct"])
def test_objects_are_those_of_sysfs(cache: str) -> None:
    """total_objects is what slabinfo calls num_objs; a value may have parts for each node behind it."""
    directory = Path("/sys/kernel/slab", cache)
    need((directory / "total_objects").exists(), f"{directory}/total_objects")

    def total() -> int:
        return int((directory / "total_objects").read_text(encoding="ascii").split()[0])

    for before, sample, after in between(total):
        info = there(sample.slabinfo)
        need(cache in info.names, f"cache {cache} in slabinfo under its own name")
        index = info.names.index(cache)
        assert int(info.objects_per_slab[index]) == int((directory / "objs_per_slab").read_text(encoding="ascii"))
        assert int(info.object_size_bytes[index]) == int((directory / "slab_size").read_text(encoding="ascii"))
        assert int(info.pages_per_slab[index]) == 1 << int((directory / "order").read_text(encoding="ascii"))
        if before == after == int(info.objects[index]):
            return
    assert min(before, after) * 0.9 <= int(info.objects[index]) <= max(before, after) * 1.1


def test_memory_is_what_psutil_says() -> None:
    sample = collect()
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    get = there(sample.meminfo).get
    assert get("MemTotal") == memory.total
    assert get("SwapTotal") == swap.total
    slack = 128 * 1024 * 1024
    assert get("MemAvailable") == pytest.approx(memory.available, abs=slack)
    assert get("MemFree") == pytest.approx(memory.free, abs=slack)
    assert get("Slab") == pytest.approx(memory.slab, abs=slack)
    assert (get("SReclaimable") or 0) + (get("SUnreclaim") or 0) == get("Slab")


def test_no_key_of_meminfo_is_lost() -> None:
    sample = collect()
    meminfo = there(sample.meminfo)
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    assert list(meminfo.values) == [line.partition(":")[0] for line in lines]
    assert meminfo.counts == {line.partition(":")[0] for line in lines if not line.endswith("kB")}


def processes_threads_forks() -> tuple[int, int, int]:
    stat = dict(line.split(" ", 1) for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
    threads = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in psutil.pids() if os.path.isdir(f"/proc/{pid}/task"))
    return len(psutil.pids()), threads, int(stat["processes"])


def test_processes_and_threads_are_what_psutil_counts() -> None:
    for _ in range(TRIES):
        try:
            before = processes_threads_forks()
            sample = collect()
            after = processes_threads_forks()
        except FileNotFoundError:  # a process has ended between its two readings here
            continue
        found = there(sample.process)
        assert before[2] <= there(found.forks) <= after[2]
        if before[:2] == after[:2] == (found.processes, found.threads):
            return
    # A busy host: near enough.
    assert found.processes == pytest.approx(after[0], abs=20, rel=0.2)
    assert found.threads == pytest.approx(after[1], abs=40, rel=0.2)


def test_expected_objects_are_the_kernels_own_counts() -> None:
    sample = collect()
    expected = derive(sample).expected_objects
    threads = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[2])
    dentries = int(Path("/proc/sys/fs/dentry-state").read_text(encoding="ascii").split()[0])
    assert expected["task_struct"] == pytest.approx(threads, abs=50, rel=0.5)
    assert expected["dentry"] == pytest.approx(dentries, rel=0.5)


def test_sizes_explain_most_of_slab() -> None:
    """Large kmallocs are in no cache; all caches together can not be much more than Slab."""
    sample = collect()
    slab, caches = there(there(sample.meminfo).get("Slab")), sum(derive(sample).cache_bytes)
    assert 0.5 * slab < caches < 1.05 * slab


def test_the_caches_of_sysfs_are_links_or_directories() -> None:
    sample = collect(collectors={"slab_sysfs": True})
    caches = there(sample.slab_sysfs)
    directory = Path("/sys/kernel/slab")
    links = {path.name for path in directory.iterdir() if path.is_symlink()}
    real = {path.name for path in directory.iterdir() if not path.is_symlink()}
    names = {name for cache in caches for name in (cache.name, *cache.aliases)}
    assert len(caches) == len(real)
    assert names == links | {name for name in real if not name.startswith(":") or name in names}
    for cache in caches[:40]:
        flag = (directory / cache.name / "reclaim_account").read_text(encoding="ascii").strip()
        assert cache.reclaimable is (flag == "1"), cache.name
    assert set(there(sample.slabinfo).names) <= names


def directories(mount: Path) -> int:
    found = subprocess.run(["find", str(mount), "-type", "d"], capture_output=True, check=False, timeout=20)
    return found.stdout.count(b"\n")


def test_every_cgroup_is_counted(hierarchy: tuple[Path, int]) -> None:
    mount, version = hierarchy
    with own_directory(mount, version, "counted") as own:
        for name in ("x", "y y"):
            (own / name).mkdir()
        try:
            for before, sample, after in between(lambda: directories(mount)):
                cgroups = there(sample.cgroups)
                if before == after == cgroups.visible:
                    break
            else:
                pytest.fail(f"never in {TRIES} tries: {cgroups.visible} visible, {before} -> {after} directories")
        finally:
            for name in ("x", "y y"):
                (own / name).rmdir()
    assert cgroups.version == version


def test_a_cgroup_may_have_any_name(hierarchy: tuple[Path, int]) -> None:
    mount, version = hierarchy
    name = os.fsdecode(b'\xff "\\\t\xc3\xbc')
    with own_directory(mount, version, name) as own:
        sample = collect(cgroups={"fold_storms": False, **OWN})
    cgroups = there(sample.cgroups)
    # Bytes that are no UTF-8 are spelled out.
    shown = "/" + os.fsencode(own.name).decode("utf-8", "backslashreplace")
    assert cgroups.columns["kernel_bytes"][cgroups.paths.index(shown)] is not None
    page = KernelPage()
    page.observe(sample)
    text = page.render(sample, derive(sample), openmetrics=False).decode("utf-8")
    paths = [
        series.labels["cgroup"]
        for family in text_string_to_metric_families(text)
        if family.name == "slabwatch_cgroup_kernel_bytes"
        for series in family.samples
    ]
    assert len(paths) == len(cgroups.paths) == len(set(paths))
    assert shown in paths


def test_kernel_memory_of_cgroups_is_what_their_files_say(hierarchy: tuple[Path, int]) -> None:
    mount, version = hierarchy
    cgroups = there(collect().cgroups)
    assert "/" in cgroups.paths
    checked = 0
    for index, path in enumerate(cgroups.paths):
        directory = mount / path.lstrip("/")
        if not directory.is_dir() or path == "__other__":
            continue
        column = {name: values[index] for name, values in cgroups.columns.items()}
        if version == 1:
            for name, file in (
                ("kernel_bytes", "memory.kmem.usage_in_bytes"),
                ("memory_bytes", "memory.usage_in_bytes"),
                ("kernel_max_bytes", "memory.kmem.max_usage_in_bytes"),
            ):
                number = int((directory / file).read_text(encoding="ascii"))
                assert int(column[name] or -1) == pytest.approx(number, abs=64 * 1024 * 1024, rel=0.3), (path, name)
            limit = int((directory / "memory.kmem.limit_in_bytes").read_text(encoding="ascii"))
            assert column.get("kernel_limit_bytes") == (None if limit > 1 << 62 else str(limit))
        elif path != "/":
            stat = dict(line.split() for line in (directory / "memory.stat").read_text(encoding="ascii").splitlines())
            for name, key in (("slab_reclaimable_bytes", "slab_reclaimable"), ("kernel_bytes", "kernel")):
                if key in stat:
                    assert int(column[name] or -1) == pytest.approx(int(stat[key]), abs=64 << 20, rel=0.3), path
        checked += 1
    assert checked >= 1


def test_what_a_quiet_cgroup_holds_is_read_to_the_byte(hierarchy: tuple[Path, int]) -> None:
    """A process that has grown and now sleeps: two readings of its cgroup agree exactly."""
    mount, version = hierarchy
    need(version == 1, "cgroup v1 (memory.kmem.usage_in_bytes)")
    path = mount / f"{OWN_PREFIX}{os.getpid()}-quiet"
    path.mkdir()
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        (path / "cgroup.procs").write_text(str(sleeper.pid), encoding="ascii")
        file = path / "memory.kmem.usage_in_bytes"
        for _, sample, after in between(
            lambda: file.read_text(encoding="ascii").strip(), cgroups={"fold_storms": False, **OWN}
        ):
            cgroups = there(sample.cgroups)
            if cgroups.columns["kernel_bytes"][cgroups.paths.index(f"/{path.name}")] == after:
                break
        else:
            pytest.fail(f"{TRIES} times another figure than {file} has")
    finally:
        sleeper.kill()
        sleeper.wait()
        wait_until(lambda: _removed(path), 5, f"rmdir {path}")


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kept_descriptors", [0, 1000])
def test_a_cgroup_that_goes_and_comes_again_is_another_one(hierarchy: tuple[Path, int], kept_descriptors: int) -> None:
    """Descriptors of the first one's files are of no use for the second, and must not stay open."""
    mount, version = hierarchy
    config = Config.read({"cgroups": {"fold_storms": False, "kept_descriptors": kept_descriptors, **OWN}})
    collectors = Collectors(KernelRoot("/"), config)

    def kernel_bytes(path: Path) -> int | None:
        cgroups = there(collectors.collect().cgroups)
        if f"/{path.name}" not in cgroups.paths:
            return None
        return int(cgroups.columns["kernel_bytes"][cgroups.paths.index(f"/{path.name}")] or -1)

    def descriptors(path: Path) -> int:
        names = (os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name))
        return sum(str(path) in name for name in names)

    try:
        with own_directory(mount, version, "again") as own:
            assert kernel_bytes(own) is not None
            assert (descriptors(own) > 0) == (kept_descriptors > 0)
        assert kernel_bytes(own) is None
        assert descriptors(own) == 0
        with own_directory(mount, version, "again") as own:
            assert kernel_bytes(own) is not None
            own.rmdir()
            own.mkdir()
            assert kernel_bytes(own) is not None
            with subprocess.Popen(["sleep", "60"]) as sleeper:
                (own / "cgroup.procs").write_text(str(sleeper.pid), encoding="ascii")
                # Its own files and pages are charged there from now on; nothing was to the first one.
                subprocess.run(["sh", "-c", f"echo $$ > {own}/cgroup.procs; ls /proc > /dev/null"], check=True)
                assert there(kernel_bytes(own)) > 0
                sleeper.kill()
        assert kernel_bytes(own) is None
        assert descriptors(own) == 0
    finally:
        collectors.close()


def _is_open(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


def test_storms_side_by_side_have_series_of_their_own(hierarchy: tuple[Path, int]) -> None:
    """One name stands for a storm's root, and two can be there: one that runs, and one that could not be removed."""
    mount, version = hierarchy
    with own_directory(mount, version, "one"), own_directory(mount, version, "two"):
        sample = collect(cgroups=OWN)
    page = KernelPage()
    page.observe(sample)
    for openmetrics, parse in ((False, text_string_to_metric_families), (True, parse_openmetrics)):
        text = page.render(sample, derive(sample), openmetrics=openmetrics).decode() + (
            "# EOF\n" if openmetrics else ""
        )
        family = next(family for family in parse(text) if family.name == "slabwatch_cgroup_kernel_bytes")
        paths = [series.labels["cgroup"] for series in family.samples]
        assert sum("slabwatch-storm" in path for path in paths) >= 2
        assert len(paths) == len(set(paths))
        assert not any("TESTS" in path for path in paths)


def test_dying_cgroups_are_those_without_a_directory(hierarchy: tuple[Path, int]) -> None:
    mount, version = hierarchy
    need(version == 1, "cgroup v1 (/proc/cgroups counts dying ones)")

    def counted() -> tuple[int, int]:
        lines = Path("/proc/cgroups").read_text(encoding="ascii").splitlines()
        memory = next(line.split() for line in lines if line.startswith("memory"))
        return int(memory[2]), directories(mount)

    for before, sample, after in between(counted):
        cgroups = there(sample.cgroups)
        if before == after and cgroups.dying == before[0] - before[1]:
            return
    pytest.fail(f"never in {TRIES} tries: {cgroups.dying} dying, {before} -> {after} counted, directories")
