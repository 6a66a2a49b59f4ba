"""The daemon's configuration: one schema from which file, help, example and checks are made.

``load(path)`` reads TOML and gives a frozen ``Config``, or raises ``ConfigError`` that names file, key and
what is allowed. Paths that default to "" are chosen by ``Config.runtime_directory()`` and friends, because
they depend on who runs the daemon: root uses /run and /var/lib, anyone else the XDG directories.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from slabwatch.errors import ConfigError

Seconds = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Poll(Section):
    """How often the kernel is read."""

    interval_seconds: Seconds = Field(
        10.0, ge=0.5, le=3600, description="Seconds from one poll to the next, on a fixed grid."
    )
    max_read_ratio: Annotated[float, Field(ge=0.001, le=1)] = Field(
        0.05,
        description="Most of the time that may go into reading slabinfo, which takes locks that all need. "
        "A read that took longer keeps the next ones back.",
    )


class Metrics(Section):
    """The exposition for Prometheus. Open to whoever can connect, unless the web configuration says otherwise."""

    listen: str = Field(
        "127.0.0.1:9934",
        description="Address and port of /metrics. IPv6 in brackets: [::1]:9934. Needs a restart.",
    )
    web_config_file: str = Field(
        "",
        description="File in the form of Prometheus' exporter-toolkit (web.config.file): TLS, client certificates, "
        "basic authentication, headers, rate limit. Read again when it or a certificate changes; to name another file, "
        "or one at all, needs a restart.",
    )

    @field_validator("listen")
    @classmethod
    def _address_and_port(cls, value: str) -> str:
        return _checked_address(value)

    def address(self) -> tuple[str, int]:
        """Host without brackets, and port (0: any free one)."""
        return _address(self.listen)


def _checked_address(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError('must be "ADDRESS:PORT" with a port of 0 to 65535')
    return value


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Control(Section):
    """The control socket. Who may open it may ask; who may change something is `operators`."""

    socket: str = Field(
        "",
        description="Path of the unix socket. Empty: $RUNTIME_DIRECTORY/slabwatch.sock as a service, "
        "/run/slabwatch/slabwatch.sock as root, else $XDG_RUNTIME_DIR/slabwatch/slabwatch.sock, "
        "in /tmp/slabwatch-UID where that variable is not set. Needs a restart.",
    )
    owner: str = Field(
        "", description="User that owns the socket (name or uid). Empty: the daemon's own. Needs a restart."
    )
    group: str = Field(
        "", description="Group that may open the socket (name or gid). Empty: the daemon's own. Needs a restart."
    )
    operators: tuple[str, ...] = Field(
        (),
        strict=False,
        description='Users (names or uids; "group:NAME" for a group) that may run storms, shrink and reload, '
        "besides root and the daemon's own user.",
    )


# A name in a client certificate, as patterns of [remote] and [rights] begin with. "*" stands for any text.
SAN_KINDS = ("DNS:", "URI:", "EMAIL:")
LOCAL_KINDS = ("user:", "group:")
Names = tuple[str, ...]


def _check_kinds(values: Names, kinds: tuple[str, ...]) -> Names:
    for value in values:
        kind = value[: value.find(":") + 1]
        if kind not in kinds or value == kind:
            raise ValueError(f"{value!r} must be one of {', '.join(kinds)} with a name behind")
    return values


class Remote(Section):
    """The control API over mutual TLS 1.3, for other hosts. Certificates and lists are read again at a reload."""

    listen: str = Field("", description='Address and port, such as "0.0.0.0:9935". Empty: off.')
    cert: str = Field("", description="PEM file: the daemon's certificate, then those between it and its CA.")
    key: str = Field("", description="PEM file: the private key of that certificate, without a passphrase.")
    client_ca: str = Field("", description="PEM file: the CAs of the clients' certificates. Nobody else is let in.")
    crl: str = Field(
        "",
        description="PEM file: a revocation list of each of these CAs, and of those between a root and a client. "
        "Empty: revocation is not looked at.",
    )
    viewers: Names = Field(
        (),
        strict=False,
        description='Names in client certificates that may look: "DNS:...", "URI:..." or "EMAIL:...", '
        "where * is any text.",
    )
    operators: Names = Field((), strict=False, description="The same, that may run storms, shrink and reload too.")

    @field_validator("listen")
    @classmethod
    def _address_and_port(cls, value: str) -> str:
        return value and _checked_address(value)

    @field_validator("viewers", "operators")
    @classmethod
    def _sans(cls, values: Names) -> Names:
        return _check_kinds(values, SAN_KINDS)

    def address(self) -> tuple[str, int]:
        """Host without brackets, and port (0: any free one)."""
        return _address(self.listen)


class Rights(Section):
    """Who may use one command: "user:NAME", "group:NAME", or a name in a client certificate as in [remote].
    Empty: the operators. At the local socket root and the daemon's own user may do everything."""

    storm: Names = Field((), strict=False, description="Run storms, and stop one's own.")
    stop: Names = Field((), strict=False, description="Stop any storm.")
    shrink: Names = Field((), strict=False, description="Shrink caches.")
    reload: Names = Field((), strict=False, description="Reload the configuration.")
    lock: Names = Field((), strict=False, description="Lock storms and shrinks for maintenance, and unlock them.")

    @field_validator("*")
    @classmethod
    def _named(cls, values: Names) -> Names:
        return _check_kinds(values, LOCAL_KINDS + SAN_KINDS)


