"""The formula of docs/scaling.md holds on the recorded hosts."""

from __future__ import annotations

import pytest

from slabwatch.host.root import KernelRoot
from tests.bench.series import PER_CACHE, count_series, page_of
from tests.hosts import HOSTS, host_root


@pytest.mark.parametrize("name", HOSTS)
def test_series_of_a_host(name: str) -> None:
    root = KernelRoot(str(host_root(name, "idle")))
    page = page_of(root)
    series = count_series(name, page)
    assert series.total == sum(not line.startswith(b"#") for line in page.splitlines())
    assert series.caches == len(root.read_slabinfo().names)
    assert series.of_caches == PER_CACHE * series.caches
    assert series.meminfo == len(root.read_meminfo().values)
    assert series.of_cgroups <= series.per_cgroup * series.cgroups
    # The rest does not grow with the host.
    assert 50 < series.others < 120
