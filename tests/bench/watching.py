"""The watching half: CPU of polls and scrapes, cgroups, memory."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from slabwatch.config import Cgroups, Config
from slabwatch.expose.page import _compress
from slabwatch.host.root import KernelRoot
from slabwatch.watch.collect import Collectors
from tests.bench import servers
from tests.bench.measure import (
    Row,
    Scraper,
    all_descriptors,
    cgroups,
    cpu_seconds,
    median_ms,
    resident_bytes,
)

# At the same pace for both, or at a peer's own speed where that is less: back to back, as such figures are usually
# taken, and with time in between, in which the CPU's caches are lost to others, as on a host that does its own work.
_PACES = ((0.002, "back to back"), (0.5, "twice a second"))
# A comparison is the middle one of so many, each side by side, for as long: a machine's speed changes by the minute.
_COMPARISONS = 3
_SECONDS = 4.0
_SAME_FAMILIES = "[collectors]\nprocess = false\ncgroup = false\n"


def scrapes() -> Iterator[Row]:
    """One poll and one scrape, and ten scrapes a poll, against as many scrapes of node_exporter."""
    with servers.node_exporter() as peer:
        for pace, name in _PACES:
            bare = functools.partial(_cpu_of_bare_reads, pace)
            what = f"the two files read and nothing else, {name} ({_partial_slabs():,} partial slabs)"
            peers = functools.partial(_cpu_of_polls, peer.pid, servers.NODE_EXPORTER, pace)
            yield _beside(what, None, bare, functools.partial(peers, 1, False))
            for each, aim in ((1, 0.25), (10, 0.1)) if pace > 0.1 else ((1, 0.25),):
                for gzip in (False, True):
                    what = f"one poll, scrapes {each}, {name}{', gzip' if gzip else ''}"
                    ours = functools.partial(_cpu_of_ours, pace, each, gzip)
                    yield _beside(what, aim, ours, functools.partial(peers, each, gzip))
        memory = _mib(_resident_watching())
        yield Row("resident MiB, slabinfo and meminfo only", memory, f"node_exporter {_mib(resident_bytes(peer.pid))}")


def compression() -> Iterator[Row]:
    """A page of this host as a scraper gets it, against zlib at the level that node_exporter's library has."""
    command = [sys.executable, "-m", "slabwatch.cli.slabwatch", "--once"]
    page = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    ours, theirs = (median_ms(functools.partial(compress, page), 99) for compress in (_ours, _zlib))
    yield Row(
        f"a page of {len(page) / 1000:.0f} kB compressed: CPU ms",
        f"{ours:.3f} ({len(_ours(page)) / 1000:.1f} kB)",
        f"zlib, level 6 {theirs:.3f} ({len(_zlib(page)) / 1000:.1f} kB)",
        ours / theirs,
    )


def _ours(page: bytes) -> bytes:
    return _compress([(page,)])


def _zlib(page: bytes) -> bytes:
    return zlib.compress(page, 6, 31)


