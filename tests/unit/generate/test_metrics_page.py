"""docs/metrics.md tells of every family, and of nothing else."""

from __future__ import annotations

import re

import pytest

from slabwatch.expose.metrics import METRICS
from tests.generate.metrics_page import _ORIGINS, origin, page


def test_one_row_for_each_family() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.+) \| (.+) \|$", page(), flags=re.MULTILINE)
    assert [row[0] for row in rows] == [metric.name for metric in METRICS]
    assert [re.findall(r"\w+", row[2]) for row in rows] == [list(metric.labels) for metric in METRICS]


def test_a_new_family_needs_its_origin() -> None:
    with pytest.raises(ValueError, match="say in"):
        origin("brand_new_thing")


def test_every_origin_is_of_use() -> None:
    used = {origin(metric.name) for metric in METRICS}
    assert {(source, absent) for _, source, absent in _ORIGINS} == used
