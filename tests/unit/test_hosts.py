"""The helper that gives tests a recorded host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosts import HOSTS, STATES, kernel_config, recorded, recorded_all


def test_an_unpacked_host_holds_the_recorded_files(hosts: Callable[[str, str], Path]) -> None:
    root = hosts(HOSTS[0], "storm")
    assert hosts(HOSTS[0], "storm") == root
    files = recorded_all(HOSTS[0], "storm", "sys", "*") | recorded_all(HOSTS[0], "storm", "proc", "*")
    assert len(files) > 100
    for path, data in files.items():
        assert (root / path).read_bytes() == data
    assert any(path.is_symlink() for path in (hosts(HOSTS[0], "idle") / "sys/kernel/slab").iterdir())


@pytest.mark.parametrize("host", HOSTS)
def test_every_archive_has_every_state(host: str) -> None:
    assert b"CONFIG_MEMCG=y" in kernel_config(host)
    for state in STATES:
        assert recorded(host, state, "proc/slabinfo").startswith(b"slabinfo - version: 2.1\n")


def test_an_unknown_host_or_state_is_an_error(hosts: Callable[[str, str], Path]) -> None:
    with pytest.raises(ValueError, match="was not recorded"):
        hosts("2.6.32", "idle")
    with pytest.raises(ValueError, match="was not recorded"):
        hosts(HOSTS[0], "asleep")
