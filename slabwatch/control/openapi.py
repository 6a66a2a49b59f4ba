"""The control API's own description, OpenAPI 3.1: made from the app's routes, the schemas and the table of refusals.

A route is declared where it is served, with a name; what can not be seen there stands in ``OPERATIONS``.
"""

from __future__ import annotations

import json
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from slabwatch import __version__
from slabwatch.control import answers
from slabwatch.control.problems import CODES
from slabwatch.control.schema import (
    LockRequest,
    ReloadRequest,
    Request,
    ShrinkRequest,
    StopRequest,
    StormRequest,
    UnlockRequest,
)
from slabwatch.form import fields_of

PATH = "/v1/openapi.json"
_SCHEMAS = "#/components/schemas/"
_PARAMETER = re.compile(r"\{(\w+):([^/]+)\}")

_LACKS = tuple(code for code in CODES if code.startswith("lack_of_"))
# Whoever sends a body may hear these.
_BODY = ("bad_json", "bad_request", "too_large", "too_slow")
_DESCRIPTION = """\
Spoken at the daemon's unix socket: `curl --unix-socket /run/slabwatch/slabwatch.sock http://slabwatch/v1/status`.
Viewers may GET; everything that changes something takes an operator. A refusal is application/problem+json with a
stable `code`. Null means that this kernel does not have the figure; it is never 0 instead."""


@dataclass(frozen=True, slots=True)
class Operation:
    """``answer`` by status; ``codes``: the refusals of its own."""

    summary: str
    answer: Mapping[int, Any]
    codes: tuple[str, ...] = ()
    body: type[Request] | None = None
    parameters: Sequence[Mapping[str, Any]] = ()
    media_type: str = "application/json"


