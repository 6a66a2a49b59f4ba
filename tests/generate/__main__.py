"""``make docs``: writes everything that is made from declarations."""

from __future__ import annotations

from pathlib import Path

from tests.generate.everything import everything

PROJECT = Path(__file__).parent.parent.parent


def main() -> None:
    """Write what has changed, and say so."""
    for path, text in everything(PROJECT).items():
        target = PROJECT / path
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
