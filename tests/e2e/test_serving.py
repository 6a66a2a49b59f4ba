"""What a running daemon serves."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.e2e.daemon import BIN, Daemon
from tests.live.kernel import wait_until

pytestmark = pytest.mark.e2e

TEXT = "text/plain; version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(autouse=True)
def sampled(shared_daemon: Daemon) -> None:
    wait_until(lambda: shared_daemon.get("/-/ready")[0] == 200, 10, "/-/ready")


def caches_of_slabinfo() -> set[str]:
    return {line.split()[0] for line in Path("/proc/slabinfo").read_text(encoding="ascii").splitlines()[2:]}


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS, ""])
def test_a_scrape_is_read_by_prometheus_client(shared_daemon: Daemon, accept: str) -> None:
    before = caches_of_slabinfo()
    status, kind, body = shared_daemon.get("/metrics", {"Accept": accept})
    assert status == 200
    is_openmetrics = accept == OPENMETRICS
    assert kind.startswith("application/openmetrics-text" if is_openmetrics else "text/plain")
    parse = parse_openmetrics if is_openmetrics else parse_text
    families = {family.name: family for family in parse(body.decode("utf-8"))}
    caches = {sample.labels["cache"] for sample in families["slabwatch_slab_objects"].samples}
    # A cache may come or go; not this many in a second.
    assert len(caches ^ before) <= 3
    assert {"task_struct", "dentry"} <= caches
    # Families that every host with a memory hierarchy has, of each room.
    for name in ("meminfo_sunreclaim_bytes", "processes", "cgroup_kernel_bytes", "cgroups", "storm_active"):
        assert families[f"slabwatch_{name}"].samples, name
    assert families["process_resident_memory_bytes"].samples
    collectors = families["slabwatch_collector_success"].samples
    assert {sample.labels["collector"]: sample.value for sample in collectors} == dict.fromkeys(
        ("slabinfo", "meminfo", "process", "cgroup"), 1
    )


def test_a_scrape_is_compressed_for_who_asks(shared_daemon: Daemon) -> None:
    plain = shared_daemon.get("/metrics")[2]
    packed = shared_daemon.get("/metrics", {"Accept-Encoding": "gzip"})[2]
    assert len(packed) < len(plain) / 4
    assert b"slabwatch_slab_objects" in gzip.decompress(packed)


def test_the_kernel_is_named(shared_daemon: Daemon) -> None:
    families = parse_text(shared_daemon.get("/metrics")[2].decode())
    (kernel,) = next(family.samples for family in families if family.name == "slabwatch_kernel_info")
    assert kernel.labels["release"] == os.uname().release
    assert kernel.labels["allocator"] == "slub"


def test_probes_and_landing_page(shared_daemon: Daemon) -> None:
    assert shared_daemon.get("/-/healthy")[0] == 200
    assert shared_daemon.get("/-/ready")[0] == 200
    status, kind, body = shared_daemon.get("/")
    assert (status, kind.partition(";")[0]) == (200, "text/html")
    assert b"/metrics" in body
    assert shared_daemon.get("/nothing")[0] == 404


def test_the_control_face_is_not_on_the_metrics_address(shared_daemon: Daemon) -> None:
    assert shared_daemon.get("/v1/status")[0] == 404


def test_the_socket_is_closed_to_others(shared_daemon: Daemon) -> None:
    made = shared_daemon.socket.stat()
    assert stat.S_ISSOCK(made.st_mode)
    assert stat.S_IMODE(made.st_mode) == 0o660
    assert stat.S_IMODE(shared_daemon.socket.parent.stat().st_mode) == 0o750


def test_the_banner_says_where_it_serves(shared_daemon: Daemon) -> None:
    banner = shared_daemon.banner.read_text(encoding="utf-8")
    assert f"{shared_daemon.url}/metrics" in banner
    assert str(shared_daemon.socket) in banner
    (top,) = (line.split() for line in banner.splitlines() if line.endswith(" top"))
    done = subprocess.run([str(BIN / "slabwatchctl"), *top[1:]], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_figures_move_from_poll_to_poll(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(storms=False, poll={"interval_seconds": 0.5}).start()
    wait_until(lambda: (daemon.metric("slabwatch_polls_total") or 0) >= 3, 10, "three polls")
    assert daemon.metric("slabwatch_poll_interval_seconds") == 0.5
    assert daemon.metric("slabwatch_poll_overruns_total") == 0
