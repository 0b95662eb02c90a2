"""XMarket: four markets that share some products."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

HEADER = "userId itemId rate date\n"


def product(number: int, market: str) -> dict[str, Any]:
    """Return a row of the metadata of a market; the texts of one language differ between its markets."""
    return {"asin": f"B{number:02}", "title": f"{market} {number}", "brand": f"Brand {market}", "description": "",
            "categories": ["Home", "Küche"], "features": ["a", "b"], "averageRating": "4.5"}  # fmt: skip


MARKETS = {"us": range(8), "uk": range(4, 9), "de": range(6, 11), "jp": range(10, 12)}


def write_market(folder: Path, market: str, numbers: range, category: str = "Home_Kitchen") -> None:
    """Write ratings, six for each product, and metadata; packed for some markets."""
    rows = [f"{market}{i % 5} B{n:02} {1 + i % 5}.0 2015-01-{1 + i:02}" for n in numbers for i in range(6)]
    meta = "".join(json.dumps(product(n, market)) + "\n" for n in numbers)
    folder.mkdir(parents=True, exist_ok=True)
    content = {f"ratings_{market}_{category}.txt": HEADER + "\n".join(rows) + "\n"}
    content[f"metadata_{market}_{category}.json"] = meta
    for name, text in content.items():
        if market in ("us", "jp"):
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text, encoding="utf-8")
