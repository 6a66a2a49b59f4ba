"""What the TLS door serves with: files that can not be used, by name; and the client's words for what went wrong."""

from __future__ import annotations

import os
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from slabwatch.config import Config, Remote
from slabwatch.control.tls import HandshakeFailed, server_context
from slabwatch.control.tls_client import client_context, https_address, tls_failure
from slabwatch.control.transports import transport_to
from slabwatch.errors import ConfigError, ControlError
from tests.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("server", "DNS:localhost")


def _remote(authority: Authority, server: tuple[Path, Path], **changes: object) -> Remote:
    files = {"cert": str(server[0]), "key": str(server[1]), "client_ca": str(authority.certificate)}
    values = {"listen": "127.0.0.1:0", **files, **{key: str(value) for key, value in changes.items()}}
    return Config.read({"remote": values}).remote


def _refusal(remote: Remote) -> str:
    with pytest.raises(ConfigError) as caught:
        server_context(remote)
    return str(caught.value)


def test_what_it_demands(authority: Authority, server: tuple[Path, Path]) -> None:
    context = server_context(_remote(authority, server))
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0, "a session that is resumed is not verified anew"
    assert not context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert server_context(_remote(authority, server, crl=authority.revocation_list())).verify_flags & (
        ssl.VERIFY_CRL_CHECK_LEAF
    )


@pytest.mark.parametrize("key", ["cert", "key", "client_ca"])
def test_what_is_not_set_or_not_there_is_named(
    authority: Authority, server: tuple[Path, Path], tmp_path: Path, key: str
) -> None:
    assert _refusal(_remote(authority, server, **{key: ""})).startswith(f"remote.{key}: is not set")
    missing = tmp_path / "missing.pem"
    assert _refusal(_remote(authority, server, **{key: missing})) == (
        f"remote.{key}: {missing} can not be read: No such file or directory"
    )
    assert _refusal(_remote(authority, server, **{key: tmp_path})).startswith(f"remote.{key}: {tmp_path} can not be")


