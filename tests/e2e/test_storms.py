"""Storms through slabwatchctl, on this kernel: small ones, from the first event to the record."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import side_by_side
from tests.e2e.daemon import Daemon
from tests.live.kernel import cgroups_below, marked, wait_for_no_task, wait_until

pytestmark = pytest.mark.e2e

VERDICTS = {"released", "retained", "pinned", "inconclusive"}
ALL_PHASES = ["baseline", "create", "load", "hold", "drain", "settle", "shrink", "cleanup"]
QUICK = ("--hold", "0", "--settle", "0")


def lines_of(output: str) -> list[dict[str, Any]]:
    """stdout with --json: one object a line, and nothing else."""
    return [json.loads(line) for line in output.splitlines()]


@contextmanager
def client(daemon: Daemon, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``slabwatchctl --json`` that runs beside the test."""
    command = daemon.ctl_command("--json", *arguments)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def running(daemon: Daemon, phase: str = "") -> str:
    """Wait for a storm to run, in that phase if one is given; its id."""

    def found() -> str:
        storm = daemon.ask("GET", "/v1/status")[1]["storm"]["running"]
        return str(storm["id"]) if storm and phase in ("", storm["phase"]) else ""

    wait_until(found, 15, f"a storm in phase {phase or 'any'}")
    return found()


def test_a_storm_with_json_from_its_first_line_to_its_record(daemon: Daemon) -> None:
    done = daemon.ctl("--json", "storm", "--cgroups", "20", "--tasks", "10", "--hold", "0", "--settle", "1", "--shrink")
    assert done.returncode in (0, 7), done.stderr
    *events, record = lines_of(done.stdout)
    assert [event["phase"] for event in events if event["event"] == "phase"] == ALL_PHASES
    assert events[-1] == {"event": "end", "outcome": "completed", "reason": ""}
    assert any(event["event"] == "progress" for event in events)
    assert (record["outcome"], record["reason"]) == ("completed", "")
    tasks = record["tasks"]
    assert (tasks["requested"], tasks["started"], tasks["failed"], tasks["peak_live"]) == (200, 200, 0, 200)
    assert tasks["forks_observed"] >= 200
    cgroups = record["cgroups"]
    assert (cgroups["requested"], cgroups["created"], cgroups["removed"], cgroups["leftover"]) == (20, 20, 20, 0)
    assert [phase["name"] for phase in record["phases"]] == ALL_PHASES
    begins = [phase["started_at"] for phase in record["phases"]]
    assert begins == sorted(begins)
    assert {"baseline", "loaded", "drained", "settled", "shrunk", "removed"} <= record["snapshots"].keys()
    assert record["verdict"]["class"] in VERDICTS
    assert (done.returncode == 7) == (record["verdict"]["class"] == "inconclusive")
    assert record["requested_by"] == "root"
    # More than a page a task, at the peak, in task_struct alone; and it is seen in slabinfo while it is there.
    rows = {name: {row["cache"]: row for row in record["snapshots"][name]["caches"]} for name in ("baseline", "loaded")}
    assert rows["loaded"]["task_struct"]["active_objects"] - rows["baseline"]["task_struct"]["active_objects"] >= 150
    assert record["snapshots"]["loaded"]["threads"] - record["snapshots"]["baseline"]["threads"] >= 150
    growths = [row["growth_bytes"] for row in record["caches"]]
    assert growths == sorted(growths, reverse=True)

    # The same, from all other doors.
    storm_id = record["id"]
    assert lines_of(daemon.ctl("--json", "report").stdout) == [record]
    assert json.loads((daemon.state / "storms" / f"{storm_id}.json").read_text(encoding="utf-8")) == record
    report = daemon.ctl("report", storm_id)
    assert (report.returncode, report.stderr) == (0, "")
    assert f"Verdict: {record['verdict']['class']}" in report.stdout
    assert "Number of running processes :" in report.stdout
    (listed,) = lines_of(daemon.ctl("--json", "storms").stdout)[0]["storms"]
    assert (listed["id"], listed["outcome"], listed["tasks"]) == (storm_id, "completed", 200)
    metrics = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(daemon.get("/metrics")[2].decode())
        for sample in family.samples
    }
    assert metrics["slabwatch_storm_tasks_started_total",] == 200
    assert metrics["slabwatch_storm_tasks_failed_total",] == 0
    assert metrics["slabwatch_storms_total", "completed"] == 1
    assert metrics["slabwatch_storm_active",] == metrics["slabwatch_storm_live_tasks",] == 0
    assert metrics["slabwatch_storm_last_verdict", record["verdict"]["class"]] == 1
    assert metrics["slabwatch_storm_leftover_cgroups",] == 0
    if record["verdict"].get("retained_bytes") is not None:
        assert metrics["slabwatch_storm_last_retained_bytes",] == record["verdict"]["retained_bytes"]
    audits = [event for event in daemon.events("audit") if event["command"] == "storm"]
    assert [(event["user"], event["allowed"], event["storm_id"]) for event in audits] == [("root", True, storm_id)]


