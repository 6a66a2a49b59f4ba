"""A process that polls and renders as the daemon does, over cgroups that come and go; prints its memory in MiB."""

from __future__ import annotations

import os
import sys

import slabwatch.daemon  # noqa: F401 - all that a daemon has in memory
from slabwatch.config import Cgroups, Config
from slabwatch.expose.own import OwnMetrics
from slabwatch.expose.page import MetricsPage
from slabwatch.host.root import KernelRoot
from slabwatch.watch.collect import Collectors
from slabwatch.watch.derive import derive
from tests.bench.measure import cgroups, resident_bytes

_POINTS = 20


def main(polls: int, fixed: int) -> None:
    """One line a twentieth of the polls."""
    own = OwnMetrics()
    own.set_interval(10.0)
    page = MetricsPage(own)
    collectors = Collectors(KernelRoot("/"), Config(cgroups=Cgroups(kept_descriptors=1000)))
    with cgroups(fixed) as base:
        moving: list[str] = []  # a Path has its name interned: the table of these would be measured too
        try:
            for poll in range(polls):
                for path in moving:
                    os.rmdir(path)
                moving = [f"{base}/m{poll}-{index}" for index in range(10)]
                for path in moving:
                    os.mkdir(path)
                sample = collectors.collect()
                page.publish(sample, derive(sample))
                if poll % 10 == 0:
                    page.body("", gzip=True)
                if (poll + 1) % (polls // _POINTS) == 0:
                    print(f"{resident_bytes(os.getpid()) / 1048576:.1f}", flush=True)
        finally:
            for path in moving:
                os.rmdir(path)
            collectors.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
