"""Real kernels, old and new, booted in software emulation: ``python -m tests.vm --help``, and README.md."""