def test_the_figures_stay_up_to_date_while_a_storm_runs(daemon: Daemon) -> None:
    """Scrapes are answered, soon, at each moment of a storm of 60 x 20."""
    slowest = 0.0
    live: list[float] = []
    phases: set[str] = set()
    over = threading.Event()

    def scrape() -> None:
        nonlocal slowest
        while not over.is_set():
            started = time.monotonic()
            status, _, body = daemon.get("/metrics")
            slowest = max(slowest, time.monotonic() - started)
            assert status == 200
            for line in body.decode().splitlines():
                if line.startswith("slabwatch_storm_live_tasks "):
                    live.append(float(line.split()[-1]))
                if line.startswith("slabwatch_storm_phase{") and line.endswith(" 1.0"):
                    phases.add(line.partition('"')[2].partition('"')[0])
            time.sleep(0.02)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        done = daemon.ctl("--json", "storm", "--cgroups", "60", "--tasks", "20", "--hold", "1.5", "--settle", "0")
    finally:
        over.set()
        scraper.join()
    assert lines_of(done.stdout)[-1]["tasks"]["started"] == 1200
    assert slowest < 2
    assert len(live) > 50
    assert max(live) == 1200
    assert {"baseline", "hold", "cleanup"} <= phases
    assert daemon.metric("slabwatch_storm_live_tasks") == 0


def each_kind_of_task(daemon: Daemon, kind: str) -> None:
    daemon.start()
    tasks = 1 if kind == "shell" else 10
    done = daemon.ctl(
        "--json", "storm", "--kind", kind, "--cgroups", "20", "--tasks", str(tasks), *QUICK, "--no-shrink"
    )
    assert done.returncode in (0, 7), done.stderr
    record = lines_of(done.stdout)[-1]
    assert record["outcome"] == "completed"
    assert record["plan"]["kind"] == kind
    assert (record["tasks"]["started"], record["tasks"]["failed"]) == (20 * tasks, 0)
    assert record["tasks"]["forks_observed"] >= 20 * tasks
    assert record["cgroups"]["leftover"] == 0
    assert "shrunk" not in record["snapshots"]
    assert record["verdict"]["class"] in VERDICTS
    assert daemon.metric("slabwatch_storm_tasks_started_total") == 20 * tasks


def fewer_tasks_alive_than_there_are_to_start(daemon: Daemon) -> None:
    daemon.start()
    done = daemon.ctl("--json", "storm", "--cgroups", "20", "--tasks", "20", "--live", "40", *QUICK, "--no-shrink")
    record = lines_of(done.stdout)[-1]
    assert record["tasks"]["started"] == 400
    assert 20 <= record["tasks"]["peak_live"] <= 40


def ctrl_c_stops_the_storm_and_waits_for_its_end(daemon: Daemon) -> None:
    daemon.start()
    with client(daemon, "storm", "--hold", "60") as process:
        storm_id = running(daemon, "hold")
        process.send_signal(signal.SIGINT)
        output, said = process.communicate(timeout=10)
        assert process.returncode == 7
        *events, record = lines_of(output)
        assert events[-1]["event"] == "end"
        assert (record["id"], record["outcome"], record["reason"]) == (storm_id, "stopped", "Ctrl-C")
        assert "Stopping" in said
    assert marked(storm_id) == []
    assert daemon.parent is not None
    assert cgroups_below(daemon.parent) == []


