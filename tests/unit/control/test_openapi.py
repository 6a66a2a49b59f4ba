"""The API's description of itself: whole, true to the code, and the same as the published one."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from slabwatch.control.openapi import OPERATIONS, document
from slabwatch.control.problems import CODES
from slabwatch.control.server import make_app
from slabwatch.control.services import Services
from tests.unit.control.conftest import Door

PUBLISHED = Path(__file__).parents[3] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    app = make_app(cast(Services, None))
    # As a client gets it: JSON knows no tuples.
    described: dict[str, Any] = json.loads(json.dumps(document(list(app.router.routes()))))
    return described


def operations(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["operationId"]: each for path in described["paths"].values() for each in path.values()}


def test_every_route_is_described_and_nothing_else(described: dict[str, Any]) -> None:
    assert set(operations(described)) == set(OPERATIONS)
    routes = make_app(cast(Services, None)).router.routes()
    served = {
        (route.method, re.sub(r"\{(\w+):.*\}", r"{\1}", route.resource.canonical)) for route in routes if route.resource
    }
    assert {(method.upper(), path) for path, all_ in described["paths"].items() for method in all_} == {
        (method, path) for method, path in served if method != "HEAD"
    }


def test_the_published_description_is_this_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "slabwatch.control.openapi"], capture_output=True, text=True, check=True, timeout=60
    )
    assert PUBLISHED.read_text(encoding="utf-8") == done.stdout, "run `make docs`"


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    text = json.dumps(described)
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in described["components"]["schemas"]
    assert "$defs" not in text


def test_every_refusal_has_a_known_code_and_its_status(described: dict[str, Any]) -> None:
    named: set[str] = set()
    for operation in operations(described).values():
        for status, answer in operation["responses"].items():
            problem = answer["content"].get("application/problem+json")
            if problem:
                codes = problem["schema"]["allOf"][1]["properties"]["code"]["enum"]
                assert {CODES[code][0] for code in codes} == {int(status)}
                named |= set(codes)
    # Those that any path may give are not repeated at each.
    assert set(CODES) - named == {"wrong_method"}


def test_ids_have_the_form_that_the_path_takes(described: dict[str, Any]) -> None:
    parameter = described["paths"]["/v1/storms/{id}"]["get"]["parameters"][0]
    assert parameter["schema"]["pattern"] == "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
    assert (parameter["in"], parameter["name"], parameter["required"]) == ("path", "id", True)


@pytest.mark.asyncio
async def test_the_daemon_tells_it(door: Door, described: dict[str, Any]) -> None:
    assert await door.ask("GET", "/v1/openapi.json") == (200, described)


@pytest.mark.asyncio
@pytest.mark.parametrize("value", ["", "0", "11", "true"])
async def test_a_lease_is_1_or_none(door: Door, value: str) -> None:
    status, problem = await door.ask("GET", f"/v1/storms/storm-1/events?lease={value}")
    assert (status, problem["code"]) == (422, "bad_request")


@pytest.mark.asyncio
async def test_a_body_that_does_not_come(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slabwatch.control.commands.BODY_SECONDS", 0.02)
    reader, writer = await asyncio.open_unix_connection(str(door.path))
    writer.write(b"POST /v1/storms HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    body = json.loads(await asyncio.wait_for(reader.readuntil(b"\n"), 10))
    assert head.startswith(b"HTTP/1.1 408 ")
    assert body["code"] == "too_slow"
    writer.close()
    assert door.daemon.storms.running is None
