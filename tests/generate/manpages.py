"""slabwatch(8), slabwatchctl(1) and slabwatch.toml(5), from the parsers and the schema of the configuration."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from slabwatch import __version__
from slabwatch import config_file as configuration
from slabwatch.cli.exit_codes import MEANINGS
from slabwatch.cli.parser import make_parser as make_ctl_parser
from slabwatch.cli.slabwatch import make_parser as make_daemon_parser
from slabwatch.cli.words import many
from slabwatch.config import Config
from slabwatch.form import Field, Form, fields_of, form_of
from slabwatch.storm.plan import KIND_TEXT, PRESETS
from tests.generate.arguments import describe, options, usage, verbs
from tests.generate.roff import Page, bold, italic

_MANUAL = {1: "User Commands", 5: "File Formats", 8: "System Administration"}
_TYPES = {"bool": "true or false", "int": "whole number", "float": "number", "str": "string"}


def pages() -> dict[str, str]:
    """All pages by their file names."""
    return {"slabwatch.8": _daemon(), "slabwatchctl.1": _ctl(), "slabwatch.toml.5": _toml()}


def _page(name: str, section: int, purpose: str) -> Page:
    page = Page(name, section, __version__, _MANUAL[section])
    page.name(name, purpose)
    return page


def _daemon() -> str:
    parser = make_daemon_parser()
    page = _page("slabwatch", 8, "watch the slab memory of the kernel, for Prometheus")
    page.section("SYNOPSIS")
    page.literal(usage(parser))
    page.section("DESCRIPTION")
    page.paragraph(
        f"{parser.description} It polls `/proc/slabinfo`, `/proc/meminfo` and the kernel memory of each cgroup on a "
        "fixed interval, serves the last poll's figures on `/metrics`, and takes commands from `slabwatchctl`(1) on a "
        "socket: storms, which prove whether this kernel keeps slab memory after a burst of cgroups and tasks, and "
        "shrinks, which get it back. Both are off until the configuration allows them."
    )
    page.paragraph(
        "What a kernel does not have has no series: absent is not zero. A collector that fails takes its own series "
        "away, and sets `slabwatch_collector_success` to 0."
    )
    page.section("OPTIONS")
    describe(page, parser)
    page.item(f"{bold('--version')}, {bold('-h')}, {bold('--help')}", "Print the version, or the help, and end.")
    page.section("SIGNALS")
    page.items(
        (
            ("SIGHUP", "Reload the configuration. A file that is wrong changes nothing, and is logged."),
            ("SIGTERM, SIGINT", "Stop: a running storm is ended and cleaned up. A second one stops at once."),
        )
    )
    page.section("HTTP")
    page.items(
        (
            ("/metrics", "The last poll, in Prometheus' text format or in OpenMetrics, gzip when asked for."),
            ("/-/healthy", "200 while polls make progress, else 503 with the reason."),
            ("/-/ready", "200 once a first sample is there, else 503 with the reason."),
        )
    )
    page.section("PRIVILEGES")
    page.paragraph(
        "Any user may watch meminfo, processes and cgroups. `/proc/slabinfo` is readable by its owner, root, and with "
        "`CAP_DAC_READ_SEARCH`; a shrink needs root or `CAP_DAC_OVERRIDE`; a storm needs root, or the owner of a "
        "delegated cgroup (`storm.parent`). `slabwatchctl doctor` tells what is missing."
    )
    page.section("FILES")
    page.items(
        (
            ("/etc/slabwatch/slabwatch.toml", "The configuration that the unit names, see `slabwatch.toml`(5)."),
            (
                "/run/slabwatch/slabwatch.sock",
                "The control socket; for other users below `$XDG_RUNTIME_DIR`, else `/tmp/slabwatch-UID`.",
            ),
            ("/var/lib/slabwatch", "The records of storms; for other users below `$XDG_STATE_HOME`."),
        )
    )
    page.section("EXIT STATUS")
    page.paragraph(
        "0 after an orderly stop, 1 when arguments or configuration are wrong, 3 when the output can not be written. "
        "`--clean-up` ends with 2 when something is left, and with 4 when it could not look."
    )
    page.section("EXAMPLES")
    page.literal(
        """
        slabwatch --config /etc/slabwatch/slabwatch.toml --check-config
        slabwatch --once --textfile /var/lib/prometheus/node-exporter/slabwatch.prom
        slabwatch --root /host --once
        """
    )
    page.section("SEE ALSO")
    page.paragraph(
        "`slabwatchctl`(1), `slabwatch.toml`(5), `slabtop`(1), `slabinfo`(5), `cgroups`(7), `capabilities`(7)"
    )
    return page.text()


def _ctl() -> str:
    parser = make_ctl_parser()
    page = _page("slabwatchctl", 1, "look at slab memory, run storms, and shrink caches")
    page.section("SYNOPSIS")
    page.literal(usage(parser))
    page.section("DESCRIPTION")
    page.paragraph(f"{parser.description} It asks a running `slabwatch`(8).")
    page.section("OPTIONS")
    page.paragraph("They may stand before or after the verb.")
    describe(page, parser)
    page.item(f"{bold('--version')}, {bold('-h')}, {bold('--help')}", "Print the version, or the help, and end.")
    page.section("VERBS")
    for name, verb in verbs(parser):
        page.subsection(name)
        page.literal(usage(verb, without=options(parser)))
        page.paragraph(verb.description or "")
        describe(page, verb, without=options(parser))
    page.section("PRESETS OF THE STORM")
    for name, plan in PRESETS.items():
        page.item(
            bold(name),
            f"{many(plan.cgroups, 'cgroup')} x {many(plan.tasks, 'task')} of kind {plan.kind}, "
            f"{plan.settle_seconds:g} s to settle, at most {plan.ttl_seconds:g} s in all.",
        )
    page.section("KINDS OF TASK")
    page.items((kind, text[:1].upper() + text[1:] + ".") for kind, text in KIND_TEXT.items())
    page.section("EXIT STATUS")
    page.items((str(code.value), meaning[:1].upper() + meaning[1:] + ".") for code, meaning in MEANINGS.items())
    page.section("ENVIRONMENT")
    page.items(
        (
            ("SLABWATCH_HOST", "The daemon to ask where none is named."),
            ("SLABWATCH_SSH", "Options for ssh where `--ssh-options` is not given."),
            ("SLABWATCH_CA, SLABWATCH_CERT, SLABWATCH_KEY", "Files where `--ca`, `--cert`, `--key` are not given."),
        )
    )
    page.section("EXAMPLES")
    page.literal(
        """
        slabwatchctl top --sort growth --watch
        slabwatchctl storm --preset full --dry-run
        slabwatchctl storm --preset smoke --expect released
        slabwatchctl report --format html >storm.html
        slabwatchctl shrink task_struct
        eval "$(slabwatchctl completion bash)"
        """
    )
    page.section("SEE ALSO")
    page.paragraph("`slabwatch`(8), `slabwatch.toml`(5), `slabtop`(1)")
    return page.text()


def _toml() -> str:
    page = _page("slabwatch.toml", 5, "configuration of slabwatch")
    page.section("DESCRIPTION")
    page.paragraph(
        "TOML 1.0. Every section and every key may be left out: the default holds then. A key that is not known is an "
        "error. `slabwatch --check-config --config FILE` checks a file, `--print-config` shows what holds, and "
        "`--example-config` prints all keys with their defaults."
    )
    for title, model in _sections(Config, ""):
        page.section(title)
        page.paragraph(" ".join((model.__doc__ or "").split()))
        for key, field in fields_of(model).items():
            if form_of(field.annotation) is None:
                page.item(f"{bold(key)} = {italic(_type(field.annotation))}", _meaning(field))
    page.section("FILES")
    page.paragraph("`/etc/slabwatch/slabwatch.toml`")
    page.section("SEE ALSO")
    page.paragraph("`slabwatch`(8), `slabwatchctl`(1)")
    return page.text()


def _sections(model: type[Form], before: str) -> Iterator[tuple[str, type[Form]]]:
    for name, field in fields_of(model).items():
        if inner := form_of(field.annotation):
            yield f"[{before}{name}]", inner
            yield from _sections(inner, f"{before}{name}.")


def _type(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(parts[0])
    if origin is typing.Literal:
        return "|".join(f'"{part}"' for part in parts)
    if origin in (tuple, list):
        return f"list of {_type(parts[0])}s"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in parts if part is not type(None))
    return _TYPES.get(getattr(annotation, "__name__", ""), "value")


def _meaning(field: Field) -> str:
    default = configuration._toml_value(field.default)
    return f"{field.description}{configuration._bounds(field)} Default: {default}"
