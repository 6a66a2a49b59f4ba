"""With systemd as PID 1, on cgroup v2 or v1: the unit and its drop-ins, installed as docs/systemd.md says.

    cd /payload; python3 -m tests.vm.guests.systemd

Each step says what it saw; the first that is not so ends the guest with a traceback and what the journal holds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAYLOAD = Path.cwd()
ENVIRONMENT = Path("/opt/slabwatch")
CONFIG = Path("/etc/slabwatch/slabwatch.toml")
DROP_INS = Path("/etc/systemd/system/slabwatch.service.d")
V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
UNIT_CGROUP = Path("/sys/fs/cgroup", "" if V2 else "memory", "system.slice/slabwatch.service")
METRICS = "http://127.0.0.1:9934"
# Emulation is slow: a start of the daemon takes 10 s, of slabwatchctl 5 s.
SECONDS = 120.0
# The unit's own are a minute and 5 s, and were seen to work; the test need not wait for them.
QUICK = "[Service]\nWatchdogSec=15\nRestartSec=1\n"


def main() -> None:
    steps: tuple[Callable[[], str], ...] = (
        install,
        start,
        serve,
        refuse_a_storm,
        allow,
        storm,
        shrink,
        reload,
        watchdog,
        kill_all_mid_storm,
        kill_daemon_mid_storm,
        stop_mid_storm,
    )
    for step in steps:
        begun = time.monotonic()
        try:
            said = step()
        except BaseException:
            status = run("systemctl", "status", "-n0", "slabwatch", check=False)[:2000]
            print(f"{journal()[-4000:]}\n{status}\n{run('dmesg')[-2000:]}", flush=True)
            raise
        print(f"{step.__name__}: {said} [{time.monotonic() - begun:.1f} s]", flush=True)


def install() -> str:
    """A virtual environment, the unit's files, user and directories."""
    run(sys.executable, "-m", "venv", "--without-pip", str(ENVIRONMENT))
    packages = ENVIRONMENT / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    shutil.copytree(PAYLOAD / "site", packages, dirs_exist_ok=True)
    for name in ("slabwatch", "slabwatchctl"):
        text = (PAYLOAD / "bin" / name).read_text(encoding="utf-8").partition("\n")[2]
        script = ENVIRONMENT / "bin" / name
        script.write_text(f"#!{ENVIRONMENT}/bin/python3\n{text}", encoding="utf-8")
        script.chmod(0o755)
        Path("/usr/local/bin", name).symlink_to(script)
    units = PAYLOAD / "systemd"
    shutil.copy(units / "slabwatch.service", "/etc/systemd/system/slabwatch.service")
    for kind, directory in (("sysusers", "/etc/sysusers.d"), ("tmpfiles", "/etc/tmpfiles.d")):
        Path(directory).mkdir(exist_ok=True)
        shutil.copy(units / f"slabwatch.{kind}", f"{directory}/slabwatch.conf")
    run("systemd-sysusers", "slabwatch.conf")
    run("systemd-tmpfiles", "--create", "slabwatch.conf")
    complaints = run("systemd-analyze", "verify", "/etc/systemd/system/slabwatch.service")
    assert complaints == "", complaints
    return f"{run('systemctl', '--version').splitlines()[0]}, {run('id', 'slabwatch').strip()}"


def start() -> str:
    """Returns when READY has been said."""
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "slabwatch")
    assert show("ActiveState") == "active"
    assert urllib.request.urlopen(f"{METRICS}/-/ready", timeout=10).status == 200
    pid = int(show("MainPID"))
    wait_until(lambda: show("StatusText"), "a status line")
    status = process_status(pid)
    assert status["CapEff"] == "0000000000000004", f"CAP_DAC_READ_SEARCH and no more: {status['CapEff']}"
    return f"{show('StatusText')}; uid {status['Uid'].split()[0]}, CapEff {status['CapEff']}"


def serve() -> str:
    """All collectors work for the unprivileged user behind all those walls."""
    page = metrics()
    failed = [name for name, value in page.items() if name.startswith("slabwatch_collector_success") and value != 1]
    assert not failed, failed
    assert page['slabwatch_slab_objects{cache="task_struct"}'] > 0
    processes = sum(name.isdigit() for name in os.listdir("/proc"))
    assert abs(page["slabwatch_processes"] - processes) < 10, (page["slabwatch_processes"], processes)
    status = json.loads(ctl("--json", "status"))
    return f"{len(page)} series, {page['slabwatch_processes']:.0f} processes, state {status['state']}"


