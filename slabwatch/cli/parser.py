"""slabwatchctl's arguments: the one declaration behind the parser, the help and the completion.

Light on purpose: nothing here imports what only a verb needs, so that help and completion come at once.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from slabwatch import __version__
from slabwatch.cli.exit_codes import MEANINGS
from slabwatch.cli.usage import Parser
from slabwatch.storm.plan import KIND_TEXT, KINDS, PRESETS

CACHE_SORTS = ("size", "growth", "active", "unexplained")
CGROUP_SORTS = ("kernel", "slab", "dying")
VERDICTS = ("released", "retained", "pinned", "inconclusive")
REPORT_FORMATS = ("text", "html", "json", "csv")
SHELLS = ("bash", "zsh", "tcsh")
# What may be asked of many hosts at once.
FLEET_VERBS = frozenset(("status", "top", "cgroups", "doctor", "storms", "storm", "stop", "compare"))
# How a daemon is reached, besides its target.
SETTINGS = ("ca", "cert", "key", "ssh_options", "ssh_command")
WHERE: Mapping[str, tuple[str, str]] = {
    "host": ("TARGET", "ssh://[user@]host[:port], https://host:port, unix:///path or a context; may be repeated"),
    "hosts_file": ("FILE", "a TARGET or context a line; # begins a comment"),
    "prometheus": ("URL", "the hosts that this Prometheus scrapes"),
    "prometheus_job": ("NAME", "those of this job (default: slabwatch)"),
    "target_template": ("TEXT", "their TARGET, from {host} and {instance} (default: ssh://{host})"),
    "ssh_options": ("OPTIONS", "for ssh, as one word: --ssh-options='-F my.conf' (default: $SLABWATCH_SSH)"),
    "ssh_command": ("COMMAND", "what ssh runs there (default: slabwatchctl stdio-bridge)"),
    "ca": ("FILE", "https: the authority that has signed the daemon's certificate"),
    "cert": ("FILE", "https: this client's certificate"),
    "key": ("FILE", "https: the key of that certificate"),
}

_WHICH = "id of a storm, last, last-1 and so on, or the path of a record's JSON file"
_EPILOG = "exit codes (of many hosts, the highest):\n" + "\n".join(
    f"  {code.value:<3}  {meaning}" for code, meaning in MEANINGS.items()
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of slabwatchctl; the result's ``verb`` is the verb's name."""
    parser = Parser(
        prog="slabwatchctl",
        description="Look at a host's slab memory, prove what this kernel does with it, and get it back.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"slabwatchctl {__version__}")
    _add_common(parser, "before_")
    parser.set_defaults(json=False)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")

    _add_verb(verbs, "status", "the daemon, its kernel, its collectors, and the running storm")
    _add_top(verbs)
    _add_cgroups(verbs)
    _add_verb(verbs, "doctor", "what this kernel and this configuration can do, with reasons and remedies")
    _add_storm(verbs)
    _add_verb(verbs, "storms", "finished and running storms, newest first")
    report = _add_verb(verbs, "report", "the report of a finished storm")
    report.add_argument("id", nargs="?", default="last", metavar="ID", help=f"{_WHICH} (default: last)")
    report.add_argument("--format", choices=REPORT_FORMATS, help="default: text, or json with --json")
    compare = _add_verb(
        verbs,
        "compare",
        "two finished storms side by side; over many hosts: the last one of each, by kernel release",
    )
    compare.add_argument("a", nargs="?", metavar="A", help=_WHICH)
    compare.add_argument("b", nargs="?", metavar="B", help=f"{_WHICH}; each difference is B minus A")
    compare.add_argument("--preset", choices=tuple(PRESETS), help="over many hosts: the last storm of this preset")
    _add_id(_add_verb(verbs, "stop", "stop the running storm; its cgroups are cleaned up"), "the running one")
    _add_id(_add_verb(verbs, "follow", "follow a storm to its end; Ctrl-C leaves it running"), "the running one")
    shrink = _add_verb(verbs, "shrink", "give empty slabs back to the kernel, and say how much that was")
    shrink.add_argument("caches", nargs="*", metavar="CACHE", help="caches to shrink (default: all)")
    lock = _add_verb(verbs, "lock", "lock storms and shrinks for maintenance, until they are unlocked")
    lock.add_argument("--reason", required=True, metavar="TEXT", help="what whoever is refused is told")
    lock.add_argument("--stop", action="store_true", help="stop the running storm too")
    _add_verb(verbs, "unlock", "allow storms and shrinks again")
    audit = _add_verb(verbs, "audit", "who asked for what, by which door, and what became of it; newest first")
    audit.add_argument("--limit", type=_at_least_1, metavar="N", help="lines, at most 10,000 (default: 100)")
    _add_context(verbs)
    completion = _add_verb(verbs, "completion", "print a completion script for a shell", ())
    completion.add_argument("shell", choices=SHELLS, help="eval its output, or save it where the shell looks")
    _add_verb(
        verbs, "stdio-bridge", "join stdin and stdout to the local daemon: the far end of --host ssh://", ("host",)
    )
    return parser


def _add_common(parser: argparse.ArgumentParser, place: str, options: Sequence[str] = tuple(WHERE)) -> None:
    # Before the verb and after it. What stands after must not undo what stood before: ``_gather`` joins the two.
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print one JSON object (one a line where it follows, or for each host), exact and nothing else",
    )
    where = parser.add_argument_group("whom to ask (default: $SLABWATCH_HOST, the context in use, the local daemon)")
    for name in options:
        option, (metavar, text) = f"--{name.replace('_', '-')}", WHERE[name]
        where.add_argument(option, dest=place + name, metavar=metavar, action="append", type=_not_empty, help=text)


