"""Writes the rules files, and the tables of the README next to them."""

from __future__ import annotations

from pathlib import Path

from deploy.prometheus.rules.written import files, table_of_alerts, table_of_series

FOLDER = Path(__file__).parents[1]


def with_tables(readme: str) -> str:
    """The README with each table between its two marks."""
    for name, table in (("alerts", table_of_alerts()), ("series", table_of_series())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, _, rest = readme.partition(begin)
        readme = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    return readme


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    readme = FOLDER / "README.md"
    readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")
