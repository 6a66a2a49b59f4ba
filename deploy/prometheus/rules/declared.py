"""What a rule is, and the words that many rules share.

Everything in this folder is pure. ``python -m deploy.prometheus.rules`` writes the YAML files that people copy; a test
holds them against what is declared here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# The one place where the address of the runbooks is: pages are RUNBOOKS/<page>.md#<alert in lower case>.
RUNBOOKS = "https://github.com/slabwatch/slabwatch/blob/main/docs/runbooks"

# Prometheus' job may carry a namespace or another prefix (the operator's PodMonitor: "monitoring/slabwatch").
JOB = 'job=~".*slabwatch.*"'

CLASS = "slab_class"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One figure that people change. ``why`` is the comment above it, in the file that they copy."""

    name: str
    value: float
    why: str


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule. ``per``: one series a host, one a release and so on; it says how many series it makes."""

    name: str
    expr: str
    per: Literal[
        "host",
        "host at times",
        "large cache of a host",
        "large cgroup of a host",
        "release",
        "release and cache",
        "class",
    ]
    labels: dict[str, str] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alerting rule. ``description``: a line for each fact. ``page``: the runbook's file without its suffix."""

    name: str
    severity: Literal["info", "warning", "critical"]
    hold: str
    expr: str
    summary: str
    description: tuple[str, ...]
    page: str

    @property
    def runbook_url(self) -> str:
        """Where the steps are."""
        return f"{RUNBOOKS}/{self.page}.md#{self.name.lower()}"


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other."""

    name: str
    interval: str
    rules: tuple[Record | Alert, ...]


def compared(expr: str, operator: str, name: str) -> str:
    """The series of hosts that hold against the threshold of their class."""
    return f'{expr}\n  {operator} on ({CLASS}) group_left () slabwatch:threshold{{name="{name}"}}'


def indented(text: str, by: str = "  ") -> str:
    """Each line further to the right."""
    return "\n".join(by + line for line in text.split("\n"))


def with_release(expr: str, *more: str) -> str:
    """The series of hosts with the kernel's release as a label; ``more``: labels they have besides their target's."""
    ignored = ", ".join(("release", "allocator", "cgroup_mode", "kmem_accounting", *more))
    return f"{expr}\n* ignoring ({ignored}) group_left (release) slabwatch_kernel_info"
