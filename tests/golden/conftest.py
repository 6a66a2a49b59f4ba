"""``--update-golden``, and the runs that the tests here share."""

from __future__ import annotations

import pytest

from tests.golden.program import Runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the outputs as they are now into tests/golden; read the diff",
    )


@pytest.fixture(scope="session")
def update_golden(pytestconfig: pytest.Config) -> bool:
    # Only known when this directory was named: `pytest tests/golden --update-golden`.
    return bool(pytestconfig.getoption("--update-golden", default=False))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every case is run once, whatever number of tests look at it."""
    return Runs(tmp_path_factory.mktemp("roots"))
