"""A certificate authority of a test's own, by openssl's command line, as an administrator would make it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.requirements import need


class Authority:
    """Keys and certificates below ``directory``; each ``issue`` gives the pair of paths.

    A root, or with a ``signer`` an intermediate CA, whose certificate comes with those that it issues.
    """

    def __init__(self, directory: Path, name: str = "ca", signer: Authority | None = None) -> None:
        need(shutil.which("openssl") is not None, "openssl")
        self.directory = directory
        self.name = name
        self.certificate = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        self._signer = signer
        if signer is not None:
            extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
            signer._sign(name, f"/CN=test {name}", extensions)
            return
        _openssl(
            *("req", "-x509", "-new", *_new_key(self._key), "-out", str(self.certificate), "-days", "2"),
            *("-subj", f"/CN=test {name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def issue(self, name: str, sans: str, *, use: str = "serverAuth,clientAuth", days: int = 2) -> tuple[Path, Path]:
        """Certificate and key. ``sans``: as openssl writes them, DNS:localhost,IP:127.0.0.1. ``days`` < 0: expired."""
        certificate, key = self._sign(name, f"/CN={name}", f"subjectAltName={sans}\nextendedKeyUsage={use}\n", days)
        if self._signer is not None:
            certificate.write_bytes(certificate.read_bytes() + self.certificate.read_bytes())
        return certificate, key

    def _sign(self, name: str, subject: str, extensions: str, days: int = 2) -> tuple[Path, Path]:
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        request, described = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        _openssl("req", "-new", *_new_key(key), "-out", str(request), "-subj", subject)
        described.write_text(extensions, encoding="ascii")
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", str(days), "-extfile", str(described), "-out", str(certificate)),
        )
        return certificate, key

    def revocation_list(self, *revoked: Path, expired: bool = False) -> Path:
        """A list of these certificates."""
        database, settings = self.directory / f"{self.name}.index", self.directory / f"{self.name}.cnf"
        database.write_text("", encoding="ascii")
        settings.write_text(
            f"[ca]\ndefault_ca = this\n[this]\ndatabase = {database}\ndefault_md = sha256\n", encoding="ascii"
        )
        ours = ("-config", str(settings), "-cert", str(self.certificate), "-keyfile", str(self._key))
        for certificate in revoked:
            _openssl("ca", *ours, "-revoke", str(certificate))
        made = self.directory / f"{self.name}.crl"
        past = ("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z")
        _openssl("ca", *ours, "-gencrl", *(past if expired else ("-crldays", "2")), "-out", str(made))
        return made


def _new_key(path: Path) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path))


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