def a_client_that_dies_takes_its_storm_with_it(daemon: Daemon) -> None:
    daemon.start()
    with client(daemon, "storm", "--hold", "60") as process:
        storm_id = running(daemon, "hold")
        process.kill()
        process.communicate(timeout=10)
    record = daemon.record(storm_id)
    assert (record["outcome"], record["reason"]) == ("stopped", "the client that followed it went away")
    daemon.assert_nothing_left()


def a_detached_storm_needs_no_client(daemon: Daemon) -> None:
    daemon.start()
    done = daemon.ctl("storm", "--detach", "--hold", "60")
    assert done.returncode == 0
    storm_id = done.stdout.strip()
    assert running(daemon, "hold") == storm_id
    second = daemon.ctl("storm", "--detach")
    assert second.returncode == 2
    assert storm_id in second.stderr
    assert done.stdout.count("\n") == 1
    stopped = daemon.ctl("--json", "stop")
    assert (stopped.returncode, lines_of(stopped.stdout)[0]["id"]) == (0, storm_id)
    followed = daemon.ctl("follow", storm_id)
    assert followed.returncode == 7
    record = daemon.record(storm_id)
    assert (record["outcome"], record["reason"]) == ("stopped", "root asked for it")
    # A second stop is no fault, and a storm may run again.
    assert daemon.ctl("stop", storm_id).returncode == 0
    assert daemon.ctl("--json", "stop").returncode == 0


def a_storm_beyond_its_time_is_aborted(daemon: Daemon) -> None:
    daemon.start()
    # Scripts that would take 30 s; its time must be above what is planned (the baseline, 3 s).
    done = daemon.ctl("--json", "storm", "--kind", "shell", "--cgroups", "5", "--tasks", "30", *QUICK, "--ttl", "9")
    assert done.returncode == 7, done.stderr
    record = lines_of(done.stdout)[-1]
    assert record["outcome"] == "aborted"
    assert "time to live, 9 s" in record["reason"]
    assert "load" in record["reason"]
    assert record["verdict"]["class"] == "inconclusive"
    assert record["cgroups"]["leftover"] == 0
    assert daemon.metric('slabwatch_storms_total{outcome="aborted"}') == 1
    wait_for_no_task(record["id"])


def an_expectation_that_is_not_met_has_its_own_code(daemon: Daemon) -> None:
    daemon.start()
    done = daemon.ctl("--json", "storm", *QUICK, "--cgroups", "5", "--tasks", "5", "--no-shrink", "--expect", "pinned")
    verdict = lines_of(done.stdout)[-1]["verdict"]["class"]
    # Without a shrink it can not be told to be pinned.
    assert verdict != "pinned"
    assert done.returncode == (7 if verdict == "inconclusive" else 8)


def a_record_that_can_not_be_written_reaches_the_client_all_the_same(daemon: Daemon) -> None:
    daemon.state.mkdir()
    (daemon.state / "storms").write_text("this is no directory", encoding="utf-8")
    daemon.start()
    done = daemon.ctl("--json", "storm", *QUICK, "--cgroups", "5", "--tasks", "5", "--no-shrink")
    assert done.returncode in (0, 7), done.stderr
    *events, record = lines_of(done.stdout)
    assert (record["outcome"], record["tasks"]["started"]) == ("completed", 25)
    (warning,) = [event for event in events if event["event"] == "warning"]
    assert "the record could not be written" in warning["message"]
    assert str(daemon.state) in warning["message"]
    assert [event["storm"] for event in daemon.events("record_not_written")] == [record["id"]]
    # It is kept as long as this daemon lives and has no other.
    assert lines_of(daemon.ctl("--json", "report").stdout) == [record]
    assert daemon.ctl("report", record["id"]).returncode == 0


def a_full_disk_is_said_and_the_record_reaches_the_client(daemon: Daemon) -> None:
    """A disk of 16 KiB, which is there for the daemon alone and as long as it lives."""
    daemon.state.mkdir()
    mount = f'mount -t tmpfs -o size=16k none {daemon.state} && exec "$@"'
    daemon.prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
    daemon.start()
    done = daemon.ctl("--json", "storm", *QUICK, "--cgroups", "5", "--tasks", "5", "--no-shrink")
    *events, record = lines_of(done.stdout)
    assert record["tasks"]["started"] == 25
    (warning,) = [event for event in events if event["event"] == "warning"]
    assert "No space left on device" in warning["message"]
    # Nothing half written is in the way of the next.
    assert os.listdir(f"/proc/{daemon.pid}/root{daemon.state}/storms") == []


