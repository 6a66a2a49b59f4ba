"""SIGKILL, of which no daemon can know: in whichever phase its storm is, nothing lives on, and the next cleans up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial

import pytest

from tests.e2e.conftest import side_by_side
from tests.e2e.daemon import BIN, Daemon
from tests.live.kernel import cgroups_below, children, marked, wait_for_no_task, wait_until

pytestmark = pytest.mark.e2e

# Phase, and what makes it long enough to be hit; cgroups and their removal, and a shrink, take what they take.
MOMENTS: Mapping[str, tuple[str, dict[str, object]]] = {
    "baseline": ("baseline", {}),
    "create": ("create", {"cgroups": 60}),
    "load": ("load", {"kind": "exec", "cgroups": 60, "tasks": 20}),
    "hold": ("hold", {"hold_seconds": 60}),
    "drain": ("drain", {"kind": "light", "cgroups": 60, "tasks": 20}),
    "settle": ("settle", {}),
    "shrink": ("shrink", {"settle_seconds": 0, "shrink": True}),
    "cleanup": ("cleanup", {"settle_seconds": 0, "cgroups": 60}),
    # Presets that remove their cgroups earlier.
    "boot": ("load", {"preset": "boot", "cgroups": 60}),
    "zombie": ("settle", {"preset": "zombie"}),
}
# When all has been measured there is nothing left to be stopped, and half a second later the storm has ended.
LATE = ("shrink", "cleanup")


def reach(daemon: Daemon, moment: str) -> str:
    phase, wishes = MOMENTS[moment]
    # Whoever is slow to signal still meets the storm: it does not end before it has settled.
    usual = {"cgroups": 10, "tasks": 10, "hold_seconds": 0, "settle_seconds": 60, "ttl_seconds": 200}
    storm_id = daemon.start().begin_storm(**usual | wishes)
    daemon.wait_for_phase(storm_id, phase)
    return storm_id


def next_start_cleans_up(daemon: Daemon) -> None:
    daemon.start()
    wait_until(lambda: not daemon.cgroups(), 5, f"no cgroup is left: {daemon.cgroups()[:3]}")


def kill(daemon: Daemon, moment: str) -> None:
    storm_id = reach(daemon, moment)
    if moment == "hold":
        assert len(marked(storm_id)) > 100
    daemon.signal(signal.SIGKILL)
    assert daemon.wait() == -signal.SIGKILL
    wait_for_no_task(storm_id, 5)
    next_start_cleans_up(daemon)
    status, answer = daemon.ask("GET", "/v1/status")
    assert (status, answer["storm"]["running"], answer["storm"]["leftover_cgroups"]) == (200, None, 0)
    # A storm that was killed has no record: it is not among those that ended.
    assert daemon.ask("GET", f"/v1/storms/{storm_id}")[0] in (404, 200)[: 1 + (moment in LATE)]
    assert daemon.stop() == 0


def end_both(daemon: Daemon, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal the engine while its daemon can not see to it, and kill that."""
    daemon.signal(signal.SIGSTOP)
    os.kill(daemon.engine(), number)
    daemon.signal(signal.SIGKILL)
    daemon.wait()


def kill_with_engine(daemon: Daemon) -> None:
    """Then nobody is left to remove the cgroups: the next daemon does, and says so."""
    storm_id = reach(daemon, "hold")
    end_both(daemon)
    wait_for_no_task(storm_id, 5)
    assert daemon.parent is not None
    assert len(cgroups_below(daemon.parent)) == 11
    next_start_cleans_up(daemon)
    wait_until(lambda: daemon.events("storm_leftovers_removed"), 5, "it says what it has removed")
    (said,) = daemon.events("storm_leftovers_removed")
    assert (said["removed"], said["left"]) == (12 if daemon.pids_parent else 11, {})


def kill_all_at_once(daemon: Daemon) -> None:
    """Daemon, engine and workers: the tasks end with the pipe that the engine held open."""
    storm_id = reach(daemon, "hold")
    engine = daemon.engine()
    victims = [daemon.pid, engine, *children(engine)]
    for pid in victims:
        os.kill(pid, signal.SIGSTOP)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    daemon.wait()
    wait_for_no_task(storm_id, 5)
    next_start_cleans_up(daemon)


