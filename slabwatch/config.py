"""The daemon's configuration: one form from which file, help, example and checks are made.

Paths that default to "" are chosen by ``Config.socket_path()`` and ``Config.state_directory()``, because they depend on
who runs the daemon: a service has systemd's directories, root /run and /var/lib, anyone else the XDG directories.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from slabwatch.form import Form, Then


def _checked_address(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError('must be "ADDRESS:PORT" with a port of 0 to 65535')
    return value


def _nothing_or_address(value: str) -> str:
    return value and _checked_address(value)


# A name in a client certificate, as patterns of [remote] and [rights] begin with. "*" stands for any text.
SAN_KINDS = ("DNS:", "URI:", "EMAIL:")
LOCAL_KINDS = ("user:", "group:")
Names = tuple[str, ...]


def _of_kinds(kinds: tuple[str, ...]) -> Then:
    def checked(values: Names) -> Names:
        for value in values:
            kind = value[: value.find(":") + 1]
            if kind not in kinds or value == kind:
                raise ValueError(f"{value!r} must be one of {', '.join(kinds)} with a name behind")
        return values

    return Then(checked)


San = Annotated[Names, _of_kinds(SAN_KINDS)]
AnyName = Annotated[Names, _of_kinds(LOCAL_KINDS + SAN_KINDS)]


class Poll(Form, frozen=True):
    """How often the kernel is read."""

    interval_seconds: Annotated[
        float, Meta(ge=0.5, le=3600, description="Seconds from one poll to the next, on a fixed grid.")
    ] = 10.0
    max_read_ratio: Annotated[
        float,
        Meta(
            ge=0.001,
            le=1,
            description="Most of the time that may go into reading slabinfo, which takes locks that all need. "
            "A read that took longer keeps the next ones back.",
        ),
    ] = 0.05


class Metrics(Form, frozen=True):
    """The exposition for Prometheus. Open to whoever can connect, unless the web configuration says otherwise."""

    listen: Annotated[
        str,
        Then(_checked_address),
        Meta(description="Address and port of /metrics. IPv6 in brackets: [::1]:9934. Needs a restart."),
    ] = "127.0.0.1:9934"
    web_config_file: Annotated[
        str,
        Meta(
            description="File in the form of Prometheus' exporter-toolkit (web.config.file): TLS, client certificates, "
            "basic authentication, headers, rate limit. Read again when it or a certificate changes; to name another "
            "file, or one at all, needs a restart."
        ),
    ] = ""

    def address(self) -> tuple[str, int]:
        """Host without brackets, and port (0: any free one)."""
        return _address(self.listen)


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Control(Form, frozen=True):
    """The control socket. Who may open it may ask; who may change something is `operators`."""

    socket: Annotated[
        str,
        Meta(
            description="Path of the unix socket. Empty: $RUNTIME_DIRECTORY/slabwatch.sock as a service, "
            "/run/slabwatch/slabwatch.sock as root, else $XDG_RUNTIME_DIR/slabwatch/slabwatch.sock, "
            "in /tmp/slabwatch-UID where that variable is not set. Needs a restart."
        ),
    ] = ""
    owner: Annotated[
        str, Meta(description="User that owns the socket (name or uid). Empty: the daemon's own. Needs a restart.")
    ] = ""
    group: Annotated[
        str, Meta(description="Group that may open the socket (name or gid). Empty: the daemon's own. Needs a restart.")
    ] = ""
    operators: Annotated[
        tuple[str, ...],
        Meta(
            description='Users (names or uids; "group:NAME" for a group) that may run storms, shrink and reload, '
            "besides root and the daemon's own user."
        ),
    ] = ()


class Remote(Form, frozen=True):
    """The control API over mutual TLS 1.3, for other hosts. Certificates and lists are read again at a reload."""

    listen: Annotated[
        str,
        Then(_nothing_or_address),
        Meta(description='Address and port, such as "0.0.0.0:9935". Empty: off.'),
    ] = ""
    cert: Annotated[str, Meta(description="PEM file: the daemon's certificate, then those between it and its CA.")] = ""
    key: Annotated[str, Meta(description="PEM file: the private key of that certificate, without a passphrase.")] = ""
    client_ca: Annotated[
        str, Meta(description="PEM file: the CAs of the clients' certificates. Nobody else is let in.")
    ] = ""
    crl: Annotated[
        str,
        Meta(
            description="PEM file: a revocation list of each of these CAs, and of those between a root and a client. "
            "Empty: revocation is not looked at."
        ),
    ] = ""
    viewers: Annotated[
        San,
        Meta(
            description='Names in client certificates that may look: "DNS:...", "URI:..." or "EMAIL:...", '
            "where * is any text."
        ),
    ] = ()
    operators: Annotated[San, Meta(description="The same, that may run storms, shrink and reload too.")] = ()

    def address(self) -> tuple[str, int]:
        """Host without brackets, and port (0: any free one)."""
        return _address(self.listen)


class Rights(Form, frozen=True):
    """Who may use one command: "user:NAME", "group:NAME", or a name in a client certificate as in [remote].
    Empty: the operators. At the local socket root and the daemon's own user may do everything."""

    storm: Annotated[AnyName, Meta(description="Run storms, and stop one's own.")] = ()
    stop: Annotated[AnyName, Meta(description="Stop any storm.")] = ()
    shrink: Annotated[AnyName, Meta(description="Shrink caches.")] = ()
    reload: Annotated[AnyName, Meta(description="Reload the configuration.")] = ()
    lock: Annotated[AnyName, Meta(description="Lock storms and shrinks for maintenance, and unlock them.")] = ()


