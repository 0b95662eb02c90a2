"""MovieLens-100k's files and the tables of titles, languages and genres."""

from __future__ import annotations

from pathlib import Path


def write_table(path: Path, *rows: str) -> None:
    """Write rows whose cells are separated by ``|``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row.replace("|", "\t") + "\n" for row in rows), encoding="utf-8")
