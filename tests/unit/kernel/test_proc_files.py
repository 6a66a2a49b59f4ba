"""The parsers of the smaller files of /proc."""

from __future__ import annotations

import gzip
import re
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.errors import KernelParseError
from slabwatch.kernel.cmdline import parse_cmdline
from slabwatch.kernel.kernel_config import parse_kernel_config
from slabwatch.kernel.loadavg import LoadAvg, parse_loadavg
from slabwatch.kernel.pid_stat import PidStat, parse_pid_stat
from slabwatch.kernel.pressure import Pressure, parse_pressure
from slabwatch.kernel.stat import Stat, parse_stat
from slabwatch.kernel.sys_fs import parse_dentry_state, parse_file_nr
from slabwatch.kernel.vmstat import parse_vmstat, reclaim_counts
from tests.hosts import HOSTS, STATES, kernel_config, recorded
from tests.unit.kernel.parsers import NO_PSI

every_host = pytest.mark.parametrize("host", HOSTS)
every_state = pytest.mark.parametrize("state", STATES)


def words(host: str, state: str, file: str) -> list[str]:
    return recorded(host, state, file).decode().split()


# /proc/loadavg


@every_host
@every_state
def test_loadavg_of_a_recorded_host(host: str, state: str) -> None:
    load = parse_loadavg(recorded(host, state, "proc/loadavg"))
    one, five, fifteen, tasks, pid = words(host, state, "proc/loadavg")
    assert (f"{load.one:.2f}", f"{load.five:.2f}", f"{load.fifteen:.2f}") == (one, five, fifteen)
    assert (f"{load.runnable}/{load.threads}", str(load.last_pid)) == (tasks, pid)
    assert (load.threads > 1000) == (state == "storm")


def test_loadavg() -> None:
    assert parse_loadavg(b"10.50 2.00 0.01 3/1084 1144\n") == LoadAvg(10.5, 2.0, 0.01, 3, 1084, 1144)
    for data in (
        b"",
        b"\n",
        b"0.08 0.02 0.01 1/1084 1144",
        b"0.08 0.02 0.01 1/1084\n",
        b"0.08 0.02 0.01 1 1084 1144\n",
        b"0.08 0.02 0.01 -1/1084 1144\n",
        b"nan 0.02 0.01 1/1084 1144\n",
        b"0.08 0.02 0.01 1/1084 1144 \n",
        b"0.08 0.02 0.01 1/1084 1144\n0.08 0.02 0.01 1/1084 1144\n",
        "0.0\u0661 0.02 0.01 1/1084 1144\n".encode(),
    ):
        with pytest.raises(KernelParseError, match="/proc/loadavg"):
            parse_loadavg(data)


# /proc/stat


@every_host
@every_state
def test_stat_of_a_recorded_host(host: str, state: str) -> None:
    stat = parse_stat(recorded(host, state, "proc/stat"))
    all_words = words(host, state, "proc/stat")
    for key, value in (
        ("processes", stat.processes),
        ("btime", stat.boot_time_seconds),
        ("procs_running", stat.procs_running),
        ("procs_blocked", stat.procs_blocked),
    ):
        assert all_words[all_words.index(key) + 1] == str(value)


def test_stat() -> None:
    assert parse_stat(b"cpu  1 2 3\nprocesses 1145\n") == Stat(1145, None, None, None)
    assert parse_stat(b"btime 5\nprocs_blocked 0\nsoftirq 1\n") == Stat(None, 5, None, 0)
    for data in (b"", b"\n", b"cpu  1 2 3\n", b"processes 11", b"processes x\n", b"processes -1\n", b"processes\n"):
        with pytest.raises(KernelParseError, match="/proc/stat"):
            parse_stat(data)


# /proc/vmstat


@every_host
@every_state
def test_vmstat_of_a_recorded_host(host: str, state: str) -> None:
    stat = parse_vmstat(recorded(host, state, "proc/vmstat"))
    all_words = words(host, state, "proc/vmstat")
    assert stat == dict(zip(all_words[::2], map(int, all_words[1::2]), strict=True))
    assert stat["oom_kill"] == 0


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            {
                "pgscan_kswapd": 5,
                "pgscan_direct": 7,
                "pgscan_direct_throttle": 100,
                "pgscan_anon": 9,
                "slabs_scanned": 3,
            },
            {"pages_scanned": 12, "slab_objects_scanned": 3},
        ),
        ({"pgscan_kswapd_dma": 1, "pgscan_kswapd_normal": 2, "pgscan_direct_normal": 4}, {"pages_scanned": 7}),
        ({"slabs_scanned": 0}, {"slab_objects_scanned": 0}),
        ({"nr_free_pages": 1}, {}),
    ],
)
def test_what_the_kernel_has_looked_through_for_memory(rows: dict[str, int], expected: dict[str, int]) -> None:
    assert reclaim_counts(rows) == expected