def _parameter(where: str, name: str, schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {"in": where, "name": name, "required": False, "description": text, "schema": schema}


OPERATIONS: Mapping[str, Operation] = {
    "openapi": Operation("This document", {200: dict[str, Any]}),
    "status": Operation("The daemon, its kernel, collectors and running storm", {200: answers.Status}),
    "caches": Operation("All slab caches, as of the last poll", {200: answers.Caches}, ("no_sample",)),
    "cgroups": Operation(
        "Memory cgroups by kernel memory, as of the last poll", {200: answers.Cgroups}, ("no_sample",)
    ),
    "doctor": Operation("What this kernel and this configuration can do", {200: answers.Doctor}),
    "storms": Operation("Storms, newest first", {200: answers.Storms}),
    "record": Operation(
        "A finished storm's record, or how far a running one is",
        {200: answers.StormRecord | answers.RunningStorm},
        ("unknown_storm",),
    ),
    "events": Operation(
        "A storm's events, one JSON object a line, until its end",
        {200: answers.StormEvent},
        ("unknown_storm", "too_many_streams", "bad_request"),
        parameters=[
            _parameter(
                "query",
                "lease",
                {"type": "string", "enum": ["1"]},
                "The storm is stopped when the last client that said this goes away, if its plan says so. For who has "
                "started the storm, and who may stop those of others.",
            )
        ],
        media_type="application/x-ndjson",
    ),
    "storm": Operation(
        "Start a storm, or forecast one (dry_run)",
        {202: answers.StormStarted, 200: answers.StormForecast},
        (
            *("storm_disabled", "storm_running", "bad_plan", "over_cap", "not_permitted", "kernel_can_not", "stopping"),
            *("locked", "recovering", "shrink_running"),
            *_LACKS,
        ),
        StormRequest,
        [
            _parameter(
                "header",
                "Idempotency-Key",
                {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
                "The same key and body again, from the same caller, give the storm that they started, and no other.",
            )
        ],
    ),
    "stop": Operation(
        "Stop a storm", {202: answers.Stopping, 200: answers.Stopping}, ("unknown_storm",), body=StopRequest
    ),
    "shrink": Operation(
        "Shrink slab caches (none named: all), and say what each gave back",
        {200: answers.Shrunk},
        (
            "shrink_disabled",
            "shrink_running",
            "storm_running",
            "unknown_cache",
            "not_permitted",
            "kernel_can_not",
            "locked",
        ),
        ShrinkRequest,
    ),
    "lock": Operation("Lock storms and shrinks for maintenance", {200: answers.Locked}, body=LockRequest),
    "unlock": Operation("Allow storms and shrinks again", {200: answers.Unlocked}, body=UnlockRequest),
    "audit": Operation(
        "The newest commands and refusals. For operators.",
        {200: answers.AuditLines},
        ("bad_request",),
        parameters=[
            _parameter("query", "limit", {"type": "integer", "minimum": 1, "maximum": 10_000}, "How many lines.")
        ],
    ),
    "reload": Operation("Read the configuration again", {200: answers.Reloaded}, ("bad_config",), ReloadRequest),
}


def document(routes: Sequence[web.AbstractRoute]) -> dict[str, Any]:
    """The whole description. Raises KeyError for a route without an operation."""
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        # aiohttp adds HEAD to each GET; what it may answer is the same.
        if route.resource is None or route.method == "HEAD":
            continue
        name = route.name or ""
        path = _PARAMETER.sub(r"{\1}", _template(route.resource))
        paths.setdefault(path, {})[route.method.lower()] = _operation(name, OPERATIONS[name], route.resource, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "slabwatch control API", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def _operation(name: str, operation: Operation, resource: web.AbstractResource, schemas: dict[str, Any]) -> Any:
    in_path = [
        {"in": "path", "name": found[1], "required": True, "schema": {"type": "string", "pattern": f"^{found[2]}$"}}
        for found in _PARAMETER.finditer(_template(resource))
    ]
    # An id of another form than the path has it is no such path.
    no_path = ("unknown_route",) if in_path else ()
    codes = (*operation.codes, *(_BODY if operation.body else ()), *no_path, "not_allowed", "failed")
    described: dict[str, Any] = {
        "operationId": name,
        "summary": operation.summary,
        "parameters": [*in_path, *operation.parameters],
        "responses": {
            **{
                str(status): _content(operation.summary, operation.media_type, _schema(shape, schemas))
                for status, shape in operation.answer.items()
            },
            **_refusals(codes, schemas),
        },
    }
    if operation.body is not None:
        needed = any(field.required for field in fields_of(operation.body).values())
        described["requestBody"] = {
            "required": needed,
            "description": "" if needed else "No body at all is the same as {}.",
            "content": {"application/json": {"schema": _schema(operation.body, schemas)}},
        }
    return described


def _refusals(codes: Sequence[str], schemas: dict[str, Any]) -> dict[str, Any]:
    by_status: dict[int, set[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code][0], set()).add(code)
    general = _schema(answers.ProblemDetails, schemas)
    return {
        str(status): _content(
            "; ".join(sorted(CODES[code][1] for code in found)),
            "application/problem+json",
            {"allOf": [general, {"properties": {"code": {"enum": sorted(found)}, "status": {"const": status}}}]},
        )
        for status, found in sorted(by_status.items())
    }


def _content(text: str, media_type: str, schema: Any) -> dict[str, Any]:
    return {"description": text, "content": {media_type: {"schema": schema}}}


def _schema(shape: Any, schemas: dict[str, Any]) -> Any:
    """A reference to it, or its own schema where it has no name; what it refers to is put into ``schemas``."""
    if typing.get_origin(shape) is types.UnionType:  # of objects, which msgspec does not tell apart
        return {"anyOf": [_schema(part, schemas) for part in typing.get_args(shape)]}
    (made,), named = msgspec.json.schema_components([shape], ref_template=_SCHEMAS + "{name}")
    schemas.update(named)
    return made


def _template(resource: web.AbstractResource) -> str:
    info = resource.get_info()
    if "pattern" not in info:
        return resource.canonical
    # aiohttp keeps the pattern compiled; the name's expression is between its parentheses.
    return re.sub(r"\(\?P<(\w+)>([^)]*)\)", r"{\1:\2}", info["pattern"].pattern).replace("\\", "")


def main() -> None:
    """Write the document to stdout: ``make docs`` keeps docs/openapi.json."""
    from typing import cast

    from slabwatch.control.server import make_app
    from slabwatch.control.services import Services

    app = make_app(cast(Services, None))
    json.dump(document(list(app.router.routes())), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
