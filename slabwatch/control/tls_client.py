"""The client's half of mutual TLS: https://host:port, and what went wrong in words that say what to do."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import NoReturn
from urllib.parse import urlsplit

import aiohttp

from slabwatch.errors import ControlError

DEFAULT_PORT = 9935

# What the daemon's alert says of this client's certificate. For what ails the revocation list there is no alert.
_ALERTS = {
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "has expired, or the daemon's revocation list has (remote.crl)",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "has been revoked",
    "TLSV1_ALERT_UNKNOWN_CA": "is of a CA that the daemon does not know (remote.client_ca), or has no revocation list "
    "of (remote.crl)",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "is missing",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "is not meant for a client",
    "SSLV3_ALERT_BAD_CERTIFICATE": "is refused",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "is refused",
}

# What to do about the daemon's, by OpenSSL's X509_V_ERR numbers: its CA is not known here, and another name or address.
_REMEDIES = {
    **dict.fromkeys((18, 19, 20, 21), ("SLABWATCH_CA names the file of its CA",)),
    **dict.fromkeys((62, 64), ("Use a name of its subjectAltName in --host",)),
}


def https_address(target: str) -> str:
    """https://host:port with the port filled in. Raises ControlError."""
    try:
        parts = urlsplit(target)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise ControlError(f"{target}: {error}", code="bad_target") from error
    if not parts.hostname or parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ControlError(f"{target}: not a target: https://host:port and nothing else", code="bad_target")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}:{port}"


def client_context(target: str, settings: Mapping[str, str]) -> ssl.SSLContext:
    """TLS 1.3 with this client's certificate. Raises ControlError.

    Files come from ``settings`` (``ca``, ``cert``, ``key``), else from SLABWATCH_CA, SLABWATCH_CERT and SLABWATCH_KEY.
    Without a CA the system's hold; without a key it is looked for beside the certificate, in its file.
    """
    ca, cert, key = (
        settings.get(name) or os.environ.get(f"SLABWATCH_{name.upper()}", "") for name in ("ca", "cert", "key")
    )
    if not cert:
        raise ControlError(
            f"{target}: https takes a client certificate: SLABWATCH_CERT and SLABWATCH_KEY name its files",
            code="bad_target",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        if ca:
            context.load_verify_locations(cafile=ca)
        else:
            context.load_default_certs()
    except OSError as error:  # of ssl.SSLError too
        raise _unusable(target, f"the CA {ca}", error) from error
    try:
        context.load_cert_chain(cert, key or None, password=lambda: _no_passphrase(target, key or cert))
    except OSError as error:
        failed = _unusable(target, f"the certificate {cert} with the key {key or cert}", error)
        hint = "" if key else ". SLABWATCH_KEY (--key) names the file of its key"
        raise ControlError(f"{failed}{hint}", code="bad_target") from error
    return context


def _no_passphrase(target: str, path: str) -> NoReturn:
    raise ControlError(f"{target}: the key {path} has a passphrase: write it without one, mode 0600", code="bad_target")


def _unusable(target: str, what: str, error: OSError) -> ControlError:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return ControlError(f"{target}: {what} can not be used: {reason or error}", code="bad_target")


def tls_failure(name: str, error: BaseException) -> ControlError | None:
    """What TLS had to say about it, if anything."""
    found: BaseException | None = error
    # aiohttp's own errors are of ssl's classes too, but do not have what these say.
    while found is not None and (not isinstance(found, ssl.SSLError) or isinstance(found, aiohttp.ClientError)):
        found = found.__cause__ or found.__context__
    if found is None:
        return None
    if isinstance(found, ssl.SSLCertVerificationError):
        words = [found.verify_message.rstrip("."), *_REMEDIES.get(found.verify_code, ())]
        return ControlError(f"{name}: the daemon's certificate is not to be trusted: {'. '.join(words)}")
    if found.reason in _ALERTS:
        return ControlError(f"{name}: your certificate {_ALERTS[found.reason]}", code="not_allowed")
    return ControlError(f"{name}: no TLS 1.3 there: {(found.reason or str(found)).replace('_', ' ').lower()}")
