"""A converter of given records, for the tests of the writer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recbole_xling.convert import ConvertReport, write_dataset
from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User
from recbole_xling.convert.reading.rejects import Rejects

FILES = {"d.inter", "d.item", "d.user", "d.itemtext.jsonl", "d.convert.json"}
_NAMES = ("user_id", "item_id", "rating", "timestamp")


def frame(*rows: Sequence[Any], first_line: int = 2) -> pl.DataFrame:
    """Return a batch of interactions ``(user, item)``, ``(user, item, rating)`` or with a time as well."""
    names = _NAMES[: len(rows[0])]
    schema = dict(zip(names, (pl.String, pl.String, pl.Float64, pl.Float64), strict=False))
    lines = pl.int_range(first_line, first_line + len(rows), eager=True).alias("line")
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.lit("made.csv").alias("file"), lines)


def text(item_id: str, language: str, title: str, source: str = "display", line: int = 0) -> SourceText:
    place = SourceLocation("texts.csv", line) if line else None
    return SourceText(item_id, language, {"title": title}, source, place)


class Made(Converter):
    """Yields the given records; an exception among them is raised."""

    name = "made"
    item_fields = {"year": "token", "genres": "token_seq", "price": "float"}
    user_fields = {"age": "token"}

    def __init__(self, rows: int = 1000, **records: list[Any]) -> None:
        super().__init__()
        default: dict[str, list[Any]] = {
            "interactions": [frame(("u2", "b", 3.0, 881250949.0), ("u1", "a", 4.5, 1e18))],
            "items": [Item("a", "de", {"year": "1995", "genres": ("Sci-Fi", "War"), "price": "2.50"}), Item("b", "zh")],
            "users": [User("u1", {"age": "24"}), User("u2"), User("u3")],
            "texts": [text("a", "de", "Müll"), text("a", "en", "Waste", "parallel"), text("b", "zh", "活着")],
        }
        self.records = default | records
        self.rows = rows  # that the source is said to have

    def _yield(self, kind: str, rejects: Rejects) -> Iterator[Any]:
        rejects.begin("made.csv")
        rejects.saw("made.csv", self.rows)
        for record in self.records[kind]:
            if isinstance(record, BaseException):
                raise record
            yield record

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        return self._yield("interactions", rejects)

    def items(self, rejects: Rejects) -> Iterator[Item]:
        return self._yield("items", rejects)

    def users(self, rejects: Rejects) -> Iterator[User]:
        return self._yield("users", rejects)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        return self._yield("texts", rejects)


def write(
    root: Path, *, rows: int = 1000, options: dict[str, Any] | None = None, **records: list[Any]
) -> ConvertReport:
    """Write the dataset ``d`` of given records."""
    return write_dataset(Made(rows, **records), root, "d", show_progress=False, **(options or {}))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines(root: Path, suffix: str) -> list[str]:
    """Return the lines of the only file ``*.<suffix>`` among the datasets in ``root/out``."""
    (path,) = (root / "out").glob(f"*/*.{suffix}")
    return path.read_text(encoding="utf-8").splitlines()
