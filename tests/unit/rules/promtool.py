"""promtool, and what its tests say about each alert."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.requirements import need

FOLDER = Path(__file__).parents[3] / "deploy" / "prometheus"
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
RULES = ("thresholds", "recording", "alerts")


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


def written_test(path: Path, series: dict[str, str], **cases: object) -> Path:
    """Write a test with a sample a minute; ``cases``: alert_rule_test, promql_expr_test, rule_files."""
    rules = cases.pop("rule_files", [str(FOLDER / f"slabwatch-{name}.yml") for name in RULES])
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": inputs, **cases}
    path.write_text(
        yaml.safe_dump({"rule_files": rules, "evaluation_interval": "1m", "tests": [test]}, width=1_000_000),
        encoding="utf-8",
    )
    return path
