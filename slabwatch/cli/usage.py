"""What both programs' arguments are parsed with."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from slabwatch.cli.exit_codes import Exit


class Parser(argparse.ArgumentParser):
    """argparse with this program's exit code for wrong usage (argparse's own 2 means "refused" here)."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(Exit.USAGE, f"{self.prog}: {message}\n{self.prog}: try {self.prog} --help\n")
