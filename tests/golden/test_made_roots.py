"""What each made root is there for (see tests/roots.py), said in a few figures.

The golden files hold the whole outputs; this says which lines of them are the point, and why they are right.
"""

from __future__ import annotations

import json

import pytest

from tests.golden.bases import CACHES, CGROUPS, DYING, ODD_NAMES, charged_below
from tests.golden.program import Run, Runs
from tests.roots import RECIPES

FAMILIES = ("slab_objects", "meminfo_slab_bytes", "threads", "cgroup_kernel_bytes", "cgroup_memory_bytes")


@pytest.fixture
def made(runs: Runs, request: pytest.FixtureRequest) -> Run:
    """The run on the root that a test's marker or parameter names."""
    return runs.of(f"made/{request.param}")


def root(*names: str) -> pytest.MarkDecorator:
    """The made roots that a test is about."""
    assert set(names) <= RECIPES.keys()
    return pytest.mark.parametrize("made", names, indirect=True)


def events(run: Run) -> list[tuple[str, str]]:
    """What was logged: event and collector."""
    return [(line["event"], line["collector"]) for line in map(json.loads, run.log.splitlines())]


def kernel_info(run: Run) -> dict[str, str]:
    (((_, labels), _),) = run.of("kernel_info").items()
    return dict(labels)


def cgroup_families(run: Run) -> set[str]:
    """Names of the families with a series for a cgroup."""
    return {name for name, labels in run.series if "cgroup" in dict(labels)}


def test_every_root_has_a_test() -> None:
    named = {
        name
        for function in globals().values()
        for mark in getattr(function, "pytestmark", [])
        if mark.name == "parametrize"
        for name in mark.args[1]
    }
    assert named == RECIPES.keys()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_no_defect_is_logged(name: str, runs: Runs) -> None:
    run = runs.of(f"made/{name}")
    assert run.code == 0
    assert "collector_defect" not in run.log


@root("plain-v1", "plain-v2")
def test_bases(made: Run) -> None:
    assert all(made.of(family) for family in FAMILIES)
    assert made.log == ""
    assert made.value("processes") == 3
    assert made.value("cgroups_dying") == DYING
    assert made.labelled("cgroup_kernel_bytes", "cgroup") == {
        path or "/": charged_below(path).kernel for path in CGROUPS
    }


@root("nothing-there")
def test_a_directory_that_is_no_root(made: Run) -> None:
    assert set(made.labelled("collector_success", "collector").values()) == {0}
    assert not any(made.of(family) for family in FAMILIES)
    assert not made.of("collector_last_success_timestamp_seconds")
    assert {event for event, _ in events(made)} == {"collector_failed"}
    unknown = {"release": "unknown", "allocator": "unknown", "cgroup_mode": "none", "kmem_accounting": "unknown"}
    assert kernel_info(made) == unknown


@root("cache-names-repeated")
def test_repeated_caches_are_summed(made: Run) -> None:
    assert made.value("slab_active_objects", cache="mlx5_fs_ftes") == 30 + 64 + 0
    assert made.value("slab_objects", cache="mlx5_fs_ftes") == 2 * 16 + 3 * 32
    assert made.value("slab_slabs", cache="mlx5_fs_ftes") == 2 + 3
    # Each with its own pages per slab: not 5 slabs of the first one's size.
    assert made.value("slab_size_bytes", cache="mlx5_fs_ftes") == (2 * 1 + 3 * 2) * 4096
    assert len(made.of("slab_objects")) == len(CACHES) + 2
    assert made.value("slab_unattributed_bytes") == 10_240 * 1024 - sum(
        made.labelled("slab_size_bytes", "cache").values()
    )


@root("cache-names-with-spaces")
def test_spaces_and_colons_in_cache_names(made: Run) -> None:
    for name in ("fuse request", "nfs: direct cache", "a-name-of-17-char", "btrfs_delayed_tree_ref_and_more"):
        assert made.value("slab_active_objects", cache=name) == 20
        assert made.value("slab_size_bytes", cache=name) == 4096
    assert not made.of("collector_skipped_total")


@root("slabinfo-with-statistics")
def test_more_columns_change_nothing(made: Run, runs: Runs) -> None:
    plain = runs.of("made/plain-v1")
    for family in ("slab_active_objects", "slab_objects", "slab_slabs", "slab_size_bytes", "slab_unattributed_bytes"):
        assert made.of(family) == plain.of(family)
    assert kernel_info(made)["allocator"] == "slab"
    assert not made.of("collector_skipped_total")