def kill_workers(daemon: Daemon) -> None:
    """All of them: the engine ends the storm, and the daemon says why."""
    storm_id = reach(daemon, "hold")
    for pid in children(daemon.engine()):
        os.kill(pid, signal.SIGKILL)
    record = daemon.record(storm_id)
    assert (record["outcome"], record["cgroups"]["leftover"]) == ("failed", 0)
    assert "a worker ended with status -9" in record["reason"]
    assert daemon.cgroups() == []


def remove_the_state(daemon: Daemon) -> None:
    """While a storm runs, and before the next start: what there is to be removed is known without it."""
    storm_id = reach(daemon, "hold")
    shutil.rmtree(daemon.state, ignore_errors=True)
    end_both(daemon)
    shutil.rmtree(daemon.state, ignore_errors=True)
    next_start_cleans_up(daemon)
    wait_for_no_task(storm_id, 5)
    again = daemon.begin_storm(cgroups=2, tasks=2, hold_seconds=0, settle_seconds=0)
    shutil.rmtree(daemon.state, ignore_errors=True)
    assert daemon.record(again)["outcome"] == "completed"
    assert (daemon.state / "storms" / f"{again}.json").exists()


def stop(daemon: Daemon, moment: str) -> None:
    """Not killed but asked: it has all gone when the record is there."""
    storm_id = reach(daemon, moment)
    daemon.ask("POST", f"/v1/storms/{storm_id}/stop", {"reason": "enough"})
    record = daemon.record(storm_id)
    assert (record["outcome"], record["reason"]) in [("stopped", "enough"), ("completed", "")][: 1 + (moment in LATE)]
    assert (record["cgroups"]["leftover"], record["cgroups"]["left"]) == (0, {})
    assert daemon.cgroups() == []
    wait_for_no_task(storm_id, 1)


def clean_up_without_a_daemon(daemon: Daemon) -> None:
    """As a service manager has it done after a death without goodbye."""
    storm_id = reach(daemon, "hold")
    end_both(daemon)
    wait_for_no_task(storm_id, 5)
    parent = daemon.parent
    assert parent is not None
    command = [str(BIN / "slabwatch"), "--clean-up", "--config", str(daemon.config)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    removed = 12 if daemon.pids_parent else 11
    assert done.stdout.endswith(f"{removed} cgroups removed, 0 tasks killed, 0 cgroups left\n")
    assert daemon.cgroups() == []


def tell_the_engine_to_end(daemon: Daemon, number: signal.Signals) -> None:
    """A service manager may tell all processes of a service: the engine cleans up before it ends."""
    storm_id = reach(daemon, "hold")
    end_both(daemon, number)
    wait_for_no_task(storm_id, 5)
    wait_until(lambda: not daemon.cgroups(), 5, "the engine has removed its cgroups")
    next_start_cleans_up(daemon)


STORIES: Mapping[str, Callable[[Daemon], None]] = {
    **{moment: partial(kill, moment=moment) for moment in MOMENTS},
    **{f"stopped in {moment}": partial(stop, moment=moment) for moment in MOMENTS},
    "engine killed": kill_with_engine,
    "no next daemon": clean_up_without_a_daemon,
    "all killed": kill_all_at_once,
    "workers killed": kill_workers,
    "state removed": remove_the_state,
    "engine terminated": partial(tell_the_engine_to_end, number=signal.SIGTERM),
    "engine hung up": partial(tell_the_engine_to_end, number=signal.SIGHUP),
}


@pytest.fixture(scope="module")
def stories() -> Iterator[Mapping[str, Future[None]]]:
    with side_by_side(STORIES) as told:
        yield told


@pytest.mark.parametrize("story", STORIES)
def test_nothing_is_left_of_a_killed_daemon_s_storm(stories: Mapping[str, Future[None]], story: str) -> None:
    stories[story].result(100)
