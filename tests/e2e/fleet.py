"""A small fleet: hosts that are network namespaces, and Prometheus, Alertmanager and VictoriaMetrics on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.prometheus.rules.written import files
from tests.live.kernel import wait_until
from tests.requirements import need

DEPLOYED = Path(__file__).parents[2] / "deploy" / "prometheus"
PORT = 9934
# A minute of the rules is a second here.
FASTER = 60

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def hurried(rules: str, factor: int = FASTER) -> str:
    """The same rules with each duration (for, interval, ranges, offsets) so many times shorter.

    Figures in seconds that are thresholds stay, and so do the names of recorded series.
    """

    def shorter(match: re.Match[str]) -> str:
        return f"{int(match[1]) * _UNITS[match[2]] * 1000 // factor}ms"

    return re.sub(r"\b(\d+)([smhd])\b", shorter, rules)


@dataclass(frozen=True, slots=True)
class NetworkHost:
    """A network namespace with one address, which can be reached from here."""

    name: str
    address: str

    @property
    def enter(self) -> tuple[str, ...]:
        """Before a command. Not `ip netns exec`, which mounts another /sys, without its cgroups."""
        return ("nsenter", f"--net=/run/netns/{self.name}", "--")


@contextmanager
def network_hosts(count: int) -> Iterator[list[NetworkHost]]:
    """Namespaces, each with a veth pair of its own to this one, in the address range for tests of networks."""
    need(all(map(shutil.which, ("ip", "nsenter", "setpriv"))), "ip (iproute2), nsenter and setpriv (util-linux)")
    with ExitStack() as stack:
        yield [stack.enter_context(_network_host(number)) for number in range(count)]


@contextmanager
def _network_host(number: int) -> Iterator[NetworkHost]:
    pid = os.getpid()
    name, here, there = f"slabwatch-tests-{pid}-{number}", f"sw{pid}r{number}", f"sw{pid}h{number}"
    # 198.18.0.0/15 in networks of four addresses (RFC 2544).
    first = 198 << 24 | 18 << 16 | (pid * 8 + number) % (1 << 15) * 4
    ours, theirs = (".".join(map(str, (first + host).to_bytes(4, "big"))) for host in (1, 2))
    try:
        need(_ip("netns", "add", name), "the right to make network namespaces")
        made = (
            ("link", "add", here, "type", "veth", "peer", "name", there, "netns", name),
            ("address", "add", f"{ours}/30", "dev", here),
            ("link", "set", here, "up"),
            ("-netns", name, "address", "add", f"{theirs}/30", "dev", there),
            ("-netns", name, "link", "set", there, "up"),
            ("-netns", name, "link", "set", "lo", "up"),
        )
        need(all(_ip(*command) for command in made), "veth pairs (CONFIG_VETH)")
        yield NetworkHost(name, theirs)
    finally:
        _ip("netns", "delete", name)
        # The other end went with the namespace, and this one with it, a moment later.
        _ip("link", "delete", here)


def _ip(*arguments: str) -> bool:
    done = subprocess.run(["ip", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    return done.returncode == 0


@contextmanager
def server(command: Sequence[str], log: Path, ready: str) -> Iterator[None]:
    """A program that serves, from the moment on in which the URL ``ready`` answers with 200."""
    need(shutil.which(command[0]) is not None, f"{command[0]} (Debian: a package of the same name)")
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        wait_until(lambda: process.poll() is not None or _answers(ready), 30, f"{command[0]} is ready")
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
        return bool(response.status == 200)
    return False


def free_address() -> str:
    """On loopback, free a moment ago: these programs do not tell which port they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def get(url: str, **parameters: str) -> Any:
    """JSON from an HTTP API."""
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=10) as response:
        return json.load(response)


Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Engine:
    """What answers PromQL."""

    url: str

    def query(self, expr: str, at: float | None = None) -> dict[Labels, float]:
        """Value of each series of an instant query."""
        parameters = {} if at is None else {"time": f"{at:.3f}"}
        answer = get(f"{self.url}/api/v1/query", query=expr, **parameters)["data"]["result"]
        return {tuple(sorted(row["metric"].items())): float(row["value"][1]) for row in answer}


