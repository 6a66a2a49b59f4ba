"""One virtual machine from boot to power-off, in software emulation: a kernel, a payload, and a command in it.

Four serial ports: the console, the command's output, /out as a tar file, and the exit code.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm import images
from tests.vm.cache import VmError, need_programs, pack
from tests.vm.kernels import Kernel

QEMU = "qemu-system-x86_64"
# QEMU 7.2 emulates cmpxchg16b wrongly, of which the SLUB of 6.12 dies; with a thread a CPU, kernels oops now and then.
ACCELERATOR = ("-accel", "tcg,thread=single,tb-size=256", "-machine", "pc", "-cpu", "qemu64,-cx16")
KERNEL_OPTIONS = (
    "console=ttyS0 panic=-1 oops=panic reboot=t quiet loglevel=4 mitigations=off nokaslr tsc=reliable no_timer_check "
    "random.trust_cpu=on rcupdate.rcu_expedited=1"
)
SYSTEMD_OPTIONS = (
    "systemd.unit=command.target systemd.show_status=0 systemd.log_target=kmsg systemd.log_level=warning "
    "udev.log_level=3"
)
TIMED_OUT, DIED = 124, 125
_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True, slots=True)
class Result:
    """``code`` is the command's; 124: the deadline passed; 125: the guest ended without one."""

    code: int
    stdout: str
    console: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Guest:
    """What to boot. ``cgroup``: v1 or v2. ``options`` are added to the kernel's command line."""

    kernel: Kernel
    cgroup: str = "v2"
    systemd: bool = False
    memory_mib: int = 1024
    cpus: int = 2
    options: str = ""


def boot(
    cache: Path,
    guest: Guest,
    payload: Path,
    command: Sequence[str],
    *,
    deadline: float,
    out: Path,
    more: Mapping[str, Path] | None = None,
) -> Result:
    """Run ``command`` in the payload's directory; what it leaves in /out comes back in ``out``.

    ``more`` are files and directories for this guest alone, by their place below /payload.
    """
    need_programs((QEMU, "cpio"))
    with tempfile.TemporaryDirectory(prefix="slabwatch-vm-") as name:
        directory = Path(name)
        initramfs = _initramfs(cache, guest, payload, command, more or {}, directory)
        started = time.monotonic()
        errors = directory / "errors"
        with open(errors, "wb") as file:
            qemu = _qemu(cache, guest, initramfs, directory)
            process = subprocess.Popen(qemu, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        _running.add(process)
        try:
            process.wait(deadline)
            code = _exit_code(directory / "port3")
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
        finally:
            process.kill()
            process.wait()
            _running.discard(process)
        _unpack(directory / "port2", out)
        console = _text(directory / "port0") + _text(errors)
        return Result(code, _text(directory / "port1"), console, time.monotonic() - started)


def end_all() -> None:
    """Switch all of them off: whoever waits for one learns that it died."""
    for process in tuple(_running):
        process.kill()


def _qemu(cache: Path, guest: Guest, initramfs: Path, directory: Path) -> list[str]:
    options = [KERNEL_OPTIONS, f"slabwatch.cgroup={guest.cgroup}", guest.options]
    if guest.systemd:
        options += [SYSTEMD_OPTIONS, f"systemd.unified_cgroup_hierarchy={int(guest.cgroup == 'v2')}"]
    command = ["setpriv", "--pdeathsig", "KILL",  # so that none outlives this program, however that ends
               QEMU, *ACCELERATOR, "-smp", str(guest.cpus), "-m", str(guest.memory_mib), "-nodefaults",
               "-no-user-config", "-display", "none", "-no-reboot", "-kernel", str(guest.kernel.image),
               "-initrd", str(initramfs), "-append", " ".join(filter(None, options))]  # fmt: skip
    for port in range(4):
        command += ["-chardev", f"file,id=port{port},path={directory / f'port{port}'}"]
        command += ["-device", f"isa-serial,chardev=port{port},index={port}"]
    if guest.systemd:
        drive = f"file={images.disk(cache)},format=raw,if=none,id=disk,snapshot=on,cache=unsafe"
        command += ["-drive", drive, "-device", "virtio-blk-pci,drive=disk"]
    return command


def _initramfs(
    cache: Path, guest: Guest, payload: Path, command: Sequence[str], more: Mapping[str, Path], directory: Path
) -> Path:
    """Several archives one behind the other are one initramfs to the kernel."""
    tree = directory / "tree"
    shutil.copytree(payload, tree / "payload", symlinks=True)
    for name, source in more.items():
        goal = tree / "payload" / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, goal, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(source, goal)
    (tree / "command").write_text(shlex.join(command) + "\n")
    (tree / "boot").mkdir()
    shutil.copy(guest.kernel.config, tree / "boot" / f"config-{guest.kernel.release}")
    pack(tree, directory / "payload.cpio")
    first = [images.disk_initramfs(cache), guest.kernel.modules] if guest.systemd else [images.initramfs(cache)]
    with open(directory / "initramfs", "wb") as whole:
        for archive in (*first, directory / "payload.cpio"):
            if not archive.exists():
                raise VmError(f"{archive} is missing: run the prepare command first")
            whole.write(b"\0" * (-whole.tell() % 4))
            with open(archive, "rb") as part:
                shutil.copyfileobj(part, whole, 1 << 20)
    shutil.rmtree(tree)
    return directory / "initramfs"


def _exit_code(port: Path) -> int:
    told = re.fullmatch(r"code=(\d+)\s*", _text(port))
    return int(told[1]) if told else DIED


def _text(file: Path) -> str:
    return file.read_bytes().replace(b"\r\n", b"\n").decode(errors="replace") if file.exists() else ""


def _unpack(archive: Path, out: Path) -> None:
    if archive.exists() and archive.stat().st_size:
        out.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            tar.extractall(out, filter="data")
