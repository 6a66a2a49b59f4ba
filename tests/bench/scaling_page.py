"""docs/scaling.md: what was measured, and what follows from it for a fleet."""

from __future__ import annotations

import itertools
import os
import platform
import time
from dataclasses import dataclass

from tests.bench.prometheus import SETTLE_SECONDS, Ingested
from tests.bench.series import PER_CACHE, Series

FLEET = 10_000
# What is assumed of the fleet's hosts: a current distribution's kernel, and this many cgroups on each.
KERNEL, CGROUPS = "6.1.176-cgroup-v2", 100
MINIMAL_CACHES = 30


@dataclass(frozen=True, slots=True)
class Host:
    """The daemon on this machine, idle between polls and scrapes at its own pace."""

    cpu_ms_a_second: float
    resident_bytes: int
    page_bytes: int
    gzip_bytes: int
    pages: tuple[bytes, ...]


def page(hosts: list[Series], host: Host, plain: Ingested, few: Ingested, sent: Ingested) -> str:
    """docs/scaling.md."""
    kernel = next(series for series in hosts if series.host == KERNEL)
    full = PER_CACHE * kernel.caches + kernel.meminfo + kernel.others + kernel.per_cgroup * CGROUPS
    half = full - PER_CACHE // 2 * kernel.caches
    small = PER_CACHE // 2 * MINIMAL_CACHES + kernel.meminfo + kernel.others + kernel.per_cgroup * 20
    return "\n".join(
        (
            _HEAD.format(
                date=time.strftime("%Y-%m-%d"), kernel=platform.release(), cpus=os.cpu_count(), hosts=plain.hosts
            ),
            _series(hosts),
            _cost(hosts[-1], host),
            _prometheus(host, plain, few, sent),
            _fleet(kernel, full, half, small, host, plain, sent),
            _advice(full, half, plain, few),
        )
    )


_HEAD = """# Scaling

Written by `make scaling` on {date}: Linux {kernel}, {cpus} CPUs, Debian's Prometheus. The first three sections
are measured. The fourth is computed from them, and says how: nobody has run {fleet} hosts for it.
""".replace("{fleet}", f"{FLEET:,}")


def _series(hosts: list[Series]) -> str:
    v1 = max(series.per_cgroup for series in hosts if series.host.endswith("v1"))
    rows = "\n".join(
        f"| {series.host} | {series.caches} | {series.meminfo} | {series.cgroups} | {series.per_cgroup} | "
        f"{series.of_caches:,} | {series.of_cgroups} | {series.others} | **{series.total:,}** |"
        for series in hosts
    )
    v2 = max(series.per_cgroup for series in hosts if series.host.endswith("v2"))
    return f"""## Series of a host

```
series = {PER_CACHE} x caches + keys of meminfo + {v1} (cgroup v1) or {v2} (v2) x cgroups + {hosts[-1].others} or so
```

Counted with the built-in defaults, on the recorded hosts of the tests (idle, three cgroups each) and on this machine:

| host | caches | meminfo | cgroups | each | of caches | of cgroups | others | all |
|---|---|---|---|---|---|---|---|---|
{rows}

Caches and cgroups are bounded by `caches.max_count` and `cgroups.max_count` (1,000 each); the rest is one series of
each family. A storm's cgroups are one cgroup. `collectors.cgroup_slabinfo` (kernels before 5.9) adds 2 for each cgroup
and cache; it is off.
"""


def _cost(this: Series, host: Host) -> str:
    cpu = f"{host.cpu_ms_a_second:.2f} ms a second, {host.cpu_ms_a_second / 10:.3f} % of one CPU"
    return f"""## Cost of a host

| what | measured on this machine ({this.total:,} series, {this.cgroups} cgroups) |
|---|---|
| CPU, a poll every 10 s and a compressed scrape for each | {cpu} |
| memory | {host.resident_bytes / 2**20:.0f} MiB resident |
| a scrape on the wire | {host.gzip_bytes:,} bytes compressed, {host.page_bytes:,} plain |

More scrapes cost next to nothing: a page is rendered and compressed once a poll. What each cgroup costs is in
[benchmarks.md](benchmarks.md).
"""


def _prometheus(host: Host, plain: Ingested, few: Ingested, sent: Ingested) -> str:
    wire = f"{sent_bytes(sent):.2f} bytes a sample on the wire"
    return f"""## Prometheus

{plain.hosts} simulated hosts, scraped once a second: each plays the pages that the daemon above served at
{len(host.pages)} polls of 10 s, back and forth, so that values change as they do on a host.
Measured for {plain.seconds:.0f} s, after {SETTLE_SECONDS} s of settling. Bytes on disk are those of a block made from
it all (a snapshot).

| what | measured |
|---|---|
| series in memory | {plain.series:,} ({plain.series / plain.hosts:,.0f} a host) |
| series whose value changes from one poll to the next | {changing(host):.0%} |
| samples taken in | {plain.samples:,}, {plain.samples / plain.seconds:,.0f} a second |
| CPU | {cpu_us(plain):.2f} µs a sample |
| memory | {bytes_a_series(plain):,.0f} bytes a series, resident |
| on disk, samples | {plain.chunk_bytes / plain.block_samples:.2f} bytes a sample |
| on disk, index | {plain.index_bytes / plain.block_series:.0f} bytes a series and block |
| write-ahead log | {plain.wal_bytes / plain.block_samples:.2f} bytes a sample |
| recording rules and alerts of deploy/prometheus | {rules_text(plain, few)} |
| recorded series | {recorded(plain):.0f} a host, {plain.recorded_series:,} in all |
| remote write of everything, {sent.seconds:.0f} s of it | {wire} |
| CPU with remote write | {cpu_us(sent):.2f} µs a sample |
"""


