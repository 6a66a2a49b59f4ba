"""Fixtures and settings for all tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.hosts import host_root, remove_unpacked

# No deadlines: the machines that run the tests are shared, and a slow example is no wrong one.
settings.register_profile(
    "slabwatch", deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("slabwatch")


@pytest.fixture(scope="session", autouse=True)
def hosts() -> Iterator[Callable[[str, str], Path]]:
    """``hosts(name, state)`` is the root directory of a recorded host; all are removed when the tests are over."""
    yield host_root
    remove_unpacked()


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """``logs.set_up`` changes the root logger, and a program's ``main`` calls it: put it back."""
    root, asyncio_logger = logging.getLogger(), logging.getLogger("asyncio")
    before = root.handlers[:], root.level, asyncio_logger.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    asyncio_logger.setLevel(before[2])
