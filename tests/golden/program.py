"""The real program on a root, once: ``slabwatch --once --root DIR``, and what its output says."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from slabwatch.cli.slabwatch import main
from tests.golden.raw_files import Series, key
from tests.hosts import HOSTS, host_root
from tests.roots import RECIPES, build_root, config_file

GOLDEN = Path(__file__).parent
# All 42 states would be over 3 MB. `shrunk` and `dying-before` are left out: they show nothing in kind that these four
# do not. test_against_raw_files.py looks at every state.
STATES = ("idle", "storm", "after", "dying")
# What is off by default, once on a recorded host.
OPTIONS = {
    "4.19.40-cgroup-v1/storm-cgroup-slabinfo": "[collectors]\ncgroup_slabinfo = true\n",
    "6.18.15-cgroup-v2/idle-slab-sysfs": "[collectors]\nslab_sysfs = true\n",
}
# host/state, host/state-option or made/recipe; the golden file's path too.
CASES = (*(f"{host}/{state}" for host in HOSTS for state in STATES), *OPTIONS, *(f"made/{name}" for name in RECIPES))

# All that may differ between two runs on one root. Nothing else is masked.
MASKS = (
    # How long a reading took, and when it was.
    (re.compile(r"^(slabwatch_collector_(?:duration|backoff)_seconds\{[^}]*\}) .*$", re.MULTILINE), r"\1 0"),
    (re.compile(r"^(slabwatch_collector_last_success_timestamp_seconds\{[^}]*\}) .*$", re.MULTILINE), r"\1 0"),
    # Of slabwatch and of Python.
    (re.compile(r"^slabwatch_build_info\{.*\} ", re.MULTILINE), 'slabwatch_build_info{python="",version=""} '),
)


@dataclass(frozen=True)
class Run:
    """What came of one run."""

    code: int
    output: bytes
    log: str

    @property
    def masked(self) -> str:
        """The output, the same for every run on one root."""
        text = self.output.decode()
        for pattern, replacement in MASKS:
            text = pattern.sub(replacement, text)
        return text

    @cached_property
    def series(self) -> Mapping[Series, float]:
        """All series, by prometheus_client's parser; fails for a repeated family or series, and for NaN."""
        found: dict[Series, float] = {}
        families: set[str] = set()
        for family in text_string_to_metric_families(self.output.decode()):
            assert family.name not in families, f"{family.name}: in two places"
            families.add(family.name)
            assert family.samples, f"{family.name}: no series"
            assert family.documentation, f"{family.name}: no HELP"
            for sample in family.samples:
                series = sample.name, tuple(sorted(sample.labels.items()))
                assert series not in found, f"{series}: twice"
                assert not math.isnan(sample.value), series
                found[series] = sample.value
        return found

    def of(self, *names: str) -> dict[Series, float]:
        """The series of some families, by their names without the prefix."""
        wanted = {f"slabwatch_{name}" for name in names}
        return {series: value for series, value in self.series.items() if series[0] in wanted}

    def labelled(self, name: str, label: str) -> dict[str, float]:
        """One family's values by one label."""
        return {dict(labels)[label]: value for (_, labels), value in self.of(name).items()}

    def value(self, name: str, **labels: str) -> float | None:
        """One series' value, None where there is no such series."""
        return self.series.get(key(name, **labels))


class Runs:
    """Each case's run and root, made once a test run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._runs: dict[str, Run] = {}
        self._roots: dict[str, Path] = {}

    def root(self, case: str) -> Path:
        """The directory that the case looks at."""
        if case not in self._roots:
            host, _, state = case.partition("/")
            recorded = state if case not in OPTIONS else state.partition("-")[0]
            made = host == "made"
            self._roots[case] = build_root(self._directory, state) if made else host_root(host, recorded)
        return self._roots[case]

    def config(self, case: str) -> Path | None:
        """The case's configuration file, None where the defaults hold."""
        if case in OPTIONS:
            path = self._directory / f"{case.replace('/', '-')}.toml"
            path.write_text(OPTIONS[case])
            return path
        return config_file(self._directory, case.removeprefix("made/")) if case.startswith("made/") else None

    def arguments(self, case: str) -> list[str]:
        """The program's arguments."""
        config = self.config(case)
        return ["--once", "--root", str(self.root(case)), *(["--config", str(config)] if config else [])]

    def of(self, case: str) -> Run:
        """The case's run, in this process: starting another for each would take the longest part of the time."""
        if case not in self._runs:
            self._runs[case] = run(self.arguments(case))
        return self._runs[case]


def run(arguments: list[str]) -> Run:
    """The program, in this process."""
    output, log = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(log):
            code = main(arguments)
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    output.flush()
    written = output.buffer
    assert isinstance(written, io.BytesIO)
    return Run(code, written.getvalue(), log.getvalue())
