"""A certificate authority of a test's own, by openssl's command line, as an administrator would make it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.requirements import need


class Authority:
    """Keys and certificates below ``directory``; each ``issue`` gives the pair of paths."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        need(shutil.which("openssl") is not None, "openssl")
        self.directory = directory
        self.name = name
        self.certificate = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        _openssl(
            *("req", "-x509", "-new", *_new_key(self._key), "-out", str(self.certificate), "-days", "2"),
            *("-subj", f"/CN=test {name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def issue(self, name: str, sans: str, *, use: str = "serverAuth,clientAuth", days: int = 2) -> tuple[Path, Path]:
        """Certificate and key. ``sans``: as openssl writes them, DNS:localhost,IP:127.0.0.1. ``days`` < 0: expired."""
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        request = self.directory / f"{name}.csr"
        _openssl("req", "-new", *_new_key(key), "-out", str(request), "-subj", f"/CN={name}")
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={sans}\nextendedKeyUsage={use}\n", encoding="ascii")
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", str(days), "-extfile", str(extensions), "-out", str(certificate)),
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
