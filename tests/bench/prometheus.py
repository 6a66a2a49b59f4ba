"""A real Prometheus that takes in simulated hosts for a bounded time, and what that costs it."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
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

RULES = Path(__file__).parent.parent.parent / "deploy" / "prometheus"
RULES_SECONDS = 15
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
    rules_ratio: float = 0.0  # of the time, all groups together, each at its own interval
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
            return _measured(process, base, directory / "data", hosts, seconds, rules)
    finally:
        shutil.rmtree(directory)


def _measured(
    process: subprocess.Popen[bytes], base: str, data: Path, hosts: int, seconds: float, rules: bool
) -> Ingested:
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
        rules_ratio=_rules_ratio(base) if rules else 0.0,
        recorded_series=int(_query(base, 'count({__name__=~".+:slabwatch_.+"})')),
    )


def _config(directory: Path, port: int, hosts: int, *, rules: bool, remote_write: bool) -> Path:
    targets = "".join(
        f'      - targets: ["127.0.0.1:{port}"]\n'
        f'        labels: {{__metrics_path__: "/{host}/metrics", instance: "host{host:05d}.example.org:9934"}}\n'
        for host in range(hosts)
    )
    for path in RULES.glob("slabwatch-*.yml") if rules else ():
        # More often than they say: each is to be evaluated a few times.
        often = re.sub(r"interval: \w+", f"interval: {RULES_SECONDS}s", path.read_text(encoding="utf-8"))
        (directory / path.name).write_text(often, encoding="utf-8")
    text = (
        "global: {scrape_interval: 1s}\n"
        f'rule_files: ["{directory}/slabwatch-*.yml"]\n'
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
    return sum(_family(base, name).values())


def _family(base: str, name: str) -> dict[str, float]:
    """One of Prometheus' own families, by labels."""
    with urllib.request.urlopen(f"{base}/metrics", timeout=30) as answer:
        lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines()]
    return {line[0].removeprefix(name): float(line[1]) for line in lines if line[0].split("{")[0] == name}


def _rules_ratio(base: str) -> float:
    """How much of the time goes into the rules, with the intervals that their files give them."""
    intervals: dict[str, float] = {}
    for path in RULES.glob("slabwatch-*.yml"):
        found = re.findall(r"- name: (\S+)\n +interval: (\d+)([sm])", path.read_text(encoding="utf-8"))
        intervals |= {name: int(number) * (60 if unit == "m" else 1) for name, number, unit in found}
    took = _family(base, "prometheus_rule_group_last_duration_seconds")
    named = {labels.rpartition(";")[2].removesuffix('"}'): seconds for labels, seconds in took.items()}
    return sum(seconds / intervals[name] for name, seconds in named.items())


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
