"""One browser for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import chromium
from tests.requirements import need


@pytest.fixture(scope="module")  # it lives for a bounded time only, less than all tests take
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of its DevTools."""
    need(chromium.PROGRAM is not None, "chromium")
    with chromium.running(tmp_path_factory.mktemp("chromium")) as address:
        yield address
