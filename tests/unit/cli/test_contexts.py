"""Contexts: the file, its rights, and what a name stands for."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins

from slabwatch.cli import contexts
from slabwatch.cli.contexts import Context, Contexts, contexts_file, default_host, load, resolve
from slabwatch.cli.ctl import main
from slabwatch.errors import ControlError
from tests.unit.cli.conftest import Backstage

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(own_config: Path) -> Path:
    return own_config / "slabwatch" / "contexts.toml"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        return code, *capsys.readouterr()

    return run


def write(file: Path, text: str, mode: int = 0o600) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)


def test_a_name_for_a_daemon(run: Run, file: Path, backstage: Backstage) -> None:
    assert run("context", "list")[1].startswith("# No context yet")
    assert run("context", "add", "lab", backstage.target) == (0, "", "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert run("--host", "lab", "status")[0] == 0
    assert run("context", "use", "lab") == (0, "", "")
    assert run("status")[0] == 0
    header, row = run("context", "list")[1].splitlines()
    assert header.split() == ["used", "name", "target", "with"]
    assert row.split() == ["*", "lab", backstage.target, "-"]
    assert json.loads(run("context", "list", "--json")[1]) == {
        "current": "lab",
        "contexts": [{"name": "lab", "target": backstage.target}],
    }
    assert run("context", "use")[0] == 0
    assert json.loads(run("context", "list", "--json")[1])["current"] is None
    run("context", "use", "lab")
    assert run("context", "remove", "lab") == (0, "", "")
    assert load(file) == Contexts()


def test_what_it_takes_to_get_there_is_kept(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parents[1])
    monkeypatch.setenv("HOME", "/home/me")
    code, out, _ = run(
        "--ssh-options", "-i ~/.ssh/ops -J bastion", "context", "add", "db", "ssh://me@db1:2222", "--ca", "ca.pem",
        "--key", "~/k.pem", "--ssh-command", "sudo slabwatchctl stdio-bridge", "--json",
    )  # fmt: skip
    assert code == 0
    (told,) = json.loads(out)["contexts"]
    kept = {
        "ca": str(file.parents[1] / "ca.pem"),
        "key": "/home/me/k.pem",
        "ssh_options": "-i ~/.ssh/ops -J bastion",
        "ssh_command": "sudo slabwatchctl stdio-bridge",
    }
    assert told == {"name": "db", "target": "ssh://me@db1:2222", **kept}
    host = resolve("db", {"ssh_options": "-v"}, load(file))
    assert host.settings == {**kept, "ssh_options": "-v"}, "what is given now is stronger"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["add", "a b", "ssh://h"], "a context's name"),
        (["add", "-x", "ssh://h"], "usage"),
        (["add", "x/y", "ssh://h"], "a context's name"),
        (["add", "new", "h"], "not a target"),
        (["add", "new", "ssh://-h"], "not a target of ssh"),
        (["add", "new", "unix://h"], "absolute"),
        (["add", "old", "ssh://h"], "there is a context old already"),
        (["add", "new", "unix:///a%0Ab\n"], "contexts.new.target"),
        (["use", "new"], "there is no context 'new'"),
        (["remove", "new"], "there is no context 'new'"),
    ],
)
def test_bad_input_changes_nothing(run: Run, file: Path, argv: list[str], words: str) -> None:
    assert run("context", "add", "old", "unix:///s")[0] == 0
    before = file.read_bytes()
    code, out, err = run("context", *argv)
    assert (code, out) == (1, "")
    assert words in err
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name], "no half-written file is left"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("current = 3", "current: Expected `str`, got `int`"),
        ("current = [", "not valid TOML"),
        ("a = 1", "a: unknown key"),
        ("[contexts.x]", "contexts.x.target: is missing"),
        ('[contexts.x]\ntarget = "ssh://h"\nuser = "me"', "contexts.x.user"),
        ('[contexts."a b"]\ntarget = "ssh://h"', "contexts.a b: Expected up to 64 letters, digits"),
        ("\0", "not valid TOML"),
        ("[" * 5000, "not valid TOML"),
    ],
)
def test_a_file_that_is_wrong(run: Run, file: Path, text: str, words: str) -> None:
    write(file, text)
    for argv in (["context", "list"], ["--host", "x", "status"], ["status"]):
        code, out, err = run(*argv)
        assert (code, out) == (1, "")
        assert f"{file}: " in err
        assert words in err


def test_a_file_that_others_may_write_is_not_used(run: Run, file: Path) -> None:
    write(file, '[contexts.x]\ntarget = "unix:///s"\nssh_options = "-o ProxyCommand=evil"', 0o620)
    code, _, err = run("--host", "x", "status")
    assert code == 1
    assert "chmod 600" in err
    file.chmod(0o600)
    assert run("--host", "x", "status")[0] == 5


def test_a_link_stays_one(run: Run, file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.touch(mode=0o600)
    file.parent.mkdir(parents=True)
    file.symlink_to(real)
    assert run("context", "add", "a", "ssh://h")[0] == 0
    assert file.is_symlink()
    assert load(real).contexts["a"].target == "ssh://h"


def test_where_it_can_not_be_written(run: Run, own_config: Path) -> None:
    (own_config / "slabwatch").touch()
    code, _, err = run("context", "add", "a", "ssh://h")
    assert code == 1
    assert "can not be written" in err


def test_unknown_names(run: Run) -> None:
    code, _, err = run("--host", "db1", "status")
    assert code == 1
    assert "ssh://db1" in err
    assert "ssh://user@host" in run("--host", "a b", "status")[2]


def test_what_is_asked_by_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_host({}).target == ""
    write(file, 'current = "lab"\n[contexts.lab]\ntarget = "ssh://lab"\n[contexts.other]\ntarget = "ssh://other"')
    assert default_host({}).target == "ssh://lab"
    monkeypatch.setenv("SLABWATCH_HOST", "other")
    assert default_host({}).target == "ssh://other"
    monkeypatch.setenv("SLABWATCH_HOST", "unix:///s")
    assert default_host({"ca": "x"}) == contexts.Host("unix:///s", "unix:///s", {"ca": "x"})
    write(file, "rubbish")
    assert default_host({}).target == "unix:///s", "a file that is not needed is not opened"
    monkeypatch.delenv("SLABWATCH_HOST")
    monkeypatch.setenv("SLABWATCH_SSH", "-F x")
    with pytest.raises(ControlError):
        default_host({})
    assert resolve("ssh://h", {}, Contexts()).settings == {"ssh_options": "-F x"}
    known = Contexts(contexts={"h": Context(target="ssh://h", ssh_options="-v")})
    assert resolve("h", {}, known).settings == {"ssh_options": "-v"}, "a context's own options are stronger"


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert contexts_file() == Path("/home/me/.config/slabwatch/contexts.toml")


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)


CONTEXT = st.builds(Context, target=TEXT, ssh_options=TEXT, ca=TEXT)


@given(st.dictionaries(st.from_regex(contexts.NAME, fullmatch=True), CONTEXT, max_size=4))
def test_whatever_was_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, made: dict[str, Context]) -> None:
    wanted = Contexts(current=next(iter(made), ""), contexts=made)
    path = tmp_path_factory.mktemp("contexts") / "c.toml"
    with contexts.changed(path) as contents:
        contents.update(to_builtins(wanted))
    assert load(path) == wanted
