"""The rules that people copy: as declared, sound, tested both ways, and about metrics and runbooks that exist."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import yaml

from deploy.prometheus.rules.__main__ import with_tables
from deploy.prometheus.rules.declared import Alert, Record
from deploy.prometheus.rules.thresholds import THRESHOLDS
from deploy.prometheus.rules.written import alerts, files, records
from slabwatch.expose.metrics import METRICS, meminfo_metric
from tests.unit.rules.promtool import (
    FOLDER,
    RULE_FILES,
    TESTS,
    expectations,
    groups_in_order,
    promtool,
    run,
    written_test,
)

ALERTS = alerts()
README = FOLDER / "README.md"
KNOWN = {metric.full_name for metric in METRICS} | {
    meminfo_metric(key, unitless=False).full_name for key in ("MemTotal", "Slab", "SReclaimable", "SUnreclaim")
}
RELIED_ON = """
SlabUnreclaimableGrowing SlabUnreclaimableHigh SlabCacheGrowing TaskStructUnexplained CgroupsDyingAccumulating
MemcgIdsNearlyExhausted CgroupKernelMemoryGrowing SlabwatchCollectorFailing SlabwatchStale SlabwatchDown
SlabinfoReadSlow StormRunning StormLeftovers StormFoundRetention SlabUnreclaimableOutlier
"""


def by_name(alert: Alert) -> str:
    return alert.name


@pytest.mark.parametrize("name", files())
def test_the_files_are_as_declared(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == files()[name], "run: python -m deploy.prometheus.rules"


def test_the_tables_are_as_declared() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_tables(text), "run: python -m deploy.prometheus.rules"


def test_the_alerts_that_users_rely_on_are_there() -> None:
    assert set(RELIED_ON.split()) <= {alert.name for alert in ALERTS}
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)


# Prometheus' own tools.


def test_promtool_finds_no_fault() -> None:
    checked = promtool("check", "rules", *(FOLDER / name for name in files()))
    assert checked.count("SUCCESS") == 3
    assert f"{len(ALERTS)} rules found" in checked


@pytest.mark.parametrize("all_on", [False, True], ids=["as it is", "all lines switched on"])
def test_the_example_for_prometheus_is_sound(tmp_path: Path, all_on: bool) -> None:
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    if all_on:
        text, count = re.subn(r"^( *)#(?=[^ #])", r"\1", text, flags=re.MULTILINE)
        assert count > 5
    for name in files():
        (tmp_path / name).symlink_to(FOLDER / name)
    path = tmp_path / "prometheus.yml"
    path.write_text(text, encoding="utf-8")
    assert f"{len(files())} rule files found" in promtool("check", "config", path)
    assert ("remote_write" in yaml.safe_load(text)) == all_on


def test_the_example_for_alertmanager_is_sound() -> None:
    run("amtool", "check-config", FOLDER / "alertmanager.yml")
    inhibitions = yaml.safe_load((FOLDER / "alertmanager.yml").read_text(encoding="utf-8"))["inhibit_rules"]
    for matcher in (one for rule in inhibitions for one in rule["source_matchers"] + rule["target_matchers"]):
        pattern = re.fullmatch(r'alertname=~?"(.*)"', matcher)
        assert pattern is not None
        assert any(re.fullmatch(pattern[1], alert.name) for alert in ALERTS), matcher


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_in_situations(path: Path) -> None:
    promtool("test", "rules", path)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_a_situation_names_all_groups(path: Path) -> None:
    """Without it, an alert would at times see what was recorded a minute before, and say other figures."""
    test = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert test["group_eval_order"] == groups_in_order(path.parent / name for name in test["rule_files"])


@pytest.mark.parametrize("alert", ALERTS, ids=by_name)
def test_each_alert_is_seen_to_fire_and_seen_not_to(alert: Alert) -> None:
    seen = [expected for name, expected in expectations() if name == alert.name]
    assert any(seen), f"no test in deploy/prometheus/tests in which {alert.name} must fire"
    assert not all(seen), f"no test in deploy/prometheus/tests in which {alert.name} must not fire"


def test_a_leak_is_found_below_noise(tmp_path: Path) -> None:
    """1 % an hour, under noise as large as what it grows in an hour: it fires once, and goes on."""
    noise = random.Random(2019)
    leak = [f"{1_000_000_000 + 166_667 * minute + noise.randrange(-10_000_000, 10_000_000)}" for minute in range(1500)]
    alert = 'ALERTS{alertname="SlabUnreclaimableGrowing",alertstate="firing"}'
    host = '{job="slabwatch",instance="noisy"}'
    series = {
        f"slabwatch_build_info{host}": "1x1500",
        f"slabwatch_meminfo_mem_total_bytes{host}": "10000000000x1500",
        f"slabwatch_meminfo_sunreclaim_bytes{host}": " ".join(leak),
    }
    # From 6.5 hours on, in each minute.
    holds = {"expr": f"count_over_time({alert}[17h]) >= bool 17 * 60", "eval_time": "24h"}
    labels = (
        '{alertname="SlabUnreclaimableGrowing",alertstate="firing",instance="noisy",job="slabwatch",severity="warning"}'
    )
    expected = [{**holds, "exp_samples": [{"labels": labels, "value": 1}]}]
    promtool("test", "rules", written_test(tmp_path / "noise.yml", series, promql_expr_test=expected))


def test_a_class_of_hosts_has_a_threshold_of_its_own(tmp_path: Path) -> None:
    """As the head of the thresholds' file says."""
    text = files()["slabwatch-thresholds.yml"]
    said = re.search(r"^#     expr: \|-\n#( +.*\n)#( +.*\n)", text, re.MULTILINE)
    assert said is not None
    general = "          0.15 * group by (slab_class) (slabwatch_build_info)\n"
    assert text.count(general) == 1
    changed = tmp_path / "slabwatch-thresholds.yml"
    changed.write_text(text.replace(general, f"    {said[1]}    {said[2]}"), encoding="utf-8")
    series = {}
    for host in ('instance="db"', 'instance="web"'):
        labels = f'{{job="slabwatch",{host}' + (',slab_class="database"}' if "db" in host else "}")
        series[f"slabwatch_build_info{labels}"] = "1x60"
        series[f"slabwatch_meminfo_mem_total_bytes{labels}"] = "10000000000x60"
        series[f"slabwatch_meminfo_sunreclaim_bytes{labels}"] = "2000000000x60"
    high = {
        "expr": 'ALERTS{alertname="SlabUnreclaimableHigh",alertstate="firing"}',
        "eval_time": "30m",
        "exp_samples": [
            {
                "labels": 'ALERTS{alertname="SlabUnreclaimableHigh",alertstate="firing",job="slabwatch",'
                'instance="web",severity="warning"}',
                "value": 1,
            }
        ],
    }
    rules = [changed, *RULE_FILES[1:]]
    promtool("test", "rules", written_test(tmp_path / "class.yml", series, rule_files=rules, promql_expr_test=[high]))


