"""A real Prometheus that takes in simulated hosts for a bounded time, and what that costs it."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import cpu_seconds, resident_bytes, running

PROJECT = Path(__file__).parent.parent.parent
_APPENDED = "prometheus_tsdb_head_samples_appended_total"
SETTLE_SECONDS = 20  # series are made, the first chunks allocated


@dataclass(frozen=True, slots=True)
class Ingested:
    """One run. Bytes a sample and a series are those on disk; ``rules`` is None where none were loaded."""

    hosts: int
    series: int
    samples: int
    seconds: float
    cpu_seconds: float
    resident_bytes: int
    resident_empty_bytes: int
    wal_bytes: int
    chunk_bytes: int
    index_bytes: int
    block_samples: int
    block_series: int
    sent_bytes: float = 0.0
    sent_samples: float = 0.0
    rules_seconds: float = 0.0
    recorded_series: int = 0


def ingest(pages: Sequence[bytes], hosts: int, seconds: float, *, rules: bool, remote_write: bool) -> Ingested:
    """Scrapes ``hosts`` of them once a second. Raises RuntimeError when a target was not scraped whole."""
    directory = Path(tempfile.mkdtemp(prefix="slabwatch-scaling-"))
    try:
        for number, page in enumerate(pages):
            (directory / f"{number:04d}.gz").write_bytes(gzip.compress(page, 6))
        ports = _free_ports(2)
        base = f"http://127.0.0.1:{ports[1]}"
        sink = [sys.executable, "-m", "tests.bench.simulated", str(directory), str(ports[0])]
        config = _config(directory, ports[0], hosts, rules=rules, remote_write=remote_write)
        prometheus = [
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{ports[1]}", "--web.enable-admin-api", "--log.level=error",
        ]  # fmt: skip
        with running(sink, f"http://127.0.0.1:{ports[0]}/0/metrics"), running(prometheus, f"{base}/-/ready") as process:
            return _measured(process, base, directory / "data", hosts, seconds)
    finally:
        shutil.rmtree(directory)


def _measured(process: subprocess.Popen[bytes], base: str, data: Path, hosts: int, seconds: float) -> Ingested:
    empty = resident_bytes(process.pid)
    time.sleep(SETTLE_SECONDS)
    cpu, samples, started = cpu_seconds(process.pid), _own(base, _APPENDED), time.monotonic()
    time.sleep(seconds)
    cpu, samples = cpu_seconds(process.pid) - cpu, _own(base, _APPENDED) - samples
    took = time.monotonic() - started
    if _query(base, "count(up == 1)") != hosts:
        raise RuntimeError(f"only {_query(base, 'count(up == 1)')} of {hosts} simulated hosts could be scraped")
    resident = resident_bytes(process.pid)
    wal = sum(path.stat().st_size for path in (data / "wal").rglob("*") if path.is_file())
    series = int(_own(base, "prometheus_tsdb_head_series"))
    name = _post(base, "/api/v1/admin/tsdb/snapshot")["name"]
    (block,) = (path for path in (data / "snapshots" / name).iterdir() if (path / "meta.json").exists())
    stats = json.loads((block / "meta.json").read_text())["stats"]
    return Ingested(
        hosts=hosts,
        series=series,
        samples=int(samples),
        seconds=took,
        cpu_seconds=cpu,
        resident_bytes=resident,
        resident_empty_bytes=empty,
        wal_bytes=wal,
        chunk_bytes=sum(path.stat().st_size for path in (block / "chunks").iterdir()),
        index_bytes=(block / "index").stat().st_size,
        block_samples=stats["numSamples"],
        block_series=stats["numSeries"],
        sent_bytes=_own(base, "prometheus_remote_storage_bytes_total"),
        sent_samples=_own(base, "prometheus_remote_storage_samples_total"),
        rules_seconds=_own(base, "prometheus_rule_group_last_duration_seconds"),
        recorded_series=int(_query(base, 'count({__name__=~".+:slabwatch_.+"})')),
    )


def _config(directory: Path, port: int, hosts: int, *, rules: bool, remote_write: bool) -> Path:
    targets = "".join(
        f'      - targets: ["127.0.0.1:{port}"]\n'
        f'        labels: {{__metrics_path__: "/{host}/metrics", instance: "host{host:05d}.example.org:9934"}}\n'
        for host in range(hosts)
    )
    files = sorted((PROJECT / "deploy" / "prometheus").glob("slabwatch-*.yml")) if rules else []
    text = (
        "global: {scrape_interval: 1s, evaluation_interval: 1m}\n"
        f"rule_files: {json.dumps([str(path) for path in files])}\n"
        "scrape_configs:\n"
        "  - job_name: slabwatch\n    static_configs:\n" + targets
    )
    if remote_write:
        text += f'remote_write: [{{url: "http://127.0.0.1:{port}/write"}}]\n'
    path = directory / "prometheus.yml"
    path.write_text(text)
    return path


def _own(base: str, name: str) -> float:
    """Sum of one of Prometheus' own families."""
    with urllib.request.urlopen(f"{base}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def _query(base: str, expression: str) -> float:
    """An instant query's single value; 0 where it has none."""
    url = f"{base}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        result = json.load(answer)["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def _post(base: str, path: str) -> dict[str, str]:
    with urllib.request.urlopen(urllib.request.Request(base + path, method="POST"), timeout=120) as answer:
        found: dict[str, str] = json.load(answer)["data"]
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
