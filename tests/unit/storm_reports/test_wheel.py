"""What is installed: the report's own files must be in the wheel."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.requirements import need

PROJECT = Path(__file__).parent.parent.parent.parent
ASSETS = PROJECT / "slabwatch" / "storm" / "assets"


def test_the_assets_are_in_the_wheel(tmp_path: Path) -> None:
    need(importlib.util.find_spec("hatchling") is not None, "hatchling, which builds the wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assets = {str(path.relative_to(PROJECT)) for path in ASSETS.rglob("*") if path.is_file()}
    assert len(assets) >= 8
    assert assets <= packed
