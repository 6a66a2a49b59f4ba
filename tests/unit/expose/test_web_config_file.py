"""The web configuration on disk: certificates that fit, what becomes of broken ones, and when a change is seen."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from slabwatch.errors import ConfigError
from slabwatch.expose.web_config_file import Loaded, WebConfigFile
from tests.certificates import Authority

Write = Callable[..., WebConfigFile]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    authority.issue("server", "DNS:localhost,IP:127.0.0.1")
    authority.issue("other", "DNS:localhost")
    return authority


@pytest.fixture
def write(tmp_path: Path, authority: Authority) -> Write:
    """``write(extra lines of tls_server_config)``; the certificates lie beside the file."""
    for name in ("server.pem", "server.key", "other.pem", "other.key", "ca.pem"):
        (tmp_path / name).write_bytes((authority.directory / name).read_bytes())

    def make(*lines: str, cert: str = "cert_file: server.pem", key: str = "key_file: server.key") -> WebConfigFile:
        path = tmp_path / "web.yml"
        path.write_text("\n  ".join(["tls_server_config:", cert, key, *lines]) + "\n", encoding="ascii")
        return WebConfigFile(path)

    return make


def context_of(loaded: Loaded) -> ssl.SSLContext:
    assert loaded.context is not None
    return loaded.context


def refusal(file: WebConfigFile) -> str:
    with pytest.raises(ConfigError) as caught:
        file.load()
    return str(caught.value)


def test_paths_are_relative_to_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    context = context_of(write().load())
    assert context.verify_mode == ssl.CERT_NONE
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.maximum_version == ssl.TLSVersion.TLSv1_3


def test_settings_reach_openssl(write: Write) -> None:
    context = context_of(
        write(
            "client_auth_type: RequireAndVerifyClientCert",
            "client_ca_file: ca.pem",
            "min_version: TLS12",
            "max_version: TLS12",
            "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]",
            "prefer_server_cipher_suites: false",
            "curve_preferences: [CurveP384]",
        ).load()
    )
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.maximum_version == ssl.TLSVersion.TLSv1_2
    assert {"ECDHE-ECDSA-AES256-GCM-SHA384"} == {
        cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"
    }
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    optional = write("client_auth_type: VerifyClientCertIfGiven", "client_ca_file: ca.pem").load()
    assert context_of(optional).verify_mode == ssl.CERT_OPTIONAL
    only13 = context_of(write("cipher_suites: [TLS_AES_128_GCM_SHA256]").load())
    assert only13.minimum_version == ssl.TLSVersion.TLSv1_3


def test_keys_in_the_file_itself_are_written_to_no_disk(write: Write, tmp_path: Path) -> None:
    def inline(name: str, file: str) -> str:
        return f"{name}: |\n    " + (tmp_path / file).read_text(encoding="ascii").strip().replace("\n", "\n    ")

    file = write(
        inline("client_ca", "ca.pem"),
        "client_auth_type: VerifyClientCertIfGiven",
        cert=inline("cert", "server.pem"),
        key=inline("key", "server.key"),
    )
    before = set(tmp_path.iterdir())
    assert context_of(file.load()).verify_mode == ssl.CERT_OPTIONAL
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("lines", "key", "said"),
    [
        ({"cert": "cert_file: nothing.pem"}, "cert_file", "nothing.pem can not be read: No such file"),
        ({"key": "key_file: ."}, "key_file", "no regular file"),
        ({"key": "key_file: other.key"}, "cert_file and key_file", "the key is not the certificate's"),
        ({"cert": "cert_file: server.key"}, "cert_file", "not a PEM file"),
        ({"cert": "cert: garbage"}, "cert_file", "not a PEM file"),
        ({"cert": r'cert: "\uD800"'}, "cert_file", "not a PEM file"),
        ({"cert": r'cert_file: "a\0b"'}, "cert_file", r"/a\x00b' is no path"),
        ({"key": r'key_file: "a\uD800b"'}, "key_file", r"/a\ud800b' is no path"),
    ],
)
def test_certificates_that_do_not_do(write: Write, lines: dict[str, str], key: str, said: str) -> None:
    file = write(**lines)
    message = refusal(file)
    assert message.startswith(f"{file.path}: tls_server_config")
    assert key in message
    assert said in message


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_authorities_that_are_none(write: Write, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.pem").write_bytes(content)
    file = write("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem")
    assert "client_ca_file" in refusal(file)


def test_comments_between_authorities_may_be_in_any_language(write: Write, tmp_path: Path) -> None:
    authority = (tmp_path / "ca.pem").read_bytes()
    (tmp_path / "ca.pem").write_bytes("# Müller GmbH\n".encode() + authority + b"# \xff\n")
    context = context_of(write("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem").load())
    assert len(context.get_ca_certs()) == 1


def test_without_a_descriptor_it_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(name: str, flags: int) -> int:
        raise OSError(24, "Too many open files")

    file = write()
    monkeypatch.setattr(os, "memfd_create", none_left)
    assert "Too many open files" in refusal(file)


def test_an_encrypted_key_asks_nobody_for_its_passphrase(write: Write, tmp_path: Path) -> None:
    command = ["openssl", "ec", "-in", "server.key", "-aes128", "-passout", "pass:x", "-out", "locked.key"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    assert "the key is encrypted" in refusal(write(key="key_file: locked.key"))


def test_a_pipe_makes_nobody_wait(write: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refusal(write(key="key_file: pipe"))
    assert "no regular file" in refusal(WebConfigFile(tmp_path / "pipe"))
    assert "metrics.web_config_file" in refusal(WebConfigFile(tmp_path / "none"))


def seen_at_last(file: WebConfigFile) -> bool:
    """A change is taken when it has been the same for two looks."""
    assert not file.changed()
    return file.changed()


def test_changes_are_seen_once(write: Write, tmp_path: Path) -> None:
    file = write()
    first = file.load()
    assert not seen_at_last(file)
    os.replace(
        tmp_path / "other.pem", tmp_path / "server.pem"
    )  # as certificates are renewed: first one, then the other
    assert seen_at_last(file)
    assert "the key is not the certificate's" in refusal(file)
    assert not seen_at_last(file)  # once is enough to be told
    os.replace(tmp_path / "other.key", tmp_path / "server.key")
    assert seen_at_last(file)
    second = file.load()
    assert second.digest != first.digest
    (tmp_path / "server.key").unlink()
    assert seen_at_last(file)
    assert "can not be read" in refusal(file)
    assert not seen_at_last(file)


def test_a_file_that_is_being_written_is_waited_for(write: Write, tmp_path: Path) -> None:
    file = write()
    file.load()
    for size in range(3):
        file.path.write_bytes(b"#" * size)
        assert not file.changed()
    assert file.changed()


def test_a_link_that_points_elsewhere(write: Write, tmp_path: Path) -> None:
    # As Kubernetes mounts a secret.
    write()
    for name, kept in (("one", ""), ("two", "# another\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "web.yml").write_text(kept, encoding="ascii")
    link = tmp_path / "now"
    link.symlink_to("one")
    file = WebConfigFile(link / "web.yml")
    file.load()
    link.unlink()
    link.symlink_to("two")
    assert seen_at_last(file)
