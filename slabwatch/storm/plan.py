"""What a storm is to do: presets, wishes and the daemon's caps become one plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from slabwatch.errors import StormRejected

if TYPE_CHECKING:  # the command line's help names the presets, and does without msgspec
    from slabwatch.config import Config

Kind = Literal["light", "fork", "exec", "shell"]
KINDS: tuple[Kind, ...] = ("light", "fork", "exec", "shell")

# When the storm's cgroups are removed. last: when all has been measured. first: as soon as the tasks are gone, with a
# page still charged to each, so that they stay dying. each: one by one, right after use, as short units of systemd do.
Removal = Literal["last", "first", "each"]

# What each kind of task is, for plans, reports and help.
KIND_TEXT: Mapping[str, str] = {
    "light": "processes that share the worker's memory map (raw clone with CLONE_VM)",
    "fork": "processes with a memory map of their own (raw clone, as fork does)",
    "exec": "processes that run a program of their own (cat, waiting)",
    "shell": "`sleep 1` started by a shell script, one at a time in each cgroup",
}

MOST = 1_000_000_000  # beyond every cap; keeps out the infinite

MOST_PRESSURE_SECONDS = 30.0  # for each place where memory is used up

PHASES = ("baseline", "create", "load", "hold", "drain", "settle", "pressure", "shrink", "cleanup")


@dataclass(frozen=True, slots=True)
class Plan:
    """A storm, fully decided. ``tasks`` is per cgroup; ``live_tasks`` bounds those alive at one time."""

    preset: str
    cgroups: int
    tasks: int
    kind: Kind
    concurrency: int  # cgroups that are being filled at one time; 0: one a CPU, kind shell all of them
    live_tasks: int  # 0 in a preset: all
    baseline_seconds: float
    hold_seconds: float
    settle_seconds: float
    shrink: bool
    ttl_seconds: float
    on_disconnect: Literal["continue", "stop"]
    shell: Literal["bash", "sh"]
    removal: Removal = "last"
    cgroups_per_second: float = 0.0  # made and used at this rate, over all workers; 0: as fast as it goes
    pressure: bool = False  # use memory up, after the settle time: in the storm's own cgroup...
    pressure_host: bool = False  # ...and then on the host, where the configuration allows that

    @property
    def total_tasks(self) -> int:
        """Tasks over all cgroups."""
        return self.cgroups * self.tasks

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self) | {"total_tasks": self.total_tasks, "kind_text": KIND_TEXT[self.kind]}


@dataclass(frozen=True, slots=True)
class Caps:
    """The daemon's limits, from its configuration. No request goes beyond them."""

    max_cgroups: int
    max_tasks: int
    max_live_tasks: int
    max_ttl_seconds: float
    shrink_enabled: bool
    pressure_host: bool = False


def caps_of(config: Config) -> Caps:
    """The caps that a configuration sets."""
    storm = config.storm
    return Caps(
        max_cgroups=storm.max_cgroups,
        max_tasks=storm.max_tasks,
        max_live_tasks=storm.max_live_tasks,
        max_ttl_seconds=storm.max_ttl_seconds,
        shrink_enabled=config.shrink.enabled,
        pressure_host=storm.pressure_host,
    )


_BASE = Plan(
    preset="smoke", cgroups=20, tasks=10, kind="fork", concurrency=0, live_tasks=0, baseline_seconds=3.0,
    hold_seconds=2.0, settle_seconds=10.0, shrink=True, ttl_seconds=120.0, on_disconnect="continue", shell="bash",
)  # fmt: skip

_SEED = replace(_BASE, preset="seed", cgroups=1000, tasks=100, kind="shell", baseline_seconds=5.0, hold_seconds=0.0,
                settle_seconds=30.0, ttl_seconds=1800.0)  # fmt: skip

PRESETS: Mapping[str, Plan] = {
    "smoke": _BASE,
    "seed": _SEED,
    "seed-once": replace(_SEED, preset="seed-once", tasks=1, shell="sh", ttl_seconds=600.0),
    # Tasks of whole cgroups at one time, and a bounded number of them on the host: the kernel is quickest while it uses
    # memory again that it has just freed.
    "full": replace(_SEED, preset="full", kind="fork", live_tasks=2000, hold_seconds=2.0, ttl_seconds=900.0),
    "zombie": replace(
        _SEED, preset="zombie", tasks=10, kind="fork", live_tasks=2000, removal="first", ttl_seconds=600.0
    ),
    "boot": replace(
        _SEED,
        preset="boot",
        cgroups=200,
        tasks=20,
        kind="fork",
        live_tasks=200,
        hold_seconds=0.0,
        removal="each",
        cgroups_per_second=20.0,
        ttl_seconds=300.0,
    ),
}


