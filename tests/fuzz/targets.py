"""Everything in slabwatch that reads what others wrote: any bytes must give a value, or the one error that is meant.

Each target raises when that does not hold. ``seeds`` are good inputs, from which the fuzzers begin.
"""

from __future__ import annotations

import atexit
import copy
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slabwatch import config_file
from slabwatch.config import Config
from slabwatch.control import client
from slabwatch.control.commands import parse_body
from slabwatch.control.problems import Problem
from slabwatch.control.schema import ReloadRequest, Request, ShrinkRequest, StopRequest, StormRequest
from slabwatch.errors import ConfigError, ControlError, StormRejected
from slabwatch.expose.guard import basic_auth
from slabwatch.expose.web_config import parse_duration, parse_web_config
from slabwatch.storm import compare, record_form
from slabwatch.storm.plan import Caps, make_plan
from slabwatch.storm.report import text_report
from slabwatch.storm.store import RecordStore
from tests.hosts import HOSTS
from tests.unit.kernel.parsers import PARSERS, Parser
from tests.unit.kernel.test_any_bytes import check
from tests.unit.storm_reports.records import scaled_storm

CAPS = Caps(max_cgroups=2000, max_tasks=250_000, max_live_tasks=20_000, max_ttl_seconds=3600.0, shrink_enabled=True)
HASH = b"$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
WEB = (
    b"""tls_server_config:
  cert_file: a
  key_file: b
  client_ca_file: c
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [a]
  cipher_suites: [TLS_AES_128_GCM_SHA256]
basic_auth_users:
  alice: %b
rate_limit: {interval: 1s, burst: 3}
http_server_config: {headers: {X-Frame-Options: deny}}
"""
    % HASH
)


@dataclass(frozen=True)
class Target:
    """``run`` raises only for a defect."""

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


def _configuration(data: bytes) -> None:
    path = _scratch("slabwatch.toml", data)
    try:
        loaded = config_file.load(path)
    except ConfigError as error:
        assert str(path) in str(error)
        return
    # What was understood can be written down and is understood again, the same.
    path.write_text(config_file.to_toml(loaded), encoding="utf-8")
    assert config_file.load(path) == loaded


def _web_configuration(data: bytes) -> None:
    try:
        parse_web_config(data, Path("web.yml"))
    except ConfigError as error:
        assert all(line.startswith("web.yml: ") for line in str(error).splitlines())


def _request(form: type[Request], data: bytes) -> None:
    try:
        asked = parse_body(data, form)
    except Problem as problem:
        assert problem.status in (400, 422)
        return
    if isinstance(asked, StormRequest):
        try:
            plan = make_plan(asked.wishes(), CAPS)
        except StormRejected as error:
            assert error.code in ("bad_plan", "over_cap")
            return
        assert 0 < plan.cgroups <= CAPS.max_cgroups
        assert 0 < plan.total_tasks <= CAPS.max_tasks
        assert 0 < plan.live_tasks <= CAPS.max_live_tasks
        assert 0 < plan.ttl_seconds <= CAPS.max_ttl_seconds


def _record(data: bytes) -> None:
    try:
        read = record_form.record_of(data)
    except ValueError:
        return
    compare.compare(read, read).as_dict()
    text_report(read)


def _stored(data: bytes) -> None:
    path = _scratch("storms/20260101-000000-abcd.json", data)
    store = RecordStore(path.parent.parent, 10)
    assert len(store.summaries()) == (store.load(path.stem) is not None)


def _answer(data: bytes) -> None:
    try:
        client._decoded(data)
    except ControlError as error:
        assert error.code == "bad_answer"


def _header(data: bytes) -> None:
    basic_auth(data.decode("utf-8", "surrogateescape"))


def _duration(data: bytes) -> None:
    try:
        assert 0 <= parse_duration(data.decode("utf-8", "replace")) <= 86_400
    except ValueError as error:
        assert str(error) in ("a duration is a number with its unit: 1s, 500ms, 1m30s", "longer than a day")


def _sample_of(parser: Parser) -> list[bytes]:
    return [parser.sample()]


def _small_record() -> list[bytes]:
    record = copy.deepcopy(scaled_storm(HOSTS[0]))
    for taken in record["snapshots"].values():
        del taken["caches"][3:]
    del record["caches"][3:], record["series"][3:]
    return [json.dumps(record).encode()]


def _json(*values: object) -> Callable[[], list[bytes]]:
    return lambda: [json.dumps(value).encode() for value in values]


_STORM = {"preset": "seed", "cgroups": 10, "tasks": 5, "kind": "fork", "hold_seconds": 1.5, "shrink": False,
          "live_tasks": 4, "ttl_seconds": 99.0, "on_disconnect": "stop", "dry_run": True, "concurrency": 2}  # fmt: skip

TARGETS = (
    *(
        Target(f"kernel-{parser.name}", functools.partial(check, parser), functools.partial(_sample_of, parser))
        for parser in PARSERS
    ),
    Target("config", _configuration, lambda: [config_file.to_toml(Config(), comments=True).encode()]),
    Target("web-config", _web_configuration, lambda: [WEB, b"{}"]),
    Target("storm-request", functools.partial(_request, StormRequest), _json(_STORM, {})),
    Target("stop-request", functools.partial(_request, StopRequest), _json({"reason": "why"})),
    Target("shrink-request", functools.partial(_request, ShrinkRequest), _json({"caches": ["dentry"]})),
    Target("reload-request", functools.partial(_request, ReloadRequest), _json({})),
    Target("record", _record, _small_record),
    Target("stored-record", _stored, _small_record),
    Target("answer", _answer, _json({"a": [1, None]})),
    Target("authorization", _header, lambda: [b"Basic YWxpY2U6c2VzYW1l"]),
    Target("duration", _duration, lambda: [b"1h2m3.5s", b"100ms"]),
)


@functools.cache
def _directory() -> Path:
    made = tempfile.mkdtemp(prefix="slabwatch-fuzz-")
    atexit.register(shutil.rmtree, made)
    return Path(made)


def _scratch(name: str, data: bytes) -> Path:
    path = _directory() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
