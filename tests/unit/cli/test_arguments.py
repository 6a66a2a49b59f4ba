"""Arguments: usage errors, options before and after the verb, light help, completion."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from slabwatch.cli.ctl import main
from slabwatch.cli.parser import make_parser, parse
from tests.generate.arguments import verbs as verbs_of

REPOSITORY = Path(__file__).parents[3]
HEAVY = ("aiohttp", "asyncio", "msgspec", "rich", "shtab", "slabwatch.config", "slabwatch.control")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["stats"],
        ["top", "--sort", "name"],
        ["top", "--limit", "-1"],
        ["top", "--limit", "many"],
        ["storm", "--preset", "hurricane"],
        ["storm", "--cgroups", "0"],
        ["storm", "--hold", "nan"],
        ["storm", "--hold", "-1"],
        ["storm", "--settle", "long"],
        ["storm", "--detach", "--dry-run"],
        ["storm", "--detach", "--expect", "released"],
        ["storm", "--dry-run", "--expect", "released"],
        ["storm", "--expect", "good"],
        ["storm", "--pre", "smoke"],
        ["completion", "cmd"],
        ["--host", "", "status"],
        ["--host", "a", "--host", "b", "follow"],
        ["--host", "a", "--host", "b", "report"],
        ["--host", "a", "--host", "b", "shrink"],
        ["--host", "a", "--host", "b", "stdio-bridge"],
        ["--host", "a", "--host", "b", "top", "--watch"],
        ["--host", "a", "--host", "b", "storm", "--detach"],
        ["--host", "a", "--host", "b", "compare", "last"],
        ["--host", "a", "--host", "b", "storm", "--parallel", "0"],
        ["storm", "--parallel", "2"],
        ["compare", "last"],
        ["compare", "last", "last-1", "--preset", "smoke"],
        ["--prometheus-job", "j", "status"],
        ["--target-template", "ssh://{host}", "status"],
        ["context"],
        ["context", "add", "name"],
        ["context", "remove"],
        ["context", "rename", "a"],
    ],
)
def test_wrong_usage_is_1(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert not out
    assert "usage: slabwatchctl" in err
    assert "--help" in err


def test_common_options_before_and_after_the_verb() -> None:
    for argv in (["--host", "unix:///a", "--json", "top"], ["top", "--host", "unix:///a", "--json"]):
        args = parse(argv)
        assert (args.hosts, args.json, args.is_fleet) == (["unix:///a"], True, False)
    args = parse(["--json", "--host", "unix:///a", "top", "--host", "unix:///b"])
    assert (args.hosts, args.json, args.is_fleet) == (["unix:///a", "unix:///b"], True, True)
    args = parse(["top"])
    assert (args.hosts, args.settings, args.json, args.is_fleet) == ([], {}, False, False)
    args = parse(["--ca", "a", "--ssh-options", "-i k", "--key", "b", "context", "add", "n", "ssh://h", "--ca", "c"])
    assert args.settings == {"ca": "c", "key": "b", "ssh_options": "-i k"}
    assert (args.action, args.name, args.target) == ("add", "n", "ssh://h")


def test_what_makes_a_fleet() -> None:
    for argv in (["--hosts-file", "f"], ["--prometheus", "http://p"], ["--host", "a", "--host", "b"]):
        assert parse([*argv, "status"]).is_fleet
        assert parse(["status", *argv]).is_fleet
    args = parse(["--prometheus", "http://p", "--prometheus-job", "j", "--target-template", "ssh://{instance}", "top"])
    assert (args.prometheus, args.prometheus_job, args.target_template) == ("http://p", "j", "ssh://{instance}")
    assert parse(["--host", "a", "--host", "b", "storm", "--parallel", "3"]).parallel == 3


def test_numbers_may_have_separators() -> None:
    assert parse(["storm", "--cgroups", "1,000"]).cgroups == 1000


@pytest.mark.parametrize("argv", [["--help"], ["storm", "--help"], ["--version"], ["nothing"]])
def test_help_needs_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys; from slabwatch.cli.ctl import main; main(sys.argv[1:]); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for code in range(9):
        assert f"\n  {code}  " in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "slabwatchctl" in out
    for word in ("cgroups", "--preset" if shell != "tcsh" else "preset", "seed-once", "unexplained"):
        assert word in out


def test_bash_completes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out + (
        'complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_slabwatchctl; echo "${COMPREPLY[*]}"; }\n'
        "complete_words slabwatchctl do\n"
        "complete_words slabwatchctl storm --preset se\n"
        "complete_words slabwatchctl --json cgroups --sort ''\n"
        "complete_words slabwatchctl context re\n"
        "complete_words slabwatchctl std\n"
        "complete_words slabwatchctl storm --par\n"
    )
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "doctor", "seed seed-once", "kernel slab dying", "remove", "stdio-bridge", "--parallel",
    ]  # fmt: skip


def test_the_documents_name_verbs_that_there_are() -> None:
    verbs = {name.split()[0] for name, _ in verbs_of(make_parser())}
    pages = [path for place in ("*.md", "docs/**/*.md", "deploy/**/*.md") for path in REPOSITORY.glob(place)]
    named = {
        (path.name, verb)
        for path in pages
        for verb in re.findall(r"\bslabwatchctl (?:--[a-z-]+ \S+ )*([a-z][a-z-]*)", path.read_text(encoding="utf-8"))
    }
    assert {page for page, _ in named} >= {"README.md", "remote.md"}
    assert not {(page, verb) for page, verb in named if verb not in verbs}
