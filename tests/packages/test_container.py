"""The image: linted, built, and run as the DaemonSet runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packages.conftest import PROJECT, tool
from tests.packages.images import Builder, oci_bundle
from tests.requirements import need

CONTAINERFILE = PROJECT / "deploy" / "container" / "Containerfile"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    need(shutil.which("buildah") is not None and shutil.which("runc") is not None, "buildah and runc")
    builder = Builder(tmp_path_factory.mktemp("images"))
    yield builder
    builder.close()


@pytest.fixture(scope="module")
def image(builder: Builder, base: Path) -> Path:
    return builder.build(base)


def test_hadolint_finds_nothing() -> None:
    found = subprocess.run(
        [tool("hadolint"), str(CONTAINERFILE)], check=False, capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_what_the_image_says(builder: Builder, image: Path) -> None:
    config = builder.config()
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/slabwatch"]
    assert "9934/tcp" in json.dumps(config["ExposedPorts"])
    library = image / "usr/lib/slabwatch"
    assert not [name for name in ("hatchling", "pip", "bin") if (library / name).exists()]
    assert sum(path.stat().st_size for path in library.rglob("*") if path.is_file()) < 50_000_000


def daemonset() -> dict[str, Any]:
    manifest = yaml.safe_load((PROJECT / "deploy" / "kubernetes" / "base" / "daemonset.yaml").read_text())
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def mounts_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod's volumes as runc mounts them: the host's directories with what is mounted below, tmpfs for the rest."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    made = []
    for mount in pod["containers"][0]["volumeMounts"]:
        options = ["ro"] if mount.get("readOnly") else ["rw"]
        volume = volumes[mount["name"]]
        if "hostPath" in volume:
            found = {"type": "none", "source": volume["hostPath"]["path"], "options": ["rbind", *options]}
        elif "configMap" in volume:
            found = {"type": "none", "source": str(PROJECT / "deploy/kubernetes/base"), "options": ["bind", *options]}
        else:
            found = {"type": "tmpfs", "source": "tmpfs", "options": ["mode=0777", *options]}
        made.append({"destination": mount["mountPath"], **found})
    return made


def once(image: Path, directory: Path, **security: Any) -> str:
    """One sample as a pod with that securityContext sees it."""
    pod = daemonset()
    context = pod["containers"][0]["securityContext"] | security
    args = ["/usr/bin/slabwatch", *pod["containers"][0]["args"], "--once"]
    bundle = directory / f"bundle-{context['runAsUser']}-{len(context['capabilities'].get('add', []))}"
    oci_bundle(bundle, image, context, args, mounts_of(pod))
    name = f"slabwatch-test-{os.getpid()}-{bundle.name}"
    command = ["runc", "--root", str(directory / "runc"), "run", "--bundle", str(bundle), name]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pods_user_reads_everything_without_a_capability(image: Path, tmp_path: Path) -> None:
    page = once(image, tmp_path)
    for collector in ("slabinfo", "meminfo", "process", "cgroup"):
        assert f'\nslabwatch_collector_success{{collector="{collector}"}} 1\n' in page
    assert '\nslabwatch_slab_active_objects{cache="task_struct"} ' in page
    # The host's processes, not the one of the container.
    ours = sum(name.isdigit() for name in os.listdir("/proc"))
    seen = next(int(line.split()[1]) for line in page.splitlines() if line.startswith("slabwatch_processes "))
    assert abs(seen - ours) < max(20, ours / 2)


@pytest.mark.parametrize("added", [[], ["DAC_READ_SEARCH"]])
def test_another_user_is_denied_whatever_is_added(image: Path, tmp_path: Path, added: list[str]) -> None:
    page = once(image, tmp_path, runAsUser=65532, runAsGroup=65532, capabilities={"drop": ["ALL"], "add": added})
    assert '\nslabwatch_collector_success{collector="slabinfo"} 0\n' in page
    assert '\nslabwatch_collector_success{collector="meminfo"} 1\n' in page
