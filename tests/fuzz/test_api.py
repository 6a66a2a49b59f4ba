"""The control API of a running daemon against the description that it gives of itself, by schemathesis.

The daemon looks at a recorded host: plans are made and refused, forecasts are given, and no storm can ever begin there.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import given
from requests.adapters import HTTPAdapter
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from slabwatch.control.openapi import OPERATIONS
from tests.e2e.conftest import daemons
from tests.e2e.daemon import Daemon
from tests.fuzz.effort import tries
from tests.hosts import HOSTS
from tests.live.kernel import need_kernel, wait_until

pytestmark = pytest.mark.e2e

KNOWN = "20260101-000000-abcd"
EMPTY: dict[str, Any] = {}
RECORD: dict[str, Any] = {
    "format": 1, "id": KNOWN, "outcome": "completed", "reason": "", "requested_by": "root", "started_at": 1767225600.0,
    "seconds": 1.5, "plan": {"preset": "smoke", "cgroups": 1, "total_tasks": 1}, "host": {}, "tasks": {}, "cgroups": {},
    "phases": [], "snapshots": {}, "series": [], "caches": [], "verdict": {"class": "released"},
}  # fmt: skip


class UnixAdapter(HTTPAdapter):
    """Whatever the URL's host: the daemon's socket."""

    def __init__(self, path: Path) -> None:
        class Connection(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.settimeout(30)
                connection.connect(str(path))
                return connection

        self._pool = HTTPConnectionPool("slabwatch")
        self._pool.ConnectionCls = Connection
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool


@pytest.fixture(scope="module")
def daemon(hosts: Callable[[str, str], Path]) -> Iterator[Daemon]:
    """With storms and shrinks allowed, as far as a recorded host can have them, and one storm in its past."""
    with daemons(need_kernel()) as make:
        daemon = make(storms=False, storm={"enabled": True}, shrink={"enabled": True}, log={"level": "error"})
        daemon.arguments = ("--root", str(hosts(HOSTS[0], "after")))
        record = daemon.state / "storms" / f"{KNOWN}.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps(RECORD), encoding="ascii")
        daemon.spawn()
        wait_until(lambda: daemon.socket.exists() and daemon.ask("GET", "/v1/caches")[0] == 200, 30, "it answers")
        yield daemon
        assert daemon.ask("GET", "/v1/storms")[1]["storms"][0]["id"] == KNOWN
        assert daemon.storm_ids() == []


@pytest.fixture(scope="module")
def api(daemon: Daemon) -> Any:
    """The daemon's own word."""
    status, document = daemon.ask("GET", "/v1/openapi.json")
    assert status == 200
    return schemathesis.openapi.from_dict(document)


WITH_ID = ("record", "events", "stop")
VALID = [(name, "") for name in OPERATIONS] + [(name, KNOWN) for name in WITH_ID]
# Those with something in the request that can be wrong.
INVALID = [(name, "") for name in OPERATIONS if OPERATIONS[name].body or name in WITH_ID] + [("stop", KNOWN)]


@pytest.mark.parametrize(("name", "storm_id"), VALID)
def test_a_request_as_described_has_an_answer_as_described(daemon: Daemon, api: Any, name: str, storm_id: str) -> None:
    try_requests(daemon, api.find_operation_by_id(name), GenerationMode.POSITIVE, storm_id)


@pytest.mark.parametrize(("name", "storm_id"), INVALID)
def test_any_other_request_is_refused_as_described(daemon: Daemon, api: Any, name: str, storm_id: str) -> None:
    try_requests(daemon, api.find_operation_by_id(name), GenerationMode.NEGATIVE, storm_id)


def try_requests(daemon: Daemon, operation: Any, mode: GenerationMode, storm_id: str) -> None:
    """Make them up, send them, and hold the answers against the description."""
    session = requests.Session()
    session.mount("http://", UnixAdapter(daemon.socket))
    fixed = {"path_parameters": {"id": storm_id}} if storm_id else EMPTY

    @tries(60 if operation.body else 15)
    @given(case=operation.as_strategy(mode, **fixed))
    def ask(case: Case[Any]) -> None:
        answer = case.call(base_url="http://slabwatch", session=session, timeout=30)
        # 501, 503 and 507 are refusals too; 500 would be a defect.
        left_out: list[Any] = [not_a_server_error]
        if operation.body:  # of the right form, it may ask for nonsense
            left_out.append(positive_data_acceptance)
        if answer.status_code == 413:  # which schemathesis takes for no refusal
            left_out.append(negative_data_rejection)
        case.validate_response(answer, excluded_checks=left_out)
        assert answer.status_code != 500, answer.text

    with session:
        ask()
