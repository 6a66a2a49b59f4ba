"""A throw-away Debian in a directory, with the running kernel's /proc and /sys in it.

Its mounts are made in a mount namespace of their own for each command, so none is left when the command ends.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What the package depends on, and what Ansible needs for packages.
_PACKAGES = "python3,systemd,procps,python3-apt"
_ENTER = 'root=$1; shift; for d in proc sys dev; do mount --rbind /$d "$root/$d"; done; exec chroot "$root" "$@"'


def bootstrap(directory: Path) -> None:
    """A minimal Debian 12 from the package mirror."""
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(directory)]
    subprocess.run(command, check=True, capture_output=True, timeout=280)


@dataclass(frozen=True, slots=True)
class Chroot:
    """One of them."""

    root: Path

    @classmethod
    @contextmanager
    def copy_of(cls, base: Path, root: Path) -> Iterator[Chroot]:
        """Removed at the end."""
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True, timeout=120)
        try:
            yield cls(root)
        finally:
            shutil.rmtree(root)

    def command(self, *words: str) -> list[str]:
        """The same command, inside."""
        return ["unshare", "--mount", "--propagation=private", "sh", "-euc", _ENTER, "sh", str(self.root), *words]

    def run(
        self, *words: str, check: bool = True, timeout: float = 120, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(*words), check=check, capture_output=True, text=True, timeout=timeout, **more
        )

    def path(self, inside: str) -> Path:
        """A file of it, as seen from outside."""
        return self.root / inside.lstrip("/")

    def install(self, package: Path) -> None:
        """dpkg installs a package: what it depends on must be there."""
        shutil.copy(package, self.path("/tmp"))
        self.run("dpkg", "--install", f"/tmp/{package.name}")
