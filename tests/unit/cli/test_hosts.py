"""Which hosts are asked: the order, what is named twice, and names that can not be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from slabwatch.cli import hosts as module
from slabwatch.cli.hosts import many_hosts
from slabwatch.cli.parser import parse
from slabwatch.control.discovery import Scraped
from slabwatch.errors import ControlError

Ask = Callable[..., list[str]]


@pytest.fixture
def targets(own_config: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The targets that come of these arguments, where Prometheus knows two hosts and there is a context ``lab``."""
    file = own_config / "slabwatch" / "contexts.toml"
    file.parent.mkdir()
    file.write_text('[contexts.lab]\ntarget = "ssh://lab"\nssh_options = "-v"', encoding="ascii")
    file.chmod(0o600)

    async def scraped_by(url: str, job: str) -> tuple[Scraped, ...]:
        assert (url, job) == ("http://p", "slabwatch")
        return Scraped("10.0.0.1", "db1"), Scraped("[fe80::2]", "db2")

    monkeypatch.setattr(module, "scraped_by", scraped_by)
    return lambda *argv: [host.target for host in asyncio.run(many_hosts(parse([*argv, "status"])))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hosts"


def test_all_ways_at_once_and_each_host_once(targets: Ask, file: Path) -> None:
    file.write_text("# the lab\n\n  lab  # by its context\nssh://b\nssh://10.0.0.1\n#ssh://c\n", encoding="utf-8")
    everything = ("--prometheus", "http://p", "--hosts-file", str(file), "--host", "ssh://a", "--host", "ssh://b")
    assert targets(*everything) == ["ssh://a", "ssh://b", "ssh://lab", "ssh://10.0.0.1", "ssh://[fe80::2]"]


def test_settings_and_no_questions(targets: Ask) -> None:
    hosts = asyncio.run(many_hosts(parse(["--host", "lab", "--host", "ssh://b", "--ssh-command", "x", "status"])))
    assert [host.name for host in hosts] == ["lab", "ssh://b"]
    assert [dict(host.settings) for host in hosts] == [
        {"ssh_options": "-v -o BatchMode=yes", "ssh_command": "x"},
        {"ssh_options": "-o BatchMode=yes", "ssh_command": "x"},
    ]


def test_templates(targets: Ask) -> None:
    prometheus = ("--prometheus", "http://p", "--target-template")
    assert targets(*prometheus, "ssh://root@{instance}:2222") == ["ssh://root@db1:2222", "ssh://root@db2:2222"]
    for wrong in ("ssh://host", "{host}", "ssh://{host}{port}", "ssh://{host.x}", "ssh://{", "ssh://{}", "ssh://{0}"):
        with pytest.raises(ControlError, match="--target-template") as caught:
            targets(*prometheus, wrong)
        assert caught.value.code == "bad_target"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no host is named"),
        (b"# none\n", "no host is named"),
        (b"ssh://a\nssh://b ssh://c\n", ":2: 'ssh://b ssh://c': one target or context a line"),
        (b"ssh://a\nnobody\n", "'nobody' is no target"),
        (b"ssh://a\nssh://-oProxyCommand=x\n", "not a target of ssh"),
        (b"ftp://a\n", "not a target"),
        (b"\xff", "not text in UTF-8"),
    ],
)
def test_files_that_are_wrong(targets: Ask, file: Path, text: bytes, words: str) -> None:
    file.write_bytes(text)
    with pytest.raises(ControlError, match=words) as caught:
        targets("--hosts-file", str(file))
    assert caught.value.code == "bad_target"


def test_no_such_file(targets: Ask, file: Path) -> None:
    with pytest.raises(ControlError, match=f"{file}: No such file"):
        targets("--hosts-file", str(file))


def test_what_prometheus_says_is_not_trusted(targets: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scraped_by(url: str, job: str) -> tuple[Scraped, ...]:
        return (Scraped("-oProxyCommand=x", "a b"),)

    monkeypatch.setattr(module, "scraped_by", scraped_by)
    for template in ("ssh://{host}", "ssh://{instance}", "ssh://me@{host}"):
        with pytest.raises(ControlError, match="not a target of ssh"):
            targets("--prometheus", "http://p", "--target-template", template)
