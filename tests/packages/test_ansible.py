"""The role and the playbooks, run over two hosts that are chroots: nothing of this machine is changed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from slabwatch import config_file
from tests.packages.chroot import Chroot
from tests.packages.conftest import PROJECT, tool

ANSIBLE = PROJECT / "deploy" / "ansible"
HOSTS = ("one", "two")
CGROUP_V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
# Each in its own place, on any free port.
SETTINGS = {
    "metrics": {"listen": "127.0.0.1:0"},
    "storm": {"parent": "/", "max_tasks": 500},
    "cgroups": {"exclude": ['/odd "name"\\x']},
    "poll": {"interval_seconds": 0.5},
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Two hosts, and Ansible that reaches them."""

    directory: Path
    package: Path
    hosts: dict[str, Chroot]

    def play(self, book: str, *, check: bool | None = True, **variables: Any) -> dict[str, Any]:
        """Runs a playbook; Ansible's own record of it. ``check``: whether it must succeed, or fail; None: either."""
        inventory = self.directory / "inventory.ini"
        inventory.write_text("[slabwatch]\n" + "\n".join(HOSTS) + "\n")
        # No service manager runs in a chroot.
        settings = {
            "slabwatch_package": str(self.package), "slabwatch_config": SETTINGS, "slabwatch_started": False,
            "ansible_become": False, "ansible_python_interpreter": "/usr/bin/python3",
        }  # fmt: skip
        environment = os.environ | {
            "CHROOTS": str(self.directory),
            "ANSIBLE_SSH_EXECUTABLE": str(Path(__file__).parent / "chroot_ssh"),
            "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_HOME": str(self.directory / "ansible"),
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "ansible" / "tmp"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_NOCOLOR": "true",
            "LC_ALL": "C.UTF-8",
        }
        command = [tool("ansible-playbook"), "--inventory", str(inventory), str(ANSIBLE / book)]
        extra = ["--extra-vars", json.dumps(settings | variables)]
        done = subprocess.run(
            [*command, *extra], check=False, capture_output=True, text=True, timeout=250, env=environment
        )
        assert check in (None, done.returncode == 0), done.stdout[-4000:] + done.stderr[-2000:]
        return {"text": done.stdout, "recap": _recap(done.stdout)}


def _recap(text: str) -> dict[str, dict[str, int]]:
    lines = text.partition("PLAY RECAP")[2].splitlines()[1:]
    found = [line.split(":", 1) for line in lines if ":" in line]
    return {
        host.strip(): {key: int(count) for key, count in (part.split("=") for part in counts.split())}
        for host, counts in found
    }