def refuse_a_storm() -> str:
    """Allowed by the configuration alone: the unit does not let it. On v1 it takes root besides."""
    configure(storm=True)
    run("systemctl", "reload", "slabwatch")
    wait_until(lambda: "storm_disabled" not in (said := ctl("storm", "--yes", check=False)) and said, "the reload")
    said = ctl("storm", "--yes", check=False)
    assert ("Delegate=memory pids" if V2 else "no right to make cgroups") in said, said
    return said.strip().splitlines()[-1]


def allow() -> str:
    """The drop-ins, and a restart."""
    configure(storm=True, shrink=True)
    DROP_INS.mkdir()
    for name in ("storm.conf", "shrink.conf") if V2 else ("storm.conf", "shrink.conf", "storm-v1.conf"):
        shutil.copy(PAYLOAD / "systemd" / name, DROP_INS / name)
    (DROP_INS / "quick.conf").write_text(QUICK, encoding="utf-8")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "slabwatch")
    findings = {finding["name"]: finding for finding in json.loads(ctl("--json", "doctor"))["findings"]}
    assert findings["storm smoke"]["state"] == "ok", findings["storm smoke"]
    assert findings["shrink"]["state"] == "ok", findings["shrink"]
    pid = int(show("MainPID"))
    return f"doctor: storm and shrink ok; CapEff {process_status(pid)['CapEff']}, cgroup {cgroup_of(pid)}"


def storm() -> str:
    """In the delegated subtree, by every kind of task."""
    said = []
    for kind, shape in (("fork", "40x10"), ("light", "40x10"), ("exec", "10x10"), ("shell", "3x1")):
        asked = ("--cgroups", shape.partition("x")[0], "--tasks", shape.partition("x")[2], "--hold", "0")
        line = ctl("--json", "storm", "--yes", "--kind", kind, *asked, "--settle", "1", check=False)
        record = json.loads(line.splitlines()[-1])
        tasks, cgroups = record["tasks"], record["cgroups"]
        assert record["outcome"] == "completed", record["reason"]
        assert tasks["started"] == tasks["requested"], tasks
        assert (cgroups["leftover"], cgroups["removed"]) == (0, cgroups["requested"]), cgroups
        charged = cgroups["charges"]
        assert charged["charged"] == charged["cgroups"] == cgroups["requested"], charged
        said.append(f"{kind}: {tasks['started']} tasks in {charged['charged']} cgroups, each charged for its own")
    assert storm_cgroups() == []
    where = cgroup_of(int(show("MainPID")))
    assert not V2 or where == "/system.slice/slabwatch.service/slabwatch-daemon", where
    return f"daemon in {where}; " + "; ".join(said)


def shrink() -> str:
    """With the capability, through the one writable part of /sys."""
    result = json.loads(ctl("--json", "shrink"))
    errors = [row for row in result["caches"] if row["error"]]
    assert not errors, errors[:3]
    return f"{len(result['caches'])} caches, no error"


def reload() -> str:
    """A good file is taken; a bad one fails the reload with its reason, and changes nothing."""
    configure(storm=True, shrink=True, interval=3.0)
    run("systemctl", "reload", "slabwatch")
    wait_until(lambda: metrics()["slabwatch_poll_interval_seconds"] == 3, "the new interval")
    wait_until(lambda: show("SubState") == "running", "READY after RELOADING")
    good = CONFIG.read_text(encoding="utf-8")
    CONFIG.write_text(good + "nonsense = 1\n", encoding="utf-8")
    assert "failed" in run("systemctl", "reload", "slabwatch", check=False)
    CONFIG.write_text(good, encoding="utf-8")
    reason = next(line for line in journal().splitlines() if "nonsense: unknown key" in line)
    assert show("ActiveState") == "active"
    # A file that is changed between the check and the signal.
    pid = int(show("MainPID"))
    CONFIG.write_text("[storm\n", encoding="utf-8")
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: metrics()["slabwatch_config_last_reload_successful"] == 0, "the failed reload")
    wait_until(lambda: show("SubState") == "running", "READY after a failed reload")
    CONFIG.write_text(good, encoding="utf-8")
    run("systemctl", "reload", "slabwatch")
    wait_until(lambda: metrics()["slabwatch_config_last_reload_successful"] == 1, "the good one")
    return f"interval 3 s taken; a bad file: {reason}"


def watchdog() -> str:
    """A daemon that is stopped mid-storm says nothing more: it is killed and started again, and nothing is left."""
    begin_storm()
    restarts, pid, busy = int(show("NRestarts")), int(show("MainPID")), len(storm_cgroups())
    os.kill(pid, signal.SIGSTOP)
    took = wait_for_restart(restarts)
    said = [line for line in run("dmesg").splitlines() if "Watchdog timeout" in line]
    assert said, "systemd has another reason to restart it"
    assert int(show("MainPID")) != pid
    assert_nothing_left()
    return f"{busy} cgroups before, 0 after; {said[-1].partition('] ')[2]} Back after {took:.0f} s"


