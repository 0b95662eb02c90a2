"""Amazon-M2: products in three locales, sessions, test sessions."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl

COLUMNS = ("id", "locale", "title", "price", "brand", "color", "size", "model", "material", "author", "desc")
PRODUCTS = [
    *((f"B{i:09}", "DE", f"Ding {i}", "9.99", '"Müller" AG' if i == 0 else "Müller", "rot") for i in range(8)),
    *((f"B{i:09}", "JP", f"もの {i}", "40000000.07", "", "") for i in range(6, 12)),
    *((f"B{i:09}", "UK", f"Thing {i}, 3.5\nlarge", "8.0", "Müller", "") for i in (0, 7, 12)),
]
SESSIONS = [([f"B{(i + j) % 13:09}" for j in range(2 + i)], f"B{(i * 5) % 13:09}", "DE JP UK".split()[i % 3])
            for i in range(12)]  # fmt: skip
TESTS = [(["B000000001", "B000000002"], "DE"), (["B000000012"], "UK")]


def products() -> pl.DataFrame:
    rows = [(*row, "10 cm", None, "Holz", None, "Beschreibung; lang") for row in PRODUCTS]
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")


def printed(items: list[str]) -> str:
    return str(np.array(items, dtype=object))


def write_csv(folder: Path) -> None:
    """Write the files of KDD Cup; long sessions have line breaks in their lists, as NumPy makes them."""
    products().write_csv(folder / "products_train.csv")
    train = pl.DataFrame([(printed(items), *rest) for items, *rest in SESSIONS], orient="row")
    text = train.rename(dict(zip(train.columns, ("prev_items", "next_item", "locale"), strict=True))).write_csv()
    assert "'\n '" in text
    (folder / "sessions_train.csv.gz").write_bytes(gzip.compress(text.encode()))
    rows = "".join(f'"{printed(items)}",{locale}\n' for items, locale in TESTS)
    (folder / "sessions_test_task1.csv").write_text(f"prev_items,locale\n{rows}")


def write_parquet(folder: Path) -> None:
    products().write_parquet(folder / "products_train.parquet")
    pl.DataFrame(SESSIONS, schema=["prev_items", "next_item", "locale"], orient="row").write_parquet(
        folder / "sessions_train.parquet"
    )
    pl.DataFrame(TESTS, schema=["prev_items", "locale"], orient="row").write_parquet(
        folder / "sessions_test_task1.parquet"
    )
