"""Amazon Reviews in the layouts of 2018 and 2023."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from packing import pack

REVIEWS_2018: list[dict[str, Any]] = [
    {"overall": 1.0 + i % 5, "verified": True, "reviewTime": "09 1, 2016", "reviewerID": f"A{i // 4}",
     "asin": f"000{i % 11:07}", "style": {"Format:": " Hardcover"}, "reviewerName": "N", "reviewText": "größer\n",
     "summary": "s", "unixReviewTime": 1472688000 + i} for i in range(24)
]  # fmt: skip
META_2018: list[dict[str, Any]] = [
    {"category": ["Books", "Art &amp; Design"], "tech1": "", "description": ["First.", "", "Second."],
     "title": f"Book {i}", "also_buy": ["B1"], "brand": ['"The\nPress"', "", "Müller"][i % 3], "feature": [],
     "price": "$9.99", "asin": f"000{i:07}"} for i in range(12)
]  # fmt: skip
REVIEWS_2023: list[dict[str, Any]] = [
    {"rating": 1.0 + i % 5, "title": "t", "text": "x", "images": [], "asin": f"V{i}", "parent_asin": f"P{i % 10}",
     "user_id": f"AE{i // 5}", "timestamp": 1588687728923 + 1000 * i, "helpful_vote": 0, "verified_purchase": True}
    for i in range(25)
]  # fmt: skip
META_2023: list[dict[str, Any]] = [
    {"main_category": "All Beauty", "title": f"Cream {i}", "average_rating": 4.8, "features": ["soft", "mild"],
     "description": [] if i else ["For skin."], "price": None, "images": [], "store": "Howard" if i % 2 else None,
     "categories": ["Beauty", "Skin"], "details": {"Package": "1"}, "parent_asin": f"P{i}", "bought_together": None}
    for i in range(10)
]  # fmt: skip


def write_lines(path: Path, rows: list[dict[str, Any]], *, more: bytes = b"") -> None:
    """Write JSON lines, compressed as the file's name says."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode() + more
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(content, path.suffix))