def make_plan(wishes: Mapping[str, Any], caps: Caps) -> Plan:
    """Preset plus wishes (names of ``Plan``'s fields; None: the preset's), checked against the caps.

    Raises StormRejected with code ``bad_plan`` (it makes no sense) or ``over_cap`` (figure and limit given).
    """
    name = wishes.get("preset") or "smoke"
    if name not in PRESETS:
        raise StormRejected("bad_plan", f"preset {name!r} is not known: choose one of {', '.join(PRESETS)}")
    known = {field.name for field in fields(Plan)} - {
        "preset",
        "baseline_seconds",
        "shell",
        "removal",
        "cgroups_per_second",
        "pressure_host",
    }
    given = {key: value for key, value in wishes.items() if key in known and value is not None}
    _check_bounds(given)  # before anything is computed with them: a number may have thousands of digits
    plan = replace(PRESETS[name], **given)
    if wishes.get("shrink") is None and not caps.shrink_enabled:
        plan = replace(plan, shrink=False)  # a preset's shrink is a default, not a demand
    plan = replace(plan, pressure_host=plan.pressure and caps.pressure_host)
    if "ttl_seconds" not in given:
        plan = replace(plan, ttl_seconds=min(max(plan.ttl_seconds, _usual_ttl(plan)), caps.max_ttl_seconds))
    if plan.kind == "shell":
        if "live_tasks" in given:
            raise StormRejected(
                "bad_plan",
                "live_tasks (--live) is not for kind shell, which has one task in each cgroup at a time: "
                "use concurrency (--concurrency)",
            )
        plan = replace(plan, live_tasks=min(plan.concurrency or plan.cgroups, plan.cgroups))
    elif "live_tasks" not in given:
        plan = replace(plan, live_tasks=min(plan.live_tasks or plan.total_tasks, plan.total_tasks, caps.max_live_tasks))
    _check_sense(plan)
    _check_caps(plan, caps)
    return plan


def _usual_ttl(plan: Plan) -> float:
    """Long enough for a storm that goes as it should, on a slow machine."""
    load = plan.tasks * 10.0 if plan.kind == "shell" else plan.total_tasks * 0.005
    if plan.cgroups_per_second:
        load += plan.cgroups / plan.cgroups_per_second
    load += MOST_PRESSURE_SECONDS * (plan.pressure + plan.pressure_host)
    return 60.0 + plan.baseline_seconds + plan.hold_seconds + plan.settle_seconds + load


def _check_bounds(given: Mapping[str, Any]) -> None:
    least = {"cgroups": 1, "tasks": 1, "live_tasks": 1, "concurrency": 0, "hold_seconds": 0, "settle_seconds": 0}
    for key, limit in least.items():
        value = given.get(key, limit)
        if not limit <= value < MOST:
            text = f"{key} is {value}: it must be at least {limit}, and less than {MOST:,}"
            raise StormRejected("bad_plan", text, asked=value, limit=limit if value < limit else MOST)


def _check_sense(plan: Plan) -> None:
    if plan.removal == "each" and plan.kind == "shell":
        raise StormRejected("bad_plan", f"preset {plan.preset} is not for kind shell: its tasks outlive their start")
    if plan.kind not in KINDS:
        raise StormRejected("bad_plan", f"kind {plan.kind!r} is not known: choose one of {', '.join(KINDS)}")
    planned = plan.baseline_seconds + plan.hold_seconds + plan.settle_seconds
    if not plan.ttl_seconds > planned:
        raise StormRejected(
            "bad_plan",
            f"ttl_seconds {plan.ttl_seconds:g} is not above baseline + hold + settle ({planned:g} s): "
            "the storm could never finish",
            asked=plan.ttl_seconds,
            limit=planned,
        )


def _check_caps(plan: Plan, caps: Caps) -> None:
    for what, asked, limit, key in (
        ("cgroups", plan.cgroups, caps.max_cgroups, "storm.max_cgroups"),
        ("tasks in all", plan.total_tasks, caps.max_tasks, "storm.max_tasks"),
        ("tasks at one time", plan.live_tasks, caps.max_live_tasks, "storm.max_live_tasks"),
        ("seconds", plan.ttl_seconds, caps.max_ttl_seconds, "storm.max_ttl_seconds"),
    ):
        if asked > limit:
            text = f"{_figure(asked)} {what}: the configuration allows {_figure(limit)} ({key})"
            raise StormRejected("over_cap", text, asked=asked, limit=limit, key=key)
    if plan.shrink and not caps.shrink_enabled:
        text = "a shrink was asked for, and the configuration does not allow it (shrink.enabled): leave --shrink out"
        raise StormRejected("over_cap", text, key="shrink.enabled")


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
