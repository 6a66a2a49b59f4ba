"""promtool, and what its tests say about each alert."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.requirements import need

FOLDER = Path(__file__).parents[3] / "deploy" / "prometheus"
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
RULE_FILES = tuple(FOLDER / f"slabwatch-{name}.yml" for name in ("thresholds", "recording", "alerts"))


def promtool(*arguments: str | Path) -> str:
    """Its output; AssertionError with it when promtool is not content."""
    return run("promtool", *arguments)


def run(program: str, *arguments: str | Path) -> str:
    """A program of Debian's packages prometheus and prometheus-alertmanager, to its end."""
    need(shutil.which(program) is not None, f"{program} (Debian: prometheus, prometheus-alertmanager)")
    done = subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@cache
def expectations() -> tuple[tuple[str, list[dict[str, Any]]], ...]:
    """Each alert that a test looks at, and the alerts that must fire there: none, or with labels and texts."""
    tests = [test for path in TESTS for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    return tuple((case["alertname"], case["exp_alerts"]) for case in cases)


def groups_in_order(paths: Iterable[Path]) -> list[str]:
    """The rule groups of these files. promtool evaluates groups that a test does not name in any order at all."""
    return [group["name"] for path in paths for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]


def written_test(path: Path, series: dict[str, str], rule_files: Sequence[Path] = RULE_FILES, **cases: object) -> Path:
    """Write a test with a sample a minute; ``cases``: alert_rule_test, promql_expr_test."""
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {
        "rule_files": [str(file) for file in rule_files],
        "group_eval_order": groups_in_order(rule_files),
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": inputs, **cases}],
    }
    path.write_text(yaml.safe_dump(test, width=1_000_000), encoding="utf-8")
    return path
