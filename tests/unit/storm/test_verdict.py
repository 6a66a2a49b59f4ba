"""The answer of a storm: the seed's figures, the recorded storms, and both sides of every border."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.storm.measured import Measured
from slabwatch.storm.verdict import (
    CLASSES,
    NOISE_RATIO,
    Evidence,
    Host,
    State,
    is_reclaimable,
    judge,
    judge_caches,
)
from tests.hosts import HOSTS
from tests.unit.storm.evidence import MIB, TOLERANCE, TWO_CPUS, evidence, recorded_evidence, state, told_by_sysfs
from tests.unit.storm.stormable import planned
from tests.unit.storm.test_record import taken

KIB = 1024


def judged(made: Evidence, host: Host = TWO_CPUS) -> dict[str, Any]:
    return judge(made, host)


def by_cache(made: Evidence, host: Host = TWO_CPUS) -> dict[str, dict[str, Any]]:
    return {row["cache"]: row for row in judge_caches(made, host)}


# The mail that it all began with: two tables, before and after, and no shrink.

SEED_SLAB = 8 * 4096
SEED_BEFORE = State({"task_struct": 198 * SEED_SLAB}, 295_408 * KIB)
SEED_AFTER = State({"task_struct": 2333 * SEED_SLAB}, 823_116 * KIB)


def test_the_seeds_own_tables() -> None:
    seed = evidence(SEED_BEFORE, SEED_AFTER, SEED_AFTER, tasks_started=100_000, forks_observed=None)
    verdict = judge(seed, Host(cpus=8, page_size=4096))
    assert verdict["class"] == "retained"
    assert verdict["growth_bytes"] == verdict["retained_bytes"] == 527_708 * KIB
    assert verdict["explained_ratio"] == 0.129
    assert verdict["pinned_bytes"] is verdict["released_by_shrink_bytes"] is None
    assert verdict["reason"] == (
        "515.3 MiB stayed, most of it in task_struct; not told apart from pinned: no shrink was run"
    )
    assert judge_caches(seed, Host(cpus=8, page_size=4096)) == [
        {
            "cache": "task_struct",
            "verdict": "retained",
            "reclaimable": False,
            "growth_bytes": 2135 * SEED_SLAB,
            "retained_bytes": 2135 * SEED_SLAB,
            "released_by_pressure_bytes": None,
            "released_by_shrink_bytes": None,
            "pinned_bytes": None,
        }
    ]


def test_the_seeds_finding_once_a_shrink_has_been_run() -> None:
    seed = evidence(SEED_BEFORE, SEED_AFTER, SEED_AFTER, SEED_BEFORE, tasks_started=100_000, forks_observed=None)
    verdict = judged(seed)
    assert (verdict["class"], verdict["pinned_bytes"]) == ("retained", 0)
    assert verdict["reason"] == "515.3 MiB stayed, most of it in task_struct; a shrink gave back 515.3 MiB"


# The recorded storms.

RECORDED = {
    "4.19.40-cgroup-v1": "retained",
    "5.10.223-cgroup-v1": "released",
    "5.10.223-cgroup-v2": "released",
    "6.1.176-cgroup-v1": "released",
    "6.1.176-cgroup-v2": "released",
    "6.18.15-cgroup-v2": "released",
    "7.2.13-cgroup-v2": "retained",
}


def test_every_recorded_host_is_judged() -> None:
    assert tuple(RECORDED) == HOSTS


@pytest.mark.parametrize("host", HOSTS)
def test_the_recorded_storms(host: str) -> None:
    verdict = judged(recorded_evidence(host))
    assert verdict["class"] == RECORDED[host], verdict["reason"]
    # With every cache's own flag the caches explain all that stayed, and nothing beyond it.
    assert 0.99 <= verdict["explained_ratio"] <= 1.01
    assert verdict["released_by_shrink_bytes"] + verdict["pinned_bytes"] == verdict["retained_bytes"]


@pytest.mark.parametrize("host", HOSTS)
def test_the_recorded_storms_where_sysfs_tells_nothing(host: str) -> None:
    verdict = judged(recorded_evidence(host, {}))
    assert verdict["class"] == RECORDED[host], verdict["reason"]
    assert 0.99 <= verdict["explained_ratio"] <= 1.01


@pytest.mark.parametrize(
    ("host", "beyond"),
    [
        ("4.19.40-cgroup-v1", {"task_struct", "sighand_cache", "kernfs_node_cache", "mm_struct", "files_cache"}),
        ("7.2.13-cgroup-v2", {"task_struct", "sighand_cache", "signal_cache", "mm_struct", "files_cache"}),
    ],
)
def test_the_caches_that_keep_their_memory(host: str, beyond: set[str]) -> None:
    rows = by_cache(recorded_evidence(host))
    assert beyond <= {cache for cache, row in rows.items() if row["verdict"] != "released" and not row["reclaimable"]}
    assert rows["task_struct"]["verdict"] == "retained"
    assert rows["task_struct"]["released_by_shrink_bytes"] > rows["task_struct"]["pinned_bytes"]


@pytest.mark.parametrize("host", [host for host, verdict in RECORDED.items() if verdict == "released"])
def test_kernels_that_give_task_structs_back(host: str) -> None:
    assert by_cache(recorded_evidence(host))["task_struct"]["verdict"] == "released"


# Which caches count.


@pytest.mark.parametrize("host", HOSTS)
def test_no_cache_is_called_reclaimable_by_its_name_that_is_not(host: str) -> None:
    told = told_by_sysfs(host, "after")
    wrong = [name for name, reclaimable in told.items() if is_reclaimable(name, {}) and not reclaimable]
    assert wrong == []
    for name in ("dentry", "inode_cache", "ext4_inode_cache", "proc_inode_cache", "radix_tree_node"):
        assert is_reclaimable(name, {}) is told.get(name, True)


def test_what_sysfs_tells_goes_before_the_name() -> None:
    assert not is_reclaimable("dentry", {"dentry": False})
    assert is_reclaimable("task_struct", {"task_struct": True})
    assert is_reclaimable("kmalloc-rcl-64", {"dentry": False})
    assert not is_reclaimable("kmalloc-64", {})


def test_reclaimable_growth_is_no_finding() -> None:
    start, after = state(a=MIB, dentry=MIB), state(2 * MIB, a=MIB, dentry=500 * MIB)
    made = evidence(start, after, after, after, reclaimable=frozenset({"dentry"}))
    assert by_cache(made)["dentry"]["verdict"] == "pinned"
    assert by_cache(made)["dentry"]["reclaimable"]
    assert judged(made)["class"] == "released"


# The rows of the caches.


def test_rows_come_by_growth_and_those_that_did_not_grow_are_left_out() -> None:
    made = evidence(
        state(small=100, large=100, shrank=900, same=5),
        state(small=200, large=900, shrank=100, same=5, new=50),
        state(small=100, large=100, shrank=100, same=5),
    )
    rows = judge_caches(made, TWO_CPUS)
    assert [(row["cache"], row["growth_bytes"], row["retained_bytes"]) for row in rows] == [
        ("large", 800, 0),
        ("small", 100, 0),
        ("new", 50, 0),
    ]
    assert {row["verdict"] for row in rows} == {"released"}


def test_a_cache_that_grew_after_the_peak_has_grown() -> None:
    row = by_cache(evidence(state(a=0), state(a=MIB), state(a=3 * MIB), state(a=2 * MIB)))["a"]
    assert (row["growth_bytes"], row["retained_bytes"]) == (3 * MIB, 3 * MIB)
    assert (row["released_by_shrink_bytes"], row["pinned_bytes"]) == (MIB, 2 * MIB)


@pytest.mark.parametrize(
    ("cpus", "page_size", "expected"), [(1, 4096, 64 * 4096), (2, 4096, 128 * 4096), (64, 65536, 64 * 64 * 65536)]
)
def test_the_tolerance_is_64_pages_a_cpu(cpus: int, page_size: int, expected: int) -> None:
    host = Host(cpus, page_size)
    assert host.tolerance_bytes == expected
    for over, verdict in ((0, "released"), (1, "retained")):
        after = state(a=expected + over)
        assert by_cache(evidence(state(a=0), after, after), host)["a"]["verdict"] == verdict


def test_the_noise_of_a_cache_widens_its_own_tolerance() -> None:
    after = state(a=TOLERANCE + 500, b=TOLERANCE + 500)
    rows = by_cache(evidence(state(a=0, b=0), after, after, noise_bytes={"a": 500}))
    assert (rows["a"]["verdict"], rows["b"]["verdict"]) == ("released", "retained")
    rows = by_cache(evidence(state(a=0, b=0), after, after, noise_bytes={"a": 499}))
    assert rows["a"]["verdict"] == "retained"


@pytest.mark.parametrize(
    ("shrunk", "verdict"),
    [
        (0, "retained"),
        (5 * MIB, "retained"),  # half and half
        (5 * MIB + 1, "pinned"),
        (10 * MIB, "pinned"),
        (99 * MIB, "pinned"),  # it went on growing: no more is pinned than stayed
    ],
)
def test_pinned_is_what_a_shrink_gives_back_less_than_half_of(shrunk: int, verdict: str) -> None:
    after = state(a=10 * MIB)
    row = by_cache(evidence(state(a=0), after, after, state(a=shrunk)))["a"]
    assert row["verdict"] == verdict
    assert row["pinned_bytes"] == min(shrunk, 10 * MIB)
    assert row["released_by_shrink_bytes"] == 10 * MIB - row["pinned_bytes"]


@pytest.mark.parametrize(("pinned", "verdict"), [(TOLERANCE, "retained"), (TOLERANCE + 1, "pinned")])
def test_what_is_within_the_tolerance_is_not_pinned(pinned: int, verdict: str) -> None:
    after = state(a=TOLERANCE + 10)
    assert by_cache(evidence(state(a=0), after, after, state(a=pinned)))["a"]["verdict"] == verdict


def test_a_cache_that_is_gone_after_the_shrink_is_not_pinned() -> None:
    after = state(a=10 * MIB, b=MIB)
    row = by_cache(evidence(state(b=MIB), after, after, state(b=MIB)))["a"]
    assert (row["verdict"], row["pinned_bytes"]) == ("retained", 0)


# The whole: released or not.


def grown(growth: int, stayed_in_a: int, shrunk_a: int | None = None, **changes: Any) -> Evidence:
    """A host whose SUnreclaim grew by ``growth``, of which the cache ``a`` keeps some."""
    shrunk = None if shrunk_a is None else state(MIB + shrunk_a, a=shrunk_a, base=MIB)
    loaded, settled = state(MIB + growth, a=growth, base=MIB), state(MIB + stayed_in_a, a=stayed_in_a, base=MIB)
    return evidence(state(a=0, base=MIB), loaded, settled, shrunk, **changes)


@pytest.mark.parametrize(
    ("growth", "stayed", "expected"),
    [
        # A tenth of the growth is material...
        (30 * MIB, 3 * MIB, "released"),
        (30 * MIB, 3 * MIB + 1, "retained"),
        # ...of a large growth eight caches' tolerances...
        (156 * MIB, 8 * TOLERANCE, "released"),
        (156 * MIB, 8 * TOLERANCE + 1, "retained"),
        # ...and of a small growth what is beyond one cache's tolerance.
        (2 * MIB, TOLERANCE, "released"),
        (2 * MIB, TOLERANCE + 1, "retained"),
    ],
)
def test_the_share_that_is_material(growth: int, stayed: int, expected: str) -> None:
    assert judged(grown(growth, stayed))["class"] == expected


def test_released_names_what_stayed_beyond_its_tolerance() -> None:
    verdict = judged(grown(100 * MIB, 3 * MIB, 0))
    assert verdict["reason"] == (
        "97.0 MiB of the 100.0 MiB by which SUnreclaim grew went back by themselves within the settle time; "
        "3.0 MiB stayed beyond the tolerance in a"
    )
    assert judged(grown(100 * MIB, TOLERANCE))["reason"].endswith("within the settle time")


def thinly(stayed: int, *, growth: int, caches: int = 40, shrunk: int | None = 0) -> Evidence:
    """``stayed`` is spread over many caches, each within its tolerance."""
    share = stayed // caches
    assert share <= TOLERANCE

    def spread(whole: int, each: int) -> State:
        return State({f"c{index:02d}": each for index in range(caches)}, whole)

    return evidence(
        spread(0, 0),
        spread(growth, growth // caches),
        spread(stayed, share),
        None if shrunk is None else spread(shrunk, shrunk // caches),
    )


@pytest.mark.parametrize(
    ("growth", "stayed", "expected"),
    [
        (12 * MIB, 8 * TOLERANCE, "released"),
        (12 * MIB, 8 * TOLERANCE + 1, "retained"),
        (30 * MIB, 10 * MIB, "released"),
        (30 * MIB, 10 * MIB + 1, "retained"),
    ],
)
def test_what_is_spread_thinly_counts_when_it_is_much_together(growth: int, stayed: int, expected: str) -> None:
    made = thinly(stayed, growth=growth)
    assert {row["verdict"] for row in judge_caches(made, TWO_CPUS)} == {"released"}
    verdict = judged(made)
    assert verdict["class"] == expected
    assert ("spread thinly over many caches" in verdict["reason"]) == (expected == "retained")


def test_thinly_spread_and_pinned_or_not_known() -> None:
    assert judged(thinly(12 * MIB, growth=12 * MIB, shrunk=6 * MIB))["class"] == "retained"
    pinned = judged(thinly(12 * MIB, growth=12 * MIB, shrunk=6 * MIB + 1))
    assert pinned["class"] == "pinned"
    assert pinned["reason"].startswith("12.0 MiB stayed, spread thinly over many caches; a shrink gave back 6.0")
    unknown = judged(thinly(12 * MIB, growth=12 * MIB, shrunk=None))
    assert unknown["class"] == "retained"
    assert unknown["reason"].endswith("not told apart from pinned: no shrink was run")


@pytest.mark.parametrize(("left", "expected"), [(0, "retained"), (500 * MIB, "pinned")])
def test_what_stays_outside_of_every_cache_is_judged_by_sunreclaim(left: int, expected: str) -> None:
    """Large kmallocs are in no cache: a shrink can not give them back, and must not be said to."""
    start, after, shrunk = state(MIB, a=MIB), state(501 * MIB, a=MIB), state(MIB + left, a=MIB)
    verdict = judged(evidence(start, after, after, shrunk))
    assert (verdict["class"], verdict["explained_ratio"]) == (expected, 0.0)


# The whole: retained or pinned.


@pytest.mark.parametrize(
    ("shrunk", "expected"), [(0, "retained"), (20 * MIB, "retained"), (20 * MIB + 1, "pinned"), (40 * MIB, "pinned")]
)
def test_retained_is_what_a_shrink_gives_back_at_least_half_of(shrunk: int, expected: str) -> None:
    verdict = judged(grown(100 * MIB, 40 * MIB, shrunk))
    assert verdict["class"] == expected
    assert verdict["pinned_bytes"] == shrunk
    assert verdict["released_by_shrink_bytes"] == 40 * MIB - shrunk
    rest = f", and {shrunk / MIB:.1f} MiB did not go" if expected == "pinned" else ""
    assert verdict["reason"] == (
        f"40.0 MiB stayed, most of it in a; a shrink gave back {(40 * MIB - shrunk) / MIB:.1f} MiB{rest}"
    )


def test_the_reason_names_the_three_that_keep_most() -> None:
    after = state(a=30 * MIB, b=50 * MIB, c=10 * MIB, d=40 * MIB, e=1000)
    verdict = judged(evidence(state(a=0, b=0, c=0, d=0, e=0), after, after, state(a=0, b=0, c=0, d=0, e=0)))
    assert ", most of it in b, d, a; " in verdict["reason"]


def test_without_a_shrink_retained_says_what_was_not_told_apart() -> None:
    verdict = judged(grown(100 * MIB, 40 * MIB))
    assert verdict["class"] == "retained"
    assert verdict["reason"].endswith("; not told apart from pinned: no shrink was run")
    assert verdict["pinned_bytes"] is verdict["released_by_shrink_bytes"] is None


def test_a_host_that_shrank_has_nothing_that_stayed() -> None:
    verdict = judged(evidence(state(a=9 * MIB), state(a=9 * MIB), state(a=MIB), state(a=MIB)))
    assert (verdict["class"], verdict["growth_bytes"], verdict["retained_bytes"]) == ("released", 0, 0)
    assert verdict["explained_ratio"] is None


# Inconclusive.


@pytest.mark.parametrize("outcome", ["stopped", "aborted", "failed"])
def test_a_storm_that_did_not_run_to_its_end(outcome: str) -> None:
    verdict = judged(grown(100 * MIB, 40 * MIB, 0, outcome=outcome))
    assert verdict["class"] == "inconclusive"
    assert verdict["reason"] == f"the storm did not run to its end: it was {outcome}"
    assert verdict["retained_bytes"] == 40 * MIB, "the figures are there all the same"


@pytest.mark.parametrize(
    ("growth", "noise", "expected"),
    [
        (100 * MIB, 50 * MIB, "retained"),
        (100 * MIB, 50 * MIB + 1, "inconclusive"),
        (MIB // 2, TOLERANCE, "released"),  # such a swing is within what any host does
        (MIB // 2, TOLERANCE + 1, "inconclusive"),
    ],
)
def test_noise_in_the_baseline(growth: int, noise: int, expected: str) -> None:
    assert NOISE_RATIO == 0.5
    verdict = judged(grown(growth, growth // 2, noise_sunreclaim_bytes=noise))
    assert verdict["class"] == expected
    if expected == "inconclusive":
        assert "in the baseline, before the storm" in verdict["reason"]


@pytest.mark.parametrize(
    ("started", "forks", "expected"),
    [
        (100_000, 150_000, "retained"),
        (100_000, 150_001, "inconclusive"),
        (200, 2200, "retained"),  # any host forks some
        (200, 2201, "inconclusive"),
        (1000, 900, "retained"),
        (1000, None, "retained"),
    ],
)
def test_other_processes_forks(started: int, forks: int | None, expected: str) -> None:
    verdict = judged(grown(100 * MIB, 40 * MIB, tasks_started=started, forks_observed=forks))
    assert verdict["class"] == expected
    if expected == "inconclusive":
        assert verdict["reason"] == (
            f"other load: the kernel counted {forks} forks from start to settled, {started} of them the storm's"
        )


@pytest.mark.parametrize(("forks", "expected"), [(4002, "retained"), (6000, "retained"), (6001, "inconclusive")])
def test_the_storms_own_scripts_are_no_other_load(forks: int, expected: str) -> None:
    """2,000 cgroups with a script and a task each, as seed-once can be asked for."""
    verdict = judged(grown(100 * MIB, 40 * MIB, tasks_started=2000, scripts=2000, forks_observed=forks))
    assert verdict["class"] == expected
    if expected == "inconclusive":
        assert verdict["reason"].endswith("6001 forks from start to settled, 4000 of them the storm's")


@pytest.mark.parametrize(("kind", "scripts"), [("shell", 7), ("fork", 0), ("exec", 0), ("light", 0)])
def test_a_script_in_each_cgroup_of_kind_shell(kind: str, scripts: int) -> None:
    measured = Measured()
    for name in ("baseline", "created", "loaded", "settled"):
        measured.snapshot(name, taken())
    made = measured.evidence(planned(kind=kind, cgroups=7), "completed", 70, {})
    assert made is not None
    assert made.scripts == scripts


@pytest.mark.parametrize(
    ("growth", "rise", "expected"),
    [
        (100 * MIB, 50 * MIB, "retained"),
        (100 * MIB, 50 * MIB + 1, "inconclusive"),
        (MIB // 2, TOLERANCE, "released"),
        (MIB // 2, TOLERANCE + 1, "inconclusive"),
    ],
)
def test_what_others_took_in_the_settle_time(growth: int, rise: int, expected: str) -> None:
    verdict = judged(grown(growth, growth * 9 // 10, settle_rise_bytes=rise))
    assert verdict["class"] == expected
    if expected == "inconclusive":
        assert verdict["reason"].startswith(
            f"other load: SUnreclaim rose by {rise / MIB:.1f} MiB during the settle time"
        )


@pytest.mark.parametrize(("rise", "expected"), [(10 * MIB - 1, "retained"), (10 * MIB, "released")])
def test_what_others_took_thinly_is_not_laid_at_the_storm_s_door(rise: int, expected: str) -> None:
    """20 MiB of 30 stayed, over many caches; above a third of the growth they count."""
    made = thinly(20 * MIB, growth=30 * MIB)
    assert judged(replace(made, settle_rise_bytes=rise))["class"] == expected
    assert judged(replace(made, noise_sunreclaim_bytes=rise))["class"] == expected


@pytest.mark.parametrize(("started", "expected"), [(900, "retained"), (899, "inconclusive")])
def test_a_storm_of_fewer_tasks_than_were_asked_for(started: int, expected: str) -> None:
    verdict = judged(grown(100 * MIB, 40 * MIB, tasks_requested=1000, tasks_started=started))
    assert verdict["class"] == expected
    assert (verdict["reason"] == "only 899 of 1000 tasks could be started") == (expected == "inconclusive")


# With memory pressure between the settle time and the shrink.


def pressed(pressured_a: int, shrunk_a: int | None, stayed: int = 40 * MIB) -> Evidence:
    made = grown(100 * MIB, stayed, shrunk_a)
    return replace(made, pressured=state(MIB + pressured_a, a=pressured_a, base=MIB))


@pytest.mark.parametrize(
    ("pressured", "shrunk", "shares", "expected"),
    [
        (40 * MIB, 0, (0, 40 * MIB, 0), "retained"),  # the mail's finding: a shrink, and no pressure, frees it
        (0, 0, (40 * MIB, 0, 0), "retained"),
        (30 * MIB, 10 * MIB, (10 * MIB, 20 * MIB, 10 * MIB), "retained"),
        (20 * MIB, 20 * MIB, (20 * MIB, 0, 20 * MIB), "retained"),  # half and half: who freed it is all one
        (20 * MIB + 1, 20 * MIB + 1, (20 * MIB - 1, 0, 20 * MIB + 1), "pinned"),
        (60 * MIB, 60 * MIB, (0, 0, 40 * MIB), "pinned"),  # it went on growing: no more is pinned than stayed
        (10 * MIB, 90 * MIB, (30 * MIB, 0, 10 * MIB), "retained"),  # nor more than the pressure had left
    ],
)
def test_what_stayed_is_shared_out(pressured: int, shrunk: int, shares: tuple[int, int, int], expected: str) -> None:
    made = pressed(pressured, shrunk)
    for row in (judged(made), by_cache(made)["a"]):
        keys = ("released_by_pressure_bytes", "released_by_shrink_bytes", "pinned_bytes")
        assert tuple(row[key] for key in keys) == shares
    assert judged(made)["class"] == by_cache(made)["a"]["verdict"] == expected


def test_the_reason_says_what_the_pressure_gave_back() -> None:
    stayed = "40.0 MiB stayed, most of it in a; memory pressure gave back"
    assert judged(pressed(39 * MIB, 0))["reason"] == f"{stayed} 1.0 MiB; a shrink gave back 39.0 MiB"
    assert judged(pressed(39 * MIB, 30 * MIB))["reason"] == (
        f"{stayed} 1.0 MiB; a shrink gave back 9.0 MiB, and 30.0 MiB did not go"
    )
    without = judged(pressed(10 * MIB, None))
    assert (without["class"], without["pinned_bytes"]) == ("retained", None)
    assert without["reason"] == f"{stayed} 30.0 MiB; not told apart from pinned: no shrink was run"


def test_pressure_does_not_make_released_of_what_stayed_before_it() -> None:
    made = pressed(0, 0)
    assert judged(made)["class"] == judged(replace(made, pressured=None))["class"] == "retained"
    assert judged(replace(made, pressured=None))["released_by_pressure_bytes"] is None


WHEN = {
    "start": "before the load",
    "loaded": "at its peak",
    "settled": "after the settle time",
    "pressured": "after the memory pressure",
    "shrunk": "after the shrink",
}


@pytest.mark.parametrize("name", WHEN)
def test_a_snapshot_without_its_caches_or_sunreclaim(name: str) -> None:
    """Absent is not zero: nothing has been given back that could not be read."""
    made = pressed(40 * MIB, 40 * MIB)
    no_caches = judged(replaced(made, name, State({}, getattr(made, name).sunreclaim_bytes)))
    assert no_caches["class"] == "inconclusive"
    assert no_caches["reason"] == f"the caches could not be read {WHEN[name]}: no /proc/slabinfo"
    no_sunreclaim = judged(replaced(made, name, State(getattr(made, name).caches, None)))
    assert no_sunreclaim["class"] == "inconclusive"
    assert no_sunreclaim["reason"] == f"SUnreclaim could not be read {WHEN[name]}"


def test_without_caches_after_the_shrink_no_row_claims_anything_of_it() -> None:
    made = replaced(grown(100 * MIB, 40 * MIB, 40 * MIB), "shrunk", State({}, MIB))
    assert by_cache(made)["a"]["pinned_bytes"] is None


def replaced(made: Evidence, name: str, other: State) -> Evidence:
    return replace(made, **{name: other})  # type: ignore[arg-type]


# Whatever the figures are.

CACHES = st.sampled_from(["task_struct", "dentry", "kmalloc-64", "new"])
SIZES = st.dictionaries(CACHES, st.integers(0, 2**40), max_size=4)
STATES = st.builds(State, SIZES, st.one_of(st.none(), st.integers(0, 2**41)))


@given(
    made=st.builds(
        Evidence,
        start=STATES,
        loaded=STATES,
        settled=STATES,
        shrunk=st.one_of(st.none(), STATES),
        pressured=st.one_of(st.none(), STATES),
        settle_rise_bytes=st.integers(0, 2**40),
        noise_bytes=SIZES,
        noise_sunreclaim_bytes=st.integers(0, 2**40),
        reclaimable=st.frozensets(st.sampled_from(["dentry"])),
        tasks_started=st.integers(0, 10**6),
        forks_observed=st.one_of(st.none(), st.integers(0, 10**6)),
        outcome=st.sampled_from(["completed", "stopped"]),
    )
)
def test_any_evidence_gets_one_class_and_figures_that_add_up(made: Evidence) -> None:
    verdict = judged(made)
    assert verdict["class"] in CLASSES
    assert verdict["reason"]
    rows = judge_caches(made, TWO_CPUS)
    for figures in [verdict, *rows]:
        if figures["pinned_bytes"] is not None:
            shares = (figures[f"{name}_bytes"] for name in ("released_by_pressure", "released_by_shrink", "pinned"))
            assert sum(share or 0 for share in shares) == figures["retained_bytes"]
        if figures["retained_bytes"] is not None:
            assert 0 <= figures["retained_bytes"] <= figures["growth_bytes"]
    if verdict["class"] == "pinned":
        assert made.shrunk is not None
    assert all(row["verdict"] in CLASSES for row in rows)
