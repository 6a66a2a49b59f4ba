"""The whole output of the program for recorded and made hosts, against files in git.

A change that is meant: ``pytest tests/golden --update-golden``, and read what git shows.
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.program import CASES, GOLDEN, Run, Runs, run

REPOSITORY = GOLDEN.parent.parent
# Of a host that does not tell its page size the program takes that of the machine that it runs on.
needs_4k_pages = pytest.mark.skipif(
    os.sysconf("SC_PAGE_SIZE") != 4096, reason="the recorded hosts have pages of 4 KiB, this machine has others"
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and os.environ.get("SLABWATCH_REQUIRE") != "all",
    reason="promtool is not installed (Debian: prometheus)",
)


def golden_file(case: str) -> Path:
    return GOLDEN / f"{case}.prom"


@needs_4k_pages
@pytest.mark.parametrize("case", CASES)
def test_output_is_that_in_git(case: str, runs: Runs, update_golden: bool) -> None:
    result = runs.of(case)
    assert result.code == 0
    file = golden_file(case)
    if update_golden:
        file.parent.mkdir(exist_ok=True)
        file.write_text(result.masked, encoding="utf-8")
    assert file.exists(), "no golden file yet: pytest tests/golden --update-golden"
    golden = file.read_text(encoding="utf-8")
    if result.masked != golden:
        lines = difflib.unified_diff(golden.split("\n"), result.masked.split("\n"), str(file), "now", n=0, lineterm="")
        pytest.fail("\n".join(list(lines)[:60]), pytrace=False)


def test_every_golden_file_belongs_to_a_case(update_golden: bool) -> None:
    foreign = {*GOLDEN.rglob("*.prom")} - {golden_file(case) for case in CASES}
    if update_golden:
        for file in foreign:
            file.unlink()
    assert update_golden or not foreign


def test_two_runs_differ_in_masked_places_only(runs: Runs) -> None:
    case = "made/plain-v1"
    first, second = runs.of(case), run(runs.arguments(case))
    assert first.output != second.output
    assert first.masked == second.masked


@pytest.mark.parametrize("case", ["made/plain-v1", "made/plain-v2"])
def test_a_run_leaves_nothing_open(case: str, runs: Runs) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    result = run(runs.arguments(case))
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert result.value("cgroup_kept_descriptors") == 0


@needs_4k_pages
@pytest.mark.parametrize("case", ["7.2.13-cgroup-v2/storm", "made/odd-cgroup-names"])
def test_a_process_of_its_own_gives_the_same(case: str, runs: Runs) -> None:
    command = [sys.executable, "-m", "slabwatch.cli.slabwatch", *runs.arguments(case)]
    # No locale and no terminal, as under cron or a service manager: the output is UTF-8 all the same.
    environment = {"LC_ALL": "C", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert Run(0, done.stdout, "").masked == golden_file(case).read_text(encoding="utf-8")


def test_textfile_holds_the_same_as_standard_output(runs: Runs, tmp_path: Path) -> None:
    case = "made/plain-v2"
    textfile = tmp_path / "slabwatch.prom"
    result = run([*runs.arguments(case), "--textfile", str(textfile)])
    assert (result.code, result.output) == (0, b"")
    assert Run(0, textfile.read_bytes(), "").masked == runs.of(case).masked
    assert [path.name for path in tmp_path.iterdir()] == ["slabwatch.prom"]


@pytest.mark.parametrize("case", CASES)
def test_parser_reads_each_series_once(case: str, runs: Runs) -> None:
    series = runs.of(case).series
    lines = [line for line in runs.of(case).output.decode().split("\n") if line and not line.startswith("#")]
    assert len(series) == len(lines)
    assert all(name.startswith("slabwatch_") for name, _ in series)


@needs_promtool
@pytest.mark.parametrize("case", CASES)
def test_promtool_has_nothing_to_say(case: str, runs: Runs) -> None:
    output = runs.of(case).output
    lint = subprocess.run(["promtool", "check", "metrics"], input=output, capture_output=True, timeout=30, check=False)
    assert (lint.returncode, lint.stdout.decode(), lint.stderr.decode()) == (0, "", "")
