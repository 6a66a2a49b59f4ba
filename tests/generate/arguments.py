"""An argparse parser on a manual page."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from unittest import mock

from tests.generate.roff import Page, bold, italic

_HIDDEN = {"-h", "--version"}


def describe(page: Page, parser: argparse.ArgumentParser, *, without: frozenset[str] = frozenset()) -> None:
    """The options and arguments of one parser, but for help, verbs, and the options in ``without``."""
    for action in _actions(parser):
        tags = [_tag(option, action) for option in action.option_strings] or [italic(_value(action) or action.dest)]
        if not set(action.option_strings) & (without | _HIDDEN):
            page.item(", ".join(tags), _text(action))


def verbs(parser: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Verbs in the order of the help, each with its full name; those that only hold verbs come as their verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                inner = list(verbs(verb, f"{before}{name} "))
                yield from inner or [(before + name, verb)]


def usage(parser: argparse.ArgumentParser, *, without: frozenset[str] = frozenset()) -> str:
    """The synopsis, at a width of its own whatever the terminal, but for help and the options in ``without``."""
    shown = [action for action in parser._actions if without.isdisjoint(action.option_strings)]
    with mock.patch.dict(os.environ, {"COLUMNS": "78"}):
        formatter = argparse.HelpFormatter(parser.prog)
    formatter.add_usage(None, shown, parser._mutually_exclusive_groups, prefix="")
    return formatter.format_help()


def options(parser: argparse.ArgumentParser) -> frozenset[str]:
    """All option strings."""
    return frozenset(option for action in parser._actions for option in action.option_strings)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction) and action.help not in (None, argparse.SUPPRESS):
            yield action


def _tag(option: str, action: argparse.Action) -> str:
    value = _value(action)
    return f"{bold(option)} {italic(value)}" if value else bold(option)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _text(action: argparse.Action) -> str:
    """The help with %(default)s and %% filled in, as a sentence; what is typed stays as it is."""
    text = argparse.HelpFormatter("")._expand_help(action)
    start = text[0].upper() if re.match(r"[a-z]+[ ,;]", text) else text[0]
    return start + text[1:] + ("" if text.endswith(".") else ".")