def _gather(args: argparse.Namespace) -> None:
    """``hosts``, ``settings``, and the rest of WHERE by name: the last one that was given, or None."""

    def given(name: str) -> list[str]:
        return [value for place in ("before_", "after_") for value in vars(args).pop(place + name, None) or ()]

    args.hosts = given("host")
    args.settings = {name: values[-1] for name in SETTINGS if (values := given(name))}
    for name in ("hosts_file", "prometheus", "prometheus_job", "target_template"):
        setattr(args, name, next(reversed(given(name)), None))
    args.is_fleet = len(args.hosts) > 1 or bool(args.hosts_file or args.prometheus)


def _add_verb(
    verbs: Any, name: str, text: str, options: Sequence[str] = tuple(WHERE), **more: Any
) -> argparse.ArgumentParser:
    help_text = text[0].upper() + text[1:] + "."
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=help_text, allow_abbrev=False, **more)
    _add_common(verb, "after_", options)
    return verb


def _add_context(verbs: Any) -> None:
    context = _add_verb(verbs, "context", "names for daemons, with what it takes to reach them", ())
    actions = context.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    add = _add_verb(actions, "add", "name a target; options to reach it are kept with it", SETTINGS)
    add.add_argument("name", metavar="NAME")
    add.add_argument("target", metavar="TARGET", help="ssh://[user@]host[:port], https://host:port or unix:///path")
    _add_verb(actions, "list", "all contexts", ())
    use = _add_verb(actions, "use", "ask this one when nothing else names a host", ())
    use.add_argument("name", nargs="?", metavar="NAME", help="without it: the local daemon again")
    _add_verb(actions, "remove", "forget one", ()).add_argument("name", metavar="NAME")


def _add_id(verb: argparse.ArgumentParser, default: str) -> None:
    verb.add_argument("id", nargs="?", metavar="ID", help=f"id of the storm (default: {default})")


def _add_top(verbs: Any) -> None:
    top = _add_verb(verbs, "top", "slab caches by size, growth or unexplained objects, like slabtop")
    top.add_argument("--sort", choices=CACHE_SORTS, default="size", help="largest first (default: size)")
    _add_limit(top)
    top.add_argument("--watch", action="store_true", help="go on until Ctrl-C")


