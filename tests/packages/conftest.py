"""Slow tests: collected only where SLABWATCH_TEST_PACKAGES is set, as ``make test-packages`` does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slabwatch import __version__
from tests.packages.chroot import Chroot, bootstrap
from tests.requirements import need

PROJECT = Path(__file__).parent.parent.parent

collect_ignore_glob = [] if os.environ.get("SLABWATCH_TEST_PACKAGES") else ["test_*.py"]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small Debian with what slabwatch's package depends on, and nothing more. Not to be written to."""
    need(os.geteuid() == 0, "root, for a chroot")
    need(shutil.which("mmdebstrap") is not None, "mmdebstrap")
    directory = tmp_path_factory.mktemp("debian") / "base"
    bootstrap(directory)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def chroot(base: Path, tmp_path: Path) -> Iterator[Chroot]:
    """A copy of it, for this test alone."""
    with Chroot.copy_of(base, tmp_path / "root") as chroot:
        yield chroot


@pytest.fixture(scope="session")
def build_package(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Builds the Debian package as ``make deb`` does, with the interpreter that runs the tests."""
    need(shutil.which("dpkg-deb") is not None and Path("/usr/bin/python3").exists(), "Debian's dpkg-deb and python3")
    environment = {**os.environ, "BUILD": sys.executable, "WHEELS": str(tmp_path_factory.mktemp("wheels"))}

    def build() -> Path:
        command = [str(PROJECT / "deploy" / "debian" / "build.sh")]
        subprocess.run(command, check=True, capture_output=True, timeout=280, env=environment)
        (package,) = (PROJECT / "dist").glob(f"slabwatch_{__version__}_*.deb")
        return package

    return build


@pytest.fixture(scope="session")
def package(build_package: Callable[[], Path]) -> Path:
    """The Debian package, built from this tree."""
    return build_package()


def tool(name: str) -> str:
    """A checker from .venv/tools (make test-packages makes it), or from the machine."""
    tools = os.environ.get("SLABWATCH_TOOLS", str(PROJECT / ".venv" / "tools" / "bin"))
    found = shutil.which(name, path=f"{tools}{os.pathsep}{os.environ['PATH']}")
    need(found is not None, name)
    return str(found)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of them waits for a Debian, a package and an image."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(400))
