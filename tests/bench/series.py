"""How many series a host has, and of what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from slabwatch.config import Config
from slabwatch.expose.cache_selection import CacheSelection
from slabwatch.expose.own import OwnMetrics
from slabwatch.expose.render import KernelPage
from slabwatch.host.facts import read_facts
from slabwatch.host.root import KernelRoot
from slabwatch.watch.collect import Collectors
from slabwatch.watch.derive import derive
from tests.hosts import HOSTS, host_root

PER_CACHE = 8


@dataclass(frozen=True, slots=True)
class Series:
    """One host's series: ``others`` is what neither caches nor cgroups nor meminfo have, about the same everywhere."""

    host: str
    caches: int
    meminfo: int
    cgroups: int
    per_cgroup: int  # of one that has all of them: v2's root has fewer
    of_caches: int
    of_cgroups: int
    others: int
    page_bytes: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.of_caches + self.meminfo + self.of_cgroups + self.others


def recorded_hosts() -> Iterator[Series]:
    """Those of tests/fixtures/hosts, idle."""
    for name in HOSTS:
        yield count_series(name, page_of(KernelRoot(str(host_root(name, "idle")))))


def page_of(root: KernelRoot) -> bytes:
    """The daemon's page after one poll, with the built-in defaults."""
    config = Config()
    own, page, collectors = (
        OwnMetrics(),
        KernelPage(CacheSelection.from_config(config.caches)),
        Collectors(root, config),
    )
    own.set_kernel(**read_facts(root).as_dict())
    own.set_interval(config.poll.interval_seconds)
    own.polled(0)
    own.set_leftover(0)
    try:
        sample = collectors.collect()
    finally:
        collectors.close()
    page.observe(sample)
    return page.render(sample, derive(sample), openmetrics=False) + own.render(openmetrics=False)


def count_series(host: str, page: bytes) -> Series:
    """Counts them by what they are about."""
    lines = [line for line in page.decode().splitlines() if line and not line.startswith("#")]
    kinds: Counter[str] = Counter()
    cgroups: Counter[str] = Counter()
    for line in lines:
        if '{cache="' in line and not line.startswith("slabwatch_slab_expected"):
            kinds["cache"] += 1
        elif '{cgroup="' in line:
            kinds["cgroup"] += 1
            cgroups[line.split("{", 1)[1].rsplit("}", 1)[0]] += 1
        elif line.startswith("slabwatch_meminfo_"):
            kinds["meminfo"] += 1
        else:
            kinds["other"] += 1
    return Series(
        host=host,
        caches=kinds["cache"] // PER_CACHE,
        meminfo=kinds["meminfo"],
        cgroups=len(cgroups),
        per_cgroup=max(cgroups.values(), default=0),
        of_caches=kinds["cache"],
        of_cgroups=kinds["cgroup"],
        others=kinds["other"],
        page_bytes=len(page),
    )
