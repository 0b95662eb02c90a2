"""Product metadata as JSON lines, as Amazon's and XMarket's: one object per product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from recbole_xling.convert.base import SourceLocation
from recbole_xling.convert.reading.compressed import numbered_lines
from recbole_xling.convert.reading.open_table import parse_object
from recbole_xling.convert.reading.rejects import Rejects

_KEYS = {
    "title": ("title",),
    "brand": ("brand", "store"),
    "categories": ("categories", "category"),
    "features": ("features", "feature"),
    "description": ("description",),
}  # of several keys the first one with a text counts


@dataclass(frozen=True, slots=True)
class Product:
    """A product: its id, the parts of its text that are not empty, and where it comes from."""

    item_id: str
    fields: Mapping[str, str]
    location: SourceLocation

    @property
    def brand(self) -> str:
        """The brand as RecBole can read it back: without line breaks, tabs and a quote at the start."""
        return " ".join(self.fields.get("brand", "").split()).lstrip('" ')


def read_products(path: Path, id_key: str, rejects: Rejects) -> Iterator[Product]:
    """Yield the products of a file.

    Args:
        path: the file, compressed or not.
        id_key: the key of the ids.
        rejects: takes lines that are not objects, and objects without an id.

    Raises:
        DataError: the file cannot be read.
    """
    rejects.begin(path)
    file = str(path)
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        rejects.saw(path, 1)
        record = parse_object(line)
        item_id = None if record is None else record.get(id_key)
        if record is None or not isinstance(item_id, str) or not item_id:
            reason = "not a JSON object in UTF-8" if record is None else f"no text in column '{id_key}'"
            rejects.add(path, number, reason, line.decode(errors="replace"))
            continue
        fields = {}
        for name, keys in _KEYS.items():
            between = ", " if name == "categories" else " "
            text = next(filter(None, (between.join(_strings(record.get(key))) for key in keys)), None)
            if text is not None:
                fields[name] = text
        yield Product(item_id, fields, SourceLocation(file, number))


def _strings(value: object) -> Iterator[str]:
    """Yield the texts in a value that is a text or a list, perhaps of lists."""
    if isinstance(value, str):
        if value.strip():
            yield value.strip()
    elif isinstance(value, list):
        for element in value:
            yield from _strings(element)
