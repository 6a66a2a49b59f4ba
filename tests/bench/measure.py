"""What all benchmarks share: a row, processes with their CPU time, and cgroups that are made for a while."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import statistics
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MEMORY = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison; ``ratio`` is ours / theirs. ``aim`` is what was to be reached, as a ratio (None: none set)."""

    what: str
    ours: str
    theirs: str
    ratio: float | None = None
    aim: float | None = None


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, from the scheduler's nanoseconds."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with (
            contextlib.suppress(FileNotFoundError),
            open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file,
        ):
            total += int(file.read().split()[0])
    return total / 1e9


def resident_bytes(pid: int) -> int:
    """VmRSS."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def median_ms(work: Callable[[], object], rounds: int = 9) -> float:
    """Median CPU milliseconds of this process for one call."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times) * 1000


class Scraper:
    """Scrapes one target as Prometheus does, over a connection that it keeps."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self._path = parts.path

    def scrape(self, *, gzip: bool = False) -> bytes:
        """One scrape. Raises OSError."""
        self._connection.request("GET", self._path, headers={"Accept-Encoding": "gzip"} if gzip else {})
        return self._connection.getresponse().read()


@contextlib.contextmanager
def cgroups(count: int) -> Iterator[Path]:
    """``count`` memory cgroups below one of our own (v1), removed afterwards."""
    base = MEMORY / "slabwatch-bench"
    made: list[Path] = []
    base.mkdir()
    try:
        for index in range(count):
            path = base / f"c{index:05d}"
            path.mkdir()
            made.append(path)
        yield base
    finally:
        for path in reversed(made):
            path.rmdir()
        base.rmdir()


def all_descriptors() -> int:
    """Raise the soft limit of open files to the hard one; that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def running(command: list[str], url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server, from when it answers at ``url`` until the context ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                Scraper(url).scrape()
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"{command[0]} does not answer at {url}")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)
