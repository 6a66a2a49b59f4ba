"""Tests of the control API, against a daemon that is only pretended."""
