"""Shell scripts that people run as root have none of the known mistakes in them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.requirements import need

PROJECT = Path(__file__).parent.parent.parent


def test_shellcheck_finds_nothing() -> None:
    need(shutil.which("shellcheck") is not None, "shellcheck")
    scripts = [
        path
        for top in (".ci", "deploy", "systemd")
        for path in (PROJECT / top).rglob("*")
        if path.is_file()
        and path.read_bytes()[:20].split(b"\n")[0] in (b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash")
    ]
    assert len(scripts) >= 5
    result = subprocess.run(["shellcheck", *map(str, scripts)], check=False, capture_output=True, text=True, timeout=60)
    assert result.stdout == ""
