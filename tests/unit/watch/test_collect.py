"""One poll on recorded and made-up hosts: each collector's failure stays its own, and sums stay exact."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from slabwatch.config import Cgroups, Config
from slabwatch.config import Collectors as Switches
from slabwatch.errors import KernelParseError, SourceDenied, SourceUnavailable
from slabwatch.expose.render import KernelPage
from slabwatch.host.hierarchy import MemoryHierarchy
from slabwatch.host.memory_cgroups import Reading, Tree
from slabwatch.host.root import KernelRoot
from slabwatch.kernel.slabinfo import SlabInfo
from slabwatch.watch.cgroup_table import OTHER, as_table
from slabwatch.watch.collect import Collectors, remedy
from slabwatch.watch.derive import derive
from slabwatch.watch.sample import CgroupReadings, CollectorRun, Sample
from slabwatch.watch.select import Largest
from tests.hosts import HOSTS, STATES, host_root
from tests.unit.host.fabricated import V2_MOUNT, deny, fabricate, v1_files, v1_root, v2_files, v2_root
from tests.unit.host.test_memory_cgroups import ODD

ALL_ON = Config(collectors=Switches(slab_sysfs=True))
NAMES = ("slabinfo", "meminfo", "process", "cgroup", "slab_sysfs")
SLABINFO = (
    "slabinfo - version: 2.1\n# name ...\n"
    "task_struct 735 990 5888 5 8 : tunables 0 0 0 : slabdata 198 198 0\n"
    "dentry 100 210 192 21 1 : tunables 0 0 0 : slabdata 10 10 0\n"
)
HOST: Mapping[str, Any] = {
    "/proc/slabinfo": SLABINFO,
    "/proc/meminfo": "MemTotal: 1000 kB\nSlab: 900 kB\nSUnreclaim: 800 kB\n",
    "/proc/loadavg": "0.00 0.00 0.00 1/334 4711\n",
    "/proc/stat": "cpu 1 2\nprocesses 12345\n",
    "/proc/sys/fs/file-nr": "64000\t0\t100000\n",
    "/proc/sys/fs/dentry-state": "90 50 45 0 7 0\n",
    "/proc/1/stat": "",
    "/proc/22/stat": "",
    "/sys/kernel/slab/dentry/reclaim_account": "1\n",
}


def host(directory: Path, cgroups: Mapping[str, Mapping[str, str]] | None = None) -> KernelRoot:
    return v2_root(directory, {"/a": v2_files(8192), "/b": v2_files(4096)} if cgroups is None else cgroups, HOST)


def runs(sample: Sample) -> dict[str, CollectorRun]:
    return {run.name: run for run in sample.collectors}


def readings(root: KernelRoot, **bounds: Any) -> CgroupReadings:
    sample = Collectors(root, Config(cgroups=Cgroups(**bounds))).collect()
    assert sample.cgroups is not None, runs(sample)["cgroup"]
    return sample.cgroups


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """(event, collector, level) of each line that was logged."""
    return [(record.message, record.__dict__["fields"]["collector"], record.levelname) for record in caplog.records]


# Recorded hosts.


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", HOSTS)
def test_every_collector_succeeds_on_every_recorded_host(name: str, state: str) -> None:
    root = KernelRoot(str(host_root(name, state)))
    sample = Collectors(root, ALL_ON).collect()
    for run in sample.collectors:
        if run.name == "slab_sysfs" and not root.exists("/sys/kernel/slab"):
            assert run.error.startswith("/sys/kernel/slab: ")
        else:
            assert (run.success, run.error) == (True, ""), run
    assert tuple(runs(sample)) == NAMES
    # No process directories were recorded: that is no count of 0.
    assert sample.process is not None
    assert sample.process.processes is None
    assert runs(sample)["process"].skipped == {"absent_file": 1}
    assert sample.slabinfo is not None
    assert sample.meminfo is not None
    assert sample.cgroups is not None
    assert sample.cgroups.omitted == 0
    assert sample.cgroups.visible >= 3
    derived = derive(sample)
    slab = sample.meminfo.get("Slab")
    assert slab is not None
    assert derived.unattributed_bytes == slab - sum(derived.cache_bytes)
    # The two files were not recorded at the same instant, so that a little less than nothing may be left.
    assert -slab / 50 < derived.unattributed_bytes < slab / 3
    page = KernelPage()
    page.observe(sample)
    assert list(text_string_to_metric_families(page.render(sample, derived, openmetrics=False).decode()))


@pytest.mark.parametrize("name", [host for host in HOSTS if host.endswith("v2")])
def test_kernel_memory_of_the_empty_cgroups_of_v2(name: str) -> None:
    by_state = {
        state: readings(KernelRoot(str(host_root(name, state)))).unpopulated_kernel_bytes
        for state in ("idle", "storm", "dying-before", "dying")
    }
    # The cgroups that own page cache and dentries hold no task; the storm's and the services do. 5.10 adds a
    # cgroup's figures up now and then only, and had not yet done so when it was recorded.
    assert bool(by_state["dying-before"]) == (not name.startswith("5.10"))
    assert by_state["dying"] == by_state["idle"]
    cgroups = readings(KernelRoot(str(host_root(name, "dying-before"))))
    columns = cgroups.columns
    empty = [
        int(kernel or 0)
        for kernel, populated in zip(columns["kernel_bytes"], columns["populated"], strict=True)
        if populated == "0"
    ]
    assert by_state["dying-before"] == sum(empty), "none of them is below another"


# The sample.


def test_a_whole_sample(tmp_path: Path) -> None:
    collectors = Collectors(host(tmp_path), ALL_ON)
    sample = collectors.collect()
    assert all(run.success and run.duration_seconds >= 0 and not run.skipped for run in sample.collectors)
    assert sample.number == 1
    assert sample.page_size == os.sysconf("SC_PAGE_SIZE")
    assert sample.process is not None
    assert (sample.process.processes, sample.process.threads, sample.process.forks) == (2, 334, 12345)
    assert (sample.process.allocated_files, sample.process.dentries) == (64000, 90)
    assert sample.slab_sysfs is not None
    assert [cache.name for cache in sample.slab_sysfs] == ["dentry"]
    assert sample.cgroups is not None
    assert sample.cgroups.paths == ("/", "/a", "/b")
    assert sample.cgroups.columns["kernel_bytes"] == ("0", "8192", "4096")
    assert sample.cgroups.columns["memory_bytes"] == (None, "4096", "4096")
    assert "kernel_limit_bytes" not in sample.cgroups.columns, "v2 has no such figure"
    assert (sample.cgroups.mode, sample.cgroups.version, sample.cgroups.dying) == ("v2", 2, 1)
    assert collectors.collect().number == 2


def test_a_count_of_open_files_that_reads_0_is_not_known(tmp_path: Path) -> None:
    host(tmp_path)
    root = fabricate(tmp_path, {"/proc/sys/fs/file-nr": "0\t0\t100000\n"})
    sample = Collectors(root, ALL_ON).collect()
    assert sample.process is not None
    assert sample.process.allocated_files is None


def test_a_collector_that_is_off_has_no_part_and_no_run(tmp_path: Path) -> None:
    off = Config(collectors=Switches(slabinfo=False, meminfo=False, process=False, cgroup=False, slab_sysfs=False))
    sample = Collectors(host(tmp_path), off).collect()
    assert sample.collectors == ()
    parts = (sample.slabinfo, sample.meminfo, sample.process, sample.cgroups, sample.slab_sysfs)
    assert parts == (None,) * 5


# Failures.


@pytest.mark.parametrize(
    ("file", "collector"),
    [
        ("/proc/slabinfo", "slabinfo"),
        ("/proc/meminfo", "meminfo"),
        ("/proc/loadavg", "process"),
        ("/proc/stat", "process"),
        ("/proc/self/mountinfo", "cgroup"),
        ("/sys/kernel/slab", "slab_sysfs"),
    ],
)
def test_a_missing_source_fails_its_own_collector_alone(tmp_path: Path, file: str, collector: str) -> None:
    root = host(tmp_path)
    path = Path(root.path(file))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    sample = Collectors(root, ALL_ON).collect()
    assert {run.name for run in sample.collectors if not run.success} == {collector}
    assert file in runs(sample)[collector].error
    part = {"cgroup": "cgroups"}.get(collector, collector)
    assert getattr(sample, part) is None
    others = {"slabinfo", "meminfo", "process", "cgroups", "slab_sysfs"} - {part}
    assert all(getattr(sample, other) is not None for other in others)


@pytest.mark.parametrize(
    ("file", "reason"), [("/proc/sys/fs/file-nr", "absent_file"), ("/proc/sys/fs/dentry-state", "absent_file")]
)
def test_a_figure_that_may_be_missing_is_counted(tmp_path: Path, file: str, reason: str) -> None:
    root = host(tmp_path)
    Path(root.path(file)).unlink()
    sample = Collectors(root, ALL_ON).collect()
    assert runs(sample)["process"].success
    assert runs(sample)["process"].skipped == {reason: 1}


def test_denied_files_are_counted_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = host(tmp_path)
    deny(monkeypatch, ["file-nr", "/a/memory.stat", "slabinfo"])
    sample = Collectors(root, ALL_ON).collect()
    assert runs(sample)["process"].skipped == {"denied": 1}
    assert runs(sample)["cgroup"].skipped == {"denied": 1}
    assert runs(sample)["slabinfo"].error == "/proc/slabinfo: permission denied"


def test_a_defect_costs_one_collector_and_is_logged_with_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(self: KernelRoot, parse: object) -> None:
        raise ZeroDivisionError("of our own making")

    monkeypatch.setattr(KernelRoot, "read_meminfo", defect)
    collectors = Collectors(host(tmp_path), ALL_ON)
    samples = [collectors.collect() for _ in range(3)]
    assert {run.name for run in samples[0].collectors if not run.success} == {"meminfo"}
    assert runs(samples[2])["meminfo"].error == "ZeroDivisionError: of our own making"
    assert events(caplog) == [("collector_defect", "meminfo", "ERROR")]
    assert caplog.records[0].exc_info


def test_a_failure_is_said_once_and_again_after_a_recovery(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    root = host(tmp_path)
    collectors = Collectors(root, ALL_ON)
    meminfo = Path(root.path("/proc/meminfo"))
    for _ in range(2):
        meminfo.unlink()
        for _ in range(3):
            collectors.collect()
        fabricate(tmp_path, {"/proc/meminfo": HOST["/proc/meminfo"]})
        for _ in range(3):
            assert collectors.collect().meminfo is not None
    assert (
        events(caplog)
        == [
            ("collector_failed", "meminfo", "WARNING"),
            ("collector_recovered", "meminfo", "INFO"),
        ]
        * 2
    )
    fields = caplog.records[0].__dict__["fields"]
    assert fields["error"] == "/proc/meminfo: No such file or directory"
    assert "collectors.meminfo = false" in fields["remedy"]


def test_another_failure_of_the_same_collector_is_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = host(tmp_path)
    collectors = Collectors(root, ALL_ON)
    with monkeypatch.context() as patch:
        deny(patch, ["slabinfo"])
        collectors.collect()
    Path(root.path("/proc/slabinfo")).unlink()
    collectors.collect()
    assert [record.__dict__["fields"]["error"] for record in caplog.records] == [
        "/proc/slabinfo: permission denied",
        "/proc/slabinfo: No such file or directory",
    ]


def test_bad_lines_are_counted_and_said_once_whatever_their_numbers_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = host(tmp_path)
    collectors = Collectors(root, ALL_ON)
    for poll in range(3):
        fabricate(tmp_path, {"/proc/slabinfo": SLABINFO + f"odd {poll} x\nodder {poll} y\n"})
        sample = collectors.collect()
        assert runs(sample)["slabinfo"].success
        assert runs(sample)["slabinfo"].skipped == {"bad_line": 2}
        assert sample.slabinfo is not None
        assert sample.slabinfo.names == ("task_struct", "dentry")
    assert events(caplog) == [("bad_line", "slabinfo", "WARNING")]
    assert caplog.records[0].__dict__["fields"]["lines"] == 2


def test_a_file_of_unknown_form_is_said_once_whatever_its_first_line_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = host(tmp_path)
    collectors = Collectors(root, ALL_ON)
    for poll in range(3):
        fabricate(tmp_path, {"/proc/loadavg": f"load {poll}\n"})
        assert not runs(collectors.collect())["process"].success
    assert events(caplog) == [("collector_failed", "process", "WARNING")]


def test_a_hierarchy_that_has_moved_is_found_again(tmp_path: Path) -> None:
    root = host(tmp_path)
    collectors = Collectors(root, ALL_ON)
    assert runs(collectors.collect())["cgroup"].success
    moved = Path(root.path("/sys/fs/moved"))
    Path(root.path(V2_MOUNT)).rename(moved)
    fabricate(tmp_path, {"/proc/self/mountinfo": "31 25 0:27 / /sys/fs/moved rw - cgroup2 cgroup2 rw\n"})
    assert not runs(collectors.collect())["cgroup"].success
    assert runs(collectors.collect())["cgroup"].success


@pytest.mark.parametrize(
    ("collector", "failure", "words"),
    [
        ("slabinfo", SourceDenied("/proc/slabinfo", "permission denied"), "CAP_DAC_READ_SEARCH"),
        ("cgroup", SourceDenied("/sys/fs/cgroup", "permission denied"), "collectors.cgroup = false"),
        ("slab_sysfs", SourceUnavailable("/sys/kernel/slab", "no"), "collectors.slab_sysfs = false"),
        ("meminfo", KernelParseError("/proc/meminfo", 1, "x", "line"), "please report"),
    ],
)
def test_every_failure_has_a_remedy(collector: str, failure: Exception, words: str) -> None:
    assert words in remedy(collector, failure)


# Bounds, and the sum of what is beyond them.


def test_beyond_the_cap_the_largest_stay_and_the_rest_is_summed(tmp_path: Path) -> None:
    root = host(tmp_path, {f"/c{index}": v2_files(1000 * index, memory=10 * index) for index in range(10)})
    whole = readings(root)
    capped = readings(root, max_count=4)
    assert whole.omitted == 0
    assert capped.omitted == 7
    assert capped.visible == whole.visible == 11
    assert capped.paths == ("/c6", "/c7", "/c8", "/c9", OTHER), "in walk order, the other ones last"
    for column in ("kernel_bytes", "slab_unreclaimable_bytes", "slab_reclaimable_bytes", "memory_bytes"):
        before, after = (sum(int(value or 0) for value in part.columns[column]) for part in (whole, capped))
        assert before == after, column
    # A maximum or a flag of several cgroups together means nothing.
    assert capped.columns["memory_max_usage_bytes"][-1] is None
    assert capped.columns["populated"][-1] is None
    assert all(len(column) == 5 for column in capped.columns.values())


def test_a_cap_of_0_leaves_the_sum_alone(tmp_path: Path) -> None:
    capped = readings(host(tmp_path), max_count=0)
    assert capped.paths == (OTHER,)
    assert capped.columns["kernel_bytes"] == (str(8192 + 4096),)
    assert capped.omitted == 3


def test_a_cap_that_is_just_enough_omits_nothing(tmp_path: Path) -> None:
    assert readings(host(tmp_path), max_count=3) == readings(host(tmp_path))


COLUMNS_OF_ROWS = ("kernel_bytes", "sock_bytes", "kernel_failures_total", "memory_bytes", "populated")
ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(COLUMNS_OF_ROWS),
        st.integers(0, 2**64).map(str),
    ),
    min_size=1,
    max_size=12,
)


@given(rows=ROWS, cap=st.integers(0, 12))
def test_sums_are_exact_for_any_figures_and_any_cap(rows: list[dict[str, str]], cap: int) -> None:
    figures = {f"/c{index}": row | {"populated": "1"} for index, row in enumerate(rows)}
    columns = {column: [row.get(column) for row in figures.values()] for column in COLUMNS_OF_ROWS}
    tree, reading = Tree(tuple(figures), len(figures)), Reading(tuple(figures), columns)
    made = as_table(MemoryHierarchy(2, "v2", V2_MOUNT, "/"), tree, reading, None, Largest(cap), fold_storms=True)
    assert len(made.paths) == len(set(made.paths)) == min(len(rows), cap) + (len(rows) > cap)
    assert made.omitted == max(0, len(rows) - cap)
    for column in ("kernel_bytes", "sock_bytes", "kernel_failures_total", "memory_bytes"):
        expected = [int(row[column]) for row in rows if column in row]
        shown = [int(value) for value in made.columns.get(column, ()) if value is not None]
        assert sum(shown) == sum(expected)
        assert bool(shown) == bool(expected), "absent is not zero"


# Kernel memory that no task accounts for.


def test_unpopulated_kernel_memory_counts_each_byte_once(tmp_path: Path) -> None:
    cgroups = {
        "/busy": v2_files(10_000),
        "/busy/empty": v2_files(300, populated=False),
        "/busy/empty/below": v2_files(100, populated=False),
        "/empty": v2_files(50, populated=False),
        "/empty/a": v2_files(20, populated=False),
        "/empty-not-below": v2_files(7, populated=False),
        "/user": {"cgroup.events": "populated 0\nfrozen 0\n"},  # no memory controller, no figure
    }
    assert readings(host(tmp_path, cgroups)).unpopulated_kernel_bytes == 300 + 50 + 7


def test_unpopulated_kernel_memory_of_a_part_that_is_empty_as_a_whole(tmp_path: Path) -> None:
    host(tmp_path, {"/a": v2_files(20, populated=False), "/a/b": v2_files(10, populated=False)})
    root = fabricate(
        tmp_path,
        {
            "/proc/self/mountinfo": f"31 25 0:27 /part {V2_MOUNT} rw - cgroup2 cgroup2 rw\n",
            **{f"{V2_MOUNT}/{name}": text for name, text in v2_files(100, populated=False).items()},
        },
    )
    assert readings(root).unpopulated_kernel_bytes == 100, "what is below it is in its figure"


def test_on_v1_it_is_known_only_when_asked_for(tmp_path: Path) -> None:
    cgroups = {
        "/system.slice": v1_files(9_000_000),
        "/system.slice/busy.service": v1_files(8_000_000, tasks="1\n"),
        "/system.slice/empty.service": v1_files(4096),
    }
    root = v1_root(tmp_path, cgroups, HOST)
    assert readings(root).unpopulated_kernel_bytes is None
    assert readings(root, populated_v1=True).unpopulated_kernel_bytes == 4096, "the slice holds tasks, below it"


HIERARCHICAL = {"memory.use_hierarchy": "1\n"}
ALONE = {"memory.use_hierarchy": "0\n"}


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (({}, {}, {}), 1000),  # some kernel to come: no such file
        ((HIERARCHICAL, HIERARCHICAL, HIERARCHICAL), 1000),
        ((ALONE, ALONE, ALONE), 1000 + 300 + 50),
        ((ALONE, HIERARCHICAL, HIERARCHICAL), 1000 + 300),
        ((ALONE, ALONE, HIERARCHICAL), 1000 + 300 + 50),
    ],
)
def test_on_v1_without_use_hierarchy_what_is_below_is_in_no_other_figure(
    tmp_path: Path, modes: tuple[dict[str, str], ...], expected: int
) -> None:
    sizes = {"/job": 1000, "/job/a": 300, "/job/a/b": 50}
    cgroups = {path: v1_files(size) | mode for (path, size), mode in zip(sizes.items(), modes, strict=True)}
    cgroups["/busy"] = v1_files(7, tasks="1\n") | ALONE
    cgroups["/busy/empty"] = v1_files(5) | ALONE
    root = v1_root(tmp_path, cgroups, HOST)
    assert readings(root, populated_v1=True).unpopulated_kernel_bytes == expected + 5


def test_what_patterns_hide_makes_no_byte_count_twice(tmp_path: Path) -> None:
    sizes = {"/job": 1000, "/job/a": 600, "/job/a/b": 500}
    v2 = v2_root(tmp_path / "2", {path: v2_files(size, populated=False) for path, size in sizes.items()}, HOST)
    assert readings(v2, exclude=("/job/a",)).unpopulated_kernel_bytes == 1000
    v1 = v1_root(tmp_path / "1", {path: v1_files(size) for path, size in sizes.items()}, HOST)
    told = readings(v1, exclude=("/job/a",), populated_v1=True).unpopulated_kernel_bytes
    assert told == 500, "nobody tells of /job whether what is hidden below it holds a task"


def test_the_bytes_of_an_emptied_storm_are_held_by_nobody_on_v1_too(tmp_path: Path) -> None:
    storm = "/slabwatch-storm-20260101-000000-abcd"
    for tasks, expected in (("4711\n", 0), ("", 356_000)):
        tree = {storm: v1_files(356_000), f"{storm}/c0000": v1_files(1), f"{storm}/c0001": v1_files(2, tasks=tasks)}
        assert readings(v1_root(tmp_path, tree, HOST), populated_v1=True).unpopulated_kernel_bytes == expected


# Odd names, up to the exposition.


@pytest.mark.parametrize("openmetrics", [False, True])
def test_names_of_any_bytes_leave_the_page_valid(tmp_path: Path, openmetrics: bool) -> None:
    names = [*ODD, "\\xff\\xfe"]  # the last is spelled as the bytes ff fe are
    root = host(tmp_path, {f"/{name}": v2_files(index + 1) for index, name in enumerate(names)})
    sample = Collectors(root, ALL_ON).collect()
    assert sample.cgroups is not None
    for path in sample.cgroups.paths:
        path.encode("utf-8")  # everything else that shows it can do so too: JSON, tables, logs
    page = KernelPage()
    page.observe(sample)
    text = page.render(sample, derive(sample), openmetrics=openmetrics).decode("utf-8")
    shown = {
        one.labels["cgroup"]: one.value
        for family in text_string_to_metric_families(text)
        if family.name == "slabwatch_cgroup_kernel_bytes"
        for one in family.samples
    }
    assert len(shown) == len(names) + 1
    assert sorted(shown.values()) == list(range(len(names) + 1))
    assert {"/new\nline", '/quo"te', "/back\\slash", "/ünïcode", "/\\xff\\xfe"} <= set(shown)


# Bounds that keep the monitor from being a burden.


def test_a_slow_slabinfo_is_kept_back_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collectors = Collectors(host(tmp_path), Config())
    real = KernelRoot.read_slabinfo
    reads: list[int] = []

    def slow(self: KernelRoot, parse: Callable[[bytes], SlabInfo]) -> object:
        reads.append(len(reads))
        return real(self, parse)

    monkeypatch.setattr(KernelRoot, "read_slabinfo", slow)
    clock = iter([0.0, 2.0])  # the first reading takes two seconds
    monkeypatch.setattr("time.perf_counter", lambda: next(clock, 2.0))
    first = collectors.collect()
    run = next(run for run in first.collectors if run.name == "slabinfo")
    assert (run.duration_seconds, run.backoff_seconds, run.reused) == (2.0, 40.0, False)
    second = collectors.collect()
    run = next(run for run in second.collectors if run.name == "slabinfo")
    assert (run.success, run.reused, run.backoff_seconds) == (True, True, 40.0)
    assert second.slabinfo is first.slabinfo
    assert reads == [0]
    assert [record.getMessage() for record in caplog.records].count("slabinfo_slow") == 1
    fresh = collectors.collect(fresh=True)
    assert reads == [0, 1], "a storm's measurement is never an old one"
    run = next(run for run in fresh.collectors if run.name == "slabinfo")
    assert (run.reused, run.backoff_seconds) == (False, 0.0)


def test_a_storm_is_one_series_whatever_its_id(tmp_path: Path) -> None:
    tree = {"/slabwatch-storm-20260101-000000-abcd": v2_files(9), "/a": v2_files(1)}
    tree |= {f"/slabwatch-storm-20260101-000000-abcd/c000{index}": v2_files(1) for index in range(3)}
    tree["/slabwatch-storm-20260101-000000-abcd/c0001/made-by-someone-else"] = v2_files(1)
    root = host(tmp_path, tree)
    assert "/slabwatch-storm" in readings(root).paths
    assert not any("/c000" in path for path in readings(root).paths)
    assert readings(root).visible == len(tree) + 1, "the hierarchy's root too; none of them is taken for a dying one"
    unfolded = readings(root, fold_storms=False).paths
    assert "/slabwatch-storm-20260101-000000-abcd/c0002" in unfolded


def test_patterns_choose_the_cgroups_that_are_read(tmp_path: Path) -> None:
    tree = {"/system.slice": v2_files(9), "/system.slice/a": v2_files(5), "/user.slice": v2_files(1)}
    made = readings(host(tmp_path, tree), include=("/", "/system*"), exclude=("*/a",))
    assert made.paths == ("/", "/system.slice")
    assert made.visible == 4, "all are counted"
    assert made.omitted == 0
