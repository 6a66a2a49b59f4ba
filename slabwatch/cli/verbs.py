"""What each verb does: ask, arrange, show. The verbs about storms are in ``storm_verbs``."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from slabwatch.cli import fleet, storm_verbs, tables, upkeep_verbs
from slabwatch.cli.exit_codes import Exit, exit_for_code
from slabwatch.cli.hosts import many_hosts, one_host
from slabwatch.cli.screen import Screen
from slabwatch.control.client import ControlClient

Verb = Callable[[ControlClient, Namespace, Screen], Awaitable[Exit]]

WATCH_SECONDS = 2.0
ROWS = 20
# Lines of a window that are not rows: the sums (3), empty lines, the header, "N of M caches".
WATCH_MARGIN = 9


async def run(args: Namespace) -> Exit:
    """Run one verb. Raises ControlError."""
    screen = Screen(as_json=args.json)
    if args.is_fleet:
        return await fleet.run(await many_hosts(args), args, screen)
    host = one_host(args)
    async with ControlClient(host.target, host.settings) as client:
        return await VERBS[args.verb](client, args, screen)


async def status(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    screen.show(await client.get("/v1/status"), tables.status_page)
    return Exit.DONE


async def top(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    if args.watch:
        # Ctrl-C is the way to end this, so it is no failure.
        with suppress(asyncio.CancelledError):
            await _watch(client, args, screen)
        return Exit.DONE
    caches = await _caches(client, args, screen)
    screen.show(caches, lambda answer: tables.caches_page(answer, _limit(args, screen), args.sort))
    return Exit.DONE


async def _watch(client: ControlClient, args: Namespace, screen: Screen) -> None:
    shown_at = None
    with screen.changing() as replace:
        while True:
            caches = await _caches(client, args, screen)
            # A window is drawn anew each time, for it may have got another size; elsewhere only what is new.
            if screen.is_window or caches["taken_at"] != shown_at:
                shown_at = caches["taken_at"]
                if screen.as_json:
                    screen.json_line(caches)
                else:
                    replace(tables.caches_page(caches, _limit(args, screen), args.sort))
            await asyncio.sleep(min(WATCH_SECONDS, caches["interval_seconds"]))


async def _caches(client: ControlClient, args: Namespace, screen: Screen) -> Any:
    answer = tables.sorted_caches(await client.get("/v1/caches"), args.sort)
    return _cut(answer, "caches", args) if screen.as_json else answer


def _cut(answer: Any, key: str, args: Namespace) -> Any:
    return {**answer, key: answer[key][: args.limit or None]}


def _limit(args: Namespace, screen: Screen) -> int:
    if args.limit is not None or not screen.is_window:
        return args.limit or 0
    return max(5, screen.size()[1] - WATCH_MARGIN) if getattr(args, "watch", False) else ROWS


async def cgroups(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    answer = tables.sorted_cgroups(await client.get("/v1/cgroups"), args.sort)
    if screen.as_json:
        answer = _cut(answer, "cgroups", args)
    screen.show(answer, lambda cgroups: tables.cgroups_page(cgroups, _limit(args, screen), args.sort))
    return Exit.DONE


async def doctor(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    screen.show(await client.get("/v1/doctor"), tables.doctor_page)
    return Exit.DONE


async def shrink(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    # On a host with many caches and cgroups this takes as long as it takes.
    result: Mapping[str, Any] = await client.post("/v1/shrink", {"caches": args.caches}, seconds=None)
    screen.show(result, lambda answer: tables.shrink_page(answer, bool(args.caches)))
    caches = result["caches"]
    return exit_for_code("failed") if caches and all(cache["error"] for cache in caches) else Exit.DONE


VERBS: Mapping[str, Verb] = {
    "status": status,
    "top": top,
    "cgroups": cgroups,
    "doctor": doctor,
    "shrink": shrink,
    "storm": storm_verbs.storm,
    "storms": storm_verbs.storms,
    "report": storm_verbs.report,
    "compare": storm_verbs.compare,
    "stop": storm_verbs.stop,
    "follow": storm_verbs.follow,
    "lock": upkeep_verbs.lock,
    "unlock": upkeep_verbs.unlock,
    "audit": upkeep_verbs.audit,
}
