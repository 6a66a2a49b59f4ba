"""What a guest starts from: an initramfs with Python and busybox, or a disk with Debian and systemd."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from tests.vm.cache import made, pack, run
from tests.vm.debian import GUEST_SUITE, Apt, Mirror, unpack

GUEST = Path(__file__).parent / "guest"
PYTHON = "python3.11"
INITRAMFS_PACKAGES = (
    "libc6", "libgcc-s1", "libstdc++6", "libpython3.11-minimal", "python3.11-minimal", "libpython3.11-stdlib",
    "libexpat1", "zlib1g", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1", "libncursesw6", "libtinfo6",
    "libreadline8", "libsqlite3-0", "libcrypt1", "busybox-static",
)  # fmt: skip
DISK_PACKAGES = ("python3", "systemd", "systemd-sysv", "udev", "dbus", "procps", "kmod", "iproute2", "curl")
DISK_MIB = 600
# Large, and of no use to a guest.
UNUSED = (
    "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/bug", "usr/share/lintian",
    "usr/share/zoneinfo", "usr/share/i18n", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/idlelib", "usr/lib/python3.11/tkinter", "usr/lib/python3.11/pydoc_data",
    "usr/lib/udev/hwdb.bin", "usr/lib/udev/hwdb.d", "var/cache/apt", "var/lib/apt/lists",
)  # fmt: skip
# Services of a host that lives longer than a minute.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "systemd-tmpfiles-clean.timer", "systemd-update-utmp.service", "systemd-hwdb-update.service",
    "systemd-binfmt.service", "systemd-pstore.service",
)  # fmt: skip


def root_directory(cache: Path) -> Path:
    """The unpacked initramfs: its Python is the guest's, and compiles the payload."""
    return cache / "root"


def initramfs(cache: Path) -> Path:
    return cache / "initramfs.cpio"


def disk_initramfs(cache: Path) -> Path:
    return cache / "disk-initramfs.cpio"


def disk(cache: Path) -> Path:
    return cache / "systemd.img"


def build_initramfs(cache: Path, apt: Apt) -> None:
    """Both: the one to work in, and the one that only mounts the disk."""
    with made(root_directory(cache)) as root:
        root.mkdir()
        for package in apt.download(GUEST_SUITE, *INITRAMFS_PACKAGES):
            unpack(package, root)
        _remove_unused(root)
        for name in ("proc", "sys", "dev", "tmp", "run", "root", "out", "payload", "boot", "etc", "usr/local/bin"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for applet in run([root / "bin/busybox", "--list"]).decode().split():
            if not (root / "bin" / applet).exists():
                (root / "bin" / applet).symlink_to("busybox")
        (root / "usr/bin/python3").symlink_to(PYTHON)
        (root / "usr/bin/env").symlink_to("/bin/busybox")
        (root / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
        )
        (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        shutil.copy(GUEST / "init", root / "init")
        _make_console(root)
    compile_all(cache, root_directory(cache) / "usr/lib/python3.11")
    with made(initramfs(cache)) as archive:
        pack(root_directory(cache), archive)
    _pack_disk_initramfs(cache, root_directory(cache) / "bin/busybox")


def compile_all(cache: Path, *paths: Path) -> None:
    """By the guest's own Python: in emulation, imports from source take three times as long."""
    root = root_directory(cache)
    libraries = root / "lib/x86_64-linux-gnu"
    search = f"{libraries}:{root / 'usr/lib/x86_64-linux-gnu'}"
    python: list[str | Path] = [
        libraries / "ld-linux-x86-64.so.2",
        "--library-path",
        search,
        root / "usr/bin" / PYTHON,
        "-I",
    ]
    run([*python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", *paths], seconds=300)


def build_disk(cache: Path, mirror: Mirror) -> None:
    """Debian's smallest with systemd, as a file system image."""
    with tempfile.TemporaryDirectory(dir=cache) as name:
        root = Path(name, "root")
        run(["debootstrap", "--variant=minbase", f"--include={','.join(DISK_PACKAGES)}", GUEST_SUITE, root, mirror.uri],
            seconds=600)  # fmt: skip
        _remove_unused(root)
        units = root / "etc/systemd/system"
        for unit in ("command.target", "command.service"):
            shutil.copy(GUEST / unit, units / unit)
        shutil.copy(GUEST / "systemd-command", root / "usr/local/sbin/systemd-command")
        for unit in MASKED:
            (units / unit).unlink(missing_ok=True)
            (units / unit).symlink_to("/dev/null")
        (root / "etc/hostname").write_text("slabwatch-vm\n")
        (root / "etc/fstab").write_text("")
        (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        for directory in ("out", "payload"):
            (root / directory).mkdir()
        with made(disk(cache)) as image:
            run(["mke2fs", "-q", "-t", "ext4", "-d", root, "-L", "root", "-O", "^has_journal",
                 "-E", "lazy_itable_init=1", image, f"{DISK_MIB}M"])  # fmt: skip


def _pack_disk_initramfs(cache: Path, busybox: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as name:
        root = Path(name)
        for directory in ("bin", "proc", "dev", "newroot"):
            (root / directory).mkdir()
        shutil.copy(busybox, root / "bin/busybox")
        shutil.copy(GUEST / "disk-init", root / "init")
        _make_console(root)
        with made(disk_initramfs(cache)) as archive:
            pack(root, archive)


def _make_console(root: Path) -> None:
    """The kernel opens it for PID 1 before anything is mounted."""
    (root / "dev").mkdir(exist_ok=True)
    os.mknod(root / "dev/console", stat.S_IFCHR | 0o600, os.makedev(5, 1))


def _remove_unused(root: Path) -> None:
    for name in UNUSED:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
