"""``make scaling``: measures what a fleet costs Prometheus, on this machine, and writes docs/scaling.md from it.

Takes about five minutes. Every figure of the page is measured here or computed from what was, and says which.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import time
from pathlib import Path

from slabwatch.host.root import KernelRoot
from tests.bench import servers
from tests.bench.measure import Scraper, cpu_seconds, resident_bytes
from tests.bench.prometheus import ingest
from tests.bench.scaling_page import Host, page
from tests.bench.series import count_series, page_of, recorded_hosts

TARGET = Path(__file__).parent.parent.parent / "docs" / "scaling.md"
SIMULATED_HOSTS = 12


def main() -> int:
    """Measure, and write."""
    if os.geteuid() != 0 or not shutil.which("prometheus"):
        print("needs root, and prometheus", file=sys.stderr)
        return 1
    hosts = [*recorded_hosts(), count_series("this machine", page_of(KernelRoot("/")))]
    print("the daemon, for 70 s ...", file=sys.stderr)
    host = measure_host(polls=7)
    print("Prometheus, for 125 s ...", file=sys.stderr)
    plain = ingest(host.pages, SIMULATED_HOSTS, 105, rules=True, remote_write=False)
    print("with fewer hosts, for 65 s ...", file=sys.stderr)
    few = ingest(host.pages, SIMULATED_HOSTS // 3, 45, rules=True, remote_write=False)
    print("with remote write, for 65 s ...", file=sys.stderr)
    sent = ingest(host.pages, SIMULATED_HOSTS, 45, rules=False, remote_write=True)
    TARGET.write_text(page(hosts, host, plain, few, sent), encoding="utf-8")
    print(f"wrote {TARGET}", file=sys.stderr)
    return 0


def measure_host(polls: int) -> Host:
    """A poll every 10 s, and a scrape for each, compressed, as Prometheus does."""
    pages = []
    with servers.slabwatch("") as (process, _):
        plain, compressed = Scraper(servers.OURS), Scraper(servers.OURS)
        time.sleep(10)
        cpu, started = cpu_seconds(process.pid), time.monotonic()
        for number in range(polls - 1):
            time.sleep(max(0.0, started + number * 10 - time.monotonic()))
            pages.append(gzip.decompress(compressed.scrape(gzip=True)))
        spent = (cpu_seconds(process.pid) - cpu) / (time.monotonic() - started) * 1000
        sent = compressed.scrape(gzip=True)
        pages.append(plain.scrape())
        resident = resident_bytes(process.pid)
    return Host(spent, resident, len(pages[-1]), len(sent), tuple(pages))


if __name__ == "__main__":
    sys.exit(main())