@pytest.mark.parametrize("host", HOSTS)
def test_every_recorded_host_tells_what_it_has_looked_through(host: str) -> None:
    counts = reclaim_counts(parse_vmstat(recorded(host, "after", "proc/vmstat")))
    assert counts.keys() == {"pages_scanned", "slab_objects_scanned"}


def test_vmstat() -> None:
    assert parse_vmstat(b"nr_free_pages 5\noom_kill 18446744073709551615\n")["oom_kill"] == 2**64 - 1
    for data in (b"", b"oom_kill\n", b"oom_kill -1\n", b"oom_kill 12", b"oom_kill 1 2\n"):
        with pytest.raises(KernelParseError, match="/proc/vmstat"):
            parse_vmstat(data)


# /proc/sys/fs


@every_host
@every_state
def test_sys_fs_of_a_recorded_host(host: str, state: str) -> None:
    for name, parse in (("file-nr", parse_file_nr), ("dentry-state", parse_dentry_state)):
        assert str(parse(recorded(host, state, f"proc/sys/fs/{name}"))) == words(host, state, f"proc/sys/fs/{name}")[0]


def test_sys_fs() -> None:
    assert parse_file_nr(b"27\t0\t9223372036854775807\n") == 27
    assert parse_dentry_state(b"5935\t3814\t45\t0\t-1\t0\n") == 5935
    for data in (
        b"",
        b"\n",
        b"27\n",
        b"27\t0\t1",
        b"-27\t0\t1\n",
        b"x\t0\t1\n",
        b"27\t0\t1\t2\n",
        b"1\t2\t3\n1\t2\t3\n",
    ):
        with pytest.raises(KernelParseError, match="/proc/sys/fs/file-nr"):
            parse_file_nr(data)


# /proc/pressure


@pytest.mark.parametrize("host", sorted(set(HOSTS) - NO_PSI))
@pytest.mark.parametrize("resource", ["memory", "io", "cpu"])
def test_pressure_of_a_recorded_host(host: str, resource: str) -> None:
    for state in STATES:
        data = recorded(host, state, f"proc/pressure/{resource}")
        found = parse_pressure(data, f"/proc/pressure/{resource}")
        kinds = {"some": (found.some_avg10, found.some_total_us), "full": (found.full_avg10, found.full_total_us)}
        for kind, (avg10, total) in kinds.items():
            match = re.search(rf"^{kind} avg10=(\S+) .* total=(\d+)$", data.decode(), re.MULTILINE)
            assert (avg10, total) == ((float(match[1]), int(match[2])) if match else (None, None))


def test_pressure() -> None:
    some = b"some avg10=12.50 avg60=0.00 avg300=0.00 total=123\n"
    assert parse_pressure(some) == Pressure(12.5, 123, None, None)
    assert parse_pressure(some + some.replace(b"some", b"full")) == Pressure(12.5, 123, 12.5, 123)
    for data in (b"", b"\n", some.strip(), some.replace(b"some", b"most"), some.replace(b"123", b"-1"), b"some\n"):
        with pytest.raises(KernelParseError, match="/proc/pressure/memory"):
            parse_pressure(data)


# /proc/config.gz


@every_host
def test_kernel_config_of_a_recorded_host(host: str) -> None:
    data = kernel_config(host)
    options = parse_kernel_config(data)
    assert options["CONFIG_MEMCG"] == "y"
    for line in data.decode().splitlines():
        if line.startswith("CONFIG_"):
            name, value = line.split("=", 1)
            assert options[name] == value.strip('"')
        elif line.endswith(" is not set"):
            assert options[line.split()[1]] == "n"
    assert parse_kernel_config(gzip.compress(data)) == options


