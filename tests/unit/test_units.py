"""systemd/: the unit, its drop-ins and the files beside it, as systemd itself reads them; nothing is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from slabwatch import config_file as configuration
from slabwatch.config import Config
from slabwatch.storm import place
from slabwatch.storm.plan import caps_of, make_plan
from slabwatch.storm.preflight import SPARE_PIDS
from tests.requirements import need

PROJECT = Path(__file__).parents[2]
SYSTEMD = PROJECT / "systemd"
UNIT = "slabwatch.service"
DROP_INS = ("storm.conf", "shrink.conf", "storm-v1.conf")
COMBINATIONS = ((), ("storm.conf",), ("shrink.conf",), ("storm.conf", "shrink.conf"), DROP_INS)


def need_program(name: str) -> None:
    need(shutil.which(name) is not None, f"{name} (systemd 252 or later)")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory of units, with a command that is there."""
    command = tmp_path / "bin" / "slabwatch"
    command.parent.mkdir()
    command.symlink_to("/bin/true")
    return tmp_path


def install(directory: Path, drop_ins: Iterable[str]) -> Path:
    target = directory / UNIT
    for source, goal in ((SYSTEMD / UNIT, target), *((SYSTEMD / n, directory / f"{UNIT}.d" / n) for n in drop_ins)):
        goal.parent.mkdir(exist_ok=True)
        text = source.read_text(encoding="utf-8")
        goal.write_text(re.sub(r"=(-?)slabwatch ", rf"=\1{directory}/bin/slabwatch ", text), encoding="utf-8")
    return target


def analyze(unit: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    need_program("systemd-analyze")
    # A path that ends in a colon: what is there, and then systemd's own units.
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{unit.parent}:"}
    command = ["systemd-analyze", "--no-pager", *arguments, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def settings(*names: str) -> list[tuple[str, str]]:
    """All assignments of files, in their order."""
    lines = [line for name in names for line in (SYSTEMD / name).read_text(encoding="utf-8").splitlines()]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines if re.match(r"\w+=", line))]


def value(name: str, key: str) -> str:
    (found,) = [value for found, value in settings(name) if found == key]
    return found


@pytest.mark.parametrize("drop_ins", COMBINATIONS, ids="+".join)
def test_systemd_finds_nothing_amiss(installed: Path, drop_ins: tuple[str, ...]) -> None:
    done = analyze(install(installed, drop_ins), "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_would_find_something_amiss(installed: Path) -> None:
    """Or the test above could not fail."""
    unit = install(installed, DROP_INS)
    with open(unit.parent / f"{UNIT}.d" / "storm.conf", "a", encoding="utf-8") as file:
        file.write("OOMPolice=continue\n")
    assert "OOMPolice" in analyze(unit, "verify").stderr


@pytest.mark.parametrize("drop_ins", COMBINATIONS, ids="+".join)
def test_the_documented_exposure_is_the_measured_one(installed: Path, drop_ins: tuple[str, ...]) -> None:
    done = analyze(install(installed, drop_ins), "security", "--offline=true")
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, timeout=60, check=True)
    need(version.stdout.startswith("systemd 252 "), "systemd 252, of which the documented figures are")
    measured = re.search(r"Overall exposure level for slabwatch.service: ([\d.]+)", done.stdout)
    assert measured, done.stderr
    named = " + ".join(f"`{name}`" for name in drop_ins) or "none"
    documented = re.search(
        rf"^\| {re.escape(named)} \| ([\d.]+) \|$",
        (PROJECT / "docs/systemd.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert documented, f"docs/systemd.md has no row for {named}"
    assert documented[1] == measured[1]


def test_the_user_is_no_one_else_s(tmp_path: Path) -> None:
    need_program("systemd-sysusers")
    command = ["systemd-sysusers", f"--root={tmp_path}", str(SYSTEMD / "slabwatch.sysusers")]
    (tmp_path / "etc").mkdir()
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    name, _, uid, _, _, home, shell = (tmp_path / "etc/passwd").read_text(encoding="utf-8").strip().split(":")
    assert (name, home) == (value(UNIT, "User"), "/var/lib/slabwatch")
    assert 0 < int(uid) < 1000
    assert shell.endswith("nologin")
    assert value(UNIT, "Group") in (tmp_path / "etc/group").read_text(encoding="utf-8")


def test_the_first_configuration_is_the_defaults_and_is_never_overwritten(tmp_path: Path) -> None:
    need_program("systemd-tmpfiles")
    need(os.geteuid() == 0, "root")
    command = ["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(SYSTEMD / "slabwatch.tmpfiles")]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    path = tmp_path / "etc/slabwatch/slabwatch.toml"
    assert configuration.load(path) == Config()
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_text("[poll]\ninterval_seconds = 5.0\n", encoding="utf-8")
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert configuration.load(path).poll.interval_seconds == 5.0


def test_every_command_is_one_that_slabwatch_knows() -> None:
    from slabwatch.cli.slabwatch import make_parser

    commands = [value.lstrip("-").split() for key, value in settings(UNIT, *DROP_INS) if key.startswith("Exec")]
    own = [words[1:] for words in commands if words[0] == "slabwatch"]
    assert len(own) == 3
    for arguments in own:
        assert str(make_parser().parse_args(arguments).config) == "/etc/slabwatch/slabwatch.toml"
    assert ["kill", "-HUP", "$MAINPID"] in commands


def test_the_storm_s_room_is_what_the_defaults_may_ask_for() -> None:
    storm = Config.read({"storm": {"enabled": True}})
    most = caps_of(storm).max_live_tasks
    # A shell and its sleep for each.
    plan = make_plan({"preset": "seed", "cgroups": 2000, "tasks": 10}, caps_of(storm))
    assert int(value("storm.conf", "TasksMax")) >= max(most, 2 * plan.live_tasks) + SPARE_PIDS
    assert value("storm.conf", "Delegate") == "memory pids"
    comment = (SYSTEMD / "storm.conf").read_text(encoding="utf-8")
    assert f'parent = "{place.SELF}"' in comment


def test_no_directory_that_a_kernel_lacks_keeps_the_daemon_from_starting() -> None:
    """What is not there is left out by a dash. Or the start fails, and there are no metrics either."""
    opened = [value for key, value in settings(UNIT, *DROP_INS) if key == "ReadWritePaths"]
    assert len(opened) == 3
    assert all(path.startswith("-") for path in opened)


def test_no_right_but_the_documented_ones() -> None:
    rights = {key: value for key, value in settings(UNIT) if key.endswith(("Capabilities", "CapabilityBoundingSet"))}
    assert rights == dict.fromkeys(("AmbientCapabilities", "CapabilityBoundingSet"), "CAP_DAC_READ_SEARCH")
    granted = {value for name in DROP_INS for key, value in settings(name) if key in rights}
    assert granted == {"CAP_DAC_OVERRIDE"}
