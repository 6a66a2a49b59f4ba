"""The recorded hosts of tests/fixtures/hosts (see the README there): as roots in a directory, or as bytes."""

from __future__ import annotations

import fnmatch
import functools
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

ARCHIVES = Path(__file__).parent / "fixtures" / "hosts"
HOSTS = tuple(sorted(path.name.removesuffix(".tar.xz") for path in ARCHIVES.glob("*.tar.xz")))
STATES = ("idle", "storm", "after", "shrunk", "dying-before", "dying")


def host_root(name: str, state: str) -> Path:
    """The root directory of a host in one of its states; unpacked once a test run, so never write there."""
    _check(name, state)
    return _unpacked(name) / state


def recorded(name: str, state: str, path: str) -> bytes:
    """One recorded file, by its path below the root, without unpacking anything."""
    _check(name, state)
    return _files(name)[f"{state}/{path}"]


def recorded_all(name: str, state: str, directory: str, file: str) -> dict[str, bytes]:
    """All files in or below a directory whose own name matches a pattern, by their paths below the root."""
    _check(name, state)
    start = f"{state}/{directory}/"
    return {
        path.removeprefix(f"{state}/"): data
        for path, data in _files(name).items()
        if path.startswith(start) and fnmatch.fnmatchcase(path.rpartition("/")[2], file)
    }


def kernel_config(name: str) -> bytes:
    """The build options of a host's kernel that matter here."""
    _check(name, STATES[0])
    return _files(name)["kernel-config.txt"]


def remove_unpacked() -> None:
    """Delete all that was unpacked in this test run."""
    if _directory.cache_info().currsize:
        shutil.rmtree(_directory())
    _directory.cache_clear()
    _unpacked.cache_clear()


def _check(name: str, state: str) -> None:
    if name not in HOSTS or state not in STATES:
        raise ValueError(f"{name!r} in state {state!r} was not recorded. Hosts: {HOSTS}; states: {STATES}")


def _archive(name: str) -> tarfile.TarFile:
    return tarfile.open(ARCHIVES / f"{name}.tar.xz")


@functools.cache
def _files(name: str) -> Mapping[str, bytes]:
    files = {}
    with _archive(name) as archive:
        for member in archive:
            if member.isfile() and (stream := archive.extractfile(member)):
                files[member.name.removeprefix(f"{name}/")] = stream.read()
    return files


@functools.cache
def _directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="slabwatch-hosts-"))


@functools.cache
def _unpacked(name: str) -> Path:
    with _archive(name) as archive:
        # Python 3.11 has the filter from 3.11.4 on; without it these archives, which are ours, unpack as well.
        if hasattr(tarfile, "data_filter"):
            archive.extractall(_directory(), filter="data")
        else:
            archive.extractall(_directory())
    return _directory() / name
