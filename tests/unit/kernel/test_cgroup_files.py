"""The parsers of the files that a cgroup has, and of those that tell about all cgroups."""

from __future__ import annotations

import pytest

from slabwatch.errors import KernelParseError
from slabwatch.kernel import memory_stat
from slabwatch.kernel.cgroup_events import CgroupEvents, parse_cgroup_events
from slabwatch.kernel.cgroup_stat import CgroupStat, parse_cgroup_stat
from slabwatch.kernel.cgroups import Controller, parse_cgroups
from slabwatch.kernel.counter import UNLIMITED_FROM, parse_counter, parse_limit
from slabwatch.kernel.memory_stat import StatPicker, kernel_bytes, parse_memory_stat
from slabwatch.kernel.pid_cgroup import PidCgroup, parse_pid_cgroup
from tests.hosts import HOSTS, STATES, recorded, recorded_all
from tests.unit.kernel.parsers import CGROUP, V1, V2

every_host = pytest.mark.parametrize("host", HOSTS)


def pairs(data: bytes) -> dict[str, str]:
    words = data.decode().split()
    return dict(zip(words[::2], words[1::2], strict=True))


# memory.stat


@every_host
def test_memory_stat_of_every_cgroup(host: str) -> None:
    for state in STATES:
        for data in recorded_all(host, state, CGROUP, "memory.stat").values():
            stat = parse_memory_stat(data)
            assert stat == pairs(data)
            kernel = kernel_bytes(stat)
            if host in V1:
                assert kernel is None
            elif "kernel" in stat:
                assert host.startswith(("6.", "7."))
                assert kernel == int(stat["kernel"])
            else:
                assert kernel is not None
                assert kernel == sum(
                    int(stat[key]) for key in ("slab", "kernel_stack", "pagetables", "percpu", "sock") if key in stat
                )


PICKED = ("kernel", "slab", "kernel_stack", "pagetables", "sock", "no_such_key")


