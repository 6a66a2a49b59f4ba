"""Which hosts are asked: those of --host, then of --hosts-file, then of --prometheus, each once."""

from __future__ import annotations

import string
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from slabwatch.cli.contexts import Contexts, Host, contexts_file, default_host, load, resolve
from slabwatch.control.discovery import Scraped, scraped_by
from slabwatch.control.transports import transport_to
from slabwatch.errors import ControlError

DEFAULT_JOB = "slabwatch"
DEFAULT_TEMPLATE = "ssh://{host}"
# Of many hosts none may ask for a password in the midst of the others' lines.
BATCH_MODE = "-o BatchMode=yes"


def one_host(args: Namespace) -> Host:
    """The host of a verb that takes one. Raises ControlError."""
    return _resolved(args.hosts, args.settings)[0] if args.hosts else default_host(args.settings)


async def many_hosts(args: Namespace) -> tuple[Host, ...]:
    """At least one. Raises ControlError."""
    names = list(args.hosts)
    if args.hosts_file:
        names += _names_in(Path(args.hosts_file))
    hosts = _resolved(names, args.settings)
    if args.prometheus:
        template = args.target_template or DEFAULT_TEMPLATE
        _check(template)
        found = await scraped_by(args.prometheus, args.prometheus_job or DEFAULT_JOB)
        hosts += _resolved([_filled(template, target) for target in found], args.settings)
    once: dict[str, Host] = {}
    for host in hosts:
        transport_to(host.target, host.settings)  # one that can not be is told before anything is asked of any
        once.setdefault(host.target, replace(host, settings=_quietly(host.settings)))
    return tuple(once.values())


def _resolved(names: list[str], options: Mapping[str, str]) -> list[Host]:
    # The file is opened only where a name needs it.
    known = Contexts() if all("://" in name for name in names) else load(contexts_file())
    return [resolve(name, options, known) for name in names]


def _quietly(settings: Mapping[str, str]) -> dict[str, str]:
    return {**settings, "ssh_options": f"{settings.get('ssh_options', '')} {BATCH_MODE}".strip()}


def _names_in(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise ControlError(
            f"{path}: {why}: --hosts-file takes a target or context a line", code="bad_target"
        ) from error
    names = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if len(words) > 1:
            raise ControlError(f"{path}:{number}: {line.strip()!r}: one target or context a line", code="bad_target")
        names += words
    if not names:
        raise ControlError(f"{path}: no host is named in it", code="bad_target")
    return names


def _check(template: str) -> None:
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ControlError(f"--target-template {template!r}: {error}", code="bad_target") from error
    if not fields or fields - {"host", "instance"} or "://" not in template:
        raise ControlError(
            f"--target-template {template!r}: a target with {{host}} or {{instance}}, like ssh://root@{{host}}:2222",
            code="bad_target",
        )


def _filled(template: str, target: Scraped) -> str:
    return template.format(host=target.host, instance=target.instance)
