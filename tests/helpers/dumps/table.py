"""A shop's tables in every format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl

SALES = [
    {
        "customer": f"c{i % 5}",
        "sku": str(100 + i % 12),
        "stars": 1 + i % 5,
        "when": f"2024-01-{1 + i % 28:02}T10:00:00Z",
    }
    for i in range(30)
]
PRODUCTS = [
    {"sku": str(100 + i), "name": f'Ding {i}, "groß"', "desc": "" if i == 3 else f"Beschreibung; {i}", "lang": "de-AT",
     "maker": "Müller & Co", "eur": f"{i}.50", "tags": "a b"}
    for i in range(12)
]  # fmt: skip
CUSTOMERS = [{"customer": f"c{i}", "city": f"Linz {i}"} for i in range(5)]
SETTINGS: dict[str, Any] = {
    "user": "customer",
    "item": "sku",
    "rating": "stars",
    "time": "when",
    "language": "lang",
    "text": "title=name,description=desc",
    "item_features": "brand=maker,price=eur:float,tags=tags:token_seq",
    "user_features": "city",
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the file's name."""
    data = pl.DataFrame(rows)
    if ".csv" in path.name:
        content = data.write_csv().encode()
    elif ".tsv" in path.name:
        content = data.write_csv(separator="\t", quote_style="never").encode()
    elif ".jsonl" in path.name:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        data.write_parquet(path)
        return path
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write(folder: Path, suffix: str) -> dict[str, Any]:
    """Write the three tables in a format; return the settings of the converter."""
    return SETTINGS | {
        "input": write_rows(folder / f"sales{suffix}", SALES),
        "items": write_rows(folder / f"products{suffix}", PRODUCTS),
        "users": write_rows(folder / f"customers{suffix}", CUSTOMERS),
    }
