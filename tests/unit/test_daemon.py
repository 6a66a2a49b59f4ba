"""What a reload takes, and what it leaves: all of a configuration, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slabwatch import config_file as configuration
from slabwatch import logs
from slabwatch.config import Config, Remote
from slabwatch.daemon import Daemon
from slabwatch.errors import ConfigError
from slabwatch.host.root import KernelRoot
from tests.certificates import Authority
from tests.hosts import host_root

pytestmark = pytest.mark.asyncio


class TlsDouble:
    """Takes what the TLS door would; ``held`` lets the first one wait."""

    def __init__(self) -> None:
        self.viewers: list[tuple[str, ...]] = []
        self.begun, self.held = asyncio.Event(), asyncio.Event()

    async def apply(self, remote: Remote) -> None:
        if not self.begun.is_set():
            self.begun.set()
            await self.held.wait()
        self.viewers.append(remote.viewers)


Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the configuration with this name as the only operator and viewer."""

    def written(name: str) -> None:
        lines = (
            f'[control]\noperators = ["{name}"]',
            f'[remote]\nviewers = ["DNS:{name}"]',
            f'[state]\ndirectory = "{tmp_path}/state"',
        )
        (tmp_path / "slabwatch.toml").write_text("\n".join(lines), encoding="ascii")

    return written


@pytest.fixture
def daemon(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """One that has not been started; what takes a thread elsewhere is done at once."""

    async def at_once(work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    monkeypatch.setattr(logs, "set_up", lambda level, form: None)
    write("old")
    path = tmp_path / "slabwatch.toml"
    root = KernelRoot(str(host_root("6.1.176-cgroup-v2", "idle")))
    return Daemon(path, configuration.load(path), root, lambda url, socket: None)


@pytest.fixture
def tls(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> TlsDouble:
    double = TlsDouble()
    monkeypatch.setattr(daemon, "_tls", double)
    return double


async def test_the_certificates_and_the_roles_change_together(daemon: Daemon, tls: TlsDouble, write: Write) -> None:
    tls.held.set()
    write("new")
    await daemon.reload()
    assert (tls.viewers, daemon.config.control.operators) == ([("DNS:new",)], ("new",))


async def test_doctor_tells_what_has_expired(daemon: Daemon, tmp_path: Path) -> None:
    before = daemon.examine()
    crl = Authority(tmp_path).revocation_list(expired=True)
    daemon.config = Config.read({"remote": {"listen": "127.0.0.1:0", "crl": str(crl)}})
    *others, last = daemon.examine()
    assert others == before
    assert (last["name"], last["state"]) == ("remote.crl", "warn")
    assert "has expired on 2020-01-02" in last["finding"]


async def test_a_web_configuration_that_can_not_be_used_leaves_the_tls_door_as_it_was(
    daemon: Daemon, tls: TlsDouble, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ConfigError("web.yml: no such key")

    monkeypatch.setattr(daemon._metrics, "reload", broken)
    tls.held.set()
    write("new")
    with pytest.raises(ConfigError, match=r"web\.yml"):
        await daemon.reload()
    assert tls.viewers == []
    assert daemon.config.control.operators == ("old",)


async def test_a_slow_reload_does_not_bring_back_what_a_later_one_took_away(
    daemon: Daemon, tls: TlsDouble, write: Write
) -> None:
    write("alice")
    slow = asyncio.create_task(daemon.reload())
    await tls.begun.wait()
    write("bob")
    later = asyncio.create_task(daemon.reload())
    for _ in range(20):  # turns of the loop in which the later one could do all that it does
        await asyncio.sleep(0)
    tls.held.set()
    await asyncio.gather(slow, later)
    assert tls.viewers == [("DNS:alice",), ("DNS:bob",)]
    assert daemon.config.control.operators == ("bob",)
    assert daemon.state == "STARTING"
