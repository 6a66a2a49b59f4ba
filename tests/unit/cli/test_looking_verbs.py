"""The verbs that look, and shrink: JSON is exact, tables are for people, exit codes are for scripts."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from slabwatch.cli import verbs
from slabwatch.cli.ctl import main
from slabwatch.errors import SourceDenied, SourceUnavailable, StormRejected
from tests.unit.cli.conftest import Backstage, Ctl
from tests.unit.control.pretended import FINDINGS, cgroups, sample


def test_status(ctl: Ctl) -> None:
    ran = ctl("status")
    assert ran.code == 0
    assert "slabwatch 0.1.0  READY" in ran.out
    assert "5.0.0-27-generic, SLUB, cgroup v2, kernel memory accounting on" in ran.out
    assert "slabinfo 0.6 ms" in ran.out
    assert "cgroup 2 vanished" in ran.out
    assert "allowed, none is running" in ran.out
    assert "operator" in ran.out
    assert ctl("--json", "status").json["poll"]["polls"] == 1234


def test_top_as_a_table(ctl: Ctl) -> None:
    ran = ctl("top", "--limit", "2")
    assert ran.code == 0
    comment, header, first, second, rest = ran.out.splitlines()
    assert comment.startswith("# Slab 926.7 MiB: 122.9 MiB reclaimable, 803.8 MiB unreclaimable;")
    assert header.split()[:4] == ["cache", "size_MiB", "growth_MiB", "active"]
    assert first.split() == ["task_struct", "72.91", "+66.72", "11404", "11665", "98", "5888", "720", "10684"]
    assert second.split()[0] == "dentry"
    assert rest == "# 2 of 4 caches; --limit 0 shows all."


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("size", ["task_struct", "dentry", "kmalloc-1k", "filp"]),
        ("growth", ["task_struct", "kmalloc-1k", "dentry", "filp"]),
        ("active", ["dentry", "task_struct", "kmalloc-1k", "filp"]),
        ("unexplained", ["task_struct", "filp", "dentry", "kmalloc-1k"]),
    ],
)
def test_top_sorts(ctl: Ctl, sort: str, order: list[str]) -> None:
    assert [row["cache"] for row in ctl("top", "--json", "--sort", sort).json["caches"]] == order
    assert [row["cache"] for row in ctl("top", "--json", "--sort", sort, "--limit", "1").json["caches"]] == order[:1]


def test_top_says_what_the_gap_means(ctl: Ctl) -> None:
    out = ctl("top", "--sort", "unexplained").out
    assert "not a leak by itself" in out
    assert "kmalloc-1k" not in out
    assert "For 1 cache the kernel has no such count." in out


def test_cgroups(ctl: Ctl, backstage: Backstage) -> None:
    ran = ctl("cgroups")
    assert "5 memory cgroups (v2); 48 more are dying (removed" in ran.out
    assert "3.0 MiB of kernel memory in cgroups without a task" in ran.out
    rows = [line.split() for line in ran.out.splitlines() if not line.startswith("#")]
    assert rows[3] == ["/system.slice/cron.service", "1.00", "0.75", "4.00", "yes"]
    assert [row[0] for row in rows[1:]] == ["/", "/old", "/system.slice/cron.service", "__other__"]
    assert rows[4][2:] == ["-", "-", "-"]
    by_dying = ctl("cgroups", "--json", "--sort", "dying", "--limit", "2").json
    assert [row["cgroup"] for row in by_dying["cgroups"]] == ["/old", "/"]
    by_slab = ctl("cgroups", "--json", "--sort", "slab").json
    assert [row["cgroup"] for row in by_slab["cgroups"]] == ["/old", "/system.slice/cron.service", "/", "__other__"]
    v1 = cgroups(mode="v1", version=1, columns={"kernel_bytes": ("1", "3", "2", None)}, dying=None, omitted=0)
    backstage.daemon.sampler.latest = sample(cgroups=v1)
    out = ctl("cgroups", "--sort", "slab").out
    assert "no slab figure for a cgroup" in out
    assert "dying" not in out


def test_names_can_not_command_the_terminal(ctl: Ctl, backstage: Backstage) -> None:
    evil = ("/\x1b]0;title\x07", "/line\nbreak", "/[bold]markup[/bold]", "/bidi\u202e")
    backstage.daemon.sampler.latest = sample(cgroups=cgroups(paths=evil))
    out = ctl("cgroups").out
    assert "/\\x1b]0;title\\x07" in out
    assert "/line\\nbreak" in out
    assert "/[bold]markup[/bold]" in out
    assert "/bidi\\u202e" in out
    assert len(out.splitlines()) == 6
    assert ctl("--json", "cgroups").json["cgroups"][0]["cgroup"] == evil[0]


def test_doctor(ctl: Ctl) -> None:
    ran = ctl("doctor")
    assert ran.code == 0
    assert (
        "nokmem is on the command line: no cgroup is charged for kernel memory. To do: remove it and reboot" in ran.out
    )
    assert ctl("doctor", "--json").json == {"findings": FINDINGS}


def test_shrink(ctl: Ctl, backstage: Backstage) -> None:
    ran = ctl("shrink")
    assert ran.code == 0
    assert "SUnreclaim 804.0 MiB -> 300.0 MiB" in ran.out
    assert "task_struct       76.00       8.00           68.00" in ran.out
    assert "1 cache had nothing to give back." in ran.out
    named = ctl("shrink", "dentry", "filp")
    assert backstage.daemon.shrinker.asked == [(), ("dentry", "filp")]
    assert "inode_cache" in named.out, "what was asked for by name is shown, even if it gave nothing"
    assert ctl("--json", "shrink").json["caches"][0]["released_bytes"] == 68 * 1024 * 1024


def test_a_shrink_that_gave_errors_only(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"cache": "dentry", "before_bytes": 1, "after_bytes": 1, "released_bytes": 0, "error": "permission denied"}

    async def shrink(self: Any, caches: Any) -> Any:
        result = await original(self, caches)
        as_dict = result.as_dict() | {"caches": [failed]}
        return type("Result", (), {"as_dict": lambda self: as_dict})()

    from tests.unit.control.pretended import PretendedShrinker

    original = PretendedShrinker.shrink
    monkeypatch.setattr(PretendedShrinker, "shrink", shrink)
    ran = ctl("shrink", "dentry")
    assert ran.code == 2
    assert "permission denied" in ran.out


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (SourceUnavailable("/sys/kernel/slab", "not there: this kernel has no SLUB_DEBUG"), 4),
        (SourceDenied("/sys/kernel/slab/dentry/shrink", "permission denied"), 6),
        (StormRejected("unknown_cache", "no cache is named dentri"), 2),
    ],
)
def test_refusals_have_their_exit_codes(ctl: Ctl, backstage: Backstage, failure: Exception, code: int) -> None:
    backstage.daemon.shrinker.failure = failure
    for options in ((), ("--json",)):
        ran = ctl("shrink", *options)
        assert (ran.code, ran.out, ran.err) == (code, "", f"slabwatchctl: {failure}\n")


def test_nobody_there_is_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", f"unix://{tmp_path}/s", "status"]) == 5
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"slabwatchctl: {tmp_path}/s: there is no such socket. Is the daemon running?")


def test_a_bad_target_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "ssh://-oProxyCommand=x", "status"]) == 1
    assert "not a target of ssh" in capsys.readouterr().err


def test_watch_shows_only_what_is_new(ctl: Ctl, backstage: Backstage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "WATCH_SECONDS", 0.01)
    asked = 0
    before = type(backstage.daemon.sampler).derived.fget  # type: ignore[attr-defined]

    def derived(sampler: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 4:
            sampler.latest = sample(unix_seconds=1_570_000_010.0)
        if asked == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return before(sampler)

    monkeypatch.setattr(type(backstage.daemon.sampler), "derived", property(derived))
    ran = ctl("top", "--watch", "--json", "--limit", "1")
    assert ran.code == 0, "Ctrl-C is the way to end it"
    assert len(ran.lines) == 2
    assert ran.lines[1]["taken_at"] == 1_570_000_010.0


def test_no_figures_yet(ctl: Ctl, backstage: Backstage) -> None:
    backstage.daemon.sampler.latest = None
    ran = ctl("top")
    assert ran.code == 2
    assert "first poll" in ran.err
    assert "none has succeeded yet" in ctl("status").out
