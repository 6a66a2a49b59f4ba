"""Prometheus' own linter has nothing to say about the page, with every key of /proc/meminfo that kernels have had."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from slabwatch.expose.own import OwnMetrics
from slabwatch.expose.page import MetricsPage
from slabwatch.watch.derive import derive

# fs/proc/meminfo.c, mm/hugetlb.c and arch/*/mm, 4.4 to 7.3
KEYS_TEXT = """
MemTotal MemFree MemAvailable MemShared Buffers Cached SwapCached Active Inactive Active(anon) Inactive(anon)
Active(file) Inactive(file) Unevictable Mlocked HighTotal HighFree LowTotal LowFree MmapCopy SwapTotal SwapFree
Zswap Zswapped Dirty Writeback AnonPages Mapped Shmem KReclaimable Slab SReclaimable SUnreclaim KernelStack
ShadowCallStack PageTables SecPageTables Quicklists NFS_Unstable Bounce WritebackTmp CommitLimit Committed_AS
VmallocTotal VmallocUsed VmallocChunk Percpu EarlyMemtestBad HardwareCorrupted AnonHugePages ShmemHugePages
ShmemPmdMapped FileHugePages FilePmdMapped CmaTotal CmaFree Unaccepted Balloon GPUActive GPUReclaim Hugepagesize Hugetlb
DirectMap4k DirectMap64k DirectMap1M DirectMap2M DirectMap4M DirectMap1G DirectMap2G
"""
KEYS = KEYS_TEXT.split()
COUNTS = ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_linter_is_content(build: Any) -> None:
    own = OwnMetrics()
    own.set_kernel("6.18", "slub", "v2", "on")
    own.set_interval(10)
    own.set_leftover(0)
    figures = {"retained_bytes": 3, "released_by_shrink_bytes": 2, "pinned_bytes": 1}
    phases = [{"name": "cleanup", "started_at": 1_700_000_000, "seconds": 1}]
    own.storm_finished({"outcome": "completed", "verdict": {"class": "retained"} | figures, "phases": phases})
    page = MetricsPage(own, clock=lambda: 1000.0)
    sample = build.whole_sample(meminfo=build.meminfo(dict.fromkeys(KEYS + COUNTS, 1), COUNTS))
    page.publish(sample, derive(sample))
    body, _ = page.body("", gzip=False)
    assert body.count(b"# TYPE slabwatch_meminfo_") == len(KEYS) + len(COUNTS)
    lint = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, timeout=30, check=False)
    assert (lint.returncode, lint.stdout.decode(), lint.stderr.decode()) == (0, "", "")
