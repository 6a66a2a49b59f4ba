"""An argparse parser on a manual page."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from unittest import mock

from tests.generate.roff import Page, bold, italic

_HIDDEN = ("-h", "--version")


def describe(page: Page, parser: argparse.ArgumentParser, *, without: frozenset[str] = frozenset()) -> None:
    """The options and arguments of one parser, but for help, verbs, and the options in ``without``."""
    for action in _actions(parser):
        if (
            action.option_strings
            and action.option_strings[0] not in _HIDDEN
            and without.isdisjoint(action.option_strings)
        ):
            page.item(", ".join(_tag(option, action) for option in action.option_strings), _text(parser, action))
        elif not action.option_strings:
            page.item(italic(_value(action) or action.dest), _text(parser, action))


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
        if not isinstance(action, argparse._SubParsersAction) and action.help != argparse.SUPPRESS:
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


def _text(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    # What the help shows: %(default)s and %% filled in.
    text = argparse.HelpFormatter(parser.prog)._expand_help(action) if action.help else ""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
