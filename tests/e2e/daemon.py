"""A real daemon with a directory, socket and port of its own, whose storms are in a cgroup of the tests'."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.live.kernel import cgroups_below, children, command_line, marked, wait_for_no_task, wait_until

BIN = Path(sys.executable).parent
Sections = Mapping[str, Mapping[str, object]]


class Daemon:
    """``slabwatch`` as a child process. Nothing that it leaves behind escapes ``close``."""

    def __init__(
        self,
        directory: Path,
        parent: Path | None,
        sections: Sections | None = None,
        pids_parent: Path | None = None,
    ) -> None:
        self.directory = directory
        self.parent = parent
        self.pids_parent = pids_parent  # cgroup v1
        self.config = directory / "slabwatch.toml"
        self.socket = directory / "run" / "control.sock"
        self.state = directory / "state"
        self.log = directory / "log"
        self.banner = directory / "stdout"
        self.prefix: tuple[str, ...] = ()  # to run it as another user
        self.arguments: tuple[str, ...] = ()
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.sections = sections or {}
        self._log_begins = 0
        self.write_config()

    def write_config(self, sections: Sections | None = None) -> None:
        """The tests' settings, with a test's own on top."""
        merged: dict[str, dict[str, object]] = {
            "poll": {"interval_seconds": 2.0},
            "metrics": {"listen": "127.0.0.1:0"},
            "control": {"socket": str(self.socket)},
            "storm": {"enabled": self.parent is not None},
            "shrink": {"enabled": True},
            "state": {"directory": str(self.state)},
            "log": {"level": "info", "format": "json"},
        }
        if self.parent is not None:
            merged["storm"]["parent"] = f"/{self.parent.name}"
        for name, values in (sections or self.sections).items():
            merged.setdefault(name, {}).update(values)
        lines: list[str] = []
        for name, values in merged.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it, and do not wait."""
        self._log_begins = self.log.stat().st_size if self.log.exists() else 0
        command = [*self.prefix, str(BIN / "slabwatch"), "--config", str(self.config), *self.arguments]
        with open(self.log, "ab") as log, open(self.banner, "wb") as banner:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=banner, stderr=log, env={**_environment(), **self.environment}
            )
        return self.process

    def start(self) -> Daemon:
        """Start it, and wait until it serves."""
        process = self.spawn()
        wait_until(lambda: self.events("ready") or process.poll() is not None, 60, "the daemon is ready")
        assert process.poll() is None, self.log.read_text(encoding="utf-8")
        self.url = self.events("ready")[-1]["metrics_url"].removesuffix("/metrics")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def engine(self) -> int:
        """Its storm's engine."""
        return next(pid for pid in children(self.pid) if "slabwatch.storm.engine" in command_line(pid))

    def wait(self, seconds: float = 20) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What it has logged since it was started last: all, or the lines of one event."""
        with suppress(FileNotFoundError), open(self.log, "rb") as file:
            file.seek(self._log_begins)
            lines = [json.loads(line) for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
            return [line for line in lines if not name or line["event"] == name]
        return []

    def storm_ids(self) -> list[str]:
        """All storms that it has started."""
        if not self.log.exists():
            return []
        lines = map(json.loads, filter(lambda line: line.startswith(b"{"), self.log.read_bytes().splitlines()))
        return [line["storm"] for line in lines if line["event"] == "storm_started"]

    # The two doors.

    def get(self, path: str, headers: Mapping[str, str] | None = None, seconds: float = 5) -> tuple[int, str, bytes]:
        """Status, content type and body from the metrics' address."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                return response.status, response.headers["Content-Type"], response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read()

    def metric(self, series: str) -> float | None:
        """The value of one series, labels and all, as the text format has it."""
        for line in self.get("/metrics")[2].decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == series:
                return float(value)
        return None

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON from the control socket."""
        with self._asked(method, path, body) as response:
            return response.status, json.loads(response.read())

    @contextmanager
    def _asked(self, method: str, path: str, body: object = None) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def begin_storm(self, **wishes: object) -> str:
        """Start a small storm without a client that follows it; its id."""
        status, answer = self.ask("POST", "/v1/storms", {"shrink": False, **wishes})
        assert status == 202, answer
        return str(answer["id"])

    def storm_events(self, storm_id: str) -> Iterator[dict[str, Any]]:
        """A storm's events as they come."""
        with self._asked("GET", f"/v1/storms/{storm_id}/events") as response:
            assert response.status == 200
            while line := response.readline():
                yield json.loads(line)

    @contextmanager
    def followed(self, storm_id: str) -> Iterator[list[dict[str, Any]]]:
        """A client that follows a storm from the side; its events, complete when the daemon has gone."""
        seen: list[dict[str, Any]] = []
        with self._asked("GET", f"/v1/storms/{storm_id}/events") as response:
            assert response.status == 200

            def read() -> None:
                while line := response.readline():
                    seen.append(json.loads(line))

            reader = threading.Thread(target=read)
            reader.start()
            try:
                yield seen
            finally:
                reader.join(30)

    def wait_for_phase(self, storm_id: str, phase: str) -> None:
        """Return in the moment in which the phase begins."""
        for event in self.storm_events(storm_id):
            if event["event"] == "phase" and event["phase"] == phase:
                return
            assert event["event"] != "end", f"it ended without phase {phase}: {event['outcome']}, {event['reason']}"

    def record(self, storm_id: str) -> dict[str, Any]:
        """Wait for a storm's end; its record."""
        events = list(self.storm_events(storm_id))
        assert events[-1]["event"] == "end"
        record: dict[str, Any] = events[-1]["record"]
        return record

    def ctl(self, *arguments: str, prefix: Sequence[str] = (), seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """``slabwatchctl`` with this daemon, to its end."""
        command = [*prefix, *self.ctl_command(*arguments)]
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=_environment(),
            check=False,
        )

    def ctl_command(self, *arguments: str) -> list[str]:
        return [str(BIN / "slabwatchctl"), "--host", f"unix://{self.socket}", *arguments]

    # What must be so in the end.

    def close(self) -> None:
        """End it in whichever state it is."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def assert_nothing_left(self, seconds: float = 5) -> None:
        """No cgroup, and no process with the mark of one of its storms."""
        for storm_id in self.storm_ids():
            wait_for_no_task(storm_id, seconds)
        wait_until(lambda: not self.cgroups(), seconds, f"no cgroup is left: {self.cgroups()[:3]}")

    def cgroups(self) -> list[Path]:
        """All cgroups of its storms, in each hierarchy."""
        return [path for parent in (self.parent, self.pids_parent) if parent for path in cgroups_below(parent)]

    def root(self, storm_id: str) -> Path:
        """A storm's root in the memory hierarchy."""
        assert self.parent is not None
        return self.parent / f"slabwatch-storm-{storm_id}"

    def pids_root(self, storm_id: str) -> Path:
        """The cgroup whose pids.max holds for a storm."""
        return self.pids_parent / f"slabwatch-storm-{storm_id}" if self.pids_parent else self.root(storm_id)

    def assert_no_defect(self) -> None:
        """Its log holds events, or messages before it serves: no traceback, and nothing that asyncio found amiss."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        amiss = [line for line in lines if not line.startswith(("{", "slabwatch: "))]
        events = map(json.loads, filter(lambda line: line.startswith("{"), lines))
        amiss += [str(event) for event in events if "exception" in event or event["logger"] == "asyncio"]
        assert not amiss, "\n".join(amiss).replace("\\n", "\n")

    def kill_what_is_left(self) -> None:
        """After a test has failed: leave nothing behind all the same."""
        for storm_id in self.storm_ids():
            for pid in marked(storm_id):
                print("killed what was left:", pid, command_line(pid)[:200])
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 10
        while (left := self.cgroups()) and time.monotonic() < until:
            for path in reversed(left):
                with suppress(OSError):
                    path.rmdir()
            time.sleep(0.05)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("slabwatch", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _environment() -> dict[str, str]:
    """The tests' own, without what would make a daemon or a client choose another place."""
    hidden = ("SLABWATCH_", "XDG_", "INVOCATION_ID", "NOTIFY_SOCKET")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)}


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory for a daemon, below which users other than root can get too (pytest's own are closed to them)."""
    with tempfile.TemporaryDirectory(prefix="slabwatch-e2e-") as name:
        os.chmod(name, 0o755)
        yield Path(name)