def _add_cgroups(verbs: Any) -> None:
    cgroups = _add_verb(verbs, "cgroups", "cgroups by the kernel memory that they hold")
    cgroups.add_argument(
        "--sort",
        choices=CGROUP_SORTS,
        default="kernel",
        help="largest first; dying: those without any task first (default: kernel)",
    )
    _add_limit(cgroups)


def _add_limit(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--limit", type=_at_least_0, metavar="N", help="rows; 0: all (default: 20 on a terminal, else all)"
    )


def _add_storm(verbs: Any) -> None:
    storm = _add_verb(
        verbs,
        "storm",
        "make many cgroups and tasks, and see whether the kernel gives the memory back",
        epilog="kinds of task:\n" + "\n".join(f"  {kind:<6} {KIND_TEXT[kind]}" for kind in KINDS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = storm.add_argument
    presets = ", ".join(f"{name} {plan.cgroups:,} x {plan.tasks:,}" for name, plan in PRESETS.items())
    add("--preset", choices=tuple(PRESETS), help=f"cgroups x tasks in each: {presets} (default: smoke)")
    add("--cgroups", type=_at_least_1, metavar="N", help="cgroups to make")
    add("--tasks", type=_at_least_1, metavar="N", help="tasks in each cgroup")
    add("--kind", choices=KINDS, help="what a task is, see below")
    add("--concurrency", type=_at_least_0, metavar="N", help="cgroups that are filled at one time (0: one a CPU)")
    add("--live", type=_at_least_1, metavar="N", help="tasks alive at one time, over all cgroups; not for kind shell")
    add("--hold", type=_seconds, metavar="S", help="seconds to keep the tasks alive after the last has started")
    add("--settle", type=_seconds, metavar="S", help="seconds to wait after the last task has gone")
    add("--shrink", action=argparse.BooleanOptionalAction, help="shrink after that, to tell retained from pinned")
    add(
        "--pressure",
        action="store_const",
        const=True,
        help="use up memory in the storm's own cgroup after the settle time, until the kernel gives no more, to see "
        "whether it gives slabs back for that; then on the host too, where storm.pressure_host allows it",
    )
    add("--ttl", type=_seconds, metavar="S", help="most seconds that the storm may take")
    mode = storm.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="only say what would be done, and whether it may be")
    mode.add_argument("--detach", action="store_true", help="print the id and do not follow")
    add(
        "--yes",
        "-y",
        action="store_true",
        help="do not ask before a storm of more than 1,000 tasks or on many hosts (without a terminal nobody is asked: "
        "one host starts at once, many hosts do not start without --yes)",
    )
    add(
        "--expect",
        choices=VERDICTS,
        metavar="VERDICT",
        help="exit with 8 for another verdict (7 when it is inconclusive), and start no more: " + ", ".join(VERDICTS),
    )
    add("--parallel", type=_at_least_1, metavar="N", help="over many hosts: at one time, after the first (default: 1)")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """What argparse can not say by itself."""
    if args.verb == "storm" and args.expect and (args.detach or args.dry_run):
        parser.error("--expect needs the end of the storm: not with --detach or --dry-run")
    if not args.is_fleet:
        if args.verb == "compare" and (args.b is None or args.preset):
            parser.error("compare takes two storms, A and B, or many hosts (then --preset too)")
        if getattr(args, "parallel", None):
            parser.error("--parallel is for many hosts")
    elif args.verb not in FLEET_VERBS:
        parser.error(f"{args.verb} takes one host")
    elif args.verb == "compare" and args.a is not None:
        parser.error("compare takes either two storms, A and B, or many hosts")
    elif getattr(args, "watch", False) or getattr(args, "detach", False):
        parser.error("--watch and --detach take one host")
    if not args.prometheus and (args.prometheus_job or args.target_template):
        parser.error("--prometheus-job and --target-template go with --prometheus")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parsed and checked arguments. Raises SystemExit after help (0) and for wrong usage (1)."""
    parser = make_parser()
    args = parser.parse_args(argv)
    _gather(args)
    check(parser, args)
    return args


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("may not be empty")
    return text


def _at_least_0(text: str) -> int:
    return _whole(text, 0)


def _at_least_1(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    try:
        number = int(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"{number} is less than {least}")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return seconds