@root("slabinfo-bad-lines")
def test_a_bad_line_costs_that_line(made: Run, runs: Runs) -> None:
    assert made.of("slab_objects") == runs.of("made/plain-v2").of("slab_objects")
    assert made.value("collector_skipped_total", collector="slabinfo", reason="bad_line") == 3
    assert made.value("collector_success", collector="slabinfo") == 1
    assert events(made) == [("bad_line", "slabinfo")]


@root("slabinfo-absent")
def test_absent_is_not_zero(made: Run, runs: Runs) -> None:
    assert not any(name.startswith("slabwatch_slab_") for name, _ in made.series)
    assert made.value("collector_success", collector="slabinfo") == 0
    assert made.value("collector_last_success_timestamp_seconds", collector="slabinfo") is None
    assert events(made) == [("collector_failed", "slabinfo")]
    assert made.of("cgroup_kernel_bytes") == runs.of("made/plain-v2").of("cgroup_kernel_bytes")


@root("pages-of-64-kib")
def test_pages_of_64_kib(made: Run) -> None:
    assert made.value("slab_size_bytes", cache="task_struct") == 9 * 65_536
    assert made.value("slab_size_bytes", cache="kmalloc-64k") == 2 * 8 * 65_536
    # The one limit that is set: v1's unlimited is another number than with small pages.
    assert made.labelled("cgroup_kernel_limit_bytes", "cgroup") == {"/app.slice/web.service": 67_108_864}


@root("more-caches-than-series")
def test_caches_beyond_the_cap(made: Run, runs: Runs) -> None:
    plain = runs.of("made/plain-v2")
    sizes = plain.labelled("slab_size_bytes", "cache")
    told = made.labelled("slab_size_bytes", "cache")
    rest = sizes["task_struct"] + sizes["filp"]
    largest = {cache: sizes[cache] for cache in ("inode_cache", "ext4_inode_cache", "dentry")}
    assert told == {**largest, "__other__": rest}
    assert made.value("slab_object_size_bytes", cache="__other__") is None
    assert made.of("slab_unattributed_bytes") == plain.of("slab_unattributed_bytes")


@root("many-open-files")
def test_expected_objects_of_filp(made: Run, runs: Runs) -> None:
    assert made.value("slab_expected_objects", cache="filp") == 40_000_000
    # No series for a cache that is not there, nor from a counter that is too coarse.
    assert set(made.labelled("slab_expected_objects", "cache")) == {"filp"}
    assert set(runs.of("made/plain-v2").labelled("slab_expected_objects", "cache")) == {"task_struct", "dentry"}


@root("numa")
def test_values_by_node(made: Run, runs: Runs) -> None:
    assert made.of("slab_objects") == runs.of("made/plain-v2").of("slab_objects")
    info = {labels.pop("cache"): labels for labels in (dict(labels) for _, labels in made.of("slab_info"))}
    assert set(info) == {name for name, *_ in CACHES}
    assert info["filp"] == {"aliases": "cred_jar", "reclaimable": "false", "accounted": "true"}
    assert info["dentry"] == {"aliases": "", "reclaimable": "true", "accounted": ""}
    assert made.value("collector_success", collector="slab_sysfs") == 1


@root("meminfo-unknown-keys")
def test_unknown_keys_follow_the_same_rule(made: Run) -> None:
    assert made.value("meminfo_slab_sheaves_bytes") == 312 * 1024
    assert made.value("meminfo_tiered_memory_cxl_bytes") == 77 * 1024
    assert made.value("meminfo_pages_in_flight") == 5
    assert not any("far_memory" in name for name, _ in made.series)
    assert made.value("collector_skipped_total", collector="meminfo", reason="bad_line") == 1
    assert events(made) == [("bad_line", "meminfo")]


@root("nokmem")
def test_accounting_that_is_off_is_said_to_be(made: Run) -> None:
    assert kernel_info(made)["kmem_accounting"] == "off"
    assert set(made.labelled("cgroup_kernel_bytes", "cgroup").values()) == {0}
    assert made.value("cgroup_memory_bytes", cgroup="/old.slice")


@root("no-memory-row", "no-memory-row-v1")
def test_proc_cgroups_without_the_controller(made: Run, request: pytest.FixtureRequest) -> None:
    is_v1 = request.node.callspec.params["made"].endswith("v1")
    # v2 has cgroup.stat for it; v1 has nothing else.
    assert made.value("cgroups_dying") == (None if is_v1 else DYING)
    assert made.value("cgroups") == len(CGROUPS)
    assert kernel_info(made)["kmem_accounting"] == "on"


