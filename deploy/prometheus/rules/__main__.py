"""Writes the rules files, and the table of alerts into the README next to them."""

from __future__ import annotations

from pathlib import Path

from deploy.prometheus.rules.written import files, table_of_alerts

FOLDER = Path(__file__).parents[1]
BEGIN, END = "<!-- alerts: begin -->\n", "<!-- alerts: end -->\n"


def with_table(readme: str) -> str:
    """The README with the table of alerts between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{table_of_alerts()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    readme = FOLDER / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
