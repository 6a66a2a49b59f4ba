"""The `web.config.file` of Prometheus' exporters, as their exporter-toolkit reads it: its form, and what it means here.

Form: docs/web-configuration.md of github.com/prometheus/exporter-toolkit. Every key of it is either honoured or refused
by name. Pure: the files that it names are read elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from msgspec import Meta, field

from slabwatch.errors import ConfigError
from slabwatch.form import BadForm, Fault, First, Form, Then, fields_of

# A file with certificates in it has some kB.
MAX_BYTES = 128 * 1024
MAX_USERS = 1000
# Each step doubles the time: cost 10 takes some 50 ms, 18 takes some ten seconds.
MAX_BCRYPT_COST = 18

ClientAuth = Literal[
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "RequireClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
]
Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]

_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d[\d_]{0,19}", re.ASCII)
_MAX_DURATION = 60  # characters; the time to look for units in a number grows with its square
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

# What YAML's own reader would make of texts: nothing, true and false.
_NOTHING = ("", "~", "null")
_TRUTHS = {**dict.fromkeys(("true", "yes", "y", "on"), True), **dict.fromkeys(("false", "no", "n", "off"), False)}

# None: any value; the toolkit checks these very ones.
_HEADERS: dict[str, tuple[str, ...] | None] = {
    "Content-Security-Policy": None,
    "Strict-Transport-Security": None,
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": None,
}

# Go's names of the suites that it does not call insecure, and OpenSSL's. Those of TLS 1.3 are not for choice, there
# as here.
CIPHER_SUITES: dict[str, str] = {
    "TLS_AES_128_GCM_SHA256": "",
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}


def _nothing_is_empty(value: object) -> object:
    # A key with nothing behind it ("basic_auth_users:") is as good as none.
    return {} if value in _NOTHING else value


def _nothing_is_none(value: object) -> object:
    return value or None


def _duration(value: object) -> float:
    return parse_duration(str(value))


def _whole_number(value: object) -> object:
    # As YAML writes them: 1_000, +10. Nor is it 1e3.
    if not isinstance(value, str):
        return value
    if not _NUMBER.fullmatch(value):
        raise ValueError("must be a whole number")
    return int(value.replace("_", ""))


def _truth(value: object) -> object:
    # YAML's words; what is none of them is for the type to refuse.
    return _TRUTHS.get(value.lower(), value) if isinstance(value, str) else value


def _verifiable(value: ClientAuth | None) -> ClientAuth | None:
    if value in ("RequireAnyClientCert", "RequireClientCert"):
        raise ValueError(
            f"{value} is not supported: it takes any certificate unverified, which protects nothing. "
            "Use RequireAndVerifyClientCert with client_ca_file"
        )
    return value


def _not_broken(value: Version) -> Version:
    if value in ("TLS10", "TLS11"):
        raise ValueError(f"{value} is not supported: use TLS12 or TLS13")
    return value


def _known_suites(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if name not in CIPHER_SUITES:
            raise ValueError(f"unknown or insecure cipher suite {name}: supported are {', '.join(CIPHER_SUITES)}")
    return value


def _one_curve(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if name not in CURVES:
            raise ValueError(f"unknown curve {name}: supported are {', '.join(CURVES)}")
    if len(value) > 1:
        raise ValueError("an order of several curves is not supported: name one, or leave the key out")
    return value


def _no_http2(value: bool | None) -> bool | None:
    if value:
        raise ValueError("HTTP/2 is not supported: set it to false, or leave it out (Prometheus takes HTTP/1.1)")
    return value


def _known_headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if name not in _HEADERS:
            raise ValueError(f"header {name} can not be set: allowed are {', '.join(_HEADERS)}")
        allowed = _HEADERS[name]
        if allowed and text not in allowed:
            raise ValueError(f"{name} must be {' or '.join(allowed)}")
        if not text.isprintable() or not text.isascii():
            raise ValueError(f"{name}: a header is one line of ASCII")
    return {name: text for name, text in value.items() if text}


def _hashes(value: dict[str, str]) -> dict[str, str]:
    if len(value) > MAX_USERS:
        raise ValueError(f"{len(value)} users: at most {MAX_USERS}")
    for user, digest in value.items():
        found = _BCRYPT.fullmatch(digest)
        if ":" in user:
            raise ValueError(f"{user!r}: a name with a colon can never log in")
        if found is None or not 4 <= int(found[1]) <= 31:
            raise ValueError(f"{user!r}: not a bcrypt hash ($2b$10$...): make one with `htpasswd -nB {user}`")
        if int(found[1]) > MAX_BCRYPT_COST:
            raise ValueError(f"{user!r}: cost {found[1]} is above {MAX_BCRYPT_COST}: a check would take minutes")
    return value


# Keys of which one at least is set where TLS is wanted: the toolkit's own rule.
_ENABLING = ("cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file", "client_auth_type")


class TlsServer(Form, frozen=True):
    """`tls_server_config`. Paths are as they stand in the file."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    client_auth_type: Annotated[ClientAuth | None, First(_nothing_is_none), Then(_verifiable)] = None
    client_allowed_sans: tuple[str, ...] = ()
    min_version: Annotated[Version, Then(_not_broken)] = "TLS12"
    max_version: Annotated[Version, Then(_not_broken)] = "TLS13"
    cipher_suites: Annotated[tuple[str, ...], Then(_known_suites)] = ()
    prefer_server_cipher_suites: Annotated[bool, First(_truth)] = True
    curve_preferences: Annotated[tuple[str, ...], Then(_one_curve)] = ()

    @property
    def enabled(self) -> bool:
        """Whether TLS is spoken at all."""
        return any(getattr(self, name) for name in _ENABLING)

    @property
    def demands(self) -> Literal["nothing", "optional", "required"]:
        """What becomes of a client without a certificate; one that is shown is always verified."""
        match self.client_auth_type:
            case "RequireAndVerifyClientCert":
                return "required"
            case "VerifyClientCertIfGiven":
                return "optional"
            case _:
                return "nothing"

    def __repr__(self) -> str:
        return "TlsServer(...)"  # keys are in no log

    def __post_init__(self) -> None:
        for inline, file in (("cert", "cert_file"), ("key", "key_file"), ("client_ca", "client_ca_file")):
            if getattr(self, inline) and getattr(self, file):
                raise ValueError(f"{inline} and {file} are both given: keep one")
        if self.enabled and not (self.cert or self.cert_file):
            raise ValueError("cert_file (or cert) is missing")
        if self.enabled and not (self.key or self.key_file):
            raise ValueError("key_file (or key) is missing")
        if self.min_version > self.max_version:
            raise ValueError(f"min_version {self.min_version} is above max_version {self.max_version}")
        if self.cipher_suites and self.max_version == "TLS12" and not any(map(CIPHER_SUITES.get, self.cipher_suites)):
            raise ValueError("cipher_suites has none for TLS12, and max_version allows no other")
        self._verifies_what_it_should()

    def _verifies_what_it_should(self) -> None:
        has_ca = bool(self.client_ca or self.client_ca_file)
        if has_ca and self.demands == "nothing":
            raise ValueError("client_ca_file needs a client_auth_type that verifies: RequireAndVerifyClientCert")
        if self.demands != "nothing" and not has_ca:
            raise ValueError(
                f"{self.client_auth_type} needs client_ca_file (or client_ca): "
                "without it, a certificate of any public authority would do"
            )
        if self.client_allowed_sans and self.demands == "nothing":
            raise ValueError(
                "client_allowed_sans needs a client_auth_type that verifies: RequireAndVerifyClientCert. "
                "A name in a certificate that nobody verified proves nothing"
            )