@root("v2-before-5-18")
def test_kernel_memory_as_the_sum_of_its_parts(made: Run, runs: Runs) -> None:
    plain = runs.of("made/plain-v2")
    assert set(made.of("cgroup_kernel_bytes")) == set(plain.of("cgroup_kernel_bytes"))
    assert made.of("cgroup_slab_unreclaimable_bytes") == plain.of("cgroup_slab_unreclaimable_bytes")
    assert not made.of("cgroup_vmalloc_bytes", "cgroup_memory_max_usage_bytes")
    assert made.value("cgroups_dying") == DYING


@root("v2-cgroup-without-memory", "v2-first-cgroup-without-memory")
def test_a_cgroup_without_the_controller(made: Run, runs: Runs, request: pytest.FixtureRequest) -> None:
    first = "first" in request.node.callspec.params["made"]
    bare = "/old.slice" if first else "/zz.slice"
    plain = runs.of("made/plain-v2")
    for family in sorted(cgroup_families(plain) - {"slabwatch_cgroup_populated"}):
        name = family.removeprefix("slabwatch_")
        others = {cgroup: value for cgroup, value in plain.labelled(name, "cgroup").items() if cgroup != bare}
        assert made.labelled(name, "cgroup") == others, name
    assert made.value("cgroup_populated", cgroup=bare) == (0 if first else 1)


@root("v2-memory-in-root-alone")
def test_the_root_has_figures_of_its_own(made: Run) -> None:
    assert made.labelled("cgroup_kernel_bytes", "cgroup") == {"/": charged_below("").kernel}
    assert set(made.labelled("cgroup_populated", "cgroup")) == {path for path in CGROUPS if path}


@root("odd-cgroup-names")
def test_any_byte_in_a_name(made: Run) -> None:
    told = made.labelled("cgroup_kernel_bytes", "cgroup")
    for number, name in enumerate(ODD_NAMES.values(), 1):
        assert told.pop(f"/{name}") == 4_096 * number
        assert told.pop(f"/{name}/leaf") == 2_048 * number
    assert told == {path or "/": charged_below(path).kernel for path in CGROUPS}
    assert made.value("cgroups") == len(CGROUPS) + 2 * len(ODD_NAMES)


@root("cgroup-names-spelled-alike")
def test_two_cgroups_are_two_series(made: Run) -> None:
    told = made.labelled("cgroup_kernel_bytes", "cgroup")
    alike = {name: value for name, value in told.items() if name.startswith("/\\xff")}
    assert set(alike) == {"/\\xff", "/\\xff#2"}
    assert set(alike.values()) == {4_096, 8_192}


@root("odd-mount-point", "memory-in-v2-beside-v1", "container-v2")
def test_the_hierarchy_is_found_wherever_it_is(made: Run, runs: Runs, request: pytest.FixtureRequest) -> None:
    plain = runs.of("made/plain-v1" if request.node.callspec.params["made"].startswith("odd") else "made/plain-v2")
    assert made.of("cgroup_kernel_bytes") == plain.of("cgroup_kernel_bytes")
    assert made.of("cgroups", "cgroups_dying") == plain.of("cgroups", "cgroups_dying")
    modes = {"odd-mount-point": "hybrid", "memory-in-v2-beside-v1": "hybrid", "container-v2": "v2"}
    assert kernel_info(made)["cgroup_mode"] == modes[request.node.callspec.params["made"]]


@root("container-v1", "namespace-v1")
def test_a_part_of_the_hierarchy(made: Run, runs: Runs) -> None:
    assert made.of("cgroup_kernel_bytes") == runs.of("made/plain-v1").of("cgroup_kernel_bytes")
    # The host's count minus a container's directories would be no count of anything.
    assert made.value("cgroups_dying") is None


@root("no-cgroup-hierarchy")
def test_no_hierarchy(made: Run, runs: Runs) -> None:
    assert not cgroup_families(made)
    assert made.value("cgroups") is None
    assert made.labelled("collector_success", "collector") == {"slabinfo": 1, "meminfo": 1, "process": 1, "cgroup": 0}
    assert events(made) == [("collector_failed", "cgroup")]
    assert made.of("slab_objects") == runs.of("made/plain-v2").of("slab_objects")
    assert kernel_info(made)["cgroup_mode"] == "none"