@pytest.fixture(scope="module")
def fleet(base: Path, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    for host in HOSTS:
        (directory / host).mkdir()
    with (
        Chroot.copy_of(base, directory / "one" / "root") as one,
        Chroot.copy_of(base, directory / "two" / "root") as two,
    ):
        fleet = Fleet(directory, package, {"one": one, "two": two})
        fleet.play("install.yml", slabwatch_storm=True, slabwatch_shrink=True)
        yield fleet


def test_ansible_lint_finds_nothing(tmp_path: Path) -> None:
    # It calls its neighbours by name.
    path = f"{Path(tool('ansible-lint')).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"ANSIBLE_HOME": str(tmp_path), "PATH": path, "LC_ALL": "C.UTF-8"}
    command = [tool("ansible-lint"), "--offline", "--nocolor", "--profile", "production", str(ANSIBLE)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_installed_and_configured(fleet: Fleet) -> None:
    for host in fleet.hosts.values():
        loaded = config_file.load(host.path("/etc/slabwatch/slabwatch.toml"))
        assert loaded.cgroups.exclude == ('/odd "name"\\x',)
        assert (loaded.storm.enabled, loaded.storm.max_tasks, loaded.shrink.enabled) == (True, 500, True)
        assert host.path("/etc/systemd/system/multi-user.target.wants/slabwatch.service").is_symlink()
        assert rights_of(host) == {"storm.conf", "shrink.conf"} | (set() if CGROUP_V2 else {"storm-v1.conf"})


def rights_of(host: Chroot) -> set[str]:
    return {path.name for path in host.path("/etc/systemd/system/slabwatch.service.d").iterdir()}


def test_a_second_run_changes_nothing(fleet: Fleet) -> None:
    recap = fleet.play("install.yml", slabwatch_storm=True, slabwatch_shrink=True)["recap"]
    assert {host: counts["changed"] for host, counts in recap.items()} == {"one": 0, "two": 0}


def test_another_configuration_is_taken_over(fleet: Fleet) -> None:
    """By a restart: a daemon that is told to reload keeps its old listener, and the play would be none the wiser."""
    settings = SETTINGS | {"metrics": {"listen": "127.0.0.2:0"}}
    played = fleet.play("install.yml", slabwatch_storm=True, slabwatch_shrink=True, slabwatch_config=settings)
    assert {host: counts["changed"] for host, counts in played["recap"].items()} == {"one": 1, "two": 1}
    assert re.findall(r"RUNNING HANDLER \[slabwatch : (.*?)\]", played["text"]) == ["Restart slabwatch"]


def test_rights_are_taken_back(fleet: Fleet) -> None:
    fleet.play("install.yml")
    assert {frozenset(rights_of(host)) for host in fleet.hosts.values()} == {frozenset()}
    fleet.play("install.yml", slabwatch_storm=True, slabwatch_shrink=True)


def test_a_wrong_configuration_is_never_written(fleet: Fleet) -> None:
    before = fleet.hosts["one"].path("/etc/slabwatch/slabwatch.toml").read_text()
    played = fleet.play("install.yml", check=False, slabwatch_config={"poll": {"interval_seconds": -1}})
    assert "poll.interval_seconds" in played["text"]
    assert fleet.hosts["one"].path("/etc/slabwatch/slabwatch.toml").read_text() == before


def test_storms_run_one_after_the_other(fleet: Fleet, tmp_path: Path) -> None:
    options = ["--cgroups", "3", "--tasks", "2", "--hold", "0", "--settle", "0", "--no-shrink"]
    with daemons(fleet.hosts.values()):
        # Other load on this machine, an OOM kill above all, ends the play as it should: then once more.
        for attempt in range(10):
            reports = tmp_path / str(attempt)
            played = fleet.play("storm.yml", check=None, storm_options=options, storm_reports=str(reports))
            found = {host: list(reports.glob(f"{host}-*.json")) for host in HOSTS}
            records = {host: json.loads(path.read_text()) for host, paths in found.items() for path in paths}
            if all(record["verdict"]["class"] != "inconclusive" for record in records.values()):
                break
        assert {host: len(paths) for host, paths in found.items()} == {"one": 1, "two": 1}, played["text"][-4000:]
        spans = sorted(span(record) for record in records.values())
        assert spans[0][1] <= spans[1][0]
        for host, record in records.items():
            assert record["tasks"]["started"] == 6
            assert next(reports.glob(f"{host}-*.html")).read_text().lower().startswith("<!doctype html>")
        assert {counts["failed"] for counts in played["recap"].values()} == {0}

        # Not what was expected (nothing is pinned where nothing was shrunk): the second host is left alone.
        played = fleet.play(
            "storm.yml", check=False, storm_options=options, storm_reports=str(tmp_path), storm_expect="pinned"
        )
        assert played["recap"]["one"]["failed"] == 1
        assert "two" not in played["recap"]


def span(record: dict[str, Any]) -> tuple[float, float]:
    """When a storm began and ended."""

    def seconds(at: Any) -> float:
        return datetime.fromisoformat(at).timestamp() if isinstance(at, str) else float(at)

    last = record["phases"][-1]
    return seconds(record["phases"][0]["started_at"]), seconds(last["started_at"]) + last["seconds"]


@contextlib.contextmanager
def daemons(hosts: Iterable[Chroot]) -> Iterator[None]:
    """One in each host, as there is no service manager."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for host in hosts:
            command = host.command("slabwatch", "--config", "/etc/slabwatch/slabwatch.toml")
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            host.run("sh", "-c", "for i in $(seq 100); do slabwatchctl status && exit; sleep 0.1; done; exit 1")
        yield
    finally:
        for daemon in running:
            daemon.terminate()
        assert [daemon.wait(60) for daemon in running] == [0] * len(running)
