"""What has expired is named, with the date that openssl says, and nothing else is."""

from __future__ import annotations

import base64
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slabwatch.config import Remote
from slabwatch.control.validity import expired
from tests.certificates import Authority

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("server", "DNS:localhost")


def _remote(authority: Authority, server: Pair, **changes: str) -> Remote:
    files = {"cert": str(server[0]), "key": str(server[1]), "client_ca": str(authority.certificate)}
    return Remote.read({"listen": "127.0.0.1:0", **files, **changes})


def test_what_holds_is_not_named(authority: Authority, server: Pair) -> None:
    assert expired(_remote(authority, server)) == []
    assert expired(_remote(authority, server, crl=str(authority.revocation_list()))) == []


def test_a_list_past_its_next_update(authority: Authority, server: Pair) -> None:
    crl = authority.revocation_list(server[0], expired=True)
    (found,) = expired(_remote(authority, server, crl=str(crl)))
    assert (found.name, found.state, found.remedy) == ("remote.crl", "warn", "put a new one in its place, and reload")
    assert f"{crl} holds a revocation list that has expired on 2020-01-02 00:00 UTC: whoever" in found.finding
    assert expired(_remote(authority, server, crl=str(crl), listen="")) == [], "the door is off"


def test_a_certificate_past_its_end(authority: Authority, server: Pair, tmp_path: Path) -> None:
    old, _ = authority.issue("old", "DNS:localhost", days=-1)
    told = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-in", str(old)],
        check=True, timeout=30, capture_output=True, text=True,
    ).stdout  # fmt: skip
    end = datetime.strptime(told.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    # Behind one that holds, with a comment in between.
    chain = tmp_path / "chain.pem"
    chain.write_bytes(server[0].read_bytes() + "# Zürich\n".encode() + old.read_bytes() + server[1].read_bytes())
    for key in ("cert", "client_ca"):
        (found,) = expired(_remote(authority, server, **{key: str(chain)}))
        assert found.name == f"remote.{key}"
        assert f"expired on {end:%Y-%m-%d %H:%M} UTC" in found.finding


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (b"\x17\x0d490101000000Z\x17\x0d500301235900Z", ["1950-03-01 23:59"]),
        (b"\x17\x0d980101000000Z\x17\x0d200301000000Z", ["2020-03-01 00:00"]),
        (b"\x17\x0d490101000000Z\x18\x0f20990301000000Z", []),
        (b"\x18\x0f19490101000000Z\x18\x0f19490301000000Z", ["1949-03-01 00:00"]),
        (b"\x17\x0d980101000000Z0\x00", []),  # from when, and no end
        (b"\x17\x0d980101000000Z\x17\x0d981399000000Z", []),
    ],
)
def test_both_kinds_of_time(authority: Authority, server: Pair, tmp_path: Path, times: bytes, said: list[str]) -> None:
    made = tmp_path / "made.crl"
    body = base64.encodebytes(b"0\x82\x01\x00issuer" + times + b"0\x00")
    made.write_bytes(b"-----BEGIN X509 CRL-----\n" + body + b"-----END X509 CRL-----\n")
    found = expired(_remote(authority, server, crl=str(made)))
    assert [one.finding.partition(" expired on ")[2].partition(" UTC")[0] for one in found] == said


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"-----BEGIN X509 CRL-----\nA\n-----END X509 CRL-----\n", b"-----BEGIN CERTIFICATE-----"],
)
def test_what_is_nothing_of_the_kind_is_for_others_to_say(
    authority: Authority, server: Pair, tmp_path: Path, content: bytes
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_bytes(content)
    assert expired(_remote(authority, server, cert=str(broken), crl=str(broken))) == []
    assert expired(_remote(authority, server, cert=str(tmp_path), crl=str(tmp_path / "missing"))) == []
