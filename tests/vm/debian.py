"""Debian packages from the mirror that this host is configured for, with a state of apt's own: nothing is installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.vm.cache import VmError, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# One package of each suite that is asked for; the guest's programs are bookworm's.
GUEST_SUITE = "bookworm"


class Mirror(NamedTuple):
    """Where the archive is, and what it holds."""

    uri: str
    architecture: str


def find_mirror() -> Mirror:
    """The Debian archive among the configured sources, whichever way they are written."""
    listed = run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)|$(ARCHITECTURE)",
         "Created-By: Packages"]
    )  # fmt: skip
    return mirror_among(listed.decode())


def mirror_among(targets: str) -> Mirror:
    """The first one with Debian's own packages, not those of security or of others."""
    for line in targets.splitlines():
        origin, label, component, uri, architecture = line.split("|")
        if (origin, label, component) == ("Debian", "Debian", "main"):
            if architecture != "amd64":
                raise VmError(f"these virtual machines are for amd64, and this host is {architecture}")
            return Mirror(uri, architecture)
    raise VmError("no Debian archive among apt's sources, or it was never read: add one, and run apt-get update")


class Apt:
    """apt-get for some suites of one mirror, with lists and packages below a directory of its own."""

    def __init__(self, directory: Path, mirror: Mirror, suites: tuple[str, ...]) -> None:
        self._packages = directory / "packages"
        lists, sources = directory / "lists", directory / "sources.list"
        for path in (self._packages, lists / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        wanted = sorted({GUEST_SUITE, *suites})
        signed = f"[signed-by={KEYRING} arch={mirror.architecture}]"
        sources.write_text("".join(f"deb {signed} {mirror.uri} {suite} main\n" for suite in wanted))
        self._command = ["apt-get", "-q"]
        for option in (
            f"Dir::Etc::SourceList={sources}",
            "Dir::Etc::SourceParts=/nonexistent",
            f"Dir::State::Lists={lists}",
            f"Dir::Cache={directory / 'cache'}",
            "Acquire::Languages=none",
            "APT::Sandbox::User=root",
        ):
            self._command += ["-o", option]

    def update(self) -> None:
        run([*self._command, "update"], seconds=300)

    def download(self, suite: str, *names: str) -> list[Path]:
        """The packages' files, in the order of their names. Those of older versions are removed."""
        for name in names:
            for old in self._packages.glob(f"{name}_*.deb"):
                old.unlink()
        run([*self._command, "download", *(f"{name}/{suite}" for name in names)], seconds=600, cwd=self._packages)
        return [next(self._packages.glob(f"{name}_*.deb")) for name in names]


def field(package: Path, name: str) -> str:
    """One field of a package's control file."""
    return run(["dpkg-deb", "--field", package, name]).decode().strip()


def dependencies(package: Path) -> list[str]:
    """Names of all packages that it depends on; of alternatives the first."""
    return re.findall(r"(?:^|, )([a-z0-9.+-]+)", field(package, "Depends"))


def unpack(package: Path, directory: Path) -> None:
    run(["dpkg-deb", "--extract", package, directory])
