"""/metrics behind the exporter-toolkit's web configuration: curl and a real Prometheus as clients."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.certificates import Authority
from tests.e2e.daemon import Daemon
from tests.e2e.fleet import Engine, get, prometheus
from tests.live.kernel import wait_until
from tests.requirements import need

pytestmark = [pytest.mark.e2e, pytest.mark.system]

MakeDaemon = Callable[..., Daemon]
PASSWORD = "open sesame"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(8)).decode()
NO_ANSWER = 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Certificates of a server and its clients: a good one, an expired one, one of another authority's."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority(directory)
    authority.issue("server", "DNS:localhost,IP:127.0.0.1")
    authority.issue("renewed", "DNS:localhost,IP:127.0.0.1")
    authority.issue("client", "DNS:prometheus.example,URI:spiffe://example/prometheus", use="clientAuth")
    authority.issue("expired", "DNS:prometheus.example", days=-1)
    authority.issue("for-servers", "DNS:prometheus.example", use="serverAuth")
    Authority(directory, "other-ca").issue("stranger", "DNS:prometheus.example", use="clientAuth")
    return authority


class Protected:
    """A daemon with a web configuration that a test may write anew."""

    def __init__(self, daemon: Daemon, authority: Authority) -> None:
        self.daemon = daemon
        self.authority = authority
        self.directory = daemon.directory
        for name in ("server.pem", "server.key", "ca.pem"):
            shutil.copy(authority.directory / name, self.directory / name)
        self.file = self.directory / "web.yml"

    def write(self, *tls: str, more: str = "") -> None:
        """As a configuration management would: in place."""
        settings = ("cert_file: server.pem", "key_file: server.key", *tls)
        self.file.write_text("\n  ".join(["tls_server_config:", *settings]) + f"\n{more}", encoding="utf-8")

    def start(self) -> Protected:
        self.daemon.start()
        return self

    def curl(self, *options: str, client: str = "", path: str = "/metrics") -> tuple[int, str]:
        """Status (0: no answer) and body."""
        if client:
            pair = [str(self.authority.directory / f"{client}.{end}") for end in ("pem", "key")]
            options = (*options, "--cert", pair[0], "--key", pair[1])
        done = subprocess.run(
            [
                *("curl", "--silent", "--max-time", "10", "--cacert", str(self.authority.certificate)),
                *("--write-out", "\n%{http_code}", *options, f"{self.daemon.url}{path}"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def status(self, *options: str, client: str = "") -> int:
        return self.curl(*options, client=client)[0]


@pytest.fixture
def protected(make_daemon: MakeDaemon, authority: Authority) -> Protected:
    """Not started yet."""
    need(shutil.which("curl") is not None, "curl")
    daemon = make_daemon(storms=False, poll={"interval_seconds": 0.5})
    daemon.write_config({**daemon.sections, "metrics": {"web_config_file": str(daemon.directory / "web.yml")}})
    return Protected(daemon, authority)


LETS_IN: dict[str, dict[str, bool]] = {
    # What Go's crypto/tls does for each, by the certificate that the client shows.
    "NoClientCert": {"": True, "client": True, "stranger": True, "expired": True},
    "RequestClientCert": {"": True, "client": True, "stranger": True, "expired": True},
    "VerifyClientCertIfGiven": {"": True, "client": True, "stranger": False, "expired": False, "for-servers": False},
    "RequireAndVerifyClientCert": {
        "": False,
        "client": True,
        "stranger": False,
        "expired": False,
        "for-servers": False,
    },
}


@pytest.mark.parametrize("kind", LETS_IN)
def test_each_client_auth_type(protected: Protected, kind: str) -> None:
    verifies = "Verify" in kind
    protected.write(f"client_auth_type: {kind}", *(["client_ca_file: ca.pem"] if verifies else []))
    protected.start()
    assert protected.daemon.url.startswith("https://127.0.0.1:")
    found = {client: protected.status(client=client) for client in LETS_IN[kind]}
    assert found == {client: 200 if lets_in else NO_ANSWER for client, lets_in in LETS_IN[kind].items()}
    # Who speaks no TLS gets nothing at all.
    plain = protected.daemon.url.replace("https", "http")
    assert subprocess.run(["curl", "--silent", "--max-time", "10", plain], check=False, timeout=30).returncode != 0
    warned = protected.daemon.events("web_config_protects_nothing")
    assert bool(warned) == (kind == "RequestClientCert")


@pytest.mark.parametrize("kind", ["RequireAnyClientCert", "RequireClientCert"])
def test_what_would_verify_nothing_is_refused_at_the_start(protected: Protected, kind: str) -> None:
    protected.write(f"client_auth_type: {kind}")
    process = protected.daemon.spawn()
    assert process.wait(20) == 1
    said = protected.daemon.log.read_text(encoding="utf-8")
    assert f"slabwatch: {protected.file}: tls_server_config.client_auth_type: {kind} is not supported" in said
    protected.daemon.log.unlink()


def test_a_missing_key_is_refused_at_the_start_and_by_check_config(protected: Protected) -> None:
    protected.write()
    (protected.directory / "server.key").unlink()
    said = f"{protected.file}: tls_server_config.key_file: {protected.directory}/server.key can not be read"
    for arguments in ((), ("--check-config",)):
        protected.daemon.arguments = arguments
        assert protected.daemon.spawn().wait(20) == 1
        assert said in protected.daemon.log.read_text(encoding="utf-8")
        protected.daemon.log.unlink()
    shutil.copy(protected.authority.directory / "server.key", protected.directory)
    assert protected.daemon.spawn().wait(20) == 0


def test_names_in_client_certificates(protected: Protected) -> None:
    verify = ("client_auth_type: VerifyClientCertIfGiven", "client_ca_file: ca.pem")
    protected.write(*verify, "client_allowed_sans: ['spiffe://example/prometheus']")
    protected.start()
    assert protected.status(client="client") == 200
    # A certificate that may be left out, and a name that must be in it: it must be there.
    assert protected.curl()[0] == 403
    protected.write(*verify, "client_allowed_sans: ['spiffe://example/other']")
    wait_until(lambda: protected.status(client="client") == 403, 15, "the new names are taken")
    assert protected.daemon.events("web_config_loaded")[-1]["client_certificates"] == "optional"


def test_versions_suites_and_headers(protected: Protected) -> None:
    protected.write(
        "min_version: TLS12",
        "max_version: TLS12",
        "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]",
        more="http_server_config:\n  headers:\n    X-Frame-Options: deny\n    Strict-Transport-Security: max-age=60\n",
    )
    protected.start()
    assert protected.status("--tlsv1.3") == NO_ANSWER
    status, shown = protected.curl("--tls-max", "1.2", "--verbose", "--stderr", "-", "--head")
    assert status == 200
    assert "TLSv1.2 / ECDHE-ECDSA-AES256-GCM-SHA384" in shown
    assert "X-Frame-Options: deny" in shown
    assert "Strict-Transport-Security: max-age=60" in shown
    assert protected.status("--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256") == NO_ANSWER
    # On what is refused too.
    assert "X-Frame-Options: deny" in protected.curl("--head", path="/nothing")[1]


def test_a_rate_limit(protected: Protected) -> None:
    protected.write(more="rate_limit:\n  interval: 1h\n  burst: 5\n")
    protected.start()
    assert [protected.status() for _ in range(7)] == [200] * 5 + [429] * 2
    protected.write(more="rate_limit:\n  interval: 0\n")
    wait_until(lambda: protected.status() == 200, 15, "the limit is gone")
    refused = 'slabwatch_web_requests_refused_total{reason="rate_limit"} '
    assert float(protected.curl()[1].partition(refused)[2].split()[0]) >= 2


def test_passwords(protected: Protected) -> None:
    protected.write(more=f"basic_auth_users:\n  prometheus: {HASH}\n")
    protected.start()
    right = f"prometheus:{PASSWORD}"
    assert protected.status() == 401
    for wrong in ("prometheus:open", "nobody:open sesame", ":", f"prometheus:{PASSWORD} ", "x" * 6000):
        assert protected.status("--user", wrong) == 401
    assert protected.status("--user", right) == 200
    for path in ("/", "/-/healthy", "/nothing"):
        assert protected.curl(path=path)[0] == 401
        assert protected.curl("--user", right, path=path)[0] in (200, 404)
    assert "WWW-Authenticate: Basic" in protected.curl("--head")[1]
    # Another hash: the password that was remembered does no longer do.
    protected.write(more=f"basic_auth_users:\n  prometheus: {bcrypt.hashpw(b'new', bcrypt.gensalt(4)).decode()}\n")
    wait_until(lambda: protected.status("--user", "prometheus:new") == 200, 15, "the new hash is taken")
    assert protected.status("--user", right) == 401


def test_a_broken_or_weaker_file_changes_nothing(protected: Protected) -> None:
    users = f"basic_auth_users:\n  prometheus: {HASH}\n"
    right = ("--user", f"prometheus:{PASSWORD}")
    protected.write(more=users)
    protected.start()

    def flag() -> str:
        return protected.curl(*right)[1].partition("\nslabwatch_web_config_last_reload_successful ")[2].split("\n")[0]

    def failures() -> list[dict[str, Any]]:
        return protected.daemon.events("web_config_reload_failed")

    assert flag() == "1.0"
    for number, (text, said) in enumerate(
        {
            "tls_server_config: [": "not usable YAML",
            "": "TLS protects less than before: restart",
            "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n": "basic_auth_users protects less",
        }.items(),
        start=1,
    ):
        protected.file.write_text(text, encoding="ascii")
        wait_until(lambda count=number: len(failures()) == count, 15, said)  # type: ignore[misc]
        assert said in failures()[-1]["error"]
        assert (protected.status(), protected.status(*right)) == (401, 200)
        assert flag() == "0.0"
    status, problem = protected.daemon.ask("POST", "/v1/reload", {})
    assert (status, problem["code"]) == (422, "bad_config")
    protected.write(more=users)
    wait_until(lambda: flag() == "1.0", 15, "the good file is taken")


def test_a_renewed_certificate_is_shown_without_a_restart(protected: Protected) -> None:
    protected.write()
    protected.start()

    def shown() -> str:
        port = protected.daemon.url.rpartition(":")[2]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}"]
        done = subprocess.run(command, input="", capture_output=True, text=True, timeout=20, check=False)
        return next((line for line in done.stdout.splitlines() if line.startswith("subject=")), "")

    assert "server" in shown()
    with idle_connection(protected) as kept:
        for end in ("pem", "key"):
            new = protected.directory / f"new.{end}"
            shutil.copy(protected.authority.directory / f"renewed.{end}", new)
            os.replace(new, protected.directory / f"server.{end}")
        wait_until(lambda: "renewed" in shown(), 15, "the new certificate is shown")
        # Whoever connected under the old settings connects anew.
        assert kept.recv(1) == b""
    assert protected.status() == 200


@contextmanager
def idle_connection(protected: Protected) -> Iterator[Any]:
    """A client that has scraped once and stays."""
    import ssl

    context = ssl.create_default_context(cafile=str(protected.authority.certificate))
    port = int(protected.daemon.url.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        yield connection


def target(real: Engine) -> dict[str, Any]:
    """Its only target, as its page of targets shows it."""
    active: list[dict[str, Any]] = get(f"{real.url}/api/v1/targets")["data"]["activeTargets"]
    return active[0] if active else {}


def value(real: Engine, query: str) -> float | None:
    return next(iter(real.query(query).values()), None)


def test_a_real_prometheus_scrapes_over_tls_with_a_password(protected: Protected, tmp_path: Path) -> None:
    protected.write(
        "client_auth_type: RequireAndVerifyClientCert",
        "client_ca_file: ca.pem",
        "client_allowed_sans: [prometheus.example]",
        more=f"basic_auth_users:\n  prometheus: {HASH}\n",
    )
    protected.start()
    pair = {"cert_file": str(protected.authority.directory / "client.pem")}
    pair["key_file"] = str(protected.authority.directory / "client.key")
    scrape: dict[str, Any] = {
        "scheme": "https",
        "tls_config": {"ca_file": str(protected.authority.certificate), "server_name": "localhost", **pair},
        "basic_auth": {"username": "prometheus", "password": PASSWORD},
    }
    targets = {"targets": [protected.daemon.url.removeprefix("https://")]}
    with prometheus(tmp_path, targets, **scrape) as real:
        wait_until(lambda: target(real).get("health") == "up", 30, f"it is up: {target(real)}")
        wait_until(lambda: (value(real, "slabwatch_polls_total") or 0) >= 2, 20, "figures arrive")
        assert value(real, 'slabwatch_slab_active_objects{cache="task_struct"}')
        # Another certificate while it scrapes: no scrape is lost.
        for end in ("pem", "key"):
            shutil.copy(protected.authority.directory / f"renewed.{end}", protected.directory / f"server.{end}")
        loaded = protected.daemon.events("web_config_loaded")
        wait_until(lambda: len(protected.daemon.events("web_config_loaded")) > len(loaded), 15, "it is taken")
        since = time.time()
        wait_until(lambda: (value(real, "timestamp(up)") or 0) > since + 2, 20, "two more scrapes")
        assert value(real, "min_over_time(up[10s])") == 1
    scrape["basic_auth"] = {"username": "prometheus", "password": "wrong"}
    with prometheus(tmp_path, targets, **scrape) as real:
        wait_until(lambda: target(real).get("health") == "down", 30, "it is refused")
        assert "401" in target(real)["lastError"]