class Audit(Form, frozen=True):
    """audit.jsonl in the state directory: one line for each command and each refusal."""

    max_file_bytes: Annotated[
        int, Meta(ge=65_536, le=1_073_741_824, description="A file that is larger becomes audit.jsonl.1, and so on.")
    ] = 4_194_304
    keep: Annotated[int, Meta(ge=1, le=100, description="Older files that are kept.")] = 4


class Collectors(Form, frozen=True):
    """What is read at each poll. A collector that is off has no series."""

    slabinfo: Annotated[bool, Meta(description="/proc/slabinfo: needs root or CAP_DAC_READ_SEARCH.")] = True
    meminfo: Annotated[bool, Meta(description="/proc/meminfo.")] = True
    process: Annotated[bool, Meta(description="Processes, threads and forks, and the kernel's own object counts.")] = (
        True
    )
    cgroup: Annotated[bool, Meta(description="Kernel memory of each memory cgroup, v1 or v2.")] = True
    cgroup_slabinfo: Annotated[
        bool,
        Meta(description="memory.kmem.slabinfo of each cgroup v1, where it has content (before 5.9): many series."),
    ] = False
    slab_sysfs: Annotated[bool, Meta(description="/sys/kernel/slab: aliases and flags of each cache.")] = False


class Caches(Form, frozen=True):
    """Which slab caches have series of their own. All are read, and counted in what no cache explains."""

    include: Annotated[tuple[str, ...], Meta(description="Shell patterns of names.")] = ("*",)
    exclude: Annotated[tuple[str, ...], Meta(description="Shell patterns of names, stronger than include.")] = ()
    max_count: Annotated[
        int,
        Meta(ge=0, le=100_000, description='The largest caches, by bytes; the rest is summed in cache="__other__".'),
    ] = 1000


class Cgroups(Form, frozen=True):
    """Bounds of the cgroup collector. Paths are below the hierarchy's mount: /system.slice/cron.service."""

    include: Annotated[tuple[str, ...], Meta(description="Shell patterns of paths that are read.")] = ("*",)
    exclude: Annotated[tuple[str, ...], Meta(description="Shell patterns of paths that are not read at all.")] = ()
    max_count: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description='The largest, by kernel memory, have series of their own; the rest is cgroup="__other__".',
        ),
    ] = 1000
    max_depth: Annotated[int, Meta(ge=0, le=64, description="Levels below the hierarchy's root that are read.")] = 8
    fold_storms: Annotated[
        bool, Meta(description='One series for a storm\'s cgroups, cgroup="/slabwatch-storm", instead of one for each.')
    ] = True
    kept_descriptors: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Files of cgroups that stay open between polls: each saves 7 µs a poll and pins 5 kB of slab.",
        ),
    ] = 1000
    populated_v1: Annotated[
        bool,
        Meta(description="Read cgroup.procs of each cgroup v1 to know which hold no task (v2 knows it at no cost)."),
    ] = False


