"""The form of the web configuration: what exporter-toolkit takes is taken, or refused by name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.errors import ConfigError
from slabwatch.expose.web_config import CIPHER_SUITES, MAX_BYTES, WebConfig, parse_duration, parse_web_config

PATH = Path("/etc/slabwatch/web.yml")
HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


def parse(text: str | bytes) -> WebConfig:
    return parse_web_config(text.encode() if isinstance(text, str) else text, PATH)


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    message = str(caught.value)
    assert all(line.startswith(f"{PATH}: ") for line in message.splitlines())
    return message


def test_all_that_is_supported_at_once() -> None:
    config = parse(f"""
tls_server_config:
  cert_file: server.crt
  key_file: /etc/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans: [prometheus.example, 10.0.0.1]
  min_version: TLS13
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [X25519]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: ""
    Strict-Transport-Security: max-age=31536000
    Content-Security-Policy: default-src 'self'
basic_auth_users:
  alice: {HASH}
  12: {HASH}
rate_limit:
  interval: 1m0.5s
  burst: 20
""")
    tls = config.tls_server_config
    assert (tls.enabled, tls.demands, tls.client_allowed_sans) == (True, "required", ("prometheus.example", "10.0.0.1"))
    assert not tls.prefer_server_cipher_suites
    assert "X-XSS-Protection" not in config.http_server_config.headers
    assert config.http_server_config.headers["Content-Security-Policy"] == "default-src 'self'"
    assert set(config.basic_auth_users) == {"alice", "12"}
    assert (config.rate_limit.interval, config.rate_limit.burst) == (60.5, 20)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "basic_auth_users:\n", "tls_server_config: ~\n", "http_server_config: {}\n"]
)
def test_a_file_with_nothing_in_it(text: str) -> None:
    config = parse(text)
    assert not config.tls_server_config.enabled
    assert config.basic_auth_users == {}


@pytest.mark.parametrize(
    ("kind", "demands"),
    [
        ("NoClientCert", "nothing"),
        ("RequestClientCert", "nothing"),
        ("", "nothing"),
        ("VerifyClientCertIfGiven", "optional"),
        ("RequireAndVerifyClientCert", "required"),
    ],
)
def test_client_auth_types(kind: str, demands: str) -> None:
    authority = "  client_ca_file: ca.crt\n" if demands != "nothing" else ""
    assert parse(f"{TLS}  client_auth_type: {kind}\n{authority}").tls_server_config.demands == demands


@pytest.mark.parametrize(("text", "burst"), [("20", 20), ("+10", 10), ("1_000", 1000)])
def test_whole_numbers_as_yaml_has_them(text: str, burst: int) -> None:
    assert parse(f"rate_limit: {{interval: 1s, burst: {text}}}").rate_limit.burst == burst


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        (f"{TLS}  client_auth_type: RequireAnyClientCert", "client_auth_type", "RequireAndVerifyClientCert"),
        (f"{TLS}  client_auth_type: RequireClientCert", "client_auth_type", "not supported"),
        (f"{TLS}  client_auth_type: Sometimes", "client_auth_type", " VerifyClientCertIfGiven,"),
        (f"{TLS}  client_auth_type: RequireAndVerifyClientCert", "tls_server_config", "needs client_ca_file"),
        (f"{TLS}  client_auth_type: VerifyClientCertIfGiven", "tls_server_config", "any public authority"),
        (f"{TLS}  client_ca_file: ca.crt", "tls_server_config", "client_auth_type"),
        (f"{TLS}  client_allowed_sans: [a]", "tls_server_config", "client_allowed_sans needs"),
        (f"{TLS}  min_version: TLS10", "min_version", "TLS10 is not supported"),
        (f"{TLS}  max_version: TLS11", "max_version", "use TLS12 or TLS13"),
        (f"{TLS}  min_version: SSL30", "min_version", "Expected one of TLS10, TLS11, TLS12, TLS13"),
        (f"{TLS}  min_version: TLS13\n  max_version: TLS12", "tls_server_config", "above max_version"),
        (f"{TLS}  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]", "cipher_suites", "TLS_RSA_WITH_RC4_128_SHA"),
        (
            f"{TLS}  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]",
            "tls_server_config",
            "none for TLS12",
        ),
        (f"{TLS}  curve_preferences: [CurveP224]", "curve_preferences", "unknown curve CurveP224"),
        (f"{TLS}  curve_preferences: [X25519, CurveP256]", "curve_preferences", "not supported"),
        (f"{TLS}  cert: PEM", "tls_server_config", "cert and cert_file are both given"),
        ("tls_server_config:\n  cert_file: a", "tls_server_config", "key_file (or key) is missing"),
        ("tls_server_config:\n  key_file: a", "tls_server_config", "cert_file (or cert) is missing"),
        ("tls_server_config:\n  min_version: TLS13", "tls_server_config", "there is no TLS"),
        ("tls_server_config:\n  min_version: TLS12", "tls_server_config", "there is no TLS"),
        (
            'tls_server_config: {cert_file: "", key_file: "", client_ca_file: ""}',
            "tls_server_config",
            "there is no TLS",
        ),
        ("tls_server_config: {cert_fil: a}", "tls_server_config.cert_fil", "unknown key"),
        (f"{TLS}  client_crl_file: x", "tls_server_config.client_crl_file", "unknown key"),
        ("tls_config: {}", "tls_config", "unknown key"),
        ("http_server_config: {http2: true}", "http2", "HTTP/2 is not supported"),
        ("http_server_config: {headers: {X-Frame-Options: maybe}}", "headers", "deny or sameorigin"),
        ("http_server_config: {headers: {Set-Cookie: a}}", "headers", "Set-Cookie can not be set"),
        ('http_server_config: {headers: {X-XSS-Protection: "a\\r\\nb: c"}}', "headers", "one line"),
        ("basic_auth_users: {alice: hunter2}", "basic_auth_users", "'alice': not a bcrypt hash"),
        (f"basic_auth_users: {{alice: {HASH.replace('$10$', '$31$')}}}", "basic_auth_users", "above 18"),
        (f"basic_auth_users: {{alice: {HASH.replace('$10$', '$03$')}}}", "basic_auth_users", "not a bcrypt hash"),
        (f"basic_auth_users: {{'a:b': {HASH}}}", "basic_auth_users", "colon"),
        ("rate_limit: {interval: 1, burst: 1}", "rate_limit.interval", "with its unit"),
        ("rate_limit: {interval: -1s, burst: 1}", "rate_limit.interval", "with its unit"),
        ("rate_limit: {interval: 1s}", "rate_limit", "burst must be at least 1"),
        ("rate_limit: {interval: 1s, burst: many}", "rate_limit.burst", "must be a whole number"),
        ("rate_limit: {interval: 1s, burst: 1e3}", "rate_limit.burst", "must be a whole number"),
        ("rate_limit: {interval: 1s, burst: [1]}", "rate_limit.burst", "Expected `int`, got `array`"),
        ("basic_auth_users: {alice: [1]}", "basic_auth_users.alice", "Expected `str`, got `array`"),
        ("http_server_config: {headers: {X-XSS-Protection: {}}}", "headers.X-XSS-Protection", "Expected `str`"),
        ("rate_limit: {interval: 25h, burst: 1}", "rate_limit.interval", "longer than a day"),
    ],
)
def test_what_can_not_be_done_is_refused_by_name(text: str, key: str, said: str) -> None:
    message = refusal(text)
    assert key in message
    assert said in message


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "[]",
        "- a\n- b",
        "tls_server_config: [1]",
        "basic_auth_users: text",
        "rate_limit:\n  interval: 1s\n  interval: 2s",
        "? [a]\n: b",
        "a: b\n--- \nc: d",
        "\tx",
        "x: 'unclosed",
        b"\xff\xfe\x00",
        b"\x00",
        b"a: \x07",
        r'"\UFFFFFFFF": a',
        r'"\U00110000": a',
        "%YAML 1." + "9" * 5000 + "\n---\na: b",
        "[" * 5000,
        "a: " * 1000,
        "<<: {tls_server_config: {}}",
        "{$2\n\n\n...}",
        f"'{'a' * 5000}': 1",
        "#" * (MAX_BYTES + 1),
    ],
)
def test_what_is_no_such_file(text: str | bytes) -> None:
    message = refusal(text)
    assert len(message) < 700
    assert message.count("\n") == 0


def test_an_alias_bomb_costs_nothing() -> None:
    lines = ["a0: &a0 x", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))]
    begin = time.process_time()
    assert "aliases are not supported" in refusal("\n".join(lines))
    assert time.process_time() - begin < 1


def test_no_error_quotes_a_secret() -> None:
    secret = "-----BEGIN PRIVATE KEY----- MIGHAgEA"
    for text in (
        f"tls_server_config: {{key: '{secret}', other: '{secret}'}}",
        f"tls_server_config:\n  key: {{a: '{secret}'}}",
        f"basic_auth_users:\n  alice: '{secret}'",
        f"basic_auth_users: '{secret}'",
        f"'{secret}",
        f"{secret}: {secret}: x",
    ):
        assert "MIGHAgEA" not in refusal(text)
    assert HASH not in repr(parse(f"basic_auth_users: {{a: {HASH}}}"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("1s", 1), ("1.5h", 5400), ("100ms", 0.1), ("5us", 5e-6), ("5µs", 5e-6), (".5m", 30)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "+1s", "1d", "\u0661s", "1s!", "1e3s", "9" * 400 + "h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration|day"):
        parse_duration(text)


# Made of the pieces that such files are made of.
SCALARS = st.sampled_from([
    "", "a", "~", "true", "no", "1s", "1", "-1", "server.crt", "TLS12", "TLS13", "RequireAndVerifyClientCert",
    "NoClientCert", "deny", "nosniff", HASH, "X25519", *list(CIPHER_SUITES)[:4], "\u0661", "\x85",
])  # fmt: skip
KEYS = st.sampled_from([
    "tls_server_config", "http_server_config", "basic_auth_users", "rate_limit", "cert", "key", "client_ca",
    "cert_file", "key_file", "client_ca_file", "client_auth_type", "client_allowed_sans", "min_version", "max_version",
    "http2",
    "headers", "interval", "burst", "cipher_suites", "curve_preferences", "X-Frame-Options", "a", "a:b",
])  # fmt: skip
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20
)


@given(tree=st.dictionaries(KEYS, TREES, max_size=4))
def test_any_tree_is_a_configuration_or_the_error(tree: object) -> None:
    check(yaml.safe_dump(tree).encode())


@given(data=st.binary(max_size=200) | st.text(alphabet="{}[]:-&*!|>'\"#%@`?, \n\tab~<", max_size=80).map(str.encode))
def test_any_bytes_are_a_configuration_or_the_error(data: bytes) -> None:
    check(data)


def check(data: bytes) -> None:
    try:
        config = parse_web_config(data, PATH)
    except ConfigError as error:
        assert str(PATH) in str(error)
        str(error).encode()
        return
    tls = config.tls_server_config
    assert not tls.enabled or ((tls.cert or tls.cert_file) and (tls.key or tls.key_file))
    assert tls.demands == "nothing" or (tls.enabled and (tls.client_ca or tls.client_ca_file))
    assert config.rate_limit.interval == 0 or config.rate_limit.burst > 0
