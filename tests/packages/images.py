"""Builds the image with buildah and runs it with runc: no daemon, no registry, no engine that has to be there before.

Where no image can be pulled, a Debian made by mmdebstrap stands for both base images.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
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


def oci_bundle(directory: Path, image: Path, pod: Mapping[str, Any], files: Path, args: Sequence[str]) -> None:
    """config.json for runc, as a kubelet makes it from a pod with one container, in a network of its own.

    ``files`` stands for every ConfigMap.
    """
    (container,) = pod["containers"]
    security = container["securityContext"]
    user = security["runAsUser"]
    directory.mkdir()
    subprocess.run(["runc", "spec"], cwd=directory, check=True, timeout=30)
    spec = json.loads((directory / "config.json").read_text())
    spec["root"] = {"path": str(image), "readonly": security["readOnlyRootFilesystem"]}
    process, linux = spec["process"], spec["linux"]
    process |= {"terminal": False, "args": list(args), "noNewPrivileges": not security["allowPrivilegeEscalation"]}
    process["user"] = {"uid": user, "gid": security["runAsGroup"]}
    rights = [f"CAP_{name}" for name in security["capabilities"].get("add", [])]
    if security.get("privileged"):
        rights = [f"CAP_{name}" for name in _CAPABILITIES]
        linux["maskedPaths"] = linux["readonlyPaths"] = []
    # For another user than 0 the kernel clears all sets but the bounding one at exec.
    process["capabilities"] = dict.fromkeys(
        ("bounding", "permitted", "effective") if user == 0 else ("bounding",), rights
    )
    mounts = _mounts(pod, files)
    own = {mount["destination"] for mount in mounts} | {"/sys/fs/cgroup"}
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] not in own] + mounts
    shared = {"pid"} if pod.get("hostPID") else set()
    linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] not in shared]
    linux["cgroupsPath"] = f"/slabwatch-test-{os.getpid()}-{directory.name}"
    (directory / "config.json").write_text(json.dumps(spec))


def _mounts(pod: Mapping[str, Any], files: Path) -> list[dict[str, Any]]:
    """The host's directories with what is mounted below them, files for a ConfigMap, tmpfs for the rest."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    made = []
    for mount in pod["containers"][0]["volumeMounts"]:
        options = ["ro"] if mount.get("readOnly") else ["rw"]
        volume = volumes[mount["name"]]
        if "hostPath" in volume:
            found = {"type": "none", "source": volume["hostPath"]["path"], "options": ["rbind", *options]}
        elif "configMap" in volume:
            found = {"type": "none", "source": str(files), "options": ["bind", *options]}
        else:
            found = {"type": "tmpfs", "source": "tmpfs", "options": ["mode=0777", *options]}
        made.append({"destination": mount["mountPath"], **found})
    return made


# What "privileged" gives, as far as the daemon could need it.
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_ADMIN", "SYS_NICE",
    "SYS_PTRACE",
)  # fmt: skip