class Storm(Form, frozen=True):
    """The load generator. Off until this file says otherwise. No client can go beyond these caps."""

    enabled: Annotated[bool, Meta(description="Allow storms.")] = False
    parent: Annotated[
        str,
        Meta(
            description="Cgroup below which the storm's own are made, as a path in the memory hierarchy. "
            "self: the daemon's own, which on v2 must be delegated to it (systemd: Delegate=memory pids)."
        ),
    ] = "/"
    max_cgroups: Annotated[int, Meta(ge=1, le=60_000, description="Most cgroups of one storm.")] = 2000
    max_tasks: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Most tasks of one storm, over all its cgroups.")
    ] = 250_000
    max_live_tasks: Annotated[int, Meta(ge=1, le=4_000_000, description="Most tasks alive at one time.")] = 20_000
    max_ttl_seconds: Annotated[float, Meta(ge=1, le=86_400, description="Longest time that a storm may take.")] = 3600.0
    min_available_ratio: Annotated[
        float,
        Meta(
            ge=0.01,
            le=0.95,
            description="MemAvailable / MemTotal that must be left: forecast before, watched during the storm.",
        ),
    ] = 0.10
    pressure_host: Annotated[
        bool,
        Meta(
            description="Let a storm with --pressure use up memory outside of its own cgroup too, "
            "down to the floor below."
        ),
    ] = False
    pressure_floor_ratio: Annotated[
        float,
        Meta(
            ge=0.05,
            le=0.95,
            description="MemAvailable / MemTotal that such pressure leaves; never less than min_available_ratio.",
        ),
    ] = 0.20
    keep_records: Annotated[int, Meta(ge=1, le=10_000, description="Finished storms kept in the state directory.")] = (
        100
    )


class Shrink(Form, frozen=True):
    """Writing to /sys/kernel/slab/*/shrink: needs root or CAP_DAC_OVERRIDE."""

    enabled: Annotated[bool, Meta(description="Allow `slabwatchctl shrink`, and the shrink phase of storms.")] = False


class State(Form, frozen=True):
    """Where the records of storms are kept."""

    directory: Annotated[
        str,
        Meta(
            description="Empty: $STATE_DIRECTORY as a service, /var/lib/slabwatch as root, "
            "else $XDG_STATE_HOME/slabwatch (~/.local/state/slabwatch). Needs a restart."
        ),
    ] = ""


class Log(Form, frozen=True):
    """Logs go to stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severity that is written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "human", "json"], Meta(description="auto: human on a terminal, JSON otherwise.")
    ] = "auto"


class Config(Form, frozen=True):
    """Everything, by section."""

    poll: Poll = Poll()
    metrics: Metrics = Metrics()
    control: Control = Control()
    remote: Remote = Remote()
    rights: Rights = Rights()
    audit: Audit = Audit()
    collectors: Collectors = Collectors()
    caches: Caches = Caches()
    cgroups: Cgroups = Cgroups()
    storm: Storm = Storm()
    shrink: Shrink = Shrink()
    state: State = State()
    log: Log = Log()

    def socket_path(self) -> Path:
        """The control socket, with the default filled in."""
        if self.control.socket:
            return Path(self.control.socket)
        runtime = _given_by_systemd("RUNTIME_DIRECTORY")
        return runtime / "slabwatch.sock" if runtime else default_socket()

    def state_directory(self) -> Path:
        """The records' directory, with the default filled in."""
        if self.state.directory:
            return Path(self.state.directory)
        if state := _given_by_systemd("STATE_DIRECTORY"):
            return state
        if os.geteuid() == 0:
            return Path("/var/lib/slabwatch")
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "slabwatch"


def _given_by_systemd(variable: str) -> Path | None:
    """The first of the directories that the service's unit sets up: systemd.exec(5)."""
    first = os.environ.get(variable, "").partition(":")[0]
    return Path(first) if first else None


def default_socket() -> Path:
    """Where a daemon of this user listens when nothing says otherwise."""
    if os.geteuid() == 0:
        return Path("/run/slabwatch/slabwatch.sock")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or temporary_runtime()) / "slabwatch" / "slabwatch.sock"


def temporary_runtime() -> Path:
    """What stands in for $XDG_RUNTIME_DIR. Anybody can have made it: whoever uses it looks whose it is."""
    return Path(f"/tmp/slabwatch-{os.geteuid()}")