@pytest.mark.parametrize("key", ["cert", "key", "client_ca", "crl"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\xff\xfe\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_pem_is_named(
    authority: Authority, server: tuple[Path, Path], tmp_path: Path, key: str, content: bytes
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_bytes(content)
    said = _refusal(_remote(authority, server, **{key: broken}))
    assert said.startswith(f"remote.{key}: ")
    assert str(broken) in said


def test_a_key_of_another_certificate(authority: Authority, server: tuple[Path, Path]) -> None:
    _, other = authority.issue("other", "DNS:other")
    said = _refusal(_remote(authority, server, key=other))
    assert said == f"remote.key: {other} is not the key of the certificate {server[0]}"


def test_a_key_with_a_passphrase(authority: Authority, server: tuple[Path, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", str(server[1]), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, timeout=30, capture_output=True)
    assert "has a passphrase" in _refusal(_remote(authority, server, key=locked))
    with pytest.raises(ControlError, match="has a passphrase"):
        client_context("https://x", {"cert": str(server[0]), "key": str(locked)})


def test_a_certificate_that_is_no_ca_verifies_nobody(authority: Authority, server: tuple[Path, Path]) -> None:
    assert "holds no certificate of a CA" in _refusal(_remote(authority, server, client_ca=server[0]))


def test_a_revocation_list_must_not_bring_a_ca_with_it(
    authority: Authority, server: tuple[Path, Path], tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(authority.revocation_list().read_bytes() + authority.certificate.read_bytes())
    assert "would be trusted" in _refusal(_remote(authority, server, crl=both))


def test_comments_in_any_language(authority: Authority, server: tuple[Path, Path], tmp_path: Path) -> None:
    commented = tmp_path / "commented.pem"
    commented.write_bytes("# Zürich\n".encode() + authority.certificate.read_bytes())
    server_context(_remote(authority, server, client_ca=commented))


# Who is revoked, handshake by handshake.


@pytest.fixture(scope="module")
def between(authority: Authority) -> Authority:
    """An intermediate CA."""
    return Authority(authority.directory, "between", authority)


def _why_not(remote: Remote, pair: tuple[Path, Path]) -> str:
    """What the server has against a client with this certificate; "": nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*pair)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server)
    server = server_context(remote).wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    try:
        server.do_handshake()
    except HandshakeFailed as error:
        return error.why
    return ""


def _joined(directory: Path, *lists: Path) -> Path:
    made = directory / "lists.pem"
    made.write_bytes(b"".join(path.read_bytes() for path in lists))
    return made


def test_below_a_root_the_cas_between_can_be_revoked_too(
    authority: Authority, between: Authority, server: tuple[Path, Path], tmp_path: Path
) -> None:
    below, direct = between.issue("below", "DNS:below"), authority.issue("direct", "DNS:direct")
    theirs = between.revocation_list()

    lists = _joined(tmp_path, authority.revocation_list(), theirs)
    assert _why_not(_remote(authority, server, crl=lists), below) == ""
    lists = _joined(tmp_path, authority.revocation_list(between.certificate), theirs)
    assert _why_not(_remote(authority, server, crl=lists), below) == "certificate refused: certificate revoked"
    assert _why_not(_remote(authority, server, crl=lists), direct) == ""
    lists = _joined(tmp_path, authority.revocation_list(), between.revocation_list(below[0]))
    assert _why_not(_remote(authority, server, crl=lists), below) == "certificate refused: certificate revoked"


@pytest.mark.parametrize("missing", ["the root's", "the one between's"])
def test_below_a_root_each_ca_s_list_must_be_there(
    authority: Authority, between: Authority, server: tuple[Path, Path], tmp_path: Path, missing: str
) -> None:
    below = between.issue("below", "DNS:below")
    lists = _joined(tmp_path, (between if missing == "the root's" else authority).revocation_list())
    assert _why_not(_remote(authority, server, crl=lists), below) == (
        "certificate refused: unable to get certificate CRL"
    )


def test_an_intermediate_ca_that_is_trusted_itself_needs_its_own_list_alone(
    authority: Authority, between: Authority, server: tuple[Path, Path], tmp_path: Path
) -> None:
    below, other = between.issue("below", "DNS:below"), between.issue("other", "DNS:other")
    for trusted in (between.certificate, _joined(tmp_path, between.certificate, authority.certificate)):
        remote = _remote(authority, server, client_ca=trusted, crl=between.revocation_list(other[0]))
        assert _why_not(remote, below) == ""
        assert _why_not(remote, other) == "certificate refused: certificate revoked"


# The client.


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("https://host", "https://host:9935"),
        ("https://host:1234", "https://host:1234"),
        ("https://host:1234/", "https://host:1234"),
        ("https://[::1]:1234", "https://[::1]:1234"),
    ],
)
def test_addresses(target: str, address: str) -> None:
    assert https_address(target) == address


@pytest.mark.parametrize(
    "target", ["https://", "https://:1", "https://h:x", "https://h:99999", "https://u@h", "https://h/v1", "https://h?x"]
)
def test_addresses_that_are_none(target: str) -> None:
    with pytest.raises(ControlError) as caught:
        https_address(target)
    assert caught.value.code == "bad_target"
    assert target in str(caught.value)


def test_settings_go_before_the_environment(
    authority: Authority, server: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.delenv(f"SLABWATCH_{name}", raising=False)
    with pytest.raises(ControlError, match="takes a client certificate"):
        transport_to("https://host", {})
    monkeypatch.setenv("SLABWATCH_CERT", str(server[0]))
    monkeypatch.setenv("SLABWATCH_KEY", str(server[1]))
    assert transport_to("https://host", {}).base_url == "https://host:9935"
    for name in ("ca", "cert", "key"):
        with pytest.raises(ControlError, match="missing.pem.* can not be used: No such file") as caught:
            transport_to("https://host", {name: "missing.pem"})
        assert caught.value.code == "bad_target"
    with pytest.raises(ControlError, match="KEY_VALUES_MISMATCH"):
        transport_to("https://host", {"key": str(authority.issue("third", "DNS:third")[1])})


def test_a_key_in_the_file_of_its_certificate(server: tuple[Path, Path], tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(server[0].read_bytes() + server[1].read_bytes())
    assert os.environ.get("SLABWATCH_KEY") is None
    client_context("https://host", {"cert": str(both)})


def test_a_key_that_was_forgotten(server: tuple[Path, Path]) -> None:
    with pytest.raises(ControlError, match=r"can not be used: .*\. SLABWATCH_KEY \(--key\) names") as caught:
        client_context("https://host", {"cert": str(server[0])})
    assert caught.value.code == "bad_target"


def test_errors_that_are_not_of_tls_have_no_words() -> None:
    assert tls_failure("host", aiohttp.ServerDisconnectedError()) is None
    assert tls_failure("host", OSError("broken")) is None
