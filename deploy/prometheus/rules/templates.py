"""Pieces of annotations: Prometheus' templates that ask for more figures of the host that an alert is about.

In a query, ``HOST`` stands for that host's job and instance, and ``<label>`` for the value of any label of the alert.
"""

from __future__ import annotations

import re


def _asked(query: str) -> str:
    """The pipeline that asks. %q, because a label may hold what means something in a string: systemd's ``\\x2d``."""
    query = query.replace("HOST", "job=<job>,instance=<instance>")
    labels = "".join(f" $labels.{label}" for label in re.findall(r"<(\w+)>", query))
    return f'printf "{re.sub(r"<[a-z_]+>", "%q", query)}"{labels} | query'


def figure(query: str, form: str, unit: str = "") -> str:
    """The value of one series; ``form``: the template function that shows it."""
    return f"{{{{ range {_asked(query)} }}}}{{{{ .Value | {form} }}}}{unit}{{{{ else }}}}unknown{{{{ end }}}}"


def size(query: str) -> str:
    """The value of one series in bytes: 288.5MiB."""
    return figure(query, "humanize1024", "B")


def count(query: str) -> str:
    """The value of one series without fractions or units."""
    return figure(query, "printf `%.0f`")


def label(name: str, query: str) -> str:
    """The value of a label of one series."""
    return f"{{{{ range {_asked(query)} }}}}{{{{ .Labels.{name} }}}}{{{{ else }}}}unknown{{{{ end }}}}"


def ranking(name: str, query: str) -> str:
    """The five largest, by a label: "dentry 1.2GiB, kmalloc-1k 800MiB"."""
    return (
        f"{{{{ range $i, $row := {_asked(f'sort_desc(topk(5, {query}))')} }}}}{{{{ if $i }}}}, {{{{ end }}}}"
        f"{{{{ $row.Labels.{name} }}}} {{{{ $row.Value | humanize1024 }}}}B{{{{ else }}}}unknown{{{{ end }}}}"
    )


ON_HOST = "on {{ $labels.instance }}"
_SIZE = "slabwatch_slab_size_bytes{HOST}"
LARGEST_CACHES = "Largest caches: " + ranking("cache", _SIZE)
GROWN_CACHES = "Caches by growth in six hours: " + ranking("cache", f"{_SIZE} - {_SIZE} offset 6h > 0")
LARGEST_CGROUPS = "Cgroups by kernel memory: " + ranking("cgroup", "slabwatch_cgroup_kernel_bytes{HOST,cgroup!='/'}")
SUNRECLAIM = "SUnreclaim: " + size("slabwatch_meminfo_sunreclaim_bytes{HOST}")
