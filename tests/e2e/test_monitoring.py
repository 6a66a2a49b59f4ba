"""The deployed rules in a real Prometheus that scrapes three hosts, its Alertmanager, and a second engine.

The tests are one story, told in order: the last one kills a daemon.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from deploy.prometheus.rules.declared import RUNBOOKS
from deploy.prometheus.rules.written import alerts, records
from tests.e2e.conftest import daemons
from tests.e2e.daemon import Daemon
from tests.e2e.fleet import PORT, Monitoring, get, hurried, monitoring, network_hosts
from tests.live.kernel import need_kernel, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.system]

NOBODY = 65_503
# Each look is a question to a server that has other work.
wait_for = partial(wait_until, every=0.2)


@dataclass(frozen=True, slots=True)
class Fleet:
    stormy: Daemon
    poor: Daemon
    plain: Daemon
    monitoring: Monitoring

    def instance(self, daemon: Daemon) -> str:
        return daemon.url.removeprefix("http://")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with daemons(need_kernel()) as make, network_hosts(3) as hosts:
        made = []
        for number, host in enumerate(hosts):
            daemon = make(
                storms=number == 0,
                poll={"interval_seconds": 1.0},
                metrics={"listen": f"{host.address}:{PORT}"},
            )
            daemon.prefix = host.enter
            made.append(daemon)
        stormy, poor, plain = made
        # As a user without the capability to read slabinfo.
        poor.prefix += ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
        for path in (poor.socket.parent, poor.state):
            path.mkdir(mode=0o700)
            os.chown(path, NOBODY, NOBODY)
        for daemon in made:
            daemon.start()
        targets = [f"{host.address}:{PORT}" for host in hosts]
        with monitoring(tmp_path_factory.mktemp("monitoring"), targets) as programs:
            yield Fleet(stormy, poor, plain, programs)


def test_durations_are_scaled_and_nothing_else() -> None:
    rules = "for: 10m\ninterval: 1m\nexpr: deriv(x:ratio_deriv6h[6h] offset 90s) > 3 * 86400 # 15 seconds"
    assert hurried(rules, 60) == (
        "for: 10000ms\ninterval: 1000ms\nexpr: deriv(x:ratio_deriv6h[360000ms] offset 1500ms) > 3 * 86400 # 15 seconds"
    )


def test_all_hosts_are_scraped_and_all_rules_are_evaluated(fleet: Fleet) -> None:
    prometheus = fleet.monitoring.prometheus
    wait_for(lambda: sum(prometheus.query("up").values()) == 3, 20, "three hosts are up")

    def evaluated() -> bool:
        groups = get(f"{prometheus.url}/api/v1/rules")["data"]["groups"]
        return all(rule["health"] != "unknown" for group in groups for rule in group["rules"])

    wait_for(evaluated, 20, "all rules have been evaluated")
    groups = get(f"{prometheus.url}/api/v1/rules")["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert {rule["name"]: rule["lastError"] for rule in rules.values() if rule.get("lastError")} == {}
    assert {alert.name for alert in alerts()} | {record.name for record in records()} <= rules.keys()
    # One that records for a host, from /proc/meminfo, and one that counts hosts by their kernel.
    release = (("__name__", "release:slabwatch_hosts:count"), ("release", os.uname().release))
    wait_for(lambda: prometheus.query("release:slabwatch_hosts:count") == {release: 3}, 20, "all hosts are recorded")


def test_a_host_without_the_right_to_read_slabinfo(fleet: Fleet) -> None:
    alert, poor = "SlabwatchCollectorFailing", fleet.instance(fleet.poor)
    wait_for(lambda: fleet.monitoring.firing(alert).keys() == {poor}, 40, f"{alert} fires")
    wait_for(lambda: poor in fleet.monitoring.received(alert), 15, "Alertmanager has received it")
    (said,) = fleet.monitoring.received(alert).values()
    assert said["summary"] == f"slabwatch's collector slabinfo fails on {poor}"
    assert said["runbook_url"] == f"{RUNBOOKS}/slabwatch.md#slabwatchcollectorfailing"
    assert fleet.monitoring.prometheus.query(f'slabwatch_slab_objects{{instance="{poor}"}}') == {}


def test_a_storm_is_said_while_it_runs(fleet: Fleet) -> None:
    watched, stormy = fleet.monitoring, fleet.instance(fleet.stormy)
    assert watched.firing("StormRunning") == {}
    storm_id = fleet.stormy.begin_storm(cgroups=10, tasks=10, hold_seconds=60, settle_seconds=0)
    fleet.stormy.wait_for_phase(storm_id, "hold")
    wait_for(lambda: stormy in watched.received("StormRunning"), 20, "Alertmanager knows that a storm runs")

    def told() -> bool:
        return "Phase: hold, tasks alive: 100" in watched.firing("StormRunning").get(stormy, {}).get("description", "")

    wait_for(told, 20, "the alert says the phase and the tasks")
    assert watched.firing("StormRunning").keys() == {stormy}
    quiet = {dict(labels)["instance"] for labels in watched.prometheus.query("instance:slabwatch_growth:quiet")}
    assert quiet == {stormy}
    fleet.stormy.ask("POST", f"/v1/storms/{storm_id}/stop", {})
    assert fleet.stormy.record(storm_id)["outcome"] == "stopped"
    wait_for(lambda: not watched.firing("StormRunning"), 20, "the alert has ended")
    wait_for(lambda: not watched.received("StormRunning"), 20, "Alertmanager knows that it has ended")
    # Silence goes on for a while.
    assert watched.prometheus.query("instance:slabwatch_growth:quiet").keys() >= {
        (
            ("__name__", "instance:slabwatch_growth:quiet"),
            ("because", "storm"),
            ("instance", stormy),
            ("job", "slabwatch"),
        )
    }


def test_a_second_engine_has_the_same_answers(fleet: Fleet) -> None:
    first, second = fleet.monitoring.prometheus, fleet.monitoring.long_term
    at = time.time()

    def arrived() -> bool:
        newest = second.query("min(timestamp(up))")
        return bool(newest) and min(newest.values()) > at

    wait_for(arrived, 30, "all that was there a moment ago was written to the second engine too")
    for query in (
        "count by (job) (slabwatch_build_info)",
        "max by (instance) (max_over_time(slabwatch_storm_live_tasks[5m]))",
        "max by (instance) (max_over_time(slabwatch_storm_tasks_started_total[5m]))",
        "count by (instance) (slabwatch_slab_objects)",
        "max by (instance) (max_over_time(instance:slabwatch_unreclaimable:ratio[5m]))",
        'max by (alertname, instance) (max_over_time(ALERTS{alertname=~"Slabwatch.*|StormR.*"}[5m]))',
    ):
        answer = first.query(query, at)
        assert answer, query
        assert second.query(query, at) == pytest.approx(answer), query
    assert first.query("sum(max_over_time(slabwatch_storm_tasks_started_total[5m]))", at) == {(): 100}


def test_a_killed_daemon(fleet: Fleet) -> None:
    watched, plain = fleet.monitoring, fleet.instance(fleet.plain)
    assert watched.firing("SlabwatchDown") == {}
    fleet.plain.signal(signal.SIGKILL)
    fleet.plain.wait()
    wait_for(lambda: watched.firing("SlabwatchDown").keys() == {plain}, 30, "SlabwatchDown fires")
    wait_for(lambda: plain in watched.received("SlabwatchDown"), 15, "Alertmanager has received it")
    # Over all of it, nothing else was said about slabwatch on these hosts.
    ever = 'count_over_time(ALERTS{alertname=~"Slabwatch.*",alertstate="firing",instance!=""}[10m])'
    seen = watched.prometheus.query(f"count by (alertname, instance) ({ever})")
    assert {tuple(value for _, value in labels) for labels in seen} == {
        ("SlabwatchDown", plain),
        ("SlabwatchCollectorFailing", fleet.instance(fleet.poor)),
    }
