"""Tests of what a scrape sees."""