# What the rules speak of.


def names_in(text: str) -> set[str]:
    return set(re.findall(r"(?:[a-z_]+:)?slabwatch[_:]\w[\w:]*", text))


@pytest.mark.parametrize("rule", [*ALERTS, *records()], ids=lambda rule: rule.name)
def test_metrics_exist(rule: Alert | Record) -> None:
    recorded = {record.name for record in records()} | {"slabwatch:threshold"}
    text = "\n".join((rule.expr, rule.summary, *rule.description) if isinstance(rule, Alert) else (rule.expr,))
    names = names_in(text)
    assert names or rule.name == "SlabwatchDown"
    assert names <= KNOWN | recorded, names - KNOWN - recorded


def test_thresholds_are_used_and_exist() -> None:
    used = set(re.findall(r'slabwatch:threshold\{name="(\w+)"\}', "\n".join(files().values())))
    assert used == {threshold.name for threshold in THRESHOLDS}


@pytest.mark.parametrize("alert", ALERTS, ids=by_name)
def test_an_alert_on_memory_says_figures_and_caches(alert: Alert) -> None:
    assert "$value" in "".join(alert.description) or alert.page in ("slabwatch", "storms")
    about_slabwatch = alert.page == "slabwatch" and alert.name != "SlabinfoReadSlow"
    if not about_slabwatch and alert.name not in ("StormRunning", "StormLeftovers"):
        assert any("Largest caches" in line for line in alert.description)