def no_descriptor_for_an_engine(daemon: Daemon) -> None:
    daemon.write_config({"cgroups": {"kept_descriptors": 0}})  # or some of them would be given back at the wrong time
    daemon.start()
    storm_id = daemon.begin_storm(cgroups=5, tasks=5, hold_seconds=0, settle_seconds=0)
    with daemon.followed(storm_id) as seen:
        used = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + 3, 4096))
        wait_until(lambda: seen and seen[-1]["event"] == "end", 60, "the storm's end")
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (4096, 4096))
    assert seen[-1]["outcome"] == "failed"
    assert "the engine could not be started" in seen[-1]["reason"], daemon.events("storm_defect")
    assert seen[-1]["record"]["cgroups"]["leftover"] == 0
    assert daemon.metric('slabwatch_storms_total{outcome="failed"}') == 1


def only_one_of_many_begins(daemon: Daemon) -> None:
    daemon.start()
    with ThreadPoolExecutor(20) as pool:
        wishes = {"cgroups": 2, "tasks": 2}
        answers = list(pool.map(lambda _: daemon.ask("POST", "/v1/storms", wishes), range(20)))
    assert sorted(status for status, _ in answers) == [202] + [409] * 19
    (storm_id,) = daemon.storm_ids()
    assert {answer.get("storm_id", answer.get("id")) for _, answer in answers} == {storm_id}
    daemon.ask("POST", f"/v1/storms/{storm_id}/stop", {})
    assert daemon.record(storm_id)["outcome"] == "stopped"


