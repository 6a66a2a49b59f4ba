"""Where the downloaded and built parts are kept between runs, outside the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[2]


class VmError(Exception):
    """A virtual machine could not be made or started: what is missing, and what to do."""


def cache_directory() -> Path:
    """$SLABWATCH_VM_CACHE, or slabwatch-vm in the user's cache."""
    chosen = os.environ.get("SLABWATCH_VM_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slabwatch-vm"


def need_programs(programs: Iterable[str]) -> None:
    """Raises VmError with all that are missing."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        raise VmError(f"missing: {', '.join(missing)}. The Debian packages are listed in tests/vm/README.md")


def run(command: Sequence[str | Path], *, seconds: float = 120, cwd: Path | None = None) -> bytes:
    """A tool's output. Raises VmError with its complaint when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise VmError(f"{' '.join(words)}: not done after {seconds:g} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-2000:]
        raise VmError(f"{' '.join(words)}: exit code {done.returncode}\n{said}")
    return done.stdout


@contextmanager
def made(path: Path) -> Iterator[Path]:
    """Make a file or directory under another name first, so that what is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    try:
        yield partial
        _remove(path)
        partial.rename(path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def pack(directory: Path, archive: Path) -> None:
    """All of a directory as an initramfs (cpio, newc), owned by root."""
    names = subprocess.run(["find", ".", "-print0"], cwd=directory, capture_output=True, check=True).stdout
    with open(archive, "wb") as file:
        command = ["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"]
        subprocess.run(command, cwd=directory, input=b"\0".join(sorted(names.split(b"\0")[:-1])) + b"\0",
                       stdout=file, check=True)  # fmt: skip
