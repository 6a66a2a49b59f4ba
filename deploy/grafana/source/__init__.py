"""The dashboards as code. ``make dashboards`` writes them as JSON into deploy/grafana/dashboards."""
