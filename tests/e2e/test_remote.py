"""The TLS door of real daemons: docs/remote.md word by word, certificates of every kind, and reloads under a storm."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from slabwatch.control.audit import BURST
from tests.certificates import Authority
from tests.e2e.daemon import BIN, Daemon
from tests.e2e.test_attacks import INTERVAL, MOST, MOST_MIB_TLS, assert_recovers, assert_unmoved, attackers, watched
from tests.live.kernel import wait_until
from tests.requirements import need

pytestmark = [pytest.mark.e2e, pytest.mark.system]

MakeDaemon = Callable[..., Daemon]
Pair = tuple[Path, Path]
PAGE = Path(__file__).parents[2] / "docs" / "remote.md"


class Remote:
    """A daemon with a TLS door, the CA of its clients, and clients with certificates."""

    def __init__(self, make_daemon: MakeDaemon, directory: Path, **sections: Mapping[str, object]) -> None:
        self.authority = Authority(directory)
        server = self.authority.issue("server", "DNS:localhost,IP:127.0.0.1,IP:::1", use="serverAuth")
        self.settings: dict[str, object] = {
            "listen": "127.0.0.1:0",
            "cert": str(server[0]),
            "key": str(server[1]),
            "client_ca": str(self.authority.certificate),
            "crl": str(self.authority.revocation_list()),
            "viewers": ["EMAIL:*@example.org"],
            "operators": ["URI:spiffe://example.org/ops/*"],
        }
        self.operator = self.client("operator", "URI:spiffe://example.org/ops/alice")
        self.viewer = self.client("viewer", "email:bob@example.org")
        self.daemon = make_daemon(remote=self.settings, **sections)
        self.daemon.start()

    def client(self, name: str, sans: str, **more: Any) -> Pair:
        return self.authority.issue(name, sans, use="clientAuth", **more)

    @property
    def url(self) -> str:
        return str(self.daemon.events("tls_door_open")[-1]["url"])

    def ctl_command(self, *arguments: str) -> list[str]:
        return [str(BIN / "slabwatchctl"), "--host", self.url, *arguments]

    def environment(self, pair: Pair) -> dict[str, str]:
        certificates = {"CA": self.authority.certificate, "CERT": pair[0], "KEY": pair[1]}
        return {**os.environ, **{f"SLABWATCH_{name}": str(path) for name, path in certificates.items()}}

    def ctl(self, pair: Pair, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.ctl_command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment(pair),
            check=False,
        )

    def reload(self, **changes: object) -> None:
        """SIGHUP with other settings, and wait until they hold."""
        count = len(self.daemon.events("reloaded"))
        self.settings |= changes
        self.daemon.write_config({**self.daemon.sections, "remote": self.settings})
        self.daemon.signal(signal.SIGHUP)
        wait_until(lambda: len(self.daemon.events("reloaded")) > count, 10, "reloaded")

    def refusals(self) -> list[dict[str, Any]]:
        return [event for event in self.daemon.events("audit") if not event["allowed"]]


@pytest.fixture
def remote(make_daemon: MakeDaemon, tmp_path: Path) -> Remote:
    return Remote(make_daemon, tmp_path)


# docs/remote.md.


def _section(title: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index(f"\n## {title}\n")
    end = text.find("\n## ", begin + 1)
    return text[begin : end if end > 0 else None]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _section("mTLS"), re.DOTALL)


def _run(script: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": path, "HOST": "localhost", **environment},
        check=False,
    )


def test_the_page_s_commands_make_a_working_ca_server_and_client(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    need(shutil.which("openssl") is not None, "openssl")
    make, client, revoke = _blocks("sh")
    settings, rights = _blocks("toml")
    assert len(make.splitlines()) == 6
    assert all(line.startswith("openssl ") for line in make.splitlines())
    made = _run(make, tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout == "server.pem: OK\nclient.pem: OK\n"

    daemon = make_daemon()
    here = settings.replace("/etc/slabwatch/", f"{tmp_path}/").replace("0.0.0.0:9935", "127.0.0.1:0")
    written = daemon.config.read_text(encoding="utf-8")
    daemon.config.write_text(written + here, encoding="utf-8")
    daemon.start()

    def ask() -> subprocess.CompletedProcess[str]:
        port = daemon.events("tls_door_open")[-1]["url"].rpartition(":")[2]
        return _run(client.replace(":9935", f":{port}"), tmp_path)

    asked = ask()
    assert asked.returncode == 0, asked.stderr
    assert "you         EMAIL:alice@example.org, operator, by tls" in asked.stdout
    assert "This storm may run." in asked.stdout

    # The rights are an example that can be loaded.
    daemon.config.write_text(written + here + rights, encoding="utf-8")
    assert daemon.ask("POST", "/v1/reload", {})[0] == 200

    revoked = _run(revoke, tmp_path)
    assert revoked.returncode == 0, revoked.stderr
    daemon.config.write_text(written + here + f'crl = "{tmp_path}/crl.pem"\n', encoding="utf-8")
    assert daemon.ask("POST", "/v1/reload", {})[0] == 200
    refused = ask()
    assert refused.returncode == 6
    assert "your certificate has been revoked" in refused.stderr


# Who gets in.


def test_a_storm_by_certificate(remote: Remote) -> None:
    done = remote.ctl(remote.operator, "--json", "storm", "--yes", "--cgroups", "2", "--tasks", "2", "--settle", "0")
    assert done.returncode in (0, 7), done.stderr
    ended = json.loads(done.stdout.splitlines()[-1])
    record = ended.get("record", ended)
    assert record["outcome"] == "completed"
    assert record["requested_by"] == "URI:spiffe://example.org/ops/alice"
    answer = json.loads(remote.ctl(remote.operator, "--json", "audit").stdout)
    (storm,) = [entry for entry in answer["entries"] if entry["command"] == "storm"]
    assert (storm["user"], storm["door"], storm["allowed"], storm["outcome"], storm["storm_id"]) == (
        "URI:spiffe://example.org/ops/alice", "tls", True, "done", record["id"],
    )  # fmt: skip
    # And by its file, which others can not read.
    path = remote.daemon.state / "audit.jsonl"
    assert answer["path"] == str(path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert storm in [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_viewer_may_look_and_no_more(remote: Remote) -> None:
    status = json.loads(remote.ctl(remote.viewer, "--json", "status").stdout)
    assert (status["you"]["user"], status["you"]["role"]) == ("EMAIL:bob@example.org", "viewer")
    assert status["remote_url"] == remote.url
    attempts = (("storm", "--yes"), ("storm", "--dry-run"), ("shrink",), ("lock", "--reason", "x"), ("audit",))
    for arguments in attempts:
        done = remote.ctl(remote.viewer, *arguments)
        assert done.returncode == 6, (arguments, done.stderr)
        assert "is not for EMAIL:bob@example.org" in done.stderr
    assert [entry["command"] for entry in remote.refusals()] == ["storm", "storm", "shrink", "lock", "audit"]
    assert remote.daemon.events("storm_started") == []


def test_certificates_that_are_refused_are_audited(remote: Remote, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    clients = {
        "expired": (remote.client("expired", "email:x@example.org", days=-1), "certificate has expired"),
        "unknown": (Authority(other).issue("unknown", "email:x@example.org"), "unable to get local issuer certificate"),
        "nobody": (remote.client("nobody", "DNS:nobody.example.org"), "has no role here"),
        "server": (remote.authority.issue("web", "email:x@example.org", use="serverAuth"), "purpose"),
        "revoked": (remote.client("revoked", "email:x@example.org"), "certificate revoked"),
    }
    remote.authority.revocation_list(clients["revoked"][0][0])
    remote.reload()
    for name, (pair, reason) in clients.items():
        count = len(remote.refusals())
        done = remote.ctl(pair, "storm", "--yes")
        assert done.returncode == 6, (name, done.stderr)
        wait_until(lambda n=count: len(remote.refusals()) > n, 5, f"{name} is audited")  # type: ignore[misc]
        entry = remote.refusals()[-1]
        assert reason in entry["reason"], name
        assert (entry["door"], entry["outcome"]) == ("tls", "not_allowed")
        assert entry["address"].startswith("127.0.0.1:")
    assert remote.daemon.events("storm_started") == []
    assert remote.ctl(remote.viewer, "status").returncode == 0
    kept = json.loads(remote.daemon.ctl("--json", "audit").stdout)["entries"]
    assert len([entry for entry in kept if not entry["allowed"]]) == len(remote.refusals())


def _port(remote: Remote) -> int:
    return int(remote.url.rpartition(":")[2])


def test_what_is_no_tls_1_3_is_refused(remote: Remote) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", _port(remote), timeout=10)
    plain.request("GET", "/v1/status")
    with plain.getresponse() as answer:
        assert answer.status == 400
        assert b"use https://" in answer.read()
    plain.close()
    old = ssl.create_default_context(cafile=str(remote.authority.certificate))
    old.load_cert_chain(*map(str, remote.operator))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", _port(remote)), timeout=10) as connection,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        old.wrap_socket(connection, server_hostname="localhost")
    wait_until(lambda: len(remote.refusals()) == 2, 5, "both are audited")
    assert [entry["reason"] for entry in remote.refusals()] == ["plain HTTP, not TLS", "a version of TLS before 1.3"]


def test_a_flood_of_strangers_is_bounded_in_the_audit_log(remote: Remote) -> None:
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", _port(remote)), timeout=10) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while stranger.recv(1000):
                pass
    assert remote.ctl(remote.viewer, "status").returncode == 0
    assert len(remote.refusals()) == 20


# Reloads.


@contextmanager
def _following(remote: Remote, pair: Pair, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """slabwatchctl in the background."""
    process = subprocess.Popen(
        remote.ctl_command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=remote.environment(pair),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def test_certificates_are_reloaded_with_a_storm_running(remote: Remote, tmp_path: Path) -> None:
    daemon = remote.daemon
    storm = ("--json", "storm", "--yes", "--cgroups", "3", "--tasks", "3", "--hold", "8", "--settle", "0")
    with _following(remote, remote.operator, *storm) as follower:
        wait_until(daemon.storm_ids, 20, "a storm")
        (storm_id,) = daemon.storm_ids()
        daemon.wait_for_phase(storm_id, "hold")
        # Everything new: the daemon's certificate, and the CA of its clients. The old CA is trusted no more.
        other = tmp_path / "other"
        other.mkdir()
        fresh = Authority(other)
        server = fresh.issue("server", "DNS:localhost,IP:127.0.0.1", use="serverAuth")
        remote.reload(cert=str(server[0]), key=str(server[1]), client_ca=str(fresh.certificate), crl="")
        operator = fresh.issue("operator", "URI:spiffe://example.org/ops/carol", use="clientAuth")
        former, remote.authority = remote.authority, fresh
        refused = remote.ctl(remote.operator, "status")
        assert refused.returncode == 6, refused.stderr
        assert "of a CA that the daemon does not know" in refused.stderr
        assert remote.ctl(operator, "status").returncode == 0
        remote.authority = former
        assert remote.ctl(operator, "status").returncode == 5, "the old CA does not vouch for the daemon's certificate"
        # Nobody had to notice who follows the storm, and holds its lease.
        assert daemon.ask("GET", "/v1/status")[1]["storm"]["running"]["id"] == storm_id
        out, err = follower.communicate(timeout=60)
    assert follower.returncode in (0, 7), err
    assert daemon.record(storm_id)["outcome"] == "completed"
    assert storm_id in out.splitlines()[-1]


def test_a_bad_reload_keeps_the_door_as_it_was(remote: Remote, tmp_path: Path) -> None:
    daemon, url = remote.daemon, remote.url
    good = dict(remote.settings)
    bad = {
        "client_ca": ("", "remote.client_ca: is not set"),
        "cert": (str(tmp_path / "missing.pem"), "missing.pem can not be read"),
        "key": (str(remote.operator[1]), "is not the key of the certificate"),
        "crl": (good["cert"], "holds a certificate, which would be trusted"),
    }
    for number, (key, (value, said)) in enumerate(bad.items(), start=1):
        daemon.write_config({**daemon.sections, "remote": {**good, key: value}})
        daemon.signal(signal.SIGHUP)
        wait_until(lambda n=number: len(daemon.events("reload_failed")) == n, 5, "reload_failed")  # type: ignore[misc]
        assert said in daemon.events("reload_failed")[-1]["error"]
        assert remote.ctl(remote.viewer, "status").returncode == 0
    remote.reload(listen="")
    assert remote.ctl(remote.viewer, "--host", url, "status").returncode == 5
    assert daemon.ask("GET", "/v1/status")[1]["remote_url"] == ""
    remote.reload(listen="127.0.0.1:0")
    assert remote.ctl(remote.viewer, "status").returncode == 0
    # Who has lost the role is out with the next question.
    remote.reload(viewers=[])
    assert remote.ctl(remote.viewer, "status").returncode == 6


@pytest.mark.parametrize("key", ["client_ca", "cert", "key"])
def test_it_does_not_start_without_what_verifies_clients(make_daemon: MakeDaemon, tmp_path: Path, key: str) -> None:
    authority = Authority(tmp_path)
    cert, private = authority.issue("server", "DNS:localhost")
    files = {"cert": str(cert), "key": str(private), "client_ca": str(authority.certificate)}
    daemon = make_daemon(storms=False, remote={"listen": "127.0.0.1:0", **files, key: ""})
    assert daemon.spawn().wait(20) == 1
    assert f"remote.{key}: is not set" in daemon.log.read_text(encoding="utf-8")
    assert not daemon.socket.exists()
    checked = subprocess.run(
        [BIN / "slabwatch", "--config", daemon.config, "--check-config"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 1
    assert f"remote.{key}: is not set" in checked.stderr


def test_a_list_that_has_expired_is_told_before_it_locks_everybody_out(remote: Remote) -> None:
    expired = remote.authority.revocation_list(expired=True)
    remote.reload(crl=str(expired))
    said = f"{expired} holds a revocation list that has expired on 2020-01-02 00:00 UTC"
    assert said in remote.daemon.events("remote_expired")[-1]["finding"]
    findings = json.loads(remote.daemon.ctl("--json", "doctor").stdout)["findings"]
    assert [said in one["finding"] for one in findings if one["name"] == "remote.crl"] == [True]
    checked = subprocess.run(
        [BIN / "slabwatch", "--config", remote.daemon.config, "--check-config"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, f"{remote.daemon.config}: ok\n")
    assert f"slabwatch: warning: remote.crl: {said}" in checked.stderr
    refused = remote.ctl(remote.viewer, "status")
    assert refused.returncode == 6
    assert "or the daemon's revocation list has (remote.crl)" in refused.stderr


# Under attack.


def _has_loopback6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        return False
    return True


def _asker(remote: Remote) -> Callable[[], bool]:
    """A client with a certificate, and a new connection each time."""
    context = ssl.create_default_context(cafile=str(remote.authority.certificate))
    context.load_cert_chain(*map(str, remote.viewer))

    def ask() -> bool:
        with urllib.request.urlopen(f"{remote.url}/v1/storms", timeout=10, context=context) as response:
            return bool(response.status == 200 and response.read())

    return ask


@pytest.mark.skipif(not _has_loopback6(), reason="this machine has no ::1")
def test_over_ipv6(remote: Remote) -> None:
    remote.reload(listen="[::1]:0")
    assert remote.url.startswith("https://[::1]:")
    assert remote.ctl(remote.viewer, "status").returncode == 0
    assert remote.ctl(remote.viewer, "lock", "--reason", "mine").returncode == 6
    assert remote.refusals()[-1]["address"].startswith("[::1]:")


@pytest.mark.parametrize("attack", ["idle", "handshakes", "hellos", "garbage"])
def test_strangers_keep_nobody_out(make_daemon: MakeDaemon, tmp_path: Path, attack: str) -> None:
    remote = Remote(make_daemon, tmp_path, poll={"interval_seconds": INTERVAL})
    ask = _asker(remote)
    wait_until(ask, 10, "it serves")
    with watched(remote.daemon, ask) as watch, attackers((attack, remote.url.removeprefix("https://"))) as done:
        pass
    print(watch.line(f"TLS door: {attack} {done[0]}"))
    # Those whose handshake is under way come on top of those that are in.
    assert_unmoved(watch, most_mib=MOST_MIB_TLS, most_files=2 * MOST)
    assert_recovers(remote.daemon, watch)
    assert len(remote.refusals()) <= BURST + 1, "a flood is no flood of audit lines"