@pytest.mark.parametrize("host", V2)
def test_picked_figures_are_those_of_the_parser_and_files_of_one_form_are_parsed_once(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[tuple[str, ...]] = []

    def counted(data: bytes) -> dict[str, str]:
        stat = parse_memory_stat(data)
        parsed.append(tuple(stat))
        return stat

    monkeypatch.setattr(memory_stat, "parse_memory_stat", counted)
    picker = StatPicker(PICKED)
    files = [data for state in STATES for data in recorded_all(host, state, CGROUP, "memory.stat").values()]
    files.sort(key=lambda data: list(pairs(data)))  # the root's has other keys
    for data in files:
        assert picker.pick(data) == [pairs(data).get(key) for key in PICKED]
    assert len(parsed) == len(set(parsed)) < len(files) / 4


@pytest.mark.parametrize(
    ("after", "figures"),
    [
        (b"anon 1\nslab 5\n", ["5", None]),
        (b"anon 1\nsock 2\nslab 6\n", ["6", "2"]),
        (b"slab 7\nanon 1\n", ["7", None]),
        (b"anon 1\n", [None, None]),
    ],
)
def test_picked_figures_of_another_form(after: bytes, figures: list[str | None]) -> None:
    picker = StatPicker(("slab", "sock"))
    for _ in range(2):
        assert picker.pick(b"anon 1\nslab 4\n") == ["4", None]
        assert picker.pick(after) == figures
        for bad in (b"", b"anon 1\nslab 4", b"anon 1\nslab x\n", b"anon 1\nslab\n"):
            with pytest.raises(KernelParseError):
                picker.pick(bad)


def test_kernel_bytes_by_presence() -> None:
    assert kernel_bytes({"kernel": "100", "slab": "1", "sock": "2"}) == 100
    assert kernel_bytes({"slab": "1", "kernel_stack": "10", "pagetables": "100", "sock": "1000"}) == 1111
    assert kernel_bytes({"slab": "1", "percpu": "10", "vmalloc": "100", "anon": "1000"}) == 111
    assert kernel_bytes({"slab": "0"}) == 0
    assert kernel_bytes({"kernel_stack": "10", "sock": "5"}) is None
    assert kernel_bytes({}) is None


@pytest.mark.parametrize(
    ("data", "line_no"),
    [
        (b"", 0),
        (b"\n", 1),
        (b"anon 1\n\nfile 2\n", 2),
        (b"anon 1\nfile\n", 2),
        (b"anon 1\nfile \n", 2),
        (b"anon 1\n 2\n", 2),
        (b"anon 1\nfile 2 3\n", 2),
        (b"anon 1\nfile -2\n", 2),
        (b"anon 1\nfile max\n", 2),
        (b"anon 1\nfile \xd9\xa1\n", 2),
        (b"anon 1\nfile 123456789012345678901\n", 2),
        (b"anon 1\nanon 2\n", 2),
        (b"anon 1\nfile 2", 2),
    ],
)
def test_memory_stat_that_does_not_fit(data: bytes, line_no: int) -> None:
    with pytest.raises(KernelParseError) as caught:
        parse_memory_stat(data)
    assert (caught.value.path, caught.value.line_no) == ("memory.stat", line_no)


# cgroup.stat


@every_host
def test_cgroup_stat_of_every_cgroup(host: str) -> None:
    found = 0
    for state in STATES:
        for data in recorded_all(host, state, CGROUP, "cgroup.stat").values():
            known = {key: int(value) for key, value in pairs(data).items()}
            assert parse_cgroup_stat(data) == CgroupStat(
                known["nr_descendants"],
                known["nr_dying_descendants"],
                known.get("nr_subsys_memory"),
                known.get("nr_dying_subsys_memory"),
            )
            assert ("nr_subsys_memory" in known) == host.startswith(("6.18", "7."))
            found += 1
    assert found


@pytest.mark.parametrize("host", sorted(V2))
def test_cgroup_stat_tells_the_dying_ones(host: str) -> None:
    stat = parse_cgroup_stat(recorded(host, "dying", f"{CGROUP}/cgroup.stat"))
    before = parse_cgroup_stat(recorded(host, "dying-before", f"{CGROUP}/cgroup.stat"))
    assert before.descendants - stat.descendants == 50
    # From 7.2 on nothing keeps the removed ones.
    assert stat.dying_descendants == (0 if host.startswith("7.") else 50)


@pytest.mark.parametrize(
    "data", [b"", b"nr_descendants 1\n", b"nr_dying_descendants 1\n", b"nr_descendants x\n", b"nr_descendants 1"]
)
def test_cgroup_stat_that_does_not_fit(data: bytes) -> None:
    with pytest.raises(KernelParseError, match=r"cgroup\.stat"):
        parse_cgroup_stat(data)


# cgroup.events


@pytest.mark.parametrize("host", sorted(V2))
def test_cgroup_events_of_every_cgroup(host: str) -> None:
    storm = recorded_all(host, "storm", CGROUP, "cgroup.events")
    before = recorded_all(host, "dying-before", CGROUP, "cgroup.events")
    empty = {path for path in before if "/dying-" in path}
    assert storm
    assert empty
    for path, data in [*storm.items(), *before.items()]:
        assert parse_cgroup_events(data) == CgroupEvents(populated=path not in empty, frozen=False)


def test_cgroup_events() -> None:
    assert parse_cgroup_events(b"populated 0\nfrozen 1\n") == CgroupEvents(populated=False, frozen=True)
    assert parse_cgroup_events(b"populated 1\n") == CgroupEvents(populated=True, frozen=None)
    assert parse_cgroup_events(b"populated 1\nnew 7\n") == CgroupEvents(populated=True, frozen=None)
    for data in (b"", b"frozen 0\n", b"populated 2\n", b"populated 1\nfrozen 7\n", b"populated 1", b"populated\n"):
        with pytest.raises(KernelParseError, match=r"cgroup\.events"):
            parse_cgroup_events(data)


# single numbers


@every_host
def test_limits_of_a_recorded_host(host: str) -> None:
    v1, v2 = ("memory.kmem.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"), ("memory.max", "pids.max")
    for name in v1 if host in V1 else v2:
        files = recorded_all(host, "idle", CGROUP, name)
        assert files
        for path, data in files.items():
            assert data in (b"max\n", b"9223372036854771712\n")
            assert parse_limit(data, path) is None


@every_host
def test_counters_of_a_recorded_host(host: str) -> None:
    files = recorded_all(host, "storm", CGROUP, "memory.kmem*usage_in_bytes" if host in V1 else "memory.current")
    assert files
    for path, data in files.items():
        assert parse_counter(data, path) == int(data)


@every_host
def test_kernel_limits_of_a_recorded_host(host: str) -> None:
    assert parse_counter(recorded(host, "idle", "proc/sys/kernel/pid_max"), "pid_max") in (32768, 4194304)
    assert (parse_counter(recorded(host, "idle", "proc/sys/kernel/threads-max"), "threads-max") or 0) > 1000


def test_counter() -> None:
    assert parse_counter(b"0\n", "x") == 0
    assert parse_counter(b"18446744073709551615\n", "x") == 2**64 - 1
    assert parse_counter(b"max\n", "x") is None
    for data in (
        b"",
        b"\n",
        b"1",
        b"max",
        b"-1\n",
        b"1 \n",
        b" 1\n",
        b"1\n2\n",
        b"1_0\n",
        b"Max\n",
        b"\xd9\xa1\n",
        b"9" * 30 + b"\n",
    ):
        with pytest.raises(KernelParseError, match="pids.max"):
            parse_counter(data, "pids.max")


@pytest.mark.parametrize("page", [4096, 8192, 16384, 65536])
def test_unlimited_in_v1_for_each_page_size(page: int) -> None:
    # PAGE_COUNTER_MAX pages: LONG_MAX / PAGE_SIZE, in bytes.
    unlimited = (2**63 - 1) // page * page
    assert unlimited >= UNLIMITED_FROM
    assert parse_limit(b"%d\n" % unlimited, "x") is None
    assert parse_counter(b"%d\n" % unlimited, "x") == unlimited


def test_limits() -> None:
    assert (2**63 - 1) // 4096 * 4096 == 9223372036854771712
    assert parse_limit(b"9223372036854771712\n", "x") is None
    assert parse_limit(b"9223372036854710272\n", "x") is None
    assert parse_limit(b"9223372036854775807\n", "x") is None
    assert parse_limit(b"18446744073709551615\n", "x") is None
    assert parse_limit(b"max\n", "x") is None
    assert parse_limit(b"%d\n" % (UNLIMITED_FROM - 1), "x") == UNLIMITED_FROM - 1
    assert parse_limit(b"0\n", "x") == 0
    assert parse_limit(b"268435456\n", "x") == 268435456


# /proc/cgroups


@every_host
@pytest.mark.parametrize("state", STATES)
def test_proc_cgroups_of_a_recorded_host(host: str, state: str) -> None:
    data = recorded(host, state, "proc/cgroups")
    lines = [line.split("\t") for line in data.decode().splitlines()[1:]]
    controllers = parse_cgroups(data)
    assert [(one.name, str(one.hierarchy), str(one.num_cgroups), str(int(one.enabled))) for one in controllers] == [
        tuple(line) for line in lines
    ]
    assert ("memory" in {one.name for one in controllers}) == (not host.startswith(("6.18", "7.")))


def test_proc_cgroups_v1_counts_the_dying_ones() -> None:
    for host in V1:
        counts = []
        for state in ("dying-before", "dying"):
            controllers = parse_cgroups(recorded(host, state, "proc/cgroups"))
            counts += [one.num_cgroups for one in controllers if one.name == "memory"]
        assert counts[0] == counts[1] > 50


def test_proc_cgroups() -> None:
    header = b"#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
    assert parse_cgroups(header) == ()
    assert parse_cgroups(header + b"memory\t5\t53\t0\n") == (Controller("memory", 5, 53, enabled=False),)
    for data in (
        b"",
        b"memory\t5\t53\t1\n",
        header + b"memory\t5\t53\n",
        header + b"memory\t5\t53\t1\t2\n",
        header + b"memory\t5\t53\t2\n",
        header + b"memory\t-5\t53\t1\n",
        header + b"memory\t5\tx\t1\n",
        header + b"\n",
        header + b"memory\t5\t53\t1",
    ):
        with pytest.raises(KernelParseError, match="/proc/cgroups"):
            parse_cgroups(data)


# /proc/self/cgroup


@every_host
def test_self_cgroup_of_a_recorded_host(host: str) -> None:
    found = parse_pid_cgroup(recorded(host, "idle", "proc/self/cgroup"))
    assert found.unified == "/"
    assert found.by_controller.get("memory") == ("/" if host in V1 else None)
    assert ("name=systemd" in found.by_controller) == (host in V1)


def test_self_cgroup() -> None:
    data = b"5:memory:/app.slice\n3:cpu,cpuacct:/a:b/c d\n1:name=systemd:/x\n0::/app.slice/web.service (deleted)\n"
    assert parse_pid_cgroup(data) == PidCgroup(
        unified="/app.slice/web.service (deleted)",
        by_controller={"memory": "/app.slice", "cpu": "/a:b/c d", "cpuacct": "/a:b/c d", "name=systemd": "/x"},
    )
    assert parse_pid_cgroup(b"0::/caf\xc3\xa9\xff\n").unified == "/café\\xff"
    assert parse_pid_cgroup(b"") == PidCgroup(None, {})
    for data in (b"\n", b"0:/\n", b"0::\n", b"0::x\n", b"x::/\n", b"-1:memory:/\n", b"0::/"):
        with pytest.raises(KernelParseError, match="/proc/self/cgroup"):
            parse_pid_cgroup(data)
