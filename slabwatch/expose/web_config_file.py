"""The web configuration as it is on disk: the file, and the certificates that it names, read and made ready for use."""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import astuple

from slabwatch.errors import ConfigError
from slabwatch.expose.web_config import CIPHER_SUITES, CURVES, MAX_BYTES, TlsServer, WebConfig, parse_web_config

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
# A bundle of all public authorities has 200 kB.
_MAX_PEM_BYTES = 4 * 1024 * 1024
_REASONS = {
    "KEY_VALUES_MISMATCH": "the key is not the certificate's",
    "NO_START_LINE": "not a PEM file of this kind",
    "PEM_LIB": "not a PEM file of this kind",
    "EE_KEY_TOO_SMALL": "the key is too short",
}

# Differs once a file is written anew or replaced; also when a link on the way to it is. None: there is no such file.
Stamp = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable state. ``context`` is None without TLS; ``digest`` tells one TLS configuration from another."""

    config: WebConfig
    context: ssl.SSLContext | None
    digest: bytes


class WebConfigFile:
    """The methods block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: dict[Path, Stamp] = {}
        self._looked: dict[Path, Stamp] = {}

    def changed(self) -> bool:
        """Whether the file, or one that it names, is not what the last ``load`` has read or failed to read.

        Not until it has been the same for two calls: a file that is just being written is not to be taken half.
        """
        before, self._looked = self._looked, {path: _stamp(path) for path in self._seen}
        return before == self._looked != self._seen

    def load(self) -> Loaded:
        """Raises ConfigError that names file and key."""
        self._seen = {}
        config = parse_web_config(self._read(self.path, "metrics.web_config_file", MAX_BYTES), self.path)
        tls = config.tls_server_config
        if not tls.enabled:
            return Loaded(config, None, b"")
        where = f"{self.path}: tls_server_config"
        cert = self._text(tls.cert, tls.cert_file, f"{where}.cert_file")
        key = self._text(tls.key, tls.key_file, f"{where}.key_file")
        client_ca = self._text(tls.client_ca, tls.client_ca_file, f"{where}.client_ca_file")
        digest = hashlib.sha256(repr((astuple(tls), cert, key, client_ca)).encode()).digest()
        return Loaded(config, _context(tls, cert, key, client_ca, where), digest)

    def _text(self, inline: str, file: str, where: str) -> bytes:
        # A relative path is meant from where the web configuration is.
        return self._read(self.path.parent / file, where, _MAX_PEM_BYTES) if file else inline.encode(errors="replace")

    def _read(self, path: Path, where: str, most: int) -> bytes:
        self._seen[path] = _stamp(path)
        try:
            # A pipe must not make this wait for its writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                self._seen[path] = _stamp_of(found)
                if not stat.S_ISREG(found.st_mode):
                    raise ConfigError(f"{where}: {path} is no regular file")
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read(most + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ConfigError(f"{where}: {path} can not be read: {error.strerror}") from error
        except ValueError as error:  # NUL or half a surrogate pair
            raise ConfigError(f"{where}: {str(path)!r} is no path") from error
        if len(data) > most:
            raise ConfigError(f"{where}: {path} has more than {most} bytes")
        return data


def _context(tls: TlsServer, cert: bytes, key: bytes, client_ca: bytes, where: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.maximum_version = _VERSIONS[tls.max_version]
    if tls.cipher_suites:
        # Those of TLS 1.3 have no name here: they are always allowed. A list of no others means TLS 1.3 alone.
        older = ":".join(filter(None, map(CIPHER_SUITES.get, tls.cipher_suites)))
        if older:
            with _naming(f"{where}.cipher_suites"):
                context.set_ciphers(older)
        else:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    for curve in tls.curve_preferences:
        with _naming(f"{where}.curve_preferences"):
            context.set_ecdh_curve(CURVES[curve])
    with (
        _naming(f"{where}: cert_file and key_file (or cert and key)"),
        _in_memory(cert) as cert_path,
        _in_memory(key) as key_path,
    ):
        # Without a function, OpenSSL would ask for a passphrase at the terminal.
        context.load_cert_chain(cert_path, key_path, _no_passphrase)
    if tls.demands != "nothing":
        context.verify_mode = ssl.CERT_REQUIRED if tls.demands == "required" else ssl.CERT_OPTIONAL
        with _naming(f"{where}: client_ca_file (or client_ca)"):
            if b"-----BEGIN CERTIFICATE-----" not in client_ca:
                raise ConfigError("no certificate in PEM form in it")
            # Comments between the certificates may be in any language; cadata= takes ASCII alone.
            context.load_verify_locations(cadata=client_ca.decode("ascii", "ignore"))
    return context


@contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ConfigError) as error:  # OSError: no descriptor for _in_memory
        text = str(error)
        if isinstance(error, ssl.SSLError):
            reason = error.reason or "PEM_LIB"  # it says no more when a file holds something else
            text = _REASONS.get(reason, reason.lower().replace("_", " "))
        raise ConfigError(f"{where}: {text}") from error


def _no_passphrase() -> str:
    raise ConfigError("the key is encrypted: give one without a passphrase, readable for the daemon alone")


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path to just these bytes: Python takes keys from a path only, and a key is not to be written to a disk."""
    descriptor = os.memfd_create("slabwatch-pem", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _stamp(path: Path) -> Stamp:
    try:
        return _stamp_of(path.stat())
    except (OSError, ValueError):
        return None


def _stamp_of(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