def cpu_us(run: Ingested) -> float:
    """Microseconds of CPU for one sample."""
    return run.cpu_seconds / run.samples * 1e6


def bytes_a_series(run: Ingested) -> float:
    """Resident memory for one series."""
    return (run.resident_bytes - run.resident_empty_bytes) / run.series


def sent_bytes(run: Ingested) -> float:
    """Bytes of remote write for one sample."""
    return run.sent_bytes / max(1.0, run.sent_samples)


def rules_text(plain: Ingested, few: Ingested) -> str:
    """Time for all groups, each at its interval; their windows of hours had minutes of samples in them."""
    return (
        f"{plain.rules_ratio:.2%} of the time for {plain.hosts} hosts, {few.rules_ratio:.2%} for {few.hosts}: "
        f"{rules_a_host(plain, few):.4%} more for each"
    )


def rules_a_host(plain: Ingested, few: Ingested) -> float:
    """Share of the time that one more host costs."""
    return max(0.0, plain.rules_ratio - few.rules_ratio) / (plain.hosts - few.hosts)


def recorded(run: Ingested) -> float:
    """Recorded series for each host, those for each kernel release among them."""
    return run.recorded_series / run.hosts


def changing(host: Host) -> float:
    """Share of the series whose value is another one at the next poll."""
    pages = [[line for line in page.splitlines() if not line.startswith(b"#")] for page in host.pages]
    changed = sum(len(set(later) - set(earlier)) for earlier, later in itertools.pairwise(pages))
    return changed / sum(map(len, pages[1:]))


def _fleet(kernel: Series, full: int, half: int, small: int, host: Host, plain: Ingested, sent: Ingested) -> str:
    rows = []
    for what, series, seconds in (
        ("all series, every 15 s", full, 15),
        ("all series, every 30 s", full, 30),
        ("4 of 8 for each cache, every 30 s", half, 30),
        (f"4 for each of {MINIMAL_CACHES} caches, 20 cgroups, every 60 s", small, 60),
    ):
        count, rate = FLEET * series, FLEET * series / seconds
        disk = (
            rate * 86400 * plain.chunk_bytes / plain.block_samples + 12 * count * plain.index_bytes / plain.block_series
        )
        # A page's size goes with its series.
        wire = host.gzip_bytes * series / (plain.series / plain.hosts) * FLEET / seconds
        rows.append(
            f"| {what} | {series:,} | {count / 1e6:.1f} M | {rate / 1e3:,.0f} k | {rate * cpu_us(plain) / 1e6:.1f} | "
            f"{count * bytes_a_series(plain) / 2**30:.0f} | {disk / 2**30:.0f} | {wire / 1e6:.1f} | "
            f"{rate * sent_bytes(sent) / 1e6:.1f} |"
        )
    table = "\n".join(rows)
    return f"""## A fleet of {FLEET:,} hosts (computed)

Hosts like the recorded {kernel.host} ({kernel.caches} caches), with {CGROUPS} cgroups each. Series by the formula
above; all else is the measured cost of a sample or a series times their number. CPU are cores of this machine. Memory
is for series that stay: hosts that come and go add theirs for some hours. Disk is a day's samples and twelve blocks'
index, before compaction makes the index smaller. Not in it: queries, and the hours of samples that a real Prometheus
holds in memory before it writes a block ({plain.seconds + SETTLE_SECONDS:.0f} s of them were).

| kept | a host | series | samples/s | CPU, cores | memory, GiB | disk, GiB a day | scrapes, MB/s | sent on, MB/s |
|---|---|---|---|---|---|---|---|---|
{table}
"""


def _advice(full: int, half: int, plain: Ingested, few: Ingested) -> str:
    budget = 32 * 2**30 / 2  # half of it for queries, and for what is not in the computation
    a_shard, a_half_shard = (int(budget / bytes_a_series(plain) / series / 100) * 100 for series in (full, half))
    shards = max(2, -(-FLEET // max(1, a_half_shard)))
    rules, series = f"{rules_a_host(plain, few) * a_half_shard:.0%}", f"{recorded(plain):.0f}"
    return f"""## What to do about it

* **Scrape every 30 s.** Slab memory leaks over hours. The daemon polls every 10 s whatever the scrape does, and a
  storm measures by itself.
* **Drop what only one host's reader needs**: `slab_object_size_bytes`, `slab_objects_per_slab`, `slab_pages_per_slab`
  and `slab_active_slabs` are half of each cache's series (`metric_relabel_configs`, in
  [deploy/prometheus/prometheus.yml](../deploy/prometheus/prometheus.yml)). Or bound them where they arise:
  `caches.max_count`, `cgroups.max_count`, `cgroups.include`.
* **Query recorded series**: {series} for each host here, those for each kernel release among them. A fleet's
  dashboards and long-term stores need no others.
* **Shard by host.** By the figures above a Prometheus with 32 GiB, half of it for series, holds {a_shard:,} such
  hosts, or {a_half_shard:,} with half of each cache's series; their rules take {rules} of the time. A split
  by kernel release keeps the hosts together that the outlier rule compares; `hashmod` splits evenly:

```
relabel_configs:
  - source_labels: [__address__]
    modulus: {shards}
    target_label: __tmp_shard
    action: hashmod
  - source_labels: [__tmp_shard]
    regex: "0" # this server's number
    action: keep
```

* **Send on what was recorded, not everything** (`remote_write` with `write_relabel_configs`): {series} series a host
  and a sample a minute, instead of {full:,}.
"""
