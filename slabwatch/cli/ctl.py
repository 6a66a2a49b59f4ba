"""slabwatchctl: from arguments to an exit code. The verbs are in ``verbs`` and ``storm_verbs``."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from slabwatch.cli.ending import ended
from slabwatch.cli.exit_codes import Exit, exit_for
from slabwatch.cli.parser import make_parser, parse
from slabwatch.cli.words import printable
from slabwatch.errors import ControlError


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: run one verb and return its exit code."""
    return ended("slabwatchctl", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    try:
        return ELSE.get(args.verb, _ask)(args)
    except ControlError as error:
        print(f"slabwatchctl: {printable(str(error))}", file=sys.stderr)
        return exit_for(error)


def _ask(args: Namespace) -> Exit:
    # Only now: aiohttp takes longer to import than everything else together.
    import asyncio

    from slabwatch.cli.verbs import run

    return asyncio.run(run(args))


def _completion(args: Namespace) -> Exit:
    import shtab

    print(shtab.complete(make_parser(), args.shell))
    return Exit.DONE


def _context(args: Namespace) -> Exit:
    from slabwatch.cli.contexts import run

    return run(args)


def _bridge(args: Namespace) -> Exit:
    from slabwatch.control.bridge import bridge
    from slabwatch.control.sockets import UNIX, local_socket, unix_socket

    # The local daemon only: what this user would ask by default may be another host, or this one again.
    target = (args.hosts or [os.environ.get("SLABWATCH_HOST", "")])[0]
    if args.hosts and not target.startswith(UNIX):
        raise ControlError(f"{target}: the bridge goes to a socket: --host unix:///path", code="bad_target")
    bridge(unix_socket(target) if target.startswith(UNIX) else local_socket())
    return Exit.DONE


# What asks no daemon, or not by the API.
ELSE = {"completion": _completion, "context": _context, "stdio-bridge": _bridge}


if __name__ == "__main__":
    sys.exit(main())