def _tls_or_nothing(values: Any) -> Any:
    # Texts that are all empty, as of a template whose variables were not set, are no wish for plain HTTP.
    values = _nothing_is_empty(values)
    known = isinstance(values, dict) and values.keys() <= fields_of(TlsServer).keys()
    if known and values and not any(values.get(name) for name in _ENABLING):
        raise ValueError("cert_file and key_file are missing: without them there is no TLS")
    return values


class HttpServer(Form, frozen=True):
    """`http_server_config`."""

    http2: Annotated[bool | None, First(_truth), Then(_no_http2)] = None
    headers: Annotated[dict[str, str], First(_nothing_is_empty), Then(_known_headers)] = field(default_factory=dict)


class RateLimit(Form, frozen=True):
    """`rate_limit`: a bucket of ``burst`` requests, one more each ``interval`` seconds. 0: no limit."""

    interval: Annotated[float, First(_duration)] = 0.0
    burst: Annotated[int, First(_whole_number), Meta(ge=0, le=1_000_000)] = 0

    def __post_init__(self) -> None:
        if self.interval and not self.burst:
            raise ValueError("burst must be at least 1: with 0, every request would be refused")


class WebConfig(Form, frozen=True):
    """The whole file."""

    tls_server_config: Annotated[TlsServer, First(_tls_or_nothing)] = TlsServer()
    http_server_config: Annotated[HttpServer, First(_nothing_is_empty)] = HttpServer()
    rate_limit: Annotated[RateLimit, First(_nothing_is_empty)] = RateLimit()
    basic_auth_users: Annotated[dict[str, str], First(_nothing_is_empty), Then(_hashes)] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "WebConfig(...)"  # nor are users' hashes


def parse_web_config(data: bytes, path: Path) -> WebConfig:
    """Raises ConfigError with path, key and what is allowed. Paths inside stay as they are."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES} bytes")
    try:
        content = _load_yaml(data)
        content = {} if content is None else _nothing_is_empty(content)
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: must hold keys with values: {', '.join(fields_of(WebConfig))}")
        return WebConfig.read(content, texts=True)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not usable YAML: {_yaml_problem(error)}") from error
    except BadForm as error:
        raise ConfigError("\n".join(f"{path}: {_problem(fault)}" for fault in error.faults)) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not usable YAML: brackets in thousands") from error
    except (ValueError, OverflowError) as error:  # of the scanner: "\UFFFFFFFF", %YAML 1.<thousands of digits>
        raise ConfigError(f"{path}: not usable YAML: a number that is too large") from error


def parse_duration(text: str) -> float:
    """Go's notation: 1s, 1m30s, 500ms; 0. Raises ValueError."""
    if text == "0":
        return 0.0
    parts = list(_DURATION.finditer(text)) if len(text) <= _MAX_DURATION else []
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError("a duration is a number with its unit: 1s, 500ms, 1m30s")
    seconds = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    if seconds > 86_400:
        raise ValueError("longer than a day")
    return seconds


def _problem(fault: Fault) -> str:
    # What was given is not quoted: it may be a key.
    key, what = _one_line(fault.key), _one_line(fault.what)
    return f"{key}: {what}" if key else what


def _one_line(text: str) -> str:
    # A key of the file, or a name in it, can hold anything.
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= 600 else f"{shown[:600]}..."


def _yaml_problem(error: yaml.YAMLError) -> str:
    # Its own text quotes the file, and what is quoted may be a key.
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return "a character that YAML does not allow"


class _Loader(yaml.BaseLoader):
    """Texts, lists and mappings alone: what a text means is the model's to say."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # A few lines of aliases of aliases would become gigabytes.
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not supported", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a plain text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem="a key is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load_yaml(data: bytes) -> Any:
    loader = _Loader(data)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
