"""The storm: plan, preflight, engine in child processes, cgroup lifecycle, record, verdict, report."""
