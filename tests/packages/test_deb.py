"""The Debian package: installed, used, upgraded and purged in a Debian of its own."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packages.chroot import Chroot
from tests.packages.conftest import PROJECT
from tests.requirements import need

CONFIG = "/etc/slabwatch/slabwatch.toml"
# As the unit starts it: a user of its own, with one capability.
AS_THE_UNIT = (
    "setpriv", "--reuid=slabwatch", "--regid=slabwatch", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search",
)  # fmt: skip
# The libraries' files are those whose hashes are in the lock: not stripped, and with the interpreters they name.
KNOWN_TAGS = (
    "bogus-mail-host", "bogus-mail-host-in-debian-changelog",
    "copyright-not-using-common-license-for-apache2", "copyright-without-copyright-notice",
    "unstripped-binary-or-object", "unusual-interpreter", "embedded-library",
)  # fmt: skip


@pytest.fixture(scope="module")
def installed(base: Path, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chroot]:
    """For the tests that take nothing away."""
    with Chroot.copy_of(base, tmp_path_factory.mktemp("installed") / "root") as chroot:
        chroot.install(package)
        yield chroot


def test_installed_upgraded_and_purged(chroot: Chroot, package: Path) -> None:
    chroot.install(package)
    assert chroot.run("slabwatch", "--version").stdout.startswith("slabwatch ")
    assert chroot.run("slabwatchctl", "--version").stdout.startswith("slabwatchctl ")
    assert chroot.run("id", "--name", "--user", "slabwatch").stdout == "slabwatch\n"
    assert chroot.path("/etc/systemd/system/multi-user.target.wants/slabwatch.service").is_symlink()
    chroot.run("slabwatch", "--check-config", "--config", CONFIG)

    chroot.path(CONFIG).write_text("[poll]\ninterval_seconds = 30\n")
    chroot.install(package)
    assert "interval_seconds = 30" in chroot.run("slabwatch", "--print-config", "--config", CONFIG).stdout

    chroot.run("dpkg", "--remove", "slabwatch")
    assert not chroot.path("/usr/lib/slabwatch").exists()
    assert chroot.path(CONFIG).exists()
    chroot.run("dpkg", "--purge", "slabwatch")
    left = chroot.run("find", "/", "-xdev", "-name", "*slabwatch*", "-not", "-path", "/tmp/*").stdout.splitlines()
    assert [path for path in left if not path.startswith(("/proc/", "/sys/", "/dev/"))] == []


def test_the_daemon_serves_as_the_unit_starts_it(installed: Chroot) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    installed.path(CONFIG).write_text(
        f'[metrics]\nlisten = "127.0.0.1:{port}"\n[control]\nsocket = "/tmp/daemon/socket"\n'
        '[state]\ndirectory = "/tmp/daemon/state"\n'
    )
    installed.run("install", "--directory", "--owner=slabwatch", "/tmp/daemon")
    command = installed.command(*AS_THE_UNIT, "slabwatch", "--config", CONFIG)
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        get(f"http://127.0.0.1:{port}/-/ready")
        metrics = get(f"http://127.0.0.1:{port}/metrics")
        assert '\nslabwatch_slab_active_objects{cache="task_struct"} ' in metrics
        assert '\nslabwatch_collector_success{collector="slabinfo"} 1\n' in metrics
        target = "unix:///tmp/daemon/socket"
        status = json.loads(installed.run("slabwatchctl", "--host", target, "--json", "status").stdout)
        assert status["state"] == "READY"
    finally:
        daemon.terminate()
        assert daemon.wait(30) == 0


def get(url: str) -> str:
    """The page, once it is there."""
    end = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def test_without_the_capability_slabinfo_alone_is_missing(installed: Chroot) -> None:
    page = installed.run("setpriv", "--reuid=slabwatch", "--regid=slabwatch", "--clear-groups", "slabwatch", "--once")
    assert 'slabwatch_collector_success{collector="slabinfo"} 0' in page.stdout
    assert 'slabwatch_collector_success{collector="meminfo"} 1' in page.stdout


def test_man_pages_and_completions(installed: Chroot) -> None:
    for page in (PROJECT / "docs" / "man").iterdir():
        there = installed.path(f"/usr/share/man/man{page.suffix[1:]}/{page.name}.gz")
        assert gzip.decompress(there.read_bytes()) == page.read_bytes()
    for program in ("slabwatch", "slabwatchctl"):
        completion = installed.path(f"/usr/share/bash-completion/completions/{program}")
        listed = subprocess.run(
            ["bash", "-c", f'. "$1"; complete -p {program}', "bash", str(completion)],
            check=True, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert program in listed.stdout
        zsh = installed.path(f"/usr/share/zsh/vendor-completions/_{program}")
        assert zsh.read_text().startswith(f"#compdef {program}")
        need(shutil.which("zsh") is not None, "zsh")
        subprocess.run(["zsh", "-n", str(zsh)], check=True, timeout=30)


def test_the_unit_is_in_order(installed: Chroot) -> None:
    result = installed.run("systemd-analyze", "verify", "/usr/lib/systemd/system/slabwatch.service", check=False)
    complaints = [line for line in result.stderr.splitlines() if "slabwatch" in line]
    assert complaints == []


def test_lintian_finds_nothing_new(package: Path) -> None:
    need(shutil.which("lintian") is not None, "lintian")
    command = ["lintian", "--allow-root", "--suppress-tags", ",".join(KNOWN_TAGS), str(package)]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert found.stdout == ""
    assert found.returncode == 0


def test_the_same_tree_gives_the_same_package(package: Path, build_package: Callable[[], Path]) -> None:
    first = package.read_bytes()
    assert build_package().read_bytes() == first
