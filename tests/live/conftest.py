"""Tests on this machine's running kernel. Their cgroups are below one of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.kernel import need_kernel, own_directory


@pytest.fixture
def hierarchy() -> tuple[Path, int]:
    """Mount point and version of the memory hierarchy; the test is skipped where no storm can run."""
    return need_kernel()


@pytest.fixture
def parent(hierarchy: tuple[Path, int]) -> Iterator[Path]:
    """A cgroup for storms to be made in; the test fails when it leaves anything there."""
    with own_directory(*hierarchy, "live") as directory:
        yield directory
