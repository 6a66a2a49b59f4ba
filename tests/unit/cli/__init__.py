"""Tests of slabwatchctl, against the control server over a pretended daemon."""
