"""slabwatchctl report and compare: which record is meant, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slabwatch.cli.ctl import main
from tests.unit.cli.conftest import Backstage, Ctl
from tests.unit.control.pretended import PretendedStorms
from tests.unit.storm.records import made_record
from tests.unit.storm_reports.records import scaled_storm

OLD, NEW = "20261124-060000-4-19-40", "20261124-060000-6-18-15"


@pytest.fixture
def two_storms(backstage: Backstage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm on 6.18, the newest, and one on 4.19 before it."""
    new, old = scaled_storm("6.18.15-cgroup-v2", 20), scaled_storm("4.19.40-cgroup-v1", 20)
    storms = backstage.daemon.storms
    storms.ended |= {new["id"]: new, old["id"]: old}

    def summaries(self: PretendedStorms) -> list[dict[str, Any]]:
        running = [{"id": "storm-1", "outcome": "running"}]
        return running + [{"id": storm_id, "outcome": "completed"} for storm_id in self.ended]

    monkeypatch.setattr(PretendedStorms, "summaries", summaries)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "travelled.json"
    path.write_text(json.dumps(made_record()), encoding="utf-8")
    return path


@pytest.mark.usefixtures("two_storms")
@pytest.mark.parametrize(
    ("names", "ids"), [((OLD, NEW), (OLD, NEW)), (("last-1", "last"), (OLD, NEW)), (("last-0", "last-01"), (NEW, OLD))]
)
def test_which_storms(ctl: Ctl, names: tuple[str, str], ids: tuple[str, str]) -> None:
    answer = ctl("compare", *names, "--json").json
    assert (answer["a"]["id"], answer["b"]["id"]) == ids


@pytest.mark.usefixtures("two_storms")
def test_the_page(ctl: Ctl) -> None:
    ran = ctl("compare", "last-1", "last")
    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["A", "B"]
    for line in (
        "kernel 4.19.40 6.18.15",
        "verdict retained retained",
        "host.cgroup_mode v1 v2",
        "host.memory_bytes 1,496.7 MiB 1,468.4 MiB",
        "settled 333.68 85.75 -247.93 17906 119 -17787",
    ):
        assert line.split() in lines, line
    task_struct = next(line for line in lines if line[0] == "task_struct")
    assert (float(task_struct[3]) < -10, task_struct[4]) == (True, "no")
    assert "other caches what stayed differs by no more than 0.5 MiB, the tolerance." in ran.out
    assert "The caches explain what stayed: 100 % in A, 100 % in B." in ran.out


@pytest.mark.usefixtures("two_storms")
def test_what_is_not_fair_stands_on_top(ctl: Ctl, file: Path) -> None:
    first = ctl("compare", "last", str(file)).out.splitlines()[0]
    assert first.startswith(
        "# Not a fair comparison: tasks is 20 in A and 100 in B; kind is fork in A and shell in B; "
    )


def test_files_need_no_daemon(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ["--host", f"unix://{file.parent}/none.sock"]
    assert main([*nowhere, "compare", str(file), str(file)]) == 0
    assert "Plan and host are the same." in capsys.readouterr().out
    assert main([*nowhere, "report", str(file)]) == 0
    assert "Number of running processes : 334" in capsys.readouterr().out
    assert main([*nowhere, "report", str(file), "--format", "html"]) == 0
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")
    assert main([*nowhere, "compare", str(file), "last"]) == 5


def test_a_file_in_this_directory(file: Path, monkeypatch: pytest.MonkeyPatch, ctl: Ctl) -> None:
    monkeypatch.chdir(file.parent)
    assert ctl("report", file.name, "--json").json == made_record()


def test_what_a_files_text_does_to_the_terminal(file: Path, ctl: Ctl) -> None:
    file.write_text(json.dumps(made_record() | {"requested_by": "\x1b[2Jroot"}), encoding="utf-8")
    out = ctl("report", str(file)).out
    assert "\x1b" not in out
    assert "by \\x1b[2Jroot" in out
    file.write_text(json.dumps(made_record("\x1b]0;title\x07")), encoding="utf-8")
    assert "\x1b" not in ctl("compare", str(file), str(file)).out


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("{}", "not a storm's record: Object missing"), ("<", "JSON is malformed")],
)
@pytest.mark.parametrize("verb", ["report", "compare"])
def test_files_that_can_not_be_used(ctl: Ctl, tmp_path: Path, verb: str, content: str | None, said: str) -> None:
    path = tmp_path / "storm.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    ran = ctl(verb, *[str(path)] * (2 if verb == "compare" else 1))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"slabwatchctl: {path}: ")
    assert said in ran.err


def test_when_there_are_not_so_many(ctl: Ctl, backstage: Backstage) -> None:
    ran = ctl("compare", "last", "last-1")
    assert (ran.code, ran.out) == (2, "")
    assert "no storm has ended yet" in ran.err
    backstage.daemon.storms.ended["old"] = made_record("old")
    ran = ctl("report", "last-1")
    assert ran.code == 2
    assert "last-1: only 1 storm can be found here" in ran.err
    assert ctl("compare", "old", "other").code == 2


def test_a_running_storm_has_nothing_to_compare(ctl: Ctl) -> None:
    ctl("storm", "--detach")
    ran = ctl("compare", "storm-1", "storm-1")
    assert ran.code == 2
    assert "has not ended yet" in ran.err


@pytest.mark.usefixtures("two_storms")
def test_the_html_report(ctl: Ctl) -> None:
    ran = ctl("report", "--format", "html")
    assert ran.code == 0
    assert ran.out.endswith("</html>\n")
    assert NEW in ran.out


@pytest.mark.usefixtures("two_storms")
def test_html_is_not_for_a_terminal(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slabwatch.cli.screen.sys.stdout.isatty", lambda: True, raising=False)
    ran = ctl("report", "--format", "html")
    assert (ran.code, ran.out) == (1, "")
    assert "> storm.html" in ran.err


def test_both_storms_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "last"]) == 1
    assert "B" in capsys.readouterr().err
