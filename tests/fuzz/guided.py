"""Coverage-guided fuzzing by atheris: ``python -m tests.fuzz.guided TARGET SECONDS [CORPUS]``; TARGET may be ``all``.

Ends with an error when a target fails, and leaves the input beside the corpus (``crash-...``): make a test of it.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> int:
    """Fuzz one target in this process, or all of them, each in one of its own."""
    name, seconds, *rest = sys.argv[1:]
    corpus = Path(rest[0]) if rest else Path(tempfile.mkdtemp(prefix="slabwatch-fuzz-corpus-"))
    if name == "all":
        return _all(seconds, corpus)
    atheris: Any = importlib.import_module("atheris")  # has no types
    with atheris.instrument_imports(include=["slabwatch", "yaml", "tomllib"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS

    target = next(target for target in TARGETS if target.name == name)
    # libFuzzer ends the process at once: what a target writes must be where nobody misses it.
    scratch, inputs = corpus / "scratch", corpus / "inputs"
    scratch.mkdir(parents=True, exist_ok=True)
    inputs.mkdir(exist_ok=True)
    tempfile.tempdir = str(scratch)
    for number, seed in enumerate(target.seeds()):
        (inputs / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-max_len=65536", "-timeout=20", "-rss_limit_mb=2048"]
    arguments = [sys.argv[0], *limits, f"-artifact_prefix={corpus}/", str(inputs)]
    atheris.Setup(arguments, target.run)
    atheris.Fuzz()
    return 0


def _all(seconds: str, corpus: Path) -> int:
    from tests.fuzz.targets import TARGETS

    failed = []
    for target in TARGETS:
        print(f"--- {target.name}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz.guided", target.name, seconds, str(corpus / target.name)]
        if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
            failed.append(target.name)
    print(f"{len(TARGETS)} targets, {len(failed)} failed: {' '.join(failed)}  (inputs below {corpus})")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