def tasks_that_do_not_run_end_too(daemon: Daemon) -> None:
    """Stopped ones do not see the end of the life pipe: the engine's own cleanup ends them."""
    daemon.start()
    storm_id = daemon.begin_storm(cgroups=3, tasks=3, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    engine = daemon.engine()
    tasks = [pid for pid in marked(storm_id) if pid != engine]
    assert len(tasks) >= 10
    for pid in tasks:
        os.kill(pid, signal.SIGSTOP)
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    daemon.assert_nothing_left()


def a_killed_engine_is_said_and_cleaned_up(daemon: Daemon) -> None:
    daemon.start()
    with client(daemon, "storm", "--cgroups", "10", "--tasks", "10", "--hold", "60") as process:
        storm_id = running(daemon, "hold")
        os.kill(daemon.engine(), signal.SIGKILL)
        output, _ = process.communicate(timeout=10)
    record = lines_of(output)[-1]
    assert process.returncode == 7
    assert record["id"] == storm_id
    assert record["outcome"] == "failed"
    assert "the engine is gone" in record["reason"]
    assert record["cgroups"]["leftover"] == 0
    daemon.assert_nothing_left()
    assert daemon.metric('slabwatch_storms_total{outcome="failed"}') == 1


def what_is_not_the_storm_s_stays_and_is_named(daemon: Daemon) -> None:
    daemon.start()
    storm_id = daemon.begin_storm(cgroups=3, tasks=3, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    parent = daemon.parent
    assert parent is not None
    root = parent / f"slabwatch-storm-{storm_id}"
    foreign = root / "x-foreign"
    foreign.mkdir()
    daemon.ask("POST", f"/v1/storms/{storm_id}/stop", {})
    # SIGKILL: the engine would go on trying for half a minute before it gives up.
    os.kill(daemon.engine(), signal.SIGKILL)
    record = daemon.record(storm_id)
    assert record["cgroups"]["leftover"] == 1
    assert "x-foreign" in record["cgroups"]["left"][str(root)]
    assert daemon.metric("slabwatch_storm_leftover_cgroups") == 1
    assert foreign.is_dir()
    assert cgroups_below(root) == [foreign]
    foreign.rmdir()
    root.rmdir()


def what_a_completed_storm_leaves_is_no_plain_success(daemon: Daemon) -> None:
    """Somebody has made a cgroup inside, and stays for a minute: the engine tries for half of it, and gives up."""
    daemon.start()
    with client(daemon, "storm", "--cgroups", "3", "--tasks", "3", "--hold", "2", "--settle", "0") as process:
        storm_id = running(daemon, "hold")
        root = daemon.root(storm_id)
        (root / "x-foreign").mkdir()
        output, said = process.communicate(timeout=90)
    record = lines_of(output)[-1]
    assert process.returncode == 7
    assert (record["outcome"], record["reason"]) == ("completed", "")
    assert record["verdict"]["class"] in VERDICTS
    assert record["cgroups"]["leftover"] == 1
    assert "x-foreign" in record["cgroups"]["left"][str(root)]
    assert f"The storm has left 1 cgroup behind: {root}" in said
    assert daemon.metric("slabwatch_storm_leftover_cgroups") == 1
    # The next one is a plain success, and takes the old one's root away now that it can.
    (root / "x-foreign").rmdir()
    done = daemon.ctl("--json", "storm", *QUICK, "--cgroups", "2", "--tasks", "2", "--no-shrink")
    assert lines_of(done.stdout)[-1]["cgroups"]["leftover"] == 0
    assert done.returncode in (0, 7)
    assert "behind" not in done.stderr
    assert not root.exists()
    assert daemon.metric("slabwatch_storm_leftover_cgroups") == 0


def what_stays_of_an_earlier_storm_stays_counted(daemon: Daemon) -> None:
    daemon.start()
    storm_id = daemon.begin_storm(cgroups=3, tasks=3, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    root = daemon.root(storm_id)
    (root / "x-foreign").mkdir()
    os.kill(daemon.engine(), signal.SIGKILL)
    assert daemon.record(storm_id)["cgroups"]["leftover"] == 1
    done = daemon.ctl("--json", "storm", *QUICK, "--cgroups", "2", "--tasks", "2", "--no-shrink")
    assert lines_of(done.stdout)[-1]["cgroups"]["leftover"] == 0, "it has left nothing itself"
    assert daemon.metric("slabwatch_storm_leftover_cgroups") == 1
    assert daemon.ask("GET", "/v1/status")[1]["storm"]["leftover_cgroups"] == 1
    (root / "x-foreign").rmdir()
    root.rmdir()


def the_kernel_holds_tasks_to_a_limit(daemon: Daemon) -> None:
    """All of the storm's tasks are where pids.max counts them."""
    daemon.start()
    storm_id = daemon.begin_storm(cgroups=10, tasks=10, hold_seconds=60)
    daemon.wait_for_phase(storm_id, "hold")
    directory = daemon.pids_root(storm_id)
    limited = (directory / "pids.max").exists()
    if limited:
        assert (directory / "pids.max").read_text(encoding="ascii").strip() == "456"
        assert 100 < int((directory / "pids.current").read_text(encoding="ascii")) <= 100 + 64
    daemon.ask("POST", f"/v1/storms/{storm_id}/stop", {})
    assert daemon.record(storm_id)["limits"]["pids"] == (456 if limited else None)
    assert daemon.cgroups() == []


STORIES: Mapping[str, Callable[[Daemon], None]] = {
    **{f"kind {kind}": partial(each_kind_of_task, kind=kind) for kind in ("light", "exec", "shell")},
    **{
        story.__name__: story
        for story in (
            fewer_tasks_alive_than_there_are_to_start,
            ctrl_c_stops_the_storm_and_waits_for_its_end,
            a_client_that_dies_takes_its_storm_with_it,
            a_detached_storm_needs_no_client,
            a_storm_beyond_its_time_is_aborted,
            an_expectation_that_is_not_met_has_its_own_code,
            a_record_that_can_not_be_written_reaches_the_client_all_the_same,
            a_full_disk_is_said_and_the_record_reaches_the_client,
            no_descriptor_for_an_engine,
            only_one_of_many_begins,
            tasks_that_do_not_run_end_too,
            a_killed_engine_is_said_and_cleaned_up,
            what_is_not_the_storm_s_stays_and_is_named,
            what_a_completed_storm_leaves_is_no_plain_success,
            what_stays_of_an_earlier_storm_stays_counted,
            the_kernel_holds_tasks_to_a_limit,
        )
    },
}


@pytest.fixture(scope="module")
def stories() -> Iterator[Mapping[str, Future[None]]]:
    with side_by_side(STORIES) as told:
        yield told


@pytest.mark.parametrize("story", STORIES)
def test_storm(stories: Mapping[str, Future[None]], story: str) -> None:
    stories[story].result(110)
