"""The manual pages: complete, and in order for the two programs that show them."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.cli.exit_codes import MEANINGS
from slabwatch.cli.parser import make_parser as make_ctl_parser
from slabwatch.cli.slabwatch import make_parser as make_daemon_parser
from slabwatch.config import Config
from slabwatch.form import fields_of, form_of
from tests.generate import manpages
from tests.generate.arguments import options, verbs
from tests.generate.roff import Page, escape
from tests.requirements import need

PAGES = manpages.pages()
# Dates would make a page differ from one day to the next.
ALLOWED = 'WARNING: missing date, using "": TH'


def shown(text: str, tmp_path: Path) -> str:
    """As a reader sees it, on lines that nothing has to be broken for."""
    page = tmp_path / "page"
    page.write_text(text, encoding="utf-8")
    command = ["mandoc", "-Tutf8", "-Owidth=400", str(page)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    return re.sub(r".\x08", "", out)  # bold is struck twice, italic under-struck


@pytest.mark.parametrize("name", PAGES)
def test_mandoc_finds_nothing(name: str, tmp_path: Path) -> None:
    need(shutil.which("mandoc") is not None, "mandoc")
    page = tmp_path / name
    page.write_text(PAGES[name], encoding="utf-8")
    lint = subprocess.run(["mandoc", "-T", "lint", str(page)], check=False, capture_output=True, text=True, timeout=30)
    assert [line for line in lint.stdout.splitlines() if ALLOWED not in line] == []


@pytest.mark.parametrize("name", PAGES)
def test_groff_finds_nothing(name: str) -> None:
    need(shutil.which("groff") is not None, "groff")
    command = ["groff", "-ww", "-man", "-Tutf8", "-K", "utf8", "-z"]
    result = subprocess.run(command, input=PAGES[name], check=True, capture_output=True, text=True, timeout=30)
    assert result.stderr == ""


def test_every_option_of_the_daemon_is_there(tmp_path: Path) -> None:
    need(shutil.which("mandoc") is not None, "mandoc")
    text = shown(PAGES["slabwatch.8"], tmp_path)
    assert [option for option in options(make_daemon_parser()) if option not in text] == []


def test_every_verb_has_all_of_its_options(tmp_path: Path) -> None:
    need(shutil.which("mandoc") is not None, "mandoc")
    parser = make_ctl_parser()
    text = shown(PAGES["slabwatchctl.1"], tmp_path)
    found = list(verbs(parser))
    assert len(found) >= 12
    for name, verb in found:
        _, _, after = text.partition(f"\n   {name}\n")
        body = re.split(r"\n {3}\S|\n\S", after)[0]
        assert [option for option in options(verb) - options(parser) if option not in body] == []
    assert all(f"{code.value}" in text and meaning[1:] in text for code, meaning in MEANINGS.items())


def test_verbs_that_hold_verbs_come_as_those() -> None:
    parser = argparse.ArgumentParser(prog="x")
    inner = parser.add_subparsers().add_parser("context").add_subparsers()
    inner.add_parser("add")
    inner.add_parser("list")
    assert [name for name, _ in verbs(parser)] == ["context add", "context list"]


def test_every_key_of_the_configuration_is_there(tmp_path: Path) -> None:
    need(shutil.which("mandoc") is not None, "mandoc")
    text = shown(PAGES["slabwatch.toml.5"], tmp_path)
    for section, field in fields_of(Config).items():
        assert f"[{section}]" in text
        form = form_of(field.annotation)
        assert form
        for key, inner in fields_of(form).items():
            assert f" {key} = " in text
            assert inner.description
            assert " ".join(inner.description.replace("`", "").split())[:40] in " ".join(text.split())


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60))
def test_no_text_is_taken_for_a_request(text: str) -> None:
    page = Page("x", 1, "0", "Manual")
    page.paragraph(text)
    page.literal(text)
    before = len(Page("x", 1, "0", "Manual").text().splitlines())
    requests = [line for line in page.text().splitlines()[before:] if line.startswith((".", "'"))]
    assert set(requests) <= {".PP", ".nf", ".fi"}
    assert "\\" not in escape(text).replace("\\e", "").replace("\\-", "").replace("\\&", "").replace("\\(", "")