def test_kernel_config() -> None:
    text = (
        b"#\n# Automatically generated file\n#\nCONFIG_A=y\nCONFIG_B=m\n"
        b'# CONFIG_C is not set\nCONFIG_D="-x \\"y\\""\n\nCONFIG_E=0x10\n'
    )
    options = {"CONFIG_A": "y", "CONFIG_B": "m", "CONFIG_C": "n", "CONFIG_D": '-x "y"', "CONFIG_E": "0x10"}
    assert parse_kernel_config(text) == options
    assert parse_kernel_config(gzip.compress(text)) == options
    assert parse_kernel_config(b'CONFIG_EMPTY=""\n') == {"CONFIG_EMPTY": ""}
    for data in (b"", b"\n", b"# only a comment\n", b"CONFIG_A=\n", b"CONFIG_A=y", b"CONFIG_A\n", b"A=y\n"):
        with pytest.raises(KernelParseError, match="/boot/config-x"):
            parse_kernel_config(data, "/boot/config-x")


def test_kernel_config_that_was_cut_off_or_damaged() -> None:
    whole = gzip.compress(b"CONFIG_A=y\n" * 3)
    for end in range(2, len(whole)):
        with pytest.raises(KernelParseError, match="gzip"):
            parse_kernel_config(whole[:end])
    with pytest.raises(KernelParseError, match="gzip"):
        parse_kernel_config(whole[:12] + b"\xff\xff" + whole[14:])
    assert parse_kernel_config(whole + b"what follows") == {"CONFIG_A": "y"}


def test_kernel_config_has_a_bound() -> None:
    bomb = gzip.compress(b"\n" * (64 * 1024 * 1024))
    tracemalloc.start()
    with pytest.raises(KernelParseError, match="size"):
        parse_kernel_config(bomb)
    assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    tracemalloc.stop()
    with pytest.raises(KernelParseError, match="size"):
        parse_kernel_config(b"\n" * (4 * 1024 * 1024 + 1))


# /proc/cmdline


@every_host
def test_cmdline_of_a_recorded_host(host: str) -> None:
    parameters = parse_cmdline(recorded(host, "idle", "proc/cmdline"))
    for word in recorded(host, "idle", "proc/cmdline").decode().split():
        name, assigned, value = word.partition("=")
        assert not assigned or value in parameters[name.replace("-", "_")]
    assert parameters["quiet"] == ()
    assert parameters["console"] == ("ttyS0",)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        (b"", {}),
        (b"quiet", {"quiet": ()}),
        (b"  quiet \t  quiet ", {"quiet": ()}),
        (b"console=tty0 quiet console=ttyS0,115200", {"console": ("tty0", "ttyS0,115200"), "quiet": ()}),
        (b"cgroup.memory=nosocket,nokmem", {"cgroup.memory": ("nosocket,nokmem",)}),
        (b"slab_nomerge slab-nomerge=1", {"slab_nomerge": ("1",)}),
        (b"root=UUID=1-2", {"root": ("UUID=1-2",)}),
        (b"empty=", {"empty": ("",)}),
        (b'dyndbg="file mm/slub.c +p" quiet', {"dyndbg": ("file mm/slub.c +p",), "quiet": ()}),
        (b'"dyndbg=file mm/slub.c +p" quiet', {"dyndbg": ("file mm/slub.c +p",), "quiet": ()}),
        (b'a="never closed quiet', {"a": ("never closed quiet",)}),
        (b"a=1 -- nokmem", {"a": ("1",)}),
        (b"a=\xff", {"a": ("\\xff",)}),
    ],
)
def test_cmdline(text: bytes, parameters: dict[str, tuple[str, ...]]) -> None:
    assert parse_cmdline(text + b"\n") == parameters


def test_cmdline_that_was_cut_off() -> None:
    for data in (b"", b"cgroup.memory=nok"):
        with pytest.raises(KernelParseError, match="/proc/cmdline"):
            parse_cmdline(data)


PID_STAT = (
    "S 1 4242 4242 0 -1 4194304 9120 0 3 0 151 38 0 0 20 0 4 0 90031 123904000 10533 18446744073709551615 1 1 0\n"
)


@pytest.mark.parametrize("name", ["slabwatch", "a b", ") S 1 2 3", "((", ""])
def test_pid_stat(name: str) -> None:
    assert parse_pid_stat(f"4242 ({name}) {PID_STAT}".encode()) == PidStat(151, 38, 90031, 123904000, 10533)


@given(st.binary() | st.integers(0, 130).map(lambda cut: f"4242 (x) {PID_STAT}".encode()[:cut]))
def test_any_bytes_are_a_pid_stat_or_the_one_error(data: bytes) -> None:
    with suppress(KernelParseError):
        assert parse_pid_stat(data).resident_pages >= 0