class Audit(Section):
    """audit.jsonl in the state directory: one line for each command and each refusal."""

    max_file_bytes: int = Field(
        4_194_304, ge=65_536, le=1_073_741_824, description="A file that is larger becomes audit.jsonl.1, and so on."
    )
    keep: int = Field(4, ge=1, le=100, description="Older files that are kept.")


class Collectors(Section):
    """What is read at each poll. A collector that is off has no series."""

    slabinfo: bool = Field(True, description="/proc/slabinfo: needs root or CAP_DAC_READ_SEARCH.")
    meminfo: bool = Field(True, description="/proc/meminfo.")
    process: bool = Field(True, description="Processes, threads and forks, and the kernel's own object counts.")
    cgroup: bool = Field(True, description="Kernel memory of each memory cgroup, v1 or v2.")
    cgroup_slabinfo: bool = Field(
        False, description="memory.kmem.slabinfo of each cgroup v1, where it has content (before 5.9): many series."
    )
    slab_sysfs: bool = Field(False, description="/sys/kernel/slab: aliases and flags of each cache.")


class Caches(Section):
    """Which slab caches have series of their own. All are read, and counted in what no cache explains."""

    include: tuple[str, ...] = Field(("*",), strict=False, description="Shell patterns of names.")
    exclude: tuple[str, ...] = Field((), strict=False, description="Shell patterns of names, stronger than include.")
    max_count: int = Field(
        1000, ge=0, le=100_000, description='The largest caches, by bytes; the rest is summed in cache="__other__".'
    )


class Cgroups(Section):
    """Bounds of the cgroup collector. Paths are below the hierarchy's mount: /system.slice/cron.service."""

    include: tuple[str, ...] = Field(("*",), strict=False, description="Shell patterns of paths that are read.")
    exclude: tuple[str, ...] = Field((), strict=False, description="Shell patterns of paths that are not read at all.")
    max_count: int = Field(
        1000,
        ge=0,
        le=100_000,
        description='The largest, by kernel memory, have series of their own; the rest is cgroup="__other__".',
    )
    max_depth: int = Field(8, ge=0, le=64, description="Levels below the hierarchy's root that are read.")
    fold_storms: bool = Field(
        True, description='One series for a storm\'s cgroups, cgroup="/slabwatch-storm", instead of one for each.'
    )
    kept_descriptors: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Files of cgroups that stay open between polls: each saves 7 µs a poll and pins 5 kB of slab.",
    )
    populated_v1: bool = Field(
        False, description="Read cgroup.procs of each cgroup v1 to know which hold no task (v2 knows it at no cost)."
    )