@contextmanager
def prometheus(directory: Path, *targets: Mapping[str, object], **job: object) -> Iterator[Engine]:
    """A real one that scrapes these each second; ``job`` adds to its scrape configuration."""
    address, config = free_address(), directory / "prometheus.json"  # JSON is YAML
    scrape = {
        "job_name": "slabwatch",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": targets,
        **job,
    }
    config.write_text(json.dumps({"scrape_configs": [scrape]}), encoding="ascii")
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
    ready = f"http://{address}/-/ready"
    with server([*command, f"--web.listen-address={address}"], directory / "prometheus.log", ready):
        yield Engine(f"http://{address}")


@dataclass(frozen=True, slots=True)
class Monitoring:
    """The programs of a fleet's monitoring, with addresses of their own."""

    prometheus: Engine
    long_term: Engine
    alertmanager: str

    def firing(self, alert: str) -> dict[str, Mapping[str, str]]:
        """Annotations by instance, of what fires in Prometheus now."""
        alerts = get(f"{self.prometheus.url}/api/v1/alerts")["data"]["alerts"]
        return _by_instance(one for one in alerts if one["labels"]["alertname"] == alert and one["state"] == "firing")

    def received(self, alert: str) -> dict[str, Mapping[str, str]]:
        """The same, as Alertmanager was told last (Prometheus repeats itself once a minute)."""
        return _by_instance(get(f"{self.alertmanager}/api/v2/alerts", filter=f'alertname="{alert}"'))


def _by_instance(alerts: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    return {alert["labels"].get("instance", ""): alert["annotations"] for alert in alerts}


@contextmanager
def monitoring(directory: Path, targets: Sequence[str]) -> Iterator[Monitoring]:
    """The deployed configuration, with these targets, addresses of its own, and hurried rules."""
    prometheus, alertmanager, long_term = (free_address() for _ in range(3))
    for name, text in files().items():
        (directory / name).write_text(hurried(text), encoding="utf-8")
    text = re.sub(r"^( *)#(?=[^ #])", r"\1", (DEPLOYED / "prometheus.yml").read_text(encoding="utf-8"), flags=re.M)
    config = yaml.safe_load(text)
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": list(targets)}]
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [alertmanager]}]
    config["remote_write"] = [
        {"url": f"http://{long_term}/api/v1/write", "queue_config": {"batch_send_deadline": "500ms"}}
    ]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    notified = (DEPLOYED / "alertmanager.yml").read_text(encoding="utf-8").replace("127.0.0.1:9095", free_address())
    (directory / "alertmanager.yml").write_text(notified, encoding="utf-8")
    with ExitStack() as stack:
        stack.enter_context(
            server(
                (
                    "victoria-metrics",
                    f"-storageDataPath={directory / 'victoria-metrics'}",
                    f"-httpListenAddr={long_term}",
                    "-search.latencyOffset=0s",
                    "-memory.allowedPercent=2",
                ),
                directory / "victoria-metrics.log",
                f"http://{long_term}/health",
            )
        )
        stack.enter_context(
            server(
                (
                    "prometheus-alertmanager",
                    f"--config.file={directory / 'alertmanager.yml'}",
                    f"--storage.path={directory / 'alertmanager'}",
                    f"--web.listen-address={alertmanager}",
                    "--cluster.listen-address=",
                ),
                directory / "alertmanager.log",
                f"http://{alertmanager}/-/ready",
            )
        )
        stack.enter_context(
            server(
                (
                    "prometheus",
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'prometheus'}",
                    f"--web.listen-address={prometheus}",
                ),
                directory / "prometheus.log",
                f"http://{prometheus}/-/ready",
            )
        )
        yield Monitoring(Engine(f"http://{prometheus}"), Engine(f"http://{long_term}"), f"http://{alertmanager}")
