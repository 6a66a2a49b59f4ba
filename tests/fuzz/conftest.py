"""Fuzzing for longer may take longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.effort import EFFORT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The usual time for each unit of effort."""
    for item in items:
        if EFFORT > 1 and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(120 * EFFORT))