class Storm(Section):
    """The load generator. Off until this file says otherwise. No client can go beyond these caps."""

    enabled: bool = Field(False, description="Allow storms.")
    parent: str = Field(
        "/",
        description="Cgroup below which the storm's own are made, as a path in the memory hierarchy. "
        "self: the daemon's own, which on v2 must be delegated to it (systemd: Delegate=memory pids).",
    )
    max_cgroups: int = Field(2000, ge=1, le=60_000, description="Most cgroups of one storm.")
    max_tasks: int = Field(250_000, ge=1, le=10_000_000, description="Most tasks of one storm, over all its cgroups.")
    max_live_tasks: int = Field(20_000, ge=1, le=4_000_000, description="Most tasks alive at one time.")
    max_ttl_seconds: Seconds = Field(3600.0, ge=1, le=86_400, description="Longest time that a storm may take.")
    min_available_ratio: Annotated[float, Field(ge=0.01, le=0.95)] = Field(
        0.10, description="MemAvailable / MemTotal that must be left: forecast before, watched during the storm."
    )
    pressure_host: bool = Field(
        False,
        description="Let a storm with --pressure use up memory outside of its own cgroup too, down to the floor below.",
    )
    pressure_floor_ratio: Annotated[float, Field(ge=0.05, le=0.95)] = Field(
        0.20, description="MemAvailable / MemTotal that such pressure leaves; never less than min_available_ratio."
    )
    keep_records: int = Field(100, ge=1, le=10_000, description="Finished storms kept in the state directory.")


class Shrink(Section):
    """Writing to /sys/kernel/slab/*/shrink: needs root or CAP_DAC_OVERRIDE."""

    enabled: bool = Field(False, description="Allow `slabwatchctl shrink`, and the shrink phase of storms.")


class State(Section):
    """Where the records of storms are kept."""

    directory: str = Field(
        "",
        description="Empty: $STATE_DIRECTORY as a service, /var/lib/slabwatch as root, "
        "else $XDG_STATE_HOME/slabwatch (~/.local/state/slabwatch). Needs a restart.",
    )


class Log(Section):
    """Logs go to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity that is written.")
    format: Literal["auto", "human", "json"] = Field("auto", description="auto: human on a terminal, JSON otherwise.")


class Config(Section):
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


def load(path: Path | None) -> Config:
    """Read and check a file (None: the defaults). Raises ConfigError, all problems in one message."""
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can not be read: {error}. Check the path, or leave --config out.") from error
    try:
        return Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        problems = "\n".join(f"{path}: {problem}" for problem in _problems(error))
        raise ConfigError(problems) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in thousands
        raise ConfigError(f"{path}: can not be used: {error}") from error


def _problems(error: ValidationError) -> list[str]:
    return [_problem(detail) for detail in error.errors()]


def _problem(detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] != "extra_forbidden":
        message = detail["msg"].removeprefix("Value error, ")
        return f"{key}: {message} (got {detail['input']!r})"
    section = Config.model_fields.get(location[0])
    inner = section.annotation if section and len(location) > 1 else Config
    allowed = sorted(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []
    close = difflib.get_close_matches(location[-1], allowed, n=1)
    guess = f" Did you mean {close[0]}?" if close else ""
    return f"{key}: unknown key.{guess} Allowed here: {', '.join(allowed)}"


def to_toml(config: Config, *, comments: bool = False) -> str:
    """The configuration as TOML; with ``comments`` each key carries its description and bounds."""
    lines: list[str] = []
    for name, field in Config.model_fields.items():
        section: Section = getattr(config, name)
        if lines:
            lines.append("")
        if comments and type(section).__doc__:
            lines += [f"# {line.strip()}" for line in (type(section).__doc__ or "").strip().splitlines()]
        lines.append(f"[{name}]")
        del field
        for key, info in type(section).model_fields.items():
            if comments:
                bounds = _bounds(info)
                lines.append(f"# {info.description}{bounds}")
            lines.append(f"{key} = {_toml_value(getattr(section, key))}")
    return "\n".join(lines) + "\n"


def _bounds(info: Any) -> str:
    limits = {name: getattr(part, name) for part in info.metadata for name in ("ge", "le") if hasattr(part, name)}
    if len(limits) == 2:
        return f" [{limits['ge']:g} to {limits['le']:g}]"
    choices = getattr(info.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return f" [{', '.join(choices)}]"
    return ""


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON's strings are TOML's basic strings, but for DEL, which TOML wants to be escaped too.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
