"""What this kernel and this configuration can do, each with its reason and its remedy. Blocking, reads only."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from slabwatch.config import Config
from slabwatch.errors import SlabwatchError, SourceDenied, SourceUnavailable, StormRejected
from slabwatch.host.facts import has_sheaves, kmem_accounting, relevant_config
from slabwatch.host.hierarchy import MemoryHierarchy, find_memory_hierarchy
from slabwatch.host.root import KernelRoot
from slabwatch.host.shrink import can_shrink
from slabwatch.host.slab_sysfs import cache_directories
from slabwatch.storm import preflight
from slabwatch.storm.plan import caps_of, make_plan

State = Literal["ok", "info", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``remedy`` is "" where nothing needs to be done."""

    name: str
    state: State
    finding: str
    remedy: str = ""


def examine(root: KernelRoot, config: Config) -> list[dict[str, Any]]:
    """All findings, in reading order. A question that can not be answered is a finding too."""
    questions: tuple[Callable[[KernelRoot, Config], Iterator[Finding]], ...] = (
        _slabinfo,
        _hierarchy,
        _allocator,
        _shrink,
        _storm,
    )
    findings: list[Finding] = []
    for question in questions:
        try:
            findings += question(root, config)
        except SlabwatchError as error:
            findings.append(Finding(question.__name__.strip("_"), "warn", str(error)))
    return [asdict(finding) for finding in findings]


def config_file(path: Path) -> list[dict[str, Any]]:
    """Whether only root can change the configuration of root's daemon, as two findings at most."""
    remedy = "chown root and chmod go-w: whoever can change it can have root's daemon run any storm"
    places = (("config file", path.absolute()), ("config directory", path.absolute().parent))
    return [
        asdict(Finding(name, "warn", f"{place} {why}", remedy))
        for name, place in places
        if (why := _changeable_by_others(place))
    ]


def _changeable_by_others(place: Path) -> str:
    try:
        status = place.stat()
    except OSError:
        return ""  # whoever reads it says so
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != 0:
        return f"belongs to user {status.st_uid}"
    if mode & stat.S_IWGRP and status.st_gid != 0:
        return f"can be written by group {status.st_gid} (mode {mode:04o})"
    # In a sticky directory nobody can replace another's file.
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return f"can be written by everybody (mode {mode:04o})"
    return ""


def _slabinfo(root: KernelRoot, config: Config) -> Iterator[Finding]:
    try:
        caches = len(root.read_slabinfo().names)
    except SourceDenied:
        remedy = "run the daemon as root or with CAP_DAC_READ_SEARCH"
        yield Finding("slabinfo", "fail", "/proc/slabinfo may not be read by this user", remedy)
    except SourceUnavailable as error:
        yield Finding("slabinfo", "fail", str(error), "the kernel needs CONFIG_SLUB_DEBUG (or CONFIG_SLAB) and procfs")
    else:
        yield Finding("slabinfo", "ok", f"{caches} caches")


def _hierarchy(root: KernelRoot, config: Config) -> Iterator[Finding]:
    try:
        hierarchy = find_memory_hierarchy(root)
    except SourceUnavailable as error:
        remedy = "mount a cgroup hierarchy with the memory controller; cgroup_disable=memory must not be set"
        yield Finding("memory cgroups", "fail", str(error), remedy)
        return
    yield Finding("memory cgroups", "ok", f"v{hierarchy.version} ({hierarchy.mode}) at {hierarchy.mount_point}")
    accounting = kmem_accounting(root, hierarchy.mode)
    if accounting == "on":
        yield Finding("kernel memory accounting", "ok", "on: slab objects are charged to their cgroups")
    else:
        remedy = "boot without cgroup.memory=nokmem; until then a storm says nothing about cgroups"
        yield Finding("kernel memory accounting", "warn", f"{accounting}: cgroups' kernel memory reads 0", remedy)
    yield _caches_per_cgroup(root, hierarchy)


def _caches_per_cgroup(root: KernelRoot, hierarchy: MemoryHierarchy) -> Finding:
    name = "slab caches"
    if preflight.keeps_caches_per_cgroup(root, hierarchy):
        text = "one set for each cgroup (before 5.9): partly filled slabs stay behind as long as their cgroup is there"
        return Finding(name, "warn", text, "slabwatchctl storm proves it, slabwatchctl shrink gives the memory back")
    if has_sheaves(root):
        text = (
            "shared by all cgroups, with per-CPU sheaves: freed objects wait there and count as active until a shrink"
        )
        return Finding(name, "info", text)
    return Finding(name, "ok", "shared by all cgroups (since 5.9): a storm's residue is bounded per CPU")


def _allocator(root: KernelRoot, config: Config) -> Iterator[Finding]:
    options = relevant_config(root)
    if not options:
        text = "not told: neither /proc/config.gz nor /boot/config-<release> can be read"
        yield Finding("kernel config", "info", text, "CONFIG_IKCONFIG_PROC makes it readable")
    else:
        set_ones = sorted(option.removeprefix("CONFIG_") for option, value in options.items() if value == "y")
        yield Finding("kernel config", "ok", f"set: {', '.join(set_ones)}")
    try:
        directories = cache_directories(root)
    except SourceUnavailable as error:
        yield Finding("merged caches", "info", f"not told: {error}")
        return
    merged = sum(map(len, directories.values()))
    names = len(directories) + merged
    text = f"{merged} of {names} cache names share another's slabs: a row may hold several kinds of objects"
    yield Finding("merged caches", "info" if merged else "ok", text)


def _shrink(root: KernelRoot, config: Config) -> Iterator[Finding]:
    try:
        can_shrink(root)
    except SourceDenied as error:
        yield Finding("shrink", "warn", str(error), "run the daemon as root or with CAP_DAC_OVERRIDE")
    except SourceUnavailable as error:
        yield Finding("shrink", "warn", str(error))
    else:
        if config.shrink.enabled:
            yield Finding("shrink", "ok", "possible and allowed")
        else:
            yield Finding("shrink", "info", "possible, but off", "set shrink.enabled = true to allow it")


def _storm(root: KernelRoot, config: Config) -> Iterator[Finding]:
    if not config.storm.enabled:
        yield Finding("storm", "info", "off", "set storm.enabled = true to allow it")
    for name in ("smoke", "full"):
        try:
            plan = make_plan({"preset": name}, caps_of(config))
        except StormRejected as error:
            yield Finding(f"storm {name}", "warn", str(error))
            continue
        forecast = preflight.examine(root, plan, config.storm.parent, config.storm.min_available_ratio)
        failed = [check.text for check in forecast.checks if not check.ok]
        if failed:
            yield Finding(f"storm {name}", "warn", "; ".join(failed))
        else:
            need = forecast.memory_bytes // (1024 * 1024)
            yield Finding(f"storm {name}", "ok", f"possible: forecast {need} MiB, {os.cpu_count()} CPUs")
