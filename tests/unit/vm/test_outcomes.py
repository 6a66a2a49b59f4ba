"""From a scenario's checks to the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vm import __main__ as program
from tests.vm import document
from tests.vm.cache import VmError
from tests.vm.guests.findings import Findings
from tests.vm.kernels import SUITES
from tests.vm.matrix import SHORT, Cell, Outcome, all_cells, outcome, results

MIB = 1024 * 1024
FIGURES: dict[str, Any] = {
    "verdict": {
        "class": "retained",
        "growth_bytes": 100 * MIB,
        "retained_bytes": 20 * MIB,
        "released_by_shrink_bytes": 18 * MIB,
        "pinned_bytes": 2 * MIB,
    },
    "sunreclaim_bytes": dict(zip(document.STATES, (10 * MIB, 110 * MIB, 30 * MIB, 12 * MIB, 11 * MIB), strict=True)),
    "task_struct_active": dict(zip(document.STATES, (88, 5076, 124, 70, 78), strict=True)),
    "charged_bytes": 500 * MIB,
    "stayed_bytes": {"mm_struct": 2 * MIB, "kmalloc-64": 512 * 1024},
    "doctor": {"slab caches": "info: with sheaves"},
    "dying": 50,
}


def made_outcome(**changes: Any) -> Outcome:
    usual: dict[str, Any] = {
        "cell": Cell("bookworm", "v2"),
        "release": "6.1.0-50-cloud-amd64",
        "package": "6.1.176-1",
        "date": "2026-11-24",
        "code": 0,
        "seconds": 109.4,
        "findings": {"checks": [{"what": "it works", "holds": True, "detail": ""}], "figures": FIGURES},
        "stdout": "ok      it works\n",
    }
    return Outcome(**usual | changes)


def page(*outcomes: Outcome) -> str:
    return "\n".join(document.sections(outcomes, "the comparison"))


def test_the_page_has_a_row_for_each_boot_and_each_storm() -> None:
    text = page(made_outcome())
    assert "on 2026-11-24 with" in text
    assert "| 6.1.0-50-cloud-amd64 (6.1.176-1, bookworm) | v2 | a script | kernel | 2 of 2 | 109 |" in text
    storm = "| 6.1.176 | v2 | `retained` | 10.0 / 110.0 / 30.0 / 12.0 / 11.0 | 88 / 5076 / 124 / 70 / 78 |"
    assert f"{storm} 100.0 | 20.0 | 18.0 | 2.0 | 500.0 | 50 |" in text
    assert "| 6.1.176 | v2 | mm_struct 2,048, kmalloc-64 512 |" in text
    assert "```\nthe comparison\n```" in text
    assert "failed" not in text


def test_the_page_hides_no_failure() -> None:
    checks = [{"what": "it works", "holds": False, "detail": "1 of 2"}]
    text = page(made_outcome(code=1, findings={"checks": checks, "figures": FIGURES}), made_outcome(date="2026-11-30"))
    assert "on 2026-11-24 to 2026-11-30 with" in text
    assert "| 0 of 2 |" in text
    assert "**bookworm-v2-kernel failed:**\n\n* it works: 1 of 2\n* exit code 1: " in text


def test_findings_are_told_once_with_their_kernels() -> None:
    cell, figures = Cell("trixie-backports", "v2", systemd=True), FIGURES | {"doctor": {"slab caches": "ok: shared"}}
    newer = made_outcome(cell=cell, package="7.3.4-1~bpo13+1", findings={"figures": figures})
    alike = page(made_outcome(), made_outcome())
    assert "Everywhere:\n\n* slab caches: info: with sheaves\n" in alike
    assert "**slab caches**" not in alike
    text = page(made_outcome(), made_outcome(cell=Cell("bookworm", "v1")), newer)
    assert "**slab caches**\n\n| kernel | finding |" in text
    assert "| 6.1.176 v2, 6.1.176 v1 | info: with sheaves |\n| 7.3.4 v2 systemd | ok: shared |" in text


def test_a_scenario_that_tells_its_steps() -> None:
    cell = Cell("bookworm", "v2", scenario="unit", systemd=True)
    text = page(made_outcome(), made_outcome(cell=cell, findings={}, stdout="start: uid 999 [3.0 s]\nnoise: more\n"))
    assert "| v2 | systemd | unit | 1 of 1 |" in text
    assert "## Scenario unit on 6.1.176\n\n* start: uid 999 [3.0 s]" in text
    assert "noise" not in text


def keep(cache: Path, told: Outcome, findings: str | None) -> Outcome:
    directory = results(cache) / told.cell.name
    directory.mkdir(parents=True)
    fields = {name: getattr(told, name) for name in ("release", "package", "date", "code", "seconds")}
    cell = {"suite": "bookworm", "cgroup": "v2", "scenario": "kernel", "systemd": False}
    (directory / "cell.json").write_text(json.dumps(fields | {"cell": cell}))
    (directory / "stdout").write_text(told.stdout)
    if findings is not None:
        (directory / "findings.json").write_text(findings)
    return outcome(cache, told.cell)


def test_an_outcome_is_read_again(tmp_path: Path) -> None:
    told = made_outcome()
    assert keep(tmp_path, told, json.dumps(told.findings)) == told


def test_a_guest_that_died_without_findings_has_failed(tmp_path: Path) -> None:
    told = keep(tmp_path, made_outcome(code=125), None)
    assert [check["what"] for check in told.failed] == ["exit code 125"]


def test_a_cell_that_was_never_run(tmp_path: Path) -> None:
    with pytest.raises(VmError, match="bullseye-v1-kernel: not run yet"):
        outcome(tmp_path, Cell("bullseye", "v1"))


def test_a_part_that_breaks_off_has_failed_and_the_next_one_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = Findings(tmp_path)
    findings.part("first", lambda: findings.check("it is there", findings.figures["nothing"]))
    findings.part("second", lambda: findings.check("it works", 5, "five"))
    findings.keep("record.json", {"id": "x"})
    assert findings.end() == 1
    written = json.loads((tmp_path / "findings.json").read_text())
    assert [(check["what"], check["holds"]) for check in written["checks"]] == [
        ("first runs to its end", False),
        ("it works", True),
    ]
    assert written["figures"].keys() == {"first_seconds", "second_seconds"}
    assert json.loads((tmp_path / "record.json").read_text()) == {"id": "x"}
    output = capsys.readouterr().out
    assert "KeyError" in output
    assert output.endswith("1 of 2 checks hold\n")


def test_no_check_at_all_is_a_failure(tmp_path: Path) -> None:
    assert Findings(tmp_path).end() == 1


def test_every_kernel_is_tried_with_every_cgroup_version(tmp_path: Path) -> None:
    for suite in SUITES:
        directory = tmp_path / "kernels" / suite
        directory.mkdir(parents=True)
        told = {"suite": suite, "release": suite, "version": "1-1"}
        (directory / "kernel.json").write_text(json.dumps(told))
        old = suite in ("bullseye", "bookworm")
        (directory / "config").write_text("" if old else "# CONFIG_MEMCG_V1 is not set\n")
    cells = list(all_cells(tmp_path))
    plain = [(cell.suite, cell.cgroup) for cell in cells if not cell.systemd]
    assert plain == [
        ("bullseye", "v2"), ("bullseye", "v1"), ("bookworm", "v2"), ("bookworm", "v1"),
        ("bookworm-backports", "v2"), ("trixie-backports", "v2"),
    ]  # fmt: skip
    assert any(cell.systemd for cell in cells)
    assert len({cell.name for cell in cells}) == len(cells)
    assert set(SHORT) <= set(cells)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["kernel", "--settle", "5"], ["python3", "-m", "tests.vm.guests.kernel", "--settle", "5"]),
        (["uname", "-r"], ["uname", "-r"]),
    ],
)
def test_a_scenario_s_name_starts_it(words: list[str], command: list[str]) -> None:
    assert program.command_of(words) == command
