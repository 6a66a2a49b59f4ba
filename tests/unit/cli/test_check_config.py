"""`slabwatch --check-config`: names that must be there are errors, those that may come later are warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from slabwatch.cli.slabwatch import main


def _checked(tmp_path: Path, text: str) -> int:
    config = tmp_path / "slabwatch.toml"
    config.write_text(text, encoding="utf-8")
    return main(["--check-config", "--config", str(config)])


@pytest.mark.parametrize(("key", "kind"), [("owner", "user"), ("group", "group")])
@pytest.mark.parametrize("name", ["nosuch", r"a\u0000b"])
def test_an_owner_that_the_daemon_would_not_start_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, kind: str, name: str
) -> None:
    assert _checked(tmp_path, f'[control]\n{key} = "{name}"\n') == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"slabwatch: control.{key}: there is no {kind} '{name[0]}")


def test_a_misspelt_operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _checked(tmp_path, '[control]\noperators = ["nosuch"]\n[rights]\nstorm = ["group:nosuch"]\n') == 0
    assert capsys.readouterr() == (
        f"{tmp_path}/slabwatch.toml: ok\n",
        "slabwatch: warning: control.operators: there is no user 'nosuch' on this host\n"
        "slabwatch: warning: rights.storm: there is no group 'nosuch' on this host\n",
    )


def test_names_and_numbers_that_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '[control]\nowner = "root"\ngroup = "54321"\noperators = ["daemon", "54321"]\n'
    assert _checked(tmp_path, text) == 0
    assert capsys.readouterr() == (f"{tmp_path}/slabwatch.toml: ok\n", "")
