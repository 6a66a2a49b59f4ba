"""The maintenance switch and the audit log, as slabwatchctl shows them."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Backstage, Ctl
from tests.unit.control.pretended import PretendedStorm, plan


def test_lock_and_unlock(ctl: Ctl, backstage: Backstage) -> None:
    ran = ctl("unlock")
    assert (ran.code, ran.out) == (0, "nothing was locked\n")
    ran = ctl("lock", "--reason", "new kernel")
    assert ran.code == 0
    assert ran.out == "storms and shrinks are locked until `slabwatchctl unlock`\n"
    assert "locked      new kernel (by " in ctl("status").out
    for verb in (("storm", "--yes"), ("shrink",)):
        ran = ctl(*verb)
        assert ran.code == 2
        assert "new kernel (`slabwatchctl unlock` unlocks them)" in ran.err
    ran = ctl("lock", "--reason", "memory test")
    assert "; they were locked since " in ran.out
    assert ": new kernel" in ran.out
    assert ctl("--json", "lock", "--reason", "x").json["before"]["reason"] == "memory test"
    ran = ctl("unlock")
    assert ran.out.startswith("storms and shrinks are unlocked; they were locked since ")
    assert "locked" not in ctl("status").out
    assert ctl("--json", "unlock").json == {"lock": None, "before": None}


def test_a_dry_run_says_that_it_is_locked(ctl: Ctl) -> None:
    ctl("lock", "--reason", "new kernel")
    ran = ctl("storm", "--dry-run")
    assert ran.code == 2
    assert "20 cgroups x 10 = 200 tasks" in ran.out
    assert "new kernel" in ran.out
    assert "This storm may not run." in ran.out


def test_lock_can_stop_the_running_storm(ctl: Ctl, backstage: Backstage) -> None:
    storm = backstage.daemon.storms.running = PretendedStorm("storm-1", plan())
    assert "storm-1 is stopping" in ctl("lock", "--reason", "fire", "--stop").out
    assert storm.stop_reasons[0].endswith("locked storms: fire")


@pytest.mark.parametrize("argv", [["lock"], ["audit", "--limit", "0"], ["audit", "--limit", "x"], ["unlock", "now"]])
def test_wrong_usage(ctl: Ctl, argv: list[str]) -> None:
    assert ctl(*argv).code == 1


def test_audit(ctl: Ctl, backstage: Backstage) -> None:
    backstage.daemon.audit.start()
    ctl("lock", "--reason", "evil \x7f"[:4] + "\u202e")
    ctl("unlock")
    ctl("storm", "--yes", "--detach", "--cgroups", "3")
    backstage.daemon.audit.close(10)
    answer = ctl("--json", "audit").json
    assert [entry["command"] for entry in answer["entries"]] == ["storm", "unlock", "lock"]
    header, storm, unlock, lock, where = ctl("audit").out.splitlines()
    assert header.split() == ["time", "outcome", "command", "who", "door", "storm", "more"]
    assert storm.split()[1:3] == ["done", "storm"]
    assert "storm-1" in storm
    assert '"cgroups": 3' in storm
    assert "unix" in unlock
    assert "reason evil\\u202e" in lock
    assert where == f"# The whole log is in {backstage.daemon.state}/audit.jsonl."
    assert len(ctl("--json", "audit", "--limit", "1").json["entries"]) == 1


def test_lost_lines_are_told(ctl: Ctl, backstage: Backstage) -> None:
    backstage.daemon.audit.lost = 2
    assert "# 2 lines could not be written" in ctl("audit").out
