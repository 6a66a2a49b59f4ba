"""Contexts: names for daemons, with what it takes to reach them, in $XDG_CONFIG_HOME/slabwatch/contexts.toml."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import tempfile
import tomllib
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import field, to_builtins

from slabwatch.cli.draw import Column, Grid, Note, Page
from slabwatch.cli.exit_codes import Exit
from slabwatch.cli.screen import Screen
from slabwatch.errors import ControlError
from slabwatch.form import BadForm, Form, whole

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_NAME = "up to 64 letters, digits and . _ -"
PATHS = ("ca", "cert", "key")
SETTINGS = (*PATHS, "ssh_options", "ssh_command")

Text = Annotated[str, whole(r"[^\x00-\x1f\x7f]*", "a text without control characters")]


@dataclass(frozen=True, slots=True)
class Host:
    """One daemon to ask. ``name`` is what the user called it; target and settings are for ``ControlClient``."""

    name: str
    target: str
    settings: Mapping[str, str]


class Context(Form, frozen=True):
    """What is not set is ""."""

    target: Text
    ca: Text = ""
    cert: Text = ""
    key: Text = ""
    ssh_options: Text = ""
    ssh_command: Text = ""

    def settings(self) -> dict[str, str]:
        """Those that are set."""
        return {name: value for name in SETTINGS if (value := getattr(self, name))}


class Contexts(Form, frozen=True):
    """The whole file. ``current`` is used when nothing names a host."""

    current: Annotated[str, whole(rf"(?:{NAME.pattern})?", _NAME)] = ""
    contexts: dict[Annotated[str, whole(NAME.pattern, _NAME)], Context] = field(default_factory=dict)


def contexts_file() -> Path:
    """Where this user's contexts are."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "slabwatch" / "contexts.toml"


def load(path: Path) -> Contexts:
    """The file's contents; none when there is no file. Raises ControlError ``bad_context``."""
    try:
        with open(path, "rb") as file:
            _must_be_ours(path, os.fstat(file.fileno()))
            text = file.read().decode()
        values = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except OSError as error:
        raise _bad(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _bad(f"{path}: not valid TOML: {error}") from error
    return _checked(path, values)


def _checked(path: Path, values: Mapping[str, Any]) -> Contexts:
    try:
        return Contexts.read(values)
    except BadForm as error:
        raise _bad(f"{path}: {error}") from error


def _must_be_ours(path: Path, found: os.stat_result) -> None:
    # Options of ssh may name a program to run: who can write here can run it as this user.
    if found.st_uid not in (0, os.geteuid()) or stat.S_IMODE(found.st_mode) & 0o022:
        raise _bad(f"{path}: somebody else may write to it, so it is not used: chown it to yourself, and chmod 600 it")


def _bad(text: str) -> ControlError:
    return ControlError(text, code="bad_context")


@contextmanager
def changed(path: Path) -> Iterator[dict[str, Any]]:
    """The file's contents to be changed; written, all or nothing, when the block ends well. Raises ControlError."""
    path = Path(os.path.realpath(path))  # a link stays one
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            contents = to_builtins(load(path))
            yield contents
            _write(path, _as_toml(_checked(path, contents)))
    except OSError as error:
        raise _bad(f"{path}: can not be written: {error.strerror}") from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _as_toml(contents: Contexts) -> str:
    # JSON's strings are TOML's basic strings, and control characters have been refused.
    lines = [f"current = {json.dumps(contents.current)}"] if contents.current else []
    for name, context in sorted(contents.contexts.items()):
        lines += ["", f"[contexts.{json.dumps(name)}]"]
        values = {"target": context.target, **context.settings()}
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(lines).lstrip("\n") + "\n"


def resolve(name: str, options: Mapping[str, str], known: Contexts) -> Host:
    """A target, or a context's name, as a host. Options that were given are stronger than the context's."""
    if "://" in name:
        return _host(name, name, options)
    context = known.contexts.get(name)
    if context is None:
        hint = f"for a host of this name: ssh://{name}" if NAME.fullmatch(name) else "use ssh://user@host"
        raise ControlError(
            f"{name!r} is no target, and no context has this name (`slabwatchctl context list`); {hint}",
            code="bad_target",
        )
    return _host(name, context.target, {**context.settings(), **options})


def _host(name: str, target: str, settings: Mapping[str, str]) -> Host:
    ssh_options = os.environ.get("SLABWATCH_SSH")
    return Host(name, target, {**({"ssh_options": ssh_options} if ssh_options else {}), **settings})


def default_host(options: Mapping[str, str]) -> Host:
    """Without ``--host``: $SLABWATCH_HOST, the context in use, or the local daemon."""
    path = contexts_file()
    named = os.environ.get("SLABWATCH_HOST", "")
    if named:
        return resolve(named, options, Contexts() if "://" in named else load(path))
    # A file that is not for this user (HOME of another one, say after su) holds none of its contexts.
    known = load(path) if os.access(path, os.R_OK) else Contexts()
    return resolve(known.current, options, known) if known.current else _host("", "", options)


def run(args: Namespace) -> Exit:
    """``slabwatchctl context``. Raises ControlError."""
    path, screen = contexts_file(), Screen(as_json=args.json)
    match args.action:
        case "add":
            _add(path, args)
        case "use":
            with changed(path) as contents:
                if args.name:
                    _must_be_known(args.name, contents)
                contents["current"] = args.name or ""
        case "remove":
            with changed(path) as contents:
                _must_be_known(args.name, contents)
                del contents["contexts"][args.name]
                if contents["current"] == args.name:
                    contents["current"] = ""
    if args.action == "list" or args.json:
        screen.show(_as_answer(load(path)), contexts_page)
    return Exit.DONE


def _add(path: Path, args: Namespace) -> None:
    from slabwatch.control.transports import transport_to

    if not NAME.fullmatch(args.name):
        raise _bad(f"{args.name!r}: a context's name has {_NAME}")
    settings = dict(args.settings)
    # They must mean the same wherever they are used from.
    settings |= {name: os.path.abspath(os.path.expanduser(settings[name])) for name in PATHS if name in settings}
    transport_to(args.target, settings)
    with changed(path) as contents:
        if args.name in contents["contexts"]:
            raise _bad(f"there is a context {args.name} already: `slabwatchctl context remove {args.name}` first")
        contents["contexts"][args.name] = {"target": args.target, **settings}


def _must_be_known(name: str, contents: Mapping[str, Any]) -> None:
    if name not in contents["contexts"]:
        raise _bad(f"there is no context {name!r}: `slabwatchctl context list` shows them all")


def _as_answer(known: Contexts) -> dict[str, Any]:
    contexts = [{"name": name, "target": one.target, **one.settings()} for name, one in sorted(known.contexts.items())]
    return {"current": known.current or None, "contexts": contexts}


def contexts_page(answer: Mapping[str, Any]) -> Page:
    """All of them, the one in use marked."""
    contexts = answer["contexts"]
    if not contexts:
        return (Note("No context yet: `slabwatchctl context add NAME ssh://user@host` makes one."),)
    rows = [
        (
            "*" if context["name"] == answer["current"] else "",
            context["name"],
            context["target"],
            ", ".join(f"{name} {context[name]}" for name in SETTINGS if name in context),
        )
        for context in contexts
    ]
    return (Grid((Column("used"), Column("name"), Column("target", gives="end"), Column("with", gives="wrap")), rows),)
