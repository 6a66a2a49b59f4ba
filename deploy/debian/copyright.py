"""The package's copyright file: which libraries it brings along, and under which licences, as they say themselves."""

from __future__ import annotations

import importlib.metadata
import sys


def main(directory: str) -> None:
    """Print it for the libraries in ``directory``."""
    print("slabwatch, packaged from its own source tree. It brings these libraries along, in /usr/lib/slabwatch; the")
    print("licence of each is in full in its .dist-info directory there, and those of what it holds itself (ISA-L in")
    print("isal) beside its modules.\n")
    for found in sorted(importlib.metadata.distributions(path=[directory]), key=lambda found: found.name.lower()):
        if found.name != "slabwatch":
            said = [line for key in ("License-Expression", "License") for line in found.metadata.get_all(key) or []]
            classified = [
                line.split(" :: ")[-1] for line in found.metadata.get_all("Classifier") or [] if "License" in line
            ]
            licence = (*said, ", ".join(classified), "see its .dist-info")
            print(f"{found.name} {found.version}: {next(filter(None, licence)).strip().splitlines()[0]}")


if __name__ == "__main__":
    main(sys.argv[1])
