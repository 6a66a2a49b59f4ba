"""The server's half of mutual TLS: what it trusts, and why a handshake failed.

TLS 1.3 only, and nobody without a certificate of ``remote.client_ca``. No session is resumed: each connection's
certificate is verified anew, against what was loaded last.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, NoReturn

from slabwatch.config import Remote
from slabwatch.errors import ConfigError

_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no client certificate",
    "UNSUPPORTED_PROTOCOL": "a version of TLS before 1.3",
    "HTTP_REQUEST": "plain HTTP, not TLS",
    "WRONG_VERSION_NUMBER": "not TLS",
}


class HandshakeFailed(ssl.SSLError):
    """Why, in words for the audit log, and the alert that tells the client: asyncio would throw it away."""

    def __init__(self, why: str, alert: bytes) -> None:
        super().__init__(why)
        self.why = why
        self.alert = alert


class Session(ssl.SSLObject):
    """A connection's TLS."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        """As SSLObject does. Raises HandshakeFailed."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError):
            raise
        except ssl.SSLError as error:
            raise HandshakeFailed(_words(error), self.outgoing.read()) from error


class ServerContext(ssl.SSLContext):
    """Makes sessions."""

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **more: Any) -> ssl.SSLObject:
        session = super().wrap_bio(incoming, outgoing, *args, **more)
        assert isinstance(session, Session)
        session.outgoing = outgoing
        return session


def server_context(remote: Remote) -> ServerContext:
    """What the TLS door serves with. Reads files, so it blocks. Raises ConfigError that names the key."""
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = Session
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    # Whoever names an intermediate CA means that one, not all of its root's.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _identify(context, remote)
    _trust(context, remote)
    return context


def _identify(context: ssl.SSLContext, remote: Remote) -> None:
    certificate = _text("cert", remote.cert, "the daemon's certificate")
    _text("key", remote.key, "the daemon's private key")
    if _count(certificate, "x509") == 0:
        raise ConfigError(f"remote.cert: {remote.cert} holds no certificate in PEM form")
    try:
        context.load_cert_chain(remote.cert, remote.key, password=lambda: _no_passphrase(remote.key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"remote.key: {remote.key} is not the key of the certificate {remote.cert}") from error
        raise ConfigError(f"remote.key: {remote.key} and {remote.cert} can not be used: {_words(error)}") from error


def _no_passphrase(path: str) -> NoReturn:
    raise ConfigError(f"remote.key: {path} has a passphrase, and nobody is there to type it: write the key without one")


def _trust(context: ssl.SSLContext, remote: Remote) -> None:
    authorities = _text("client_ca", remote.client_ca, "the CAs of the clients, without which nobody could be verified")
    if _count(authorities, "x509_ca") == 0:
        raise ConfigError(f"remote.client_ca: {remote.client_ca} holds no certificate of a CA in PEM form")
    context.load_verify_locations(cadata=authorities)
    if not remote.crl:
        return
    lists = _text("crl", remote.crl, "the revocation lists")
    if "-----BEGIN CERTIFICATE" in lists or "-----BEGIN TRUSTED" in lists:
        raise ConfigError(f"remote.crl: {remote.crl} holds a certificate, which would be trusted: keep lists only")
    try:
        context.load_verify_locations(cafile=remote.crl)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"remote.crl: {remote.crl} holds no revocation list in PEM form") from error
    if context.cert_store_stats()["crl"] == 0:
        raise ConfigError(f"remote.crl: {remote.crl} holds no revocation list in PEM form")
    # Below roots, the CAs between are looked at too. A CA between that is trusted itself would be on a list of its
    # root's: to ask for that one would keep everybody out.
    roots = all(ca["subject"] == ca["issuer"] for ca in context.get_ca_certs())
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN if roots else ssl.VERIFY_CRL_CHECK_LEAF


def _text(key: str, path: str, what: str) -> str:
    if not path:
        raise ConfigError(f"remote.{key}: is not set: remote.listen needs {what}")
    try:
        return Path(path).read_text(encoding="ascii", errors="ignore")  # names in comments may hold anything
    except OSError as error:
        raise ConfigError(f"remote.{key}: {path} can not be read: {error.strerror or error}") from error


def _count(text: str, kind: str) -> int:
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        store.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return 0
    return store.cert_store_stats()[kind]


def _words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    reason = error.reason or str(error)
    return _REASONS.get(reason, reason.replace("_", " ").lower())
