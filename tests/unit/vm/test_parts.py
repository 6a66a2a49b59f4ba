"""What guests are made of: the mirror, a kernel's image and what it can do."""

from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

import pytest

from tests.vm import cache
from tests.vm.cache import VmError, made, run
from tests.vm.debian import mirror_among
from tests.vm.kernels import ELF, Kernel, kernel, vmlinux


def test_the_mirror_is_the_one_with_debian_s_own_packages() -> None:
    targets = (
        "Elsewhere|Elsewhere|main|http://elsewhere.example/apt/|amd64\n"
        "Debian|Debian-Security|main|http://mirror.example/security/|amd64\n"
        "Debian|Debian|contrib|http://mirror.example/debian/|amd64\n"
        "Debian|Debian|main|http://mirror.example/debian/|amd64\n"
    )
    assert mirror_among(targets).uri == "http://mirror.example/debian/"


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("", "add one, and run apt-get update"),
        ("Debian|Debian-Security|main|http://mirror.example/security/|amd64\n", "no Debian archive"),
        ("Debian|Debian|main|http://mirror.example/debian/|arm64\n", "this host is arm64"),
    ],
)
def test_without_a_mirror_it_says_what_to_do(targets: str, said: str) -> None:
    with pytest.raises(VmError, match=said):
        mirror_among(targets)


def boot_image(payload: bytes, *, magic: bytes = b"HdrS") -> bytes:
    """A bzImage of one setup sector."""
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = magic
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + b"#" * 16 + payload + b"what is behind it"


def test_vmlinux_is_found_in_the_boot_image() -> None:
    elf = ELF + b"the kernel" * 1000
    # The size that the boot code reads is behind the packed data.
    assert vmlinux(boot_image(gzip.compress(b"before it" + elf) + struct.pack("<I", len(elf)))) == elf


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "no HdrS"),
        (boot_image(b"", magic=b"none"), "no HdrS"),
        (boot_image(b""), "unknown way"),
        (boot_image(b"unpacked" + ELF), "unknown way: 756e7061"),
        (boot_image(gzip.compress(b"no kernel")), "gzip gave 9 bytes"),
        (boot_image(b"\x1f\x8b broken"), "gzip gave 0 bytes"),
    ],
)
def test_another_file_is_no_boot_image(image: bytes, said: str) -> None:
    with pytest.raises(VmError, match=said):
        vmlinux(image)


@pytest.mark.parametrize(
    ("config", "versions"),
    [
        ("CONFIG_MEMCG=y\nCONFIG_MEMCG_KMEM=y\n", ("v2", "v1")),  # before 6.11: no such option
        ("CONFIG_MEMCG=y\nCONFIG_MEMCG_V1=y\n", ("v2", "v1")),
        ("CONFIG_MEMCG=y\n# CONFIG_MEMCG_V1 is not set\n", ("v2",)),
    ],
)
def test_a_kernel_s_own_config_says_which_cgroups_it_has(
    tmp_path: Path, config: str, versions: tuple[str, ...]
) -> None:
    (tmp_path / "config").write_text(config)
    assert Kernel(tmp_path, "suite", "6.12-cloud-amd64", "6.12-1").cgroup_versions == versions


def test_a_kernel_that_was_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(VmError, match="bookworm: no kernel .* run the prepare command"):
        kernel(tmp_path, "bookworm")


def test_what_breaks_off_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    with made(target) as partial:
        partial.write_text("old")
    with contextlib.suppress(ValueError), made(target) as partial:
        partial.write_text("new")
        raise ValueError("half-way")
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_a_tool_that_fails_is_quoted() -> None:
    with pytest.raises(VmError, match="sh -c echo so >&2; exit 3: exit code 3\nso"):
        run(["sh", "-c", "echo so >&2; exit 3"])
    with pytest.raises(VmError, match="not done after 0.05 s"):
        run(["sleep", "10"], seconds=0.05)


def test_missing_programs_are_named() -> None:
    with pytest.raises(VmError, match="missing: no-such-program, nor-this. .*README"):
        cache.need_programs(["sh", "no-such-program", "nor-this"])


def test_the_cache_is_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.delenv("SLABWATCH_VM_CACHE", raising=False)
    assert cache.cache_directory() == Path("/caches/slabwatch-vm")
    monkeypatch.setenv("SLABWATCH_VM_CACHE", "/elsewhere")
    assert cache.cache_directory() == Path("/elsewhere")
