"""Builds the image with buildah and runs it with runc: no daemon, no registry, no engine that has to be there before.

Where no image can be pulled, a Debian made by mmdebstrap stands for both base images.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent.parent
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class Builder:
    """buildah with a store of its own."""

    directory: Path

    def run(self, *words: str, timeout: float = 280) -> str:
        """One command's output."""
        store = [
            "--root",
            f"{self.directory}/root",
            "--runroot",
            f"{self.directory}/run",
            "--storage-driver",
            "overlay",
        ]
        command = ["buildah", *store, *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout, cwd=PROJECT)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
        return done.stdout.strip()

    def build(self, base: Path) -> Path:
        """The image's root directory."""
        self._import(base)
        self.run(
            "build", "--isolation", "chroot", "--pull-never", "--network", "host", "--layers=false",
            "--build-arg", "BUILD_IMAGE=localhost/base", "--build-arg", "RUN_IMAGE=localhost/base",
            "--tag", "localhost/slabwatch", "--file", "deploy/container/Containerfile", ".",
        )  # fmt: skip
        return Path(self.run("mount", self.run("from", "--pull-never", "localhost/slabwatch")))

    def _import(self, base: Path) -> None:
        container = self.run("from", "scratch")
        root = Path(self.run("mount", container))
        subprocess.run(["cp", "-a", f"{base}/.", str(root)], check=True, timeout=120)
        # A machine may reach its package index through certificates of its own.
        shutil.copy("/etc/resolv.conf", root / "etc")
        if _CERTIFICATES.exists():
            shutil.copy(_CERTIFICATES, root / "etc" / "of-this-machine.crt")
            (root / "etc" / "pip.conf").write_text("[global]\ncert = /etc/of-this-machine.crt\n")
        self.run("unmount", container)
        self.run("commit", "--rm", container, "localhost/base")

    def close(self) -> None:
        """Give everything back."""
        self.run("rm", "--all")
        self.run("rmi", "--all", "--force")
        shutil.rmtree(self.directory)

    def config(self) -> dict[str, Any]:
        """What the image says about how to run it."""
        inspected = json.loads(self.run("inspect", "--type", "image", "localhost/slabwatch"))
        found: dict[str, Any] = inspected["OCIv1"]["config"]
        return found


def oci_bundle(
    directory: Path, root: Path, security: dict[str, Any], args: Sequence[str], mounts: Sequence[dict[str, Any]],
    *, host_pid: bool = False,
) -> None:  # fmt: skip
    """config.json for runc, as a kubelet makes it from a pod's securityContext; the network is the machine's."""
    directory.mkdir()
    subprocess.run(["runc", "spec"], cwd=directory, check=True, timeout=30)
    spec = json.loads((directory / "config.json").read_text())
    spec["root"] = {"path": str(root), "readonly": security["readOnlyRootFilesystem"]}
    process = spec["process"]
    process |= {"terminal": False, "args": list(args), "noNewPrivileges": not security["allowPrivilegeEscalation"]}
    process["user"] = {"uid": security["runAsUser"], "gid": security["runAsGroup"]}
    added = [f"CAP_{name}" for name in security["capabilities"].get("add", [])]
    # For another user than 0 the kernel clears all sets but the bounding one at exec.
    sets = ("bounding", "permitted", "effective") if security["runAsUser"] == 0 else ("bounding",)
    process["capabilities"] = dict.fromkeys(sets, added)
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] != "/sys/fs/cgroup"] + list(mounts)
    shared = {"network", *(["pid"] if host_pid else [])}
    linux = spec["linux"]
    linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] not in shared]
    linux["cgroupsPath"] = f"/slabwatch-test-{os.getpid()}-{directory.name}"
    (directory / "config.json").write_text(json.dumps(spec))
