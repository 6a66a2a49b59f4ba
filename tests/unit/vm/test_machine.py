"""A boot, with a shell script in the emulator's place: what comes back, and what never comes."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.live.kernel import wait_until
from tests.requirements import need
from tests.vm import images, machine
from tests.vm.cache import VmError
from tests.vm.kernels import Kernel
from tests.vm.machine import DIED, TIMED_OUT, Guest, Result, boot

# It finds its ports as the emulator does: by its arguments.
SCRIPT = """#!/bin/sh
echo "$*" >{seen}
for word; do
    case $word in
    file,id=port0,*) console=${{word#*path=}} ;;
    file,id=port1,*) stdout=${{word#*path=}} ;;
    file,id=port2,*) out=${{word#*path=}} ;;
    file,id=port3,*) code=${{word#*path=}} ;;
    esac
    [ "$before" != -initrd ] || cp "$word" {initramfs}
    before=$word
done
{does}
"""


class Emulator:
    """``does``: what the guest does, in shell."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        need(shutil.which("cpio") is not None, "cpio")
        self.cache = directory / "cache"
        self.payload = directory / "payload"
        self.out = directory / "out"
        self.seen = directory / "seen"
        self.initramfs = directory / "initramfs"
        self._script = directory / "emulator"
        self.kernel = Kernel(directory / "kernel", "suite", "6.1-cloud-amd64", "6.1-1")
        for path in (self.cache, self.payload, self.kernel.directory):
            path.mkdir()
        (self.payload / "program").write_text("the program")
        self.kernel.config.write_text("CONFIG_MEMCG=y\n")
        self.kernel.modules.write_bytes(b"modules")
        images.initramfs(self.cache).write_bytes(b"userland!")
        images.disk_initramfs(self.cache).write_bytes(b"mounts the disk")
        monkeypatch.setattr(machine, "QEMU", str(self._script))

    def boot(
        self, does: str, *, deadline: float = 20, systemd: bool = False, more: dict[str, Path] | None = None
    ) -> Result:
        self._script.write_text(SCRIPT.format(seen=self.seen, initramfs=self.initramfs, does=does))
        self._script.chmod(0o755)
        guest = Guest(self.kernel, systemd=systemd, options="one=more")
        command = ["echo", "two words"]
        return boot(self.cache, guest, self.payload, command, deadline=deadline, out=self.out, more=more)

    def unpacked(self, directory: Path) -> Path:
        """The last archive of the initramfs, which follows the fixed ones at the next multiple of four."""
        directory.mkdir()
        first = len(b"userland!")
        archive = self.initramfs.read_bytes()[first + -first % 4 :]
        subprocess.run(["cpio", "-id", "--quiet"], cwd=directory, input=archive, check=True)
        return directory


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    return Emulator(tmp_path, monkeypatch)


def test_output_files_and_exit_code_come_back(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "record.json").write_text("{}")
    result = emulator.boot(
        f"printf 'said\\r\\nmore\\r\\n' >$stdout; echo booted >$console; echo trouble >&2\n"
        f"tar -C {tmp_path}/found -czf $out .; echo code=3 >$code"
    )
    assert (result.code, result.stdout, result.console) == (3, "said\nmore\n", "booted\ntrouble\n")
    assert (emulator.out / "record.json").read_text() == "{}"


def test_payload_command_and_config_go_into_the_guest(emulator: Emulator, tmp_path: Path) -> None:
    carried = tmp_path / "carried"
    carried.mkdir()
    (carried / "wheel").write_text("a wheel")
    emulator.boot("echo code=0 >$code", more={"wheels/all": carried, "one": carried / "wheel"})
    root = emulator.unpacked(tmp_path / "root")
    assert (root / "payload/program").read_text() == "the program"
    assert (root / "payload/wheels/all/wheel").read_text() == (root / "payload/one").read_text() == "a wheel"
    assert (root / "command").read_text() == "echo 'two words'\n"
    assert (root / "boot/config-6.1-cloud-amd64").read_text() == "CONFIG_MEMCG=y\n"


def test_only_software_emulates(emulator: Emulator) -> None:
    emulator.boot("echo code=0 >$code")
    seen = emulator.seen.read_text()
    assert "-accel tcg," in seen
    assert "kvm" not in seen
    assert "slabwatch.cgroup=v2 one=more" in seen
    assert "-drive" not in seen


def test_systemd_gets_its_disk(emulator: Emulator) -> None:
    emulator.boot("echo code=0 >$code", systemd=True)
    seen = emulator.seen.read_text()
    assert f"file={images.disk(emulator.cache)},format=raw,if=none,id=disk,snapshot=on" in seen
    assert "systemd.unit=command.target" in seen
    assert emulator.initramfs.read_bytes().startswith(b"mounts the disk\0modules\0")


@pytest.mark.parametrize("told", ["", "echo nonsense >$code", "echo code= >$code", "echo code=x >$code"])
def test_a_guest_that_ends_without_a_code_has_died(emulator: Emulator, told: str) -> None:
    result = emulator.boot(f"echo oops >$console; {told}")
    assert (result.code, result.console) == (DIED, "oops\n")
    assert not emulator.out.exists()


def test_a_guest_that_hangs_is_ended(emulator: Emulator, tmp_path: Path) -> None:
    result = emulator.boot(f"echo $$ >{tmp_path}/pid; echo far >$stdout; exec sleep 100", deadline=0.5)
    assert (result.code, result.stdout) == (TIMED_OUT, "far\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_all_can_be_ended_at_once(emulator: Emulator, tmp_path: Path) -> None:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(emulator.boot(f"echo >{tmp_path}/up; exec sleep 100")))
    thread.start()
    wait_until((tmp_path / "up").exists, 20, "it runs")
    machine.end_all()
    thread.join(20)
    assert [result.code for result in results] == [DIED]


def test_what_was_not_prepared_is_named(emulator: Emulator) -> None:
    images.initramfs(emulator.cache).unlink()
    with pytest.raises(VmError, match="initramfs.cpio is missing: run the prepare command"):
        emulator.boot("")
