"""The verbs over many hosts: all are asked at once, and one that does not answer costs its own rows only."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slabwatch.cli import fleet_storm, fleet_tables, storm_tables, tables
from slabwatch.cli.contexts import Host
from slabwatch.cli.draw import Grid
from slabwatch.cli.exit_codes import Exit
from slabwatch.cli.fleet_tables import Answer
from slabwatch.cli.screen import Screen
from slabwatch.cli.steer import accepted, forecast, stopped, wishes_of
from slabwatch.control.client import ControlClient
from slabwatch.errors import ControlError

AT_ONCE = 16
ROWS = 20

Question = Callable[[ControlClient], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Look:
    """A verb that asks each host one thing. ``grid`` is one host's answer as rows, ``first`` the order of all rows."""

    question: Callable[[ControlClient, Namespace], Awaitable[Any]]
    grid: Callable[[Any, Namespace], Grid]
    first: Callable[[Namespace], fleet_tables.Order | None] = lambda args: None
    judge: Callable[[Any], Exit] = lambda answer: Exit.DONE
    failed: Callable[[ControlError], fleet_tables.Row] | None = None


async def run(hosts: Sequence[Host], args: Namespace, screen: Screen) -> Exit:
    """Run one verb over all hosts; the highest of their exit codes."""
    if args.verb == "compare":
        return await compare(hosts, args, screen)
    if args.verb == "storm" and not args.dry_run:
        return await fleet_storm.storm(hosts, args, screen)
    look = FORECAST if args.verb == "storm" else LOOKS[args.verb]
    answers = await asked(hosts, lambda client: look.question(client, args), lambda answer: look.grid(answer, args))
    if screen.as_json:
        for answer in answers:
            screen.json_line(answer.as_dict())
    else:
        limit = getattr(args, "limit", None)
        rows = (ROWS if screen.is_window and hasattr(args, "limit") else 0) if limit is None else limit
        screen.page(fleet_tables.merged_page(answers, look.first(args), rows, look.failed))
    return max(answer.exit if answer.error else look.judge(answer.value) for answer in answers)


async def asked(hosts: Sequence[Host], question: Question, grid: Callable[[Any], Grid] | None = None) -> list[Answer]:
    """Ask all hosts, some at a time; the answers in the hosts' order."""
    free = asyncio.Semaphore(AT_ONCE)

    async def ask(host: Host) -> Answer:
        try:
            async with free, ControlClient(host.target, host.settings) as client:
                value = await question(client)
                return Answer(host, value, grid(value) if grid else None)
        except ControlError as error:
            return Answer(host, error=error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # One host with a slabwatch of another version must not cost the others' figures.
            text = f"its answer has another form ({error!r}): is its slabwatch of another version?"
            return Answer(host, error=ControlError(text, code="bad_answer"))

    return list(await asyncio.gather(*map(ask, hosts)))


async def _caches(client: ControlClient, args: Namespace) -> Any:
    answer = tables.sorted_caches(await client.get("/v1/caches"), args.sort)
    return {**answer, "caches": answer["caches"][: args.limit or None]}


async def _cgroups(client: ControlClient, args: Namespace) -> Any:
    answer = tables.sorted_cgroups(await client.get("/v1/cgroups"), args.sort)
    return {**answer, "cgroups": answer["cgroups"][: args.limit or None]}


async def compare(hosts: Sequence[Host], args: Namespace, screen: Screen) -> Exit:
    """The last storm of each host, by kernel release."""
    from slabwatch.storm.fleet import grouped, host_storm

    async def last(client: ControlClient) -> Any:
        return await _last_record(client, args.preset)

    answers = await asked(hosts, last)
    groups = grouped(host_storm(answer.host.name, answer.value) for answer in answers if answer.error is None)
    failed = [answer for answer in answers if answer.error is not None]
    if screen.as_json:
        plans = [group.as_dict() for group in groups]
        screen.json_line({"plans": plans, "failed": [answer.as_dict() for answer in failed]})
    else:
        screen.page(fleet_tables.comparison_page(groups, failed))
    return max((answer.exit for answer in failed), default=Exit.DONE)


async def _last_record(client: ControlClient, preset: str | None) -> Mapping[str, Any]:
    from slabwatch.storm.record_form import record_of

    for storm in (await client.get("/v1/storms"))["storms"]:  # newest first
        if storm["outcome"] != "running" and preset in (None, storm["preset"]):
            record = await client.get(f"/v1/storms/{storm['id']}")
            return record_of(json.dumps(record).encode())  # checked as one from a file is
    raise ControlError(f"no storm{f' of preset {preset}' if preset else ''} has ended there yet", code="unknown_storm")


LOOKS: Mapping[str, Look] = {
    "status": Look(
        lambda client, args: client.get("/v1/status"),
        lambda answer, args: fleet_tables.status_grid(answer),
        failed=fleet_tables.status_failed,
    ),
    "top": Look(
        _caches,
        lambda answer, args: tables.caches_grid(answer["caches"], args.sort),
        lambda args: fleet_tables.CACHE_ORDERS[args.sort],
    ),
    "cgroups": Look(
        _cgroups,
        lambda answer, args: tables.cgroups_grid(answer["cgroups"]),
        lambda args: fleet_tables.CGROUP_ORDERS[args.sort],
    ),
    "doctor": Look(
        lambda client, args: client.get("/v1/doctor"),
        lambda answer, args: tables.findings_grid(answer["findings"]),
    ),
    "storms": Look(
        lambda client, args: client.get("/v1/storms"),
        lambda answer, args: storm_tables.storms_grid(answer["storms"]),
    ),
    "stop": Look(
        lambda client, args: stopped(client, args.id),
        lambda answer, args: fleet_tables.stop_grid(answer),
    ),
}
FORECAST = Look(
    lambda client, args: forecast(client, wishes_of(args)),
    lambda answer, args: fleet_tables.forecast_grid(answer),
    judge=accepted,
)
