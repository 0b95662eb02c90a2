"""Product metadata as JSON lines, as Amazon's and XMarket's: one object per product."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_xling.convert.base import SourceLocation
from recbole_xling.convert.reading.compressed import blocks
from recbole_xling.convert.reading.rejects import Rejects

_KEYS = {
    "title": ("title",),
    "brand": ("brand", "store"),
    "categories": ("categories", "category"),
    "features": ("features", "feature"),
    "description": ("description",),
}
_BETWEEN = {"categories": ", "}


@dataclass(frozen=True, slots=True)
class Product:
    """A product: its id, the parts of its text that are not empty, and where it stands."""

    item_id: str
    fields: Mapping[str, str]
    place: SourceLocation

    @property
    def brand(self) -> str:
        """The brand as a token for the ``.item`` file."""
        return brand_token(self.fields.get("brand", ""))


def read_products(path: Path, id_key: str, rejects: Rejects) -> Iterator[Product]:
    """Yield the products of a file.

    Args:
        path: the file, compressed or not.
        id_key: the key of the ids.
        rejects: takes lines that are no objects, and objects without an id.

    Raises:
        DataError: the file cannot be read.
    """
    rejects.begin(path)
    number, file = 0, str(path)
    for block in blocks(path):
        for line in block.removesuffix(b"\n").split(b"\n"):
            number += 1
            if not line.strip():
                continue
            rejects.saw(path, 1)
            record = parse_object(line)
            item_id = None if record is None else record.get(id_key)
            if record is not None and isinstance(item_id, str) and item_id:
                fields = {name: _text(record, keys, _BETWEEN.get(name, " ")) for name, keys in _KEYS.items()}
                kept = {name: value for name, value in fields.items() if value}
                yield Product(item_id, kept, SourceLocation(file, number))
            else:
                reason = "not a JSON object in UTF-8" if record is None else f"no text in column '{id_key}'"
                rejects.add(path, number, reason, line.decode(errors="replace"))


def parse_object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line, None where it holds none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def brand_token(brand: str) -> str:
    """Return a brand as RecBole can read it back: without line breaks, tabs and a quote at the start."""
    return " ".join(brand.split()).lstrip('" ')


def _text(record: Mapping[str, Any], keys: tuple[str, ...], between: str) -> str:
    """Return the text under the first key that has one; the elements of lists are joined."""
    texts = (between.join(_strings(record.get(key))) for key in keys)
    return next((text for text in texts if text), "")


def _strings(value: object) -> Iterator[str]:
    """Yield the texts in a value that is a text or a list, perhaps of lists."""
    if isinstance(value, str):
        if value.strip():
            yield value.strip()
    elif isinstance(value, list):
        for element in value:
            yield from _strings(element)
