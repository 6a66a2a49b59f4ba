"""`slabwatch --clean-up`: what it says and how it ends; the removal itself is lifecycle's."""

from __future__ import annotations

from pathlib import Path

import pytest

from slabwatch import logs
from slabwatch.cli.slabwatch import main
from slabwatch.errors import SourceUnavailable
from slabwatch.storm import lifecycle, preflight
from slabwatch.storm.lifecycle import Swept


@pytest.fixture(autouse=True)
def no_log_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests' root logger stays as it is."""
    monkeypatch.setattr(logs, "set_up", lambda level, form: None)


@pytest.fixture
def parents(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The storm.parent that was asked for; the answer is always the same two places."""
    asked: list[str] = []

    def storm_parents(root: object, configured: str) -> list[str]:
        asked.append(configured)
        return ["/cgroups/unit", "/pids/unit"]

    monkeypatch.setattr(preflight, "storm_parents", storm_parents)
    return asked


def sweep(monkeypatch: pytest.MonkeyPatch, result: Swept | OSError) -> None:
    def remove_orphans(*parents: str, deadline_seconds: float) -> Swept:
        assert (parents, deadline_seconds) == (("/cgroups/unit", "/pids/unit"), 20.0)
        if isinstance(result, OSError):
            raise result
        return result

    monkeypatch.setattr(lifecycle, "remove_orphans", remove_orphans)


def test_all_is_gone(
    parents: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "slabwatch.toml"
    config.write_text('[storm]\nparent = "self"\n', encoding="utf-8")
    sweep(monkeypatch, Swept(removed=21, killed=200))
    assert main(["--clean-up", "--config", str(config)]) == 0
    assert parents == ["self"]
    assert capsys.readouterr() == (
        "/cgroups/unit, /pids/unit: 21 cgroups removed, 200 tasks killed, 0 cgroups left\n",
        "",
    )


@pytest.mark.usefixtures("parents")
def test_something_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(monkeypatch, Swept(left={"/cgroups/unit/slabwatch-storm-a": "its engine, process 7, is at work"}))
    assert main(["--clean-up"]) == 2
    out, err = capsys.readouterr()
    assert out.endswith("1 cgroups left\n")
    assert err == "slabwatch: /cgroups/unit/slabwatch-storm-a: its engine, process 7, is at work\n"


@pytest.mark.usefixtures("parents")
def test_a_parent_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(monkeypatch, FileNotFoundError(2, "No such file or directory", "/cgroups/unit"))
    assert main(["--clean-up"]) == 4
    assert "/cgroups/unit" in capsys.readouterr().err


def test_a_host_without_memory_cgroups(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def parent_directory(root: object, configured: str) -> str:
        raise SourceUnavailable("/proc/self/mountinfo", "no cgroup hierarchy")

    monkeypatch.setattr(preflight, "storm_parents", parent_directory)
    assert main(["--clean-up"]) == 4
    assert "no cgroup hierarchy" in capsys.readouterr().err


def test_a_recorded_host_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--clean-up", "--root", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_it_goes_with_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--clean-up", "--once"]) == 1
    assert "not allowed with" in capsys.readouterr().err
