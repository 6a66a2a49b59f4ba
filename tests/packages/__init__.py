"""The packages, built and installed for real: slow, so ``make test-packages`` runs them, not ``make test``."""
