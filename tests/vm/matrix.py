"""The kernels that are tried, what is tried on each, and what came of it, kept in the cache for docs/kernels.md."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.vm.cache import VmError
from tests.vm.kernels import SUITES, Kernel, kernel
from tests.vm.machine import Guest, boot, end_all
from tests.vm.payload import build_payload

# 5,000 tasks of 160 KiB each are forecast, and a tenth of the memory must stay free.
MEMORY_MIB = 1536
# The longest takes 264 s where nothing else runs.
DEADLINE_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One boot: a scenario of tests/vm/guests on a kernel."""

    suite: str
    cgroup: str
    scenario: str = "kernel"
    systemd: bool = False

    @property
    def name(self) -> str:
        under = "-under-systemd" if self.systemd and self.scenario != "systemd" else ""
        return f"{self.suite}-{self.cgroup}-{self.scenario}{under}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``findings`` is the scenario's own file, empty where it writes none: then its exit code is its one check."""

    cell: Cell
    release: str
    package: str
    date: str
    code: int
    seconds: float
    findings: dict[str, Any]
    stdout: str

    @property
    def checks(self) -> list[dict[str, Any]]:
        """Those that hold and those that do not."""
        told: list[dict[str, Any]] = self.findings.get("checks", [])
        return [*told, {"what": f"exit code {self.code}", "holds": self.code == 0, "detail": ""}]

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [check for check in self.checks if not check["holds"]]

    @property
    def figures(self) -> dict[str, Any]:
        return dict(self.findings.get("figures", {}))

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Of a scenario that tells them, one a line: what was done, and what was seen."""
        return re.findall(r"^(\w+): (.* \[[\d.]+ s\])$", self.stdout, re.MULTILINE)


def all_cells(cache: Path) -> Iterator[Cell]:
    """Each kernel with each version of cgroups that it has for memory; and systemd as PID 1."""
    for suite in SUITES:
        for version in kernel(cache, suite).cgroup_versions:
            yield Cell(suite, version)
    # systemd 252 as PID 1: on the kernel that it came with, and on the newest.
    yield Cell("bookworm", "v2", systemd=True)
    yield Cell("bookworm", "v2", "systemd", systemd=True)
    yield Cell("bookworm", "v1", "systemd", systemd=True)
    yield Cell("trixie-backports", "v2", "systemd", systemd=True)


# The newest kernel by itself, and an older one with slabwatch as a service of systemd.
SHORT = (Cell("trixie-backports", "v2"), Cell("bookworm", "v2", "systemd", systemd=True))


def run_cells(cache: Path, cells: Sequence[Cell], *, jobs: int, settle_seconds: float) -> Iterator[Outcome]:
    """Boot each, some at one time; each outcome as soon as it is there, kept in the cache."""
    with tempfile.TemporaryDirectory(prefix="slabwatch-vm-") as name:
        payload = build_payload(cache, Path(name, "payload"))
        with ThreadPoolExecutor(jobs) as pool:
            runs = [pool.submit(_run_cell, cache, payload, cell, settle_seconds) for cell in cells]
            try:
                for run in runs:
                    yield run.result()
            finally:  # on a signal too: those that have not begun never do, the others end now
                pool.shutdown(wait=False, cancel_futures=True)
                end_all()


def _run_cell(cache: Path, payload: Path, cell: Cell, settle_seconds: float) -> Outcome:
    booted: Kernel = kernel(cache, cell.suite)
    directory = results(cache) / cell.name
    shutil.rmtree(directory, ignore_errors=True)
    command = ["python3", "-m", f"tests.vm.guests.{cell.scenario}"]
    if cell.scenario == "kernel":
        command += ["--settle", f"{settle_seconds:g}"]
    guest = Guest(booted, cell.cgroup, cell.systemd, memory_mib=MEMORY_MIB)
    result = boot(cache, guest, payload, command, deadline=DEADLINE_SECONDS, out=directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "stdout").write_text(result.stdout)
    (directory / "console").write_text(result.console)
    told = {
        "cell": asdict(cell),
        "release": booted.release,
        "package": booted.version,
        "date": time.strftime("%Y-%m-%d"),
        "code": result.code,
        "seconds": round(result.seconds, 1),
    }
    (directory / "cell.json").write_text(json.dumps(told))
    return outcome(cache, cell)


def results(cache: Path) -> Path:
    """One directory for each cell that has been run."""
    return cache / "results"


def outcome(cache: Path, cell: Cell) -> Outcome:
    """A cell's last run. Raises VmError when there was none."""
    directory = results(cache) / cell.name
    if not (directory / "cell.json").exists():
        raise VmError(f"{cell.name}: not run yet")
    told = json.loads((directory / "cell.json").read_text())
    file = directory / "findings.json"
    findings = json.loads(file.read_text()) if file.exists() else {}
    return Outcome(
        **told | {"cell": Cell(**told["cell"])}, findings=findings, stdout=(directory / "stdout").read_text()
    )


def record(cache: Path, cell: Cell, name: str = "storm") -> dict[str, Any]:
    """The record of one of its storms."""
    read: dict[str, Any] = json.loads((results(cache) / cell.name / f"{name}.json").read_text())
    return read
