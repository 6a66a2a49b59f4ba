"""The configuration: defaults, refusals that say where and what to do, and TOML that reads back as it was."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins

from slabwatch.config import Config, Metrics, default_socket
from slabwatch.config_file import load, to_toml
from slabwatch.daemon import FIXED
from slabwatch.errors import ConfigError
from slabwatch.form import fields_of, form_of

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "slabwatch.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))
    return str(caught.value).replace(f"{tmp_path}/", "")


# Defaults.


def test_without_a_file_the_defaults_hold() -> None:
    config = load(None)
    assert config == Config()
    assert config.metrics.address() == ("127.0.0.1", 9934)
    assert not config.storm.enabled
    assert not config.shrink.enabled
    assert config.control.operators == ()


def test_every_default_is_itself_allowed() -> None:
    assert Config.read(to_builtins(Config())) == Config()


def test_every_key_says_what_it_is() -> None:
    for name, section in fields_of(Config).items():
        form = form_of(section.annotation)
        assert form
        assert form.__doc__, name
        for key, field in fields_of(form).items():
            assert field.description, f"{name}.{key}"


def test_every_key_that_needs_a_restart_says_so() -> None:
    said = {
        (section, name)
        for section in fields_of(Config)
        for name, field in fields_of(type(getattr(Config(), section))).items()
        if "needs a restart" in field.description.lower()
    }
    assert said == set(FIXED)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Config().poll.interval_seconds = 1.0  # type: ignore[misc]


def test_the_example_in_the_repository_is_the_defaults_with_comments() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == to_toml(Config(), comments=True), (
        "run: slabwatch --example-config > config.example.toml"
    )
    assert load(EXAMPLE) == Config()


# Reading.


def test_a_file_replaces_what_it_names(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            '[poll]\ninterval_seconds = 5\n[control]\noperators = ["alice", "1000"]\n[log]\nlevel = "debug"\n',
        )
    )
    assert config.poll.interval_seconds == 5.0
    assert config.control.operators == ("alice", "1000")
    assert config.log.level == "debug"
    assert config.cgroups == Config().cgroups


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == Config()
    assert load(written(tmp_path, "# nothing\n[storm]\n")) == Config()


def test_an_unknown_key_names_file_key_guess_and_what_is_allowed(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[poll]\ninterval_secs = 5\n") == (
        "slabwatch.toml: poll.interval_secs: unknown key. Did you mean interval_seconds? "
        "Allowed here: interval_seconds, max_read_ratio"
    )
    assert refusal(tmp_path, "[shrink]\nzzz = 5\n") == "slabwatch.toml: shrink.zzz: unknown key. Allowed here: enabled"


def test_an_unknown_section(tmp_path: Path) -> None:
    sections = "audit, caches, cgroups, collectors, control, log, metrics, poll, remote, rights, shrink, state, storm"
    assert refusal(tmp_path, "[metric]\n") == (
        f"slabwatch.toml: metric: unknown key. Did you mean metrics? Allowed here: {sections}"
    )
    assert refusal(tmp_path, "interval_seconds = 5\n") == (
        f"slabwatch.toml: interval_seconds: unknown key. Allowed here: {sections}"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[poll]\ninterval_seconds = "5"\n', "poll.interval_seconds: Expected `float` (got '5')"),
        ("[poll]\ninterval_seconds = true\n", "poll.interval_seconds: Expected `float` (got True)"),
        (
            "[poll]\ninterval_seconds = 0\n",
            "poll.interval_seconds: Expected `float` >= 0.5 (got 0)",
        ),
        ("[poll]\ninterval_seconds = nan\n", "poll.interval_seconds: "),
        ("[poll]\ninterval_seconds = inf\n", "poll.interval_seconds: "),
        ('[storm]\nenabled = "yes"\n', "storm.enabled: Expected `bool` (got 'yes')"),
        ("[storm]\nenabled = 1\n", "storm.enabled: Expected `bool` (got 1)"),
        ("[storm]\nmax_cgroups = 2.5\n", "storm.max_cgroups: Expected `int` (got 2.5)"),
        (
            "[storm]\nmax_cgroups = 60001\n",
            "storm.max_cgroups: Expected `int` <= 60000 (got 60001)",
        ),
        ("[storm]\nmin_available_ratio = 0.0\n", "storm.min_available_ratio: Expected `float` >= 0.01"),
        ("[state]\ndirectory = 5\n", "state.directory: Expected `str` (got 5)"),
        ('[control]\noperators = "root"\n', "control.operators: "),
        ("[control]\noperators = [1000]\n", "control.operators.0: Expected `str` (got 1000)"),
        (
            '[log]\nlevel = "verbose"\n',
            "log.level: Expected one of debug, info, warning, error (got 'verbose')",
        ),
        ("poll = 3\n", "poll: "),
        ("[[poll]]\n", "poll: "),
    ],
)
def test_a_wrong_value_names_file_key_what_is_allowed_and_what_was_given(tmp_path: Path, text: str, words: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"slabwatch.toml: {words}")
    assert "\n" not in message


@pytest.mark.parametrize(
    "listen",
    ["", "9934", ":9934", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1", "h:1:"],
)
def test_an_address_without_a_port(tmp_path: Path, listen: str) -> None:
    assert refusal(tmp_path, f'[metrics]\nlisten = "{listen}"\n') == (
        f'slabwatch.toml: metrics.listen: must be "ADDRESS:PORT" with a port of 0 to 65535 (got {listen!r})'
    )


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:9934", ("::1", 9934)),
        ("localhost:65535", ("localhost", 65535)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
    ],
)
def test_addresses(listen: str, address: tuple[str, int]) -> None:
    assert Metrics(listen=listen).address() == address


def test_several_problems_are_said_in_one_message(tmp_path: Path) -> None:
    message = refusal(tmp_path, '[poll]\ninterval_seconds = -1\nextra = 1\n[log]\nformat = "xml"\n[nope]\n')
    lines = message.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("slabwatch.toml: ") for line in lines)
    for key in ("poll.interval_seconds: ", "poll.extra: ", "log.format: ", "nope: "):
        assert key in message


def test_a_flood_of_problems_is_counted(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "".join(f"key{number} = 1\n" for number in range(150))).splitlines()
    assert lines[0].startswith("slabwatch.toml: key0: unknown key.")
    assert lines[100:] == ["slabwatch.toml: and 50 more that is wrong"]


@pytest.mark.parametrize("text", ["[poll\n", "poll = \n", "[poll]\n[poll]\n", "interval: 5\n"])
def test_no_toml(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith("slabwatch.toml: not valid TOML: ")
    assert "line" in message


@pytest.mark.parametrize("text", [f"poll = {'9' * 5000}\n", f"poll = {'[' * 5000}\n", f"poll{'.a' * 3000} = 1"])
def test_toml_beyond_what_python_takes(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text).startswith("slabwatch.toml: ")


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match="missing.toml: can not be read: .*No such file.*leave --config out"):
        load(missing)
    with pytest.raises(ConfigError, match="can not be read"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'[state]\ndirectory = "\xff"\n')
    with pytest.raises(ConfigError, match="latin.toml: can not be read"):
        load(tmp_path / "latin.toml")


@given(text=st.text(max_size=200))
def test_any_text_is_a_configuration_or_the_one_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "replace"))
    try:
        assert isinstance(load(path), Config)
    except ConfigError as error:
        assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[remote]\nlisten = "9935"\n', 'remote.listen: must be "ADDRESS:PORT"'),
        ('[remote]\nviewers = ["box.example.org"]\n', "must be one of DNS:, URI:, EMAIL: with a name behind"),
        ('[remote]\noperators = ["DNS:"]\n', "remote.operators: 'DNS:' must be one of"),
        ('[remote]\noperators = ["*"]\n', "remote.operators: '*' must be one of"),
        ('[remote]\noperators = ["user:alice"]\n', "remote.operators: 'user:alice' must be one of"),
        ('[rights]\nstorm = ["alice"]\n', "rights.storm: 'alice' must be one of user:, group:, DNS:, URI:, EMAIL:"),
        ('[rights]\nlook = ["user:alice"]\n', "rights.look: unknown key."),
    ],
)
def test_names_say_what_they_are(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_rights_and_remote(tmp_path: Path) -> None:
    text = (
        '[remote]\nlisten = "[::]:9935"\nviewers = ["DNS:*"]\n[rights]\nstorm = ["user:alice", "group:sre", "URI:x"]\n'
    )
    config = load(written(tmp_path, text))
    assert config.remote.address() == ("::", 9935)
    assert config.remote.viewers == ("DNS:*",)
    assert config.rights.storm == ("user:alice", "group:sre", "URI:x")
    assert config.rights.stop == ()


# Writing.

TEXT = st.text(max_size=30)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "poll": st.fixed_dictionaries({"interval_seconds": st.floats(0.5, 3600)}),
        "metrics": st.fixed_dictionaries(
            {"listen": st.builds("{}:{}".format, TEXT.filter(bool), st.integers(0, 65535))}
        ),
        "control": st.fixed_dictionaries(
            {"socket": TEXT, "owner": TEXT, "group": TEXT, "operators": st.lists(TEXT, max_size=4)}
        ),
        "collectors": st.fixed_dictionaries({"slabinfo": st.booleans(), "slab_sysfs": st.booleans()}),
        "cgroups": st.fixed_dictionaries({"max_count": st.integers(0, 100_000), "max_depth": st.integers(0, 64)}),
        "storm": st.fixed_dictionaries(
            {
                "enabled": st.booleans(),
                "parent": TEXT,
                "max_tasks": st.integers(1, 10_000_000),
                "max_ttl_seconds": st.floats(1, 86_400),
                "min_available_ratio": st.floats(0.01, 0.95),
            }
        ),
        "state": st.fixed_dictionaries({"directory": TEXT}),
        "log": st.fixed_dictionaries({"level": st.sampled_from(["debug", "error"]), "format": st.just("json")}),
    },
)


@given(values=CONFIGS, comments=st.booleans())
def test_what_is_written_reads_back_as_it_was(values: dict[str, Any], comments: bool) -> None:
    config = Config.read(values)
    assert Config.read(tomllib.loads(to_toml(config, comments=comments))) == config


ODD = ['qu"ote', "back\\slash", "new\nline", "tab\t", "\r", "\0", "\x1b[31m", "\x7f", "\x80\x9f"]
ODD += ["ünï", "'''", "\\u0041", ""]


@pytest.mark.parametrize("text", ODD)
def test_strings_of_every_kind_are_valid_toml(text: str) -> None:
    config = Config.read({"control": {"group": text, "operators": [text, "x"]}})
    assert Config.read(tomllib.loads(to_toml(config))) == config


def test_the_comments_tell_descriptions_and_bounds() -> None:
    text = to_toml(Config(), comments=True)
    assert "# Seconds from one poll to the next, on a fixed grid. [0.5 to 3600]\ninterval_seconds = 10.0\n" in text
    assert "# Least severity that is written. [debug, info, warning, error]\n" in text
    assert text.startswith("# How often the kernel is read.\n[poll]\n")
    without = [line for line in text.splitlines() if not line.startswith("#")]
    assert "\n".join(without) + "\n" == to_toml(Config())


# Paths that depend on who runs it.


def test_paths_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/alice/state")
    assert default_socket() == Config().socket_path() == Path("/run/slabwatch/slabwatch.sock")
    assert Config().state_directory() == Path("/var/lib/slabwatch")


def test_paths_of_anyone_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/alice/state")
    assert default_socket() == Path("/run/user/1000/slabwatch/slabwatch.sock")
    assert Config().state_directory() == Path("/home/alice/state/slabwatch")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    assert default_socket().parts[:2] == ("/", "tmp")
    assert "1000" in str(default_socket())
    assert Config().state_directory() == Path("/home/alice/.local/state/slabwatch")


def test_paths_that_are_configured_go_first() -> None:
    config = Config.read({"control": {"socket": "/a/b.sock"}, "state": {"directory": "/c"}})
    assert config.socket_path() == Path("/a/b.sock")
    assert config.state_directory() == Path("/c")


def test_paths_of_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd names the directories of the unit; the client, which is no part of it, looks where it always does."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/slabwatch:/run/other")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/slabwatch")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    for uid, own in ((0, "/run/slabwatch/slabwatch.sock"), (997, "/run/user/1000/slabwatch/slabwatch.sock")):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert Config().socket_path() == Path("/run/slabwatch/slabwatch.sock")
        assert Config().state_directory() == Path("/var/lib/slabwatch")
        assert default_socket() == Path(own)
    config = Config.read({"control": {"socket": "/a/b.sock"}, "state": {"directory": "/c"}})
    assert (config.socket_path(), config.state_directory()) == (Path("/a/b.sock"), Path("/c"))
