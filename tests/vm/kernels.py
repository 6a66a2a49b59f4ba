"""Debian's kernels: downloaded, unpacked, and made ready to be booted without a loader."""

from __future__ import annotations

import json
import lzma
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.vm.cache import VmError, made, pack
from tests.vm.debian import Apt, dependencies, field, unpack

# By the suite that they are from, old to new: 5.10, 6.1, 6.12 and the newest that there is (7.3 in November 2026).
SUITES = ("bullseye", "bookworm", "bookworm-backports", "trixie-backports")
META_PACKAGE = "linux-image-cloud-amd64"
# For a root on a disk. Some kernels have a part of them built in.
DISK_MODULES = ("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
# The first bytes of what a bzImage's payload may be packed with.
DECOMPRESSORS = {
    b"\x28\xb5\x2f\xfd": ("zstd", "-dcq"),
    b"\x02\x21\x4c\x18": ("lz4", "-dcq"),
    b"\x1f\x8b": ("gzip", "-dcq"),
    b"\xfd7zXZ": ("xz", "-dcq"),
}
ELF = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One that is ready in the cache. ``version`` is the package's."""

    directory: Path
    suite: str
    release: str
    version: str

    @property
    def image(self) -> Path:
        """An ELF vmlinux: emulation then has nothing to unpack."""
        return self.directory / "vmlinux"

    @property
    def modules(self) -> Path:
        """An initramfs with the modules that a disk needs, and their order."""
        return self.directory / "modules.cpio"

    @property
    def config(self) -> Path:
        return self.directory / "config"

    @property
    def cgroup_versions(self) -> tuple[str, ...]:
        """Where the memory controller can be: the option is there, and can be off, since v6.11."""
        no_v1 = "# CONFIG_MEMCG_V1 is not set" in self.config.read_text().splitlines()
        return ("v2",) if no_v1 else ("v2", "v1")


def kernel(cache: Path, suite: str) -> Kernel:
    """The cached one. Raises VmError when it is not there."""
    directory = cache / "kernels" / suite
    try:
        told = json.loads((directory / "kernel.json").read_text())
    except FileNotFoundError as error:
        raise VmError(f"{suite}: no kernel in {cache}: run the prepare command first") from error
    return Kernel(directory=directory, **told)


def fetch_kernel(cache: Path, apt: Apt, suite: str) -> Kernel:
    """Download the suite's newest kernel and unpack what is needed of it."""
    (meta,) = apt.download(suite, META_PACKAGE)
    image_name = next(name for name in dependencies(meta) if name.startswith("linux-image-"))
    release = image_name.removeprefix("linux-image-")
    (image,) = apt.download(suite, image_name)
    # Newer ones are split: vmlinuz, config and modules are in packages of their own.
    parts = [name for name in dependencies(image) if name.endswith(f"-{release}")]
    packages = [image, *apt.download(suite, *parts)] if parts else [image]
    with made(cache / "kernels" / suite) as target, tempfile.TemporaryDirectory(dir=cache) as unpacked:
        target.mkdir()
        for package in packages:
            unpack(package, Path(unpacked))
        tree = Path(unpacked)
        (target / "vmlinux").write_bytes(vmlinux(_one(tree, "vmlinuz*").read_bytes()))
        shutil.copyfile(_one(tree, f"config-{release}", f"{release}/config"), target / "config")
        _pack_modules(tree, target / "modules.cpio")
        facts = {"suite": suite, "release": release, "version": field(image, "Version")}
        (target / "kernel.json").write_text(json.dumps(facts))
    return kernel(cache, suite)


def vmlinux(boot_image: bytes) -> bytes:
    """The ELF file in a bzImage. The layout is in the kernel's Documentation/arch/x86/boot.rst: payload_offset."""
    if boot_image[0x202:0x206] != b"HdrS":
        # The magic number of the boot protocol.
        raise VmError("not a Linux boot image: no HdrS at 0x202")
    sectors = boot_image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", boot_image, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = boot_image[start : start + length]
    command = next((command for magic, command in DECOMPRESSORS.items() if payload.startswith(magic)), None)
    if command is None:
        raise VmError(f"a boot image packed in an unknown way: {payload[:6].hex()}")
    # The payload has its size behind it, which the tools complain about after they have written everything.
    unpacked = subprocess.run(command, input=payload, capture_output=True, check=False).stdout
    at = unpacked.find(ELF)
    if at < 0:
        raise VmError(f"no ELF file in the boot image: {command[0]} gave {len(unpacked)} bytes")
    return unpacked[at:]


def _one(tree: Path, *patterns: str) -> Path:
    for pattern in patterns:
        found = sorted(path for path in tree.rglob(pattern) if path.is_file())
        if found:
            return found[0]
    raise VmError(f"no {' or '.join(patterns)} in the kernel's packages")


def _pack_modules(tree: Path, archive: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name, "modules")
        directory.mkdir()
        order = []
        for module in DISK_MODULES:
            for path in sorted(tree.rglob(f"{module}.ko*"))[:1]:
                data = path.read_bytes()
                (directory / f"{module}.ko").write_bytes(lzma.decompress(data) if path.suffix == ".xz" else data)
                order.append(f"/modules/{module}.ko\n")
        (directory / "order").write_text("".join(order))
        pack(Path(name), archive)
