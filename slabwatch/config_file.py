"""The configuration as TOML: a file read and checked, and one written, with what each key means.

``load(path)`` gives a frozen ``Config``, or raises ``ConfigError`` that names file, key and what is allowed.
"""

from __future__ import annotations

import difflib
import json
import reprlib
import tomllib
from pathlib import Path

from slabwatch.config import Config
from slabwatch.errors import ConfigError
from slabwatch.form import BadForm, Fault, Field, Form, fields_of

# Of what was given, in a message: neither pages of it nor thousands of brackets.
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 200


def load(path: Path | None) -> Config:
    """Read and check a file (None: the defaults). Raises ConfigError, all problems in one message."""
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can not be read: {error}. Check the path, or leave --config out.") from error
    try:
        return Config.read(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except BadForm as error:
        problems = "\n".join(f"{path}: {_problem(fault)}" for fault in error.faults)
        raise ConfigError(problems) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in thousands
        raise ConfigError(f"{path}: can not be used: {error}") from error


def _problem(fault: Fault) -> str:
    if not fault.where:
        return fault.what
    if fault.unknown_in is None:
        return f"{fault.key}: {fault.expected} (got {_SHOWN.repr(fault.given)})"
    allowed = sorted(fields_of(fault.unknown_in))
    close = difflib.get_close_matches(fault.where[-1], allowed, n=1)
    guess = f" Did you mean {close[0]}?" if close else ""
    return f"{fault.key}: unknown key.{guess} Allowed here: {', '.join(allowed)}"


def to_toml(config: Config, *, comments: bool = False) -> str:
    """The configuration as TOML; with ``comments`` each key carries its description and bounds."""
    lines: list[str] = []
    for name in fields_of(Config):
        section: Form = getattr(config, name)
        if lines:
            lines.append("")
        if comments and type(section).__doc__:
            lines += [f"# {line.strip()}" for line in (type(section).__doc__ or "").strip().splitlines()]
        lines.append(f"[{name}]")
        for key, field in fields_of(type(section)).items():
            if comments:
                lines.append(f"# {field.description}{_bounds(field)}")
            lines.append(f"{key} = {_toml_value(getattr(section, key))}")
    return "\n".join(lines) + "\n"


def _bounds(field: Field) -> str:
    if field.bounds:
        return f" [{field.bounds[0]:g} to {field.bounds[1]:g}]"
    return f" [{', '.join(field.choices)}]" if field.choices else ""


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON's strings are TOML's basic strings, but for DEL, which TOML wants to be escaped too.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
