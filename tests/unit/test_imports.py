"""Imports only go down the list of rooms, and what must be light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "slabwatch"
ROOMS = ("cli", "daemon", "control", "storm", "expose", "watch", "host", "kernel", "leaves")
LEAVES = {"config", "config_file", "door", "errors", "form", "logs", "sdnotify", "state_file"}
MODULES = sorted(PACKAGE.rglob("*.py"))
# Run under `python -S` in the storm's child processes: standard library and each other only.
ENGINE_MODULES = (
    "storm/engine.py",
    "storm/worker.py",
    "storm/spawn.py",
    "storm/lifecycle.py",
    "storm/limits.py",
    "storm/oom.py",
    "storm/setup.py",
    "storm/pressure.py",
    "storm/__init__.py",
)


def room_of(module: str) -> str:
    """slabwatch.kernel.slabinfo -> kernel"""
    part = module.split(".")[1] if "." in module else ""
    return "leaves" if part in LEAVES or not part else part


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            # `from slabwatch import daemon` imports the module slabwatch.daemon
            packages = ("slabwatch", "slabwatch.storm")
            yield from (f"{module}.{alias.name}" if module in packages else module for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_list_of_rooms(path: Path) -> None:
    module = "slabwatch." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    room = room_of(module)
    for imported in imports_of(path):
        if imported.startswith("slabwatch.") and not imported.endswith(".__version__"):
            below = room_of(imported)
            assert below in ROOMS, f"{module} imports {imported}, which is in no room"
            assert ROOMS.index(below) >= ROOMS.index(room), f"{module} imports {imported}: that is upwards"


def test_kernel_parses_and_does_no_io() -> None:
    forbidden = {"os", "io", "pathlib", "socket", "subprocess", "asyncio"}
    for path in (PACKAGE / "kernel").glob("*.py"):
        assert not forbidden & {name.split(".")[0] for name in imports_of(path)}, path


@pytest.mark.parametrize("name", ENGINE_MODULES)
def test_the_engine_needs_the_standard_library_only(name: str) -> None:
    allowed = {f"slabwatch.{module.removesuffix('.py').replace('/', '.')}" for module in ENGINE_MODULES}
    for imported in imports_of(PACKAGE / name):
        top = imported.split(".")[0]
        assert top in sys.stdlib_module_names or imported in allowed | {"slabwatch.storm"}, f"{name}: {imported}"


def test_the_engine_loads_without_site_packages() -> None:
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import slabwatch.storm.engine"
    subprocess.run([sys.executable, "-I", "-S", "-E", "-c", code], check=True)


def test_the_daemon_loads_only_what_it_needs() -> None:
    """Of each a part of a MiB, or several, for months, on hosts that have no use for it."""
    modules = (
        "yaml",
        "bcrypt",
        "rich",
        "shtab",
        "ctypes",
        "statistics",
        "slabwatch.cli.parser",
        "slabwatch.storm.engine",
    )
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import slabwatch.cli.slabwatch; "
    code += f"import slabwatch.daemon; print([name for name in {modules!r} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert ast.literal_eval(printed) == []