def kill_all_mid_storm() -> str:
    """SIGKILL to all of the unit at one time: nobody is left to clean up but the unit's ExecStopPost."""
    return kill_mid_storm("all")


def kill_daemon_mid_storm() -> str:
    """SIGKILL to the daemon alone: its engine begins to clean up, until systemd kills it too."""
    return kill_mid_storm("main", "exec")


def kill_mid_storm(whom: str, kind: str = "fork") -> str:
    begin_storm(kind)
    if kind == "exec":  # programs that the storm starts have none of the daemon's capabilities
        rights = {process_status(pid)["CapEff"] for pid in tasks_of_storms() if process_status(pid)["Name"] == "cat"}
        assert rights == {"0" * 16}, rights
    restarts, busy = int(show("NRestarts")), len(storm_cgroups())
    run("systemctl", "kill", "-s", "KILL", f"--kill-whom={whom}", "slabwatch")
    took = wait_for_restart(restarts)
    assert_nothing_left()
    said = [line for line in journal().splitlines() if "cgroups removed" in line]
    return f"{busy} cgroups before, 0 after; back after {took:.0f} s; {said[-1]}"


def stop_mid_storm() -> str:
    """SIGTERM: the storm ends in good order within TimeoutStopSec, and the unit has not failed."""
    begin_storm()
    busy, began = len(storm_cgroups()), time.monotonic()
    run("systemctl", "stop", "slabwatch")
    took = time.monotonic() - began
    assert show("ActiveState") == "inactive", show("ActiveState")
    assert show("Result") == "success", show("Result")
    assert not UNIT_CGROUP.exists()
    assert (invocation := journal().rpartition('"event": "stopping"')[2])
    assert '"level": "error"' not in invocation
    assert tasks_of_storms() == []
    records = sorted(Path("/var/lib/slabwatch/storms").glob("*.json"))
    record = json.loads(records[-1].read_text(encoding="utf-8"))
    assert (record["outcome"], record["reason"]) == ("stopped", "the daemon stops"), record["reason"]
    assert took < 20
    return f"{busy} cgroups; stopped after {took:.1f} s, record of {records[-1].stem} written, unit's cgroup gone"


def configure(*, storm: bool = False, shrink: bool = False, interval: float = 5.0) -> None:
    lines = ["[poll]", f"interval_seconds = {interval}", "[storm]", f"enabled = {str(storm).lower()}"]
    lines += ['parent = "self"', "[shrink]", f"enabled = {str(shrink).lower()}", ""]
    CONFIG.write_text("\n".join(lines), encoding="utf-8")


def begin_storm(kind: str = "fork") -> None:
    """50 cgroups with 10 tasks each, or 4 of the programs, which take longer to start."""
    tasks = 4 if kind == "exec" else 10
    shape = ("--cgroups", "50", "--tasks", str(tasks), "--kind", kind, "--hold", "300", "--ttl", "600")
    ctl("storm", "--yes", "--detach", *shape)
    wait_until(lambda: metrics().get("slabwatch_storm_live_tasks") == 50 * tasks, "all tasks are alive")


def wait_for_restart(restarts_before: int) -> float:
    began = time.monotonic()
    wait_until(lambda: int(show("NRestarts")) > restarts_before and show("ActiveState") == "active", "a restart")
    return time.monotonic() - began


def assert_nothing_left() -> None:
    assert storm_cgroups() == [], storm_cgroups()[:3]
    assert tasks_of_storms() == []
    left = [str(path) for path in UNIT_CGROUP.rglob("slabwatch-storm-*")]
    assert left == [], left


def storm_cgroups() -> list[Path]:
    return sorted(UNIT_CGROUP.glob("slabwatch-storm-*/c[0-9]*"))


def tasks_of_storms() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if b"SLABWATCH_STORM=" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def cgroup_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
    kind = "" if V2 else "memory"
    return next(path for _, controllers, path in (line.split(":", 2) for line in lines) if controllers == kind)


def process_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def metrics() -> dict[str, float]:
    with urllib.request.urlopen(f"{METRICS}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def journal() -> str:
    return run("journalctl", "--no-pager", "-o", "cat", "-u", "slabwatch")


def show(property_name: str) -> str:
    return run("systemctl", "show", "--value", "-p", property_name, "slabwatch").strip()


def ctl(*arguments: str, check: bool = True) -> str:
    return run("slabwatchctl", *arguments, check=check)


def run(*command: str, check: bool = True) -> str:
    """Its output, complaints included. With ``check`` it must succeed."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if not check else subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def wait_until(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"after {seconds:g} s still not so: {what}"
        time.sleep(0.5)


if __name__ == "__main__":
    main()