def _beside(what: str, aim: float | None, ours: Callable[[], float], theirs: Callable[[], float]) -> Row:
    compared = []
    for _ in range(_COMPARISONS):
        mine, peers = ours() * 1000, theirs() * 1000
        compared.append((mine / peers, mine, peers))
    ratio, mine, peers = sorted(compared)[_COMPARISONS // 2]
    return Row(f"{what}: CPU ms", f"{mine:.2f}", f"node_exporter {peers:.2f}", ratio, aim)


def _cpu_of_ours(pace: float, scrapes_each: int, gzip: bool) -> float:
    with servers.slabwatch(_SAME_FAMILIES, poll_seconds=pace) as (daemon, _):
        return _cpu_of_polls(daemon.pid, servers.OURS, pace, scrapes_each, gzip)


def _cpu_of_polls(pid: int, url: str, pace: float, scrapes_each: int, gzip: bool) -> float:
    """CPU seconds for one poll and some scrapes."""
    scraper = Scraper(url)
    polls = _polls(scraper)
    time.sleep(1.0)
    rounds = 0
    before, polls, started = cpu_seconds(pid), _polls(scraper), time.monotonic()
    while time.monotonic() - started < _SECONDS:
        for _ in range(scrapes_each):
            scraper.scrape(gzip=gzip)
        rounds += 1
        time.sleep(max(0.0, started + rounds * pace - time.monotonic()))
    spent, polls = cpu_seconds(pid) - before, _polls(scraper) - polls
    # A peer polls at each scrape. We do not: where our polls were fewer than the scrapes, they are what is divided by.
    return spent / (min(rounds, polls) if polls else rounds)


def _cpu_of_bare_reads(pace: float) -> float:
    """CPU seconds for what nobody can do without, at the same pace: the kernel's own share."""
    rounds, before, started = 0, time.process_time(), time.monotonic()
    while time.monotonic() - started < _SECONDS:
        for path in ("/proc/slabinfo", "/proc/meminfo"):
            with open(path, "rb", buffering=0) as file:
                while file.read(65536):
                    pass
        rounds += 1
        time.sleep(max(0.0, started + rounds * pace - time.monotonic()))
    return (time.process_time() - before) / rounds


def _partial_slabs() -> int:
    """The kernel walks all of them at each read of slabinfo: a host's history decides what a read costs."""
    files = [path / "partial" for path in Path("/sys/kernel/slab").iterdir() if not path.is_symlink()]
    return sum([int(file.read_text().split()[0]) for file in files])


def _polls(scraper: Scraper) -> int:
    """How often the daemon has polled; 0 for a peer, which does not tell."""
    for line in scraper.scrape().splitlines():
        if line.startswith(b"slabwatch_polls_total "):
            return int(float(line.split()[1]))
    return 0


def _resident_watching() -> int:
    with servers.slabwatch(_SAME_FAMILIES) as (daemon, _):
        Scraper(servers.OURS).scrape()
        return resident_bytes(daemon.pid)


def many_cgroups() -> Iterator[Row]:
    """A poll of the cgroup collector against a bare loop of pread over the same descriptors."""
    hard = all_descriptors()
    per_cgroup: dict[int, float] = {}
    for count in (1000, 2000, 5000):
        for kept in (1_000_000, 0):
            with cgroups(count):
                collectors = Collectors(
                    KernelRoot("/"), Config(cgroups=Cgroups(kept_descriptors=kept, max_count=100_000))
                )
                collectors.collect()
                ours = median_ms(functools.partial(collectors._read_cgroups, {}))
                held = collectors.collect().cgroups
                assert held is not None
                if kept and count == 1000:
                    columns = collectors._memory_cgroups._files._columns  # type: ignore[union-attr]
                    bare = median_ms(functools.partial(_bare_preads, columns))
                    yield Row(
                        f"poll over {count} cgroups, {held.kept_descriptors} kept descriptors: CPU ms",
                        f"{ours:.1f}", f"bare preads {bare:.1f}", ours / bare, 2.0,
                    )  # fmt: skip
                if not kept:
                    per_cgroup[count] = ours / count * 1000
                    yield Row(f"poll over {count} cgroups, none kept: CPU µs a cgroup", f"{per_cgroup[count]:.1f}", "")
                collectors.close()
    yield Row(
        "CPU a cgroup at 5,000 against 1,000", f"{per_cgroup[5000]:.1f} µs", f"{per_cgroup[1000]:.1f} µs",
        per_cgroup[5000] / per_cgroup[1000], 1.0,
    )  # fmt: skip
    yield from _slab_of_descriptors(min(hard, 7 * 1000))


def _bare_preads(columns: list[list[int]]) -> None:
    for column in columns:
        for descriptor in column:
            os.pread(descriptor, 64, 0)


def _slab_of_descriptors(most: int) -> Iterator[Row]:
    """What kept descriptors cost the kernel, and what they save."""
    root = KernelRoot("/")
    with cgroups(1000):
        time.sleep(2)  # the kernel's counters are folded once a second
        before = root.read_meminfo()
        collectors = Collectors(root, Config(cgroups=Cgroups(kept_descriptors=most, max_count=100_000)))
        sample = collectors.collect()
        time.sleep(2)
        after = root.read_meminfo()
        collectors.close()
    assert sample.cgroups is not None
    grown = {key: (after.get(key) or 0) - (before.get(key) or 0) for key in ("Slab", "SUnreclaim")}
    kept = max(1, sample.cgroups.kept_descriptors)
    yield Row(
        f"slab pinned by {kept} kept descriptors of 1,000 cgroups: MiB",
        f"{_mib(grown['Slab'])}, of it {_mib(grown['SUnreclaim'])} unreclaimable",
        f"{grown['SUnreclaim'] / kept / 1024:.1f} kB each",
    )


def memory_over_polls(polls: int = 20_000) -> Iterator[Row]:
    """Resident memory of the daemon while cgroups come and go."""
    curve = _memory(polls, 200)
    yield Row(
        f"resident MiB over {polls:,} polls, 200 cgroups of which 10 come and go at a time",
        " ".join(map(_mib, curve)),
        "its own first quarter",
        curve[-1] / curve[len(curve) // 4],
        1.02,
    )
    large = _memory(1_000, 1_000)
    yield Row(
        "resident MiB over 1,000 polls, 1,000 cgroups of which 10 come and go at a time, the most of 20 readings",
        _mib(max(large)),
        "aim: 48",
        max(large) / 1048576 / 48,
        1.0,
    )


def _memory(polls: int, count: int) -> list[int]:
    """Resident bytes at each twentieth of the polls. A scraper takes a compressed page each time that cgroups go."""
    curve: list[int] = []
    with cgroups(count - 10) as base, servers.slabwatch("", poll_seconds=0.002) as (daemon, _):
        scraper, moving, turn = Scraper(servers.OURS), list[Path](), 0
        try:
            while len(curve) < 20:
                for path in moving:
                    path.rmdir()
                turn += 1
                moving = [base / f"m{turn}-{index}" for index in range(10)]
                for path in moving:
                    path.mkdir()
                scraper.scrape(gzip=True)
                time.sleep(0.02)
                if turn % 10 == 0 and _polls(scraper) >= (len(curve) + 1) * polls / 20:
                    curve.append(resident_bytes(daemon.pid))
        finally:
            for path in moving:
                path.rmdir()
    return curve


def loops() -> Iterator[Row]:
    """Idle CPU at the default interval, with asyncio's loop and with uvloop where it is installed."""
    spent = {}
    for loop in ("asyncio", "uvloop"):
        if loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
            yield Row("uvloop", "not installed: pip install uvloop", "")
            return
        with servers.slabwatch("", poll_seconds=10.0, loop=loop) as (daemon, _):
            time.sleep(2.0)
            before = cpu_seconds(daemon.pid)
            time.sleep(60.0)
            spent[loop] = (cpu_seconds(daemon.pid) - before) / 60 * 1000, resident_bytes(daemon.pid)
    ours, theirs = spent["asyncio"], spent["uvloop"]
    yield Row(
        "idle, a poll every 10 s: CPU ms a second",
        f"asyncio {ours[0]:.3f}",
        f"uvloop {theirs[0]:.3f}",
        ours[0] / theirs[0],
    )
    yield Row("resident MiB", f"asyncio {_mib(ours[1])}", f"uvloop {_mib(theirs[1])}", ours[1] / theirs[1])


def _mib(size: int) -> str:
    return f"{size / 1048576:.1f}"
