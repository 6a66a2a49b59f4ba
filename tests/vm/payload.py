"""What travels into a guest, at /payload: slabwatch as installed from its wheel, what it depends on, and the guests.

site/      slabwatch and its dependencies, from requirements.lock, byte-compiled; on PYTHONPATH
bin/       slabwatch and slabwatchctl; on PATH
tests/     the guests: python3 -m tests.vm.guests.<name>; and what they share with other tests
systemd/, deploy/, config.example.toml, README.md: as in the repository, where they are there
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from tests.vm.cache import PROJECT, made, run
from tests.vm.images import compile_all

# The guest's Python, whatever this one is.
WHEELS = ("--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--platform=manylinux2014_x86_64",
          "--platform=manylinux_2_28_x86_64")  # fmt: skip
# Needed to build, not to run; and pip's copies of programs, which name this host's Python.
NOT_NEEDED = ("hatchling", "pathspec", "pluggy", "tomlkit", "trove_classifiers", "packaging", "bin")
CARRIED = ("systemd", "deploy", "config.example.toml", "README.md", "tests")
# Recorded hosts and their outputs: large, and a guest is a host of its own.
LEFT_OUT = ("__pycache__", "fixtures", "made", "*-cgroup-v?")


def build_payload(cache: Path, target: Path) -> Path:
    """Make the directory ``target`` from the code as it is now; dependencies are kept until the lock file changes."""
    shutil.copytree(_dependencies(cache), target / "site", symlinks=True)
    _install_slabwatch(target)
    for name in CARRIED:
        source, goal = PROJECT / name, target / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, goal, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        elif source.exists():
            shutil.copyfile(source, goal)
    compile_all(cache, target / "site/slabwatch", target / "tests")
    return target


def _dependencies(cache: Path) -> Path:
    lock = PROJECT / "requirements.lock"
    directory = cache / f"site-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not directory.exists():
        with made(directory) as target:
            _pip("install", "--no-compile", "--require-hashes", *WHEELS, "--target", str(target), "-r", str(lock))
            for name in NOT_NEEDED:
                for path in (target / name, *target.glob(f"{name}-*.dist-info")):
                    shutil.rmtree(path, ignore_errors=True)
            compile_all(cache, target)
    return directory


def _install_slabwatch(target: Path) -> None:
    _pip("install", "--no-compile", "--no-deps", "--no-build-isolation", "--no-index", "--upgrade", "--target",
         str(target / "site"), str(PROJECT))  # fmt: skip
    shutil.rmtree(target / "site/bin")
    (target / "bin").mkdir()
    for program, module in (("slabwatch", "slabwatch.cli.slabwatch"), ("slabwatchctl", "slabwatch.cli.ctl")):
        script = target / "bin" / program
        script.write_text(f"#!/usr/bin/python3\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n")
        script.chmod(0o755)


def _pip(*arguments: str) -> None:
    run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments], seconds=600)
