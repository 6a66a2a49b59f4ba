"""The image: linted, built, and run as the DaemonSet runs it."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.packages.conftest import PROJECT, tool
from tests.packages.images import Builder, oci_bundle
from tests.requirements import need
from tests.unit.deploy.test_kubernetes import of_kind

CONTAINERFILE = PROJECT / "deploy" / "container" / "Containerfile"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    need(shutil.which("buildah") is not None and shutil.which("runc") is not None, "buildah and runc")
    builder = Builder(tmp_path_factory.mktemp("images"))
    yield builder
    builder.close()


@pytest.fixture(scope="module")
def image(builder: Builder, base: Path) -> Path:
    return builder.build(base)


def test_hadolint_finds_nothing() -> None:
    found = subprocess.run(
        [tool("hadolint"), str(CONTAINERFILE)], check=False, capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_what_the_image_says(builder: Builder, image: Path) -> None:
    config = builder.config()
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/slabwatch"]
    assert "9934/tcp" in json.dumps(config["ExposedPorts"])
    library = image / "usr/lib/slabwatch"
    assert not [name for name in ("hatchling", "pip", "bin") if (library / name).exists()]
    assert sum(path.stat().st_size for path in library.rglob("*") if path.is_file()) < 50_000_000


def pod_of(overlay: str) -> dict[str, Any]:
    """The DaemonSet's pod, as kustomize composes it."""
    (found,) = of_kind(overlay, "DaemonSet")
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


class Runc:
    """One container."""

    def __init__(self, directory: Path, image: Path, pod: dict[str, Any], files: str, *more: str) -> None:
        self._state = directory / "runc"
        self._name = f"slabwatch-test-{os.getpid()}-{directory.name}"
        self._bundle = directory / "bundle"
        args = ["/usr/bin/slabwatch", *pod["containers"][0]["args"], *more]
        oci_bundle(self._bundle, image, pod, PROJECT / "deploy" / "kubernetes" / files, args)

    def command(self, verb: str, *words: str) -> list[str]:
        return ["runc", "--root", str(self._state), verb, *words]

    def to_its_end(self) -> str:
        command = self.command("run", "--bundle", str(self._bundle), self._name)
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        command = self.command("run", "--bundle", str(self._bundle), self._name)
        daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 60
            while self.ask("status", check=False).returncode:
                assert daemon.poll() is None
                assert time.monotonic() < end
            yield
        finally:
            daemon.terminate()  # runc hands it on
            assert daemon.wait(60) == 0

    def ask(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """slabwatchctl, inside."""
        command = self.command("exec", self._name, "/usr/bin/slabwatchctl", *words)
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=90)


def test_the_pods_user_reads_everything_without_a_capability(image: Path, tmp_path: Path) -> None:
    before = processes()
    page = Runc(tmp_path, image, pod_of("base"), "base", "--once").to_its_end()
    for collector in ("slabinfo", "meminfo", "process", "cgroup"):
        assert f'\nslabwatch_collector_success{{collector="{collector}"}} 1\n' in page
    assert '\nslabwatch_slab_active_objects{cache="task_struct"} ' in page
    # The host's processes, not the one of the container: all that were there all the while, whatever came and went.
    seen = next(int(line.split()[1]) for line in page.splitlines() if line.startswith("slabwatch_processes "))
    assert 1 < len(before & processes()) <= seen


def processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


@pytest.mark.parametrize("added", [[], ["DAC_READ_SEARCH"]])
def test_another_user_is_denied_whatever_is_added(image: Path, tmp_path: Path, added: list[str]) -> None:
    pod = copy.deepcopy(pod_of("base"))
    capabilities = {"drop": ["ALL"], "add": added}
    pod["containers"][0]["securityContext"] |= {"runAsUser": 65532, "runAsGroup": 65532, "capabilities": capabilities}
    page = Runc(tmp_path, image, pod, "base", "--once").to_its_end()
    assert '\nslabwatch_collector_success{collector="slabinfo"} 0\n' in page
    assert '\nslabwatch_collector_success{collector="meminfo"} 1\n' in page


def test_the_watcher_refuses_a_storm(image: Path, tmp_path: Path) -> None:
    container = Runc(tmp_path, image, pod_of("base"), "base")
    with container.running():
        refused = container.ask("storm", "--preset", "smoke", "--yes", check=False)
        assert refused.returncode == 2
        assert "storm" in refused.stderr


def test_the_overlay_runs_a_storm(image: Path, tmp_path: Path) -> None:
    container = Runc(tmp_path, image, pod_of("overlays/storm"), "overlays/storm")
    with container.running():
        small = ("--cgroups", "3", "--tasks", "2", "--hold", "0", "--settle", "0")
        for _ in range(5):
            answer = container.ask("--json", "storm", "--preset", "smoke", "--yes", *small, check=False)
            record = json.loads(answer.stdout.splitlines()[-1])
            if record["outcome"] != "aborted":  # by an OOM kill anywhere on this machine
                break
        assert record["outcome"] == "completed", record["reason"]
        assert record["tasks"]["started"] == 6
        assert (record["cgroups"]["created"], record["cgroups"]["removed"]) == (3, 3)
        assert "shrunk" in record["snapshots"]