@root("cgroup-slabinfo-empty", "cgroup-slabinfo-without-objects")
def test_no_series_where_a_cgroup_has_no_objects(made: Run) -> None:
    assert b"cgroup_slab_objects" not in made.output
    assert b"cgroup_slab_active_objects" not in made.output
    assert made.value("collector_success", collector="cgroup") == 1


@root("cgroup-slabinfo-with-rows")
def test_caches_of_each_cgroup(made: Run) -> None:
    told = {
        (dict(labels)["cgroup"], dict(labels)["cache"]): v for (_, labels), v in made.of("cgroup_slab_objects").items()
    }
    assert told == {
        ("/app.slice/web.service", "task_struct"): 2 * 7,
        ("/app.slice/web.service", "dentry"): 4 * 21,
        ("/old.slice", "task_struct"): 7,
        ("/old.slice", "dentry"): 2 * 21,
    }
    assert made.value("cgroup_slab_active_objects", cgroup="/old.slice", cache="dentry") == 40


@root("cgroup-slabinfo-spelled-alike")
def test_caches_of_two_cgroups_are_two_series(made: Run) -> None:
    sizes = made.labelled("cgroup_kernel_bytes", "cgroup")
    slabs = made.labelled("cgroup_slab_active_objects", "cgroup")
    # The same label stands for the same cgroup in all families.
    assert {name: 4_096 * slabs[name] for name in ("/\\xff", "/\\xff#2")} == {
        name: sizes[name] for name in ("/\\xff", "/\\xff#2")
    }


@root("storms")
def test_storms_are_folded(made: Run) -> None:
    kernel = made.labelled("cgroup_kernel_bytes", "cgroup")
    storms = {name: value for name, value in kernel.items() if "storm" in name}
    assert sum(storms.values()) == (3 + 1) * (8_192 + 65_536 + 16_384 + 8_192)
    assert set(storms) <= {"/slabwatch-storm", "/slabwatch-storm#2"}
    assert made.value("cgroups") == len(CGROUPS) + 2 + 4
    assert made.value("cgroups_dying") == DYING
    # No label holds a storm's id, in any family: each would be a new series.
    assert not any("0a1b" in value or "ffee" in value for _, labels in made.series for _, value in labels)


@root("populated-v1")
def test_populated_counts_descendants(made: Run) -> None:
    assert made.labelled("cgroup_populated", "cgroup") == {
        "/": 1,
        "/app.slice": 1,
        "/app.slice/db.service": 1,
        "/app.slice/web.service": 1,
        "/old.slice": 0,
    }
    assert made.value("cgroups_unpopulated_kernel_bytes") == CGROUPS["/old.slice"].kernel


@root("more-cgroups-than-series")
def test_cgroups_beyond_the_cap(made: Run) -> None:
    sizes = {path or "/": charged_below(path).kernel for path in CGROUPS}
    sizes |= {f"/user-{number}.slice": 4_096 + 16_384 * (number + 1) + 8_192 for number in range(6)}
    largest = sorted(sizes, key=lambda path: -sizes[path])[:2]
    told = made.labelled("cgroup_kernel_bytes", "cgroup")
    assert told.pop("__other__") == sum(size for path, size in sizes.items() if path not in largest)
    assert told == {path: sizes[path] for path in largest}
    assert made.value("cgroups_omitted") == len(sizes) - 2
    assert made.value("cgroups") == len(sizes)
    # Of all, not of those with series alone.
    empty = [
        path for path in sizes if path == "/old.slice" or path in ("/user-0.slice", "/user-2.slice", "/user-4.slice")
    ]
    assert made.value("cgroups_unpopulated_kernel_bytes") == sum(sizes[path] for path in empty)


@root("deeper-than-read")
def test_what_is_too_deep_is_counted(made: Run) -> None:
    assert set(made.labelled("cgroup_kernel_bytes", "cgroup")) == {"/", "/app.slice", "/old.slice"}
    assert made.value("cgroups") == len(CGROUPS)
    assert made.value("cgroups_dying") == DYING


@root("cgroups-excluded")
def test_what_is_excluded_is_counted(made: Run) -> None:
    assert set(made.labelled("cgroup_kernel_bytes", "cgroup")) == {"/", "/app.slice", "/old.slice"}
    assert made.value("cgroups") == len(CGROUPS)
    assert made.value("cgroups_omitted") == 0
