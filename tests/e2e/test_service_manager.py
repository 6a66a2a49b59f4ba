"""The daemon under a service manager: what it says at its start, at reloads, while it works, and at its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.manager import Manager
from tests.live.kernel import wait_until
from tests.roots import build_root

pytestmark = [pytest.mark.e2e, pytest.mark.system]

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def under(manager: Manager, daemon: Daemon, **environment: str) -> Daemon:
    daemon.environment = {"NOTIFY_SOCKET": manager.address, **environment}
    return daemon


def microseconds() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_ready_status_reload_and_stop(make_daemon: MakeDaemon, manager: Manager) -> None:
    daemon = under(manager, make_daemon(storms=False)).start()
    ready = manager.wait_for(lambda told: "READY" in told)
    assert ready == {"READY": "1", "MAINPID": str(daemon.pid)}
    # All that it promises is there: a page with a first sample, and the socket.
    assert daemon.get("/-/ready")[0] == 200
    assert daemon.ask("GET", "/v1/status")[1]["state"] == "READY"
    status = manager.wait_for(lambda told: "STATUS" in told)["STATUS"]
    assert status == f"READY: {daemon.url}/metrics, 1 polls, no storm"
    # A reload by signal, and one through the API.
    for reload in (lambda: daemon.signal(signal.SIGHUP), lambda: daemon.ask("POST", "/v1/reload", {})):
        before = microseconds()
        reload()
        reloading = manager.wait_for(lambda told: "RELOADING" in told)
        assert reloading["RELOADING"] == "1"
        assert before <= int(reloading["MONOTONIC_USEC"]) <= microseconds()
        assert manager.wait_for(lambda told: "READY" in told) == {"READY": "1"}
    # One that fails ends too.
    good = daemon.config.read_text(encoding="utf-8")
    daemon.config.write_text("nonsense", encoding="utf-8")
    daemon.signal(signal.SIGHUP)
    manager.wait_for(lambda told: "RELOADING" in told)
    manager.wait_for(lambda told: "READY" in told)
    wait_until(lambda: daemon.events("reload_failed"), 5, "it says why")
    daemon.config.write_text(good, encoding="utf-8")
    assert not any("WATCHDOG" in told for told in manager.told), "nobody asked for it"
    manager.drain()
    assert daemon.stop() == 0
    told = manager.drain()
    assert {"STOPPING": "1"} in told
    assert not any("READY" in one or "RELOADING" in one for one in told)


@pytest.fixture
def stuck(make_daemon: MakeDaemon, manager: Manager) -> tuple[Daemon, Callable[[], None]]:
    """A daemon whose sampler waits for a read of slabinfo, a FIFO, after polls that went well; and what ends that."""
    daemon = make_daemon(storms=False, poll={"interval_seconds": 0.5})
    root = build_root(daemon.directory, "plain-v2")
    slabinfo, fifo = root / "proc/slabinfo", daemon.directory / "fifo"
    content = slabinfo.read_bytes()
    daemon.arguments = ("--root", str(root))
    under(manager, daemon, WATCHDOG_USEC="2000000").start()
    manager.wait_for(lambda told: "READY" in told)
    for _ in range(4):
        manager.wait_for(lambda told: told.get("WATCHDOG") == "1", 3)
    os.mkfifo(fifo)
    os.link(fifo, root / "proc/fifo")
    (root / "proc/fifo").replace(slabinfo)
    wait_until(lambda: _has_reader(fifo), 10, "the sampler waits for the FIFO")

    def come_back() -> None:
        slabinfo.unlink()
        slabinfo.write_bytes(content)
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))

    return daemon, come_back


def test_signs_of_life_end_with_the_sampler_s_progress(
    stuck: tuple[Daemon, Callable[[], None]], manager: Manager
) -> None:
    daemon, come_back = stuck
    stuck_status = f"READY: {daemon.url}/metrics, the sampler makes no progress"
    manager.wait_for(lambda told: told.get("STATUS") == stuck_status, 15)
    # By now it is behind by more than the manager's patience.
    assert manager.receive(4) is None, f"a stuck sampler passes for a living one: {manager.told[-5:]}"
    assert daemon.get("/metrics")[0] == 200, "the loop itself is alive"
    come_back()
    manager.wait_for(lambda told: told.get("WATCHDOG") == "1", 10)
    assert daemon.stop() == 0


def test_a_stuck_sampler_does_not_hold_up_the_end(stuck: tuple[Daemon, Callable[[], None]], manager: Manager) -> None:
    daemon, _ = stuck
    assert daemon.stop(10) == 0
    assert {"STOPPING": "1"} in manager.drain()
    assert daemon.events("stopped")


def test_a_first_sample_that_does_not_come(make_daemon: MakeDaemon, manager: Manager) -> None:
    """It serves, and /-/ready says why it is not: then READY is told after a bounded wait. Signs of life are not."""
    daemon = make_daemon(storms=False)
    root = build_root(daemon.directory, "plain-v2")
    (root / "proc/slabinfo").unlink()
    os.mkfifo(root / "proc/slabinfo")
    daemon.arguments = ("--root", str(root))
    under(manager, daemon, WATCHDOG_USEC="4000000").start()
    assert daemon.get("/-/ready")[0] == 503
    assert manager.receive(3) is None, "READY is not told at once"
    assert manager.wait_for(lambda told: "READY" in told, 15)["READY"] == "1"
    assert not any("WATCHDOG" in told for told in manager.told)
    assert daemon.stop(10) == 0


def test_a_storm_s_cleanup_is_given_the_time_that_it_takes(make_daemon: MakeDaemon, manager: Manager) -> None:
    daemon = under(manager, make_daemon(), WATCHDOG_USEC="2000000").start()
    storm_id = daemon.begin_storm(cgroups=3, tasks=3, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    manager.wait_for(lambda told: f"storm {storm_id} in phase hold" in told.get("STATUS", ""), 5)
    engine = daemon.engine()
    environment = Path(f"/proc/{engine}/environ").read_bytes()
    for name in (b"NOTIFY_SOCKET", b"WATCHDOG_USEC"):
        assert name not in environment, "the engine is not the service"
    os.kill(engine, signal.SIGSTOP)
    try:
        daemon.signal(signal.SIGTERM)
        manager.wait_for(lambda told: told == {"STOPPING": "1"})
        for _ in range(3):
            asked = manager.wait_for(lambda told: "EXTEND_TIMEOUT_USEC" in told)
            assert 10e6 < int(asked["EXTEND_TIMEOUT_USEC"]) < 60e6
        manager.wait_for(lambda told: told.get("WATCHDOG") == "1", 3)
    finally:
        os.kill(engine, signal.SIGCONT)
    assert daemon.wait(30) == 0


def test_a_manager_that_is_gone_is_no_reason_to_stop(make_daemon: MakeDaemon, manager: Manager) -> None:
    daemon = under(manager, make_daemon(storms=False), WATCHDOG_USEC="1000000")
    os.unlink(manager.address)
    daemon.start()
    wait_until(lambda: daemon.events("service_manager_not_told"), 10, "the failure is logged")
    wait_until(lambda: (daemon.metric("slabwatch_polls_total") or 0) >= 2, 10, "it works on")
    assert len(daemon.events("service_manager_not_told")) == 1, "and said once"
    assert daemon.stop() == 0


def _has_reader(fifo: Path) -> bool:
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
