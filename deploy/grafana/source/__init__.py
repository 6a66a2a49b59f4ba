"""The dashboards as code. ``make docs`` writes them as JSON into deploy/grafana/dashboards."""
