"""slabwatchctl against a pretended daemon, as the tests of the command line have it."""

from tests.unit.cli.conftest import backstage, ctl

__all__ = ["backstage", "ctl"]
