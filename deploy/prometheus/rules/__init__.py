"""Prometheus rules, declared once: see written.py for the files that come of them."""
