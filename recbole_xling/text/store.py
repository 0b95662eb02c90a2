"""The texts of items, in memory and in files: one record per item, language and source.

``<dataset>.itemtext.jsonl`` has one JSON object per line::

    {"item_id": "1", "language": "de", "fields": {"title": "Toy Story", "year": "1995"}, "source": "display"}

``source`` is ``display`` for the text that users of the catalog see (at most one per item), ``parallel`` for the item's
own text in another language, ``translation:<system>`` for a translation made by that system. If the language was
identified rather than stated, ``language_confidence`` says with what confidence, from 0 to 1.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from recbole_xling.errors import DataError, NoTextError
from recbole_xling.language.tags import UNDETERMINED, cased_tag, states_nothing
from recbole_xling.text.atomic_files import read_atomic_file, read_header
from recbole_xling.text.raw_tables import text_lines
from recbole_xling.text.record import DISPLAY, PARALLEL, ItemText, check_text, format_text, parse_text
from recbole_xling.utils.staging import settle, staged


class ItemTextStore:
    """All texts of a catalog, kept as one block of bytes: about 30 bytes per text on top of the text and its item id.

    ``len(store)`` counts items and iterating yields their ids in the order of the file; :meth:`texts` yields the texts.

    Args:
        texts: the texts, in any order.

    Raises:
        DataError: a text is malformed or contradicts another one (two display texts, the same text twice).
    """

    def __init__(self, texts: Iterable[ItemText] = ()) -> None:
        self._index = RowIndex()
        self._bounds = array("q", [0])  # of the values of the rows in the block: where each begins, and the last ends
        self._confidence = array("d")  # per row: of its language, NaN if that is stated
        self._block = bytearray()  # the values, UTF-8, NUL between two values of a row
        for text in texts:
            check_text(text)
            self._add(text)

    @classmethod
    def load(cls, path: str | Path) -> ItemTextStore:
        """Read an itemtext file.

        Raises:
            DataError: the file is missing or a line of it is wrong; the message names file and line.
        """
        store = cls()
        for number, line in text_lines(Path(path)):
            try:  # as _located does, without a context for each of millions of lines
                store._add(parse_text(line))
            except DataError as error:
                raise DataError(f"{path}:{number}: {error}") from None
        return store

    @classmethod
    def from_item_file(
        cls,
        path: str | Path,
        text_fields: Sequence[str],
        *,
        item_id_field: str = "item_id",
        language_field: str = "item_language",
        separator: str = "\t",
        encoding: str = "utf-8",
    ) -> ItemTextStore:
        """Read display texts from columns of RecBole's ``.item`` file, raw: ``"``, ``NA`` and ``null`` stay text.

        Items whose text columns are all empty have no text, unless their language is stated. Without a language column
        the language is ``und``. Rows without an item id are left out, as a dataset leaves them out.

        Raises:
            DataError: a column is missing or a row is wrong; the message names file and line.
        """
        wanted = (item_id_field, *text_fields, language_field)
        file = read_atomic_file(Path(path), wanted, separator=separator, encoding=encoding)
        absent = [field for field in (item_id_field, *text_fields) if field not in file.types]
        if absent:
            raise DataError(f"{path}: no column '{absent[0]}'; name other columns in text_fields")
        columns = {field: file.cells[field].fill_null("") if field in file.types else repeat("") for field in wanted}
        store = cls()
        for row, (item_id, *values, language) in enumerate(zip(*columns.values())):  # noqa: B905
            if item_id and (language or any(values)):
                fields = dict(zip(text_fields, values, strict=True))
                with _located(file.place(row)):
                    tag = UNDETERMINED if not language or states_nothing(language) else language
                    text = ItemText(item_id, tag, fields, DISPLAY)
                    check_text(text)
                    store._add(text)
        return store

    @property
    def fields(self) -> tuple[str, ...]:
        """The name of every field that any text has, sorted."""
        return tuple(sorted({name for kind in self._index.kinds for name in kind.fields}))

    @property
    def languages(self) -> tuple[str, ...]:
        """Every language that any text is in, sorted."""
        return tuple(sorted({kind.language for kind in self._index.kinds}))

    def display(self, item_id: str) -> ItemText | None:
        """Return the text that is shown for the item, None if it has none."""
        row = self._index.display_row(item_id)
        return None if row is None else self._text(item_id, row)

    def display_language(self, item_id: str) -> str | None:
        """Return the language of the text that is shown for the item, None if it has none."""
        row = self._index.display_row(item_id)
        return None if row is None else self._index.kind(row).language

    def display_fields(self, item_id: str) -> tuple[str, dict[str, str]]:
        """Return language and fields of the text that is shown for the item, ``und`` and no field if it has none."""
        row = self._index.display_row(item_id)
        return (UNDETERMINED, {}) if row is None else (self._index.kind(row).language, self._fields(row))

    def parallel(self, item_id: str) -> tuple[ItemText, ...]:
        """Return all other texts of the item, translations included, in the order of the file."""
        return tuple(text for text in self._texts_of(item_id) if text.source != DISPLAY)

    def text(self, item_id: str, language: str) -> ItemText | None:
        """Return the item's text in a language: display before parallel before translation, None if it has none."""
        found = [text for text in self._texts_of(item_id) if text.language == language]
        return min(found, key=lambda text: (text.source != DISPLAY, text.source != PARALLEL), default=None)

    def texts(self) -> Iterator[ItemText]:
        """Yield all texts, item by item."""
        for item_id in self:
            yield from self._texts_of(item_id)

    def __len__(self) -> int:
        return len(self._index.first)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.first)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._index.first

    def _add(self, text: ItemText) -> None:
        """Append a text that was checked."""
        self._index.add(text)
        self._confidence.append(math.nan if text.language_confidence is None else text.language_confidence)
        self._block += "\0".join(text.fields.values()).encode()
        self._bounds.append(len(self._block))

    def _texts_of(self, item_id: str) -> Iterator[ItemText]:
        return (self._text(item_id, row) for row in self._index.rows(item_id))

    def _text(self, item_id: str, row: int) -> ItemText:
        kind, known = self._index.kind(row), self._confidence[row]
        confidence = None if math.isnan(known) else known
        return ItemText(item_id, kind.language, self._fields(row), kind.source, language_confidence=confidence)

    def _fields(self, row: int) -> dict[str, str]:
        values = self._block[self._bounds[row] : self._bounds[row + 1]].decode().split("\0")
        return dict(zip(self._index.kind(row).fields, values, strict=True))


def itemtext_path(dataset_folder: str | Path, dataset: str) -> Path:
    """Return the path of a dataset's itemtext file."""
    return Path(dataset_folder) / f"{dataset}.itemtext.jsonl"


def find_item_text(
    dataset_folder: str | Path,
    dataset: str,
    text_fields: Sequence[str],
    *,
    item_id_field: str = "item_id",
    language_field: str = "item_language",
    separator: str = "\t",
    encoding: str = "utf-8",
) -> ItemTextStore:
    """Read the item texts of a dataset: its itemtext file, or else the text columns of its ``.item`` file.

    Raises:
        NoTextError: the dataset has neither; the message says what to add.
        DataError: the file is wrong; the message names its line.
    """
    path = itemtext_path(dataset_folder, dataset)
    settle(path.parent)
    if path.is_file():
        return ItemTextStore.load(path)
    item_file = path.with_name(f"{dataset}.item")
    if not item_file.is_file():
        raise NoTextError(f"no item text: add {path} (or {item_file} and name its text columns in text_fields)")
    if not text_fields:
        raise NoTextError(f"no item text: add {path}, or name text columns of {item_file} in text_fields")
    columns = read_header(item_file, separator=separator, encoding=encoding)
    absent = [field for field in text_fields if field not in columns]
    if absent:
        raise NoTextError(
            f"no item text: {item_file} has no column '{absent[0]}' (it has {', '.join(columns)}); "
            f"name other columns in text_fields, or add {path}"
        )
    return ItemTextStore.from_item_file(
        item_file,
        text_fields,
        item_id_field=item_id_field,
        language_field=language_field,
        separator=separator,
        encoding=encoding,
    )


def write_itemtext(path: str | Path, records: Iterable[ItemText]) -> int:
    """Write an itemtext file and return the number of its records; a failure leaves the previous file as it was.

    Raises:
        DataError: a record is malformed or contradicts another one, or another process is writing to the folder.
    """
    path = Path(path)
    index = RowIndex()
    number = 0
    with staged(path.parent, [path.name]) as staging:
        with open(staging.new / path.name, "w", encoding="utf-8", newline="\n") as file:
            for number, text in enumerate(records, start=1):
                with _located(f"{path.name}: record {number}"):
                    check_text(text)
                    index.add(text)
                file.write(format_text(text) + "\n")
        staging.commit()
    return number


@contextmanager
def _located(place: str) -> Iterator[None]:
    """Put the place in front of the message of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


# ---- the index ------------------------------------------------------------------------------------------------

_END = -1


class Kind(NamedTuple):
    """What many texts have in common: language, source, and the names of the fields."""

    language: str
    source: str
    fields: tuple[str, ...]


class RowIndex:
    """Which rows belong to which item, and of which kind they are; refuses contradicting rows.

    Rows are chained per item in arrays of numbers, so that millions of them need little memory.
    """

    def __init__(self) -> None:
        self.first: dict[str, int] = {}  # per item: its first row
        self.kinds: list[Kind] = []
        self._number_of: dict[tuple[str, ...], int] = {}  # of a kind, by its language as written, source and fields
        self._next = array("q")  # per row: the item's next row
        self._kind = array("i")  # per row: the number of its kind

    def add(self, text: ItemText) -> int:
        """Append a row and return its number.

        Raises:
            DataError: the item has this text already, or already has a display text.
        """
        row = len(self._next)
        if self.first.setdefault(text.item_id, row) != row:
            self._next[self._row_before(text)] = row
        self._next.append(_END)
        written = (text.language, text.source, *text.fields)
        number = self._number_of.setdefault(written, len(self.kinds))
        if number == len(self.kinds):
            self.kinds.append(Kind(cased_tag(text.language), text.source, tuple(text.fields)))
        self._kind.append(number)
        return row

    def _row_before(self, text: ItemText) -> int:
        """Return the last row of the text's item so far, after a look at all of them.

        Raises:
            DataError: the text contradicts one of them.
        """
        last, language = _END, cased_tag(text.language)
        for last in self.rows(text.item_id):
            known = self.kind(last)
            if known.source == text.source and known.language == language:
                raise DataError(f"item '{text.item_id}' has its {language} text ({text.source}) twice; keep one")
            if known.source == text.source == DISPLAY:
                raise DataError(
                    f"item '{text.item_id}' has two display texts ({known.language} and {language}); "
                    "keep one and make the other 'parallel'"
                )
        return last

    def rows(self, item_id: str) -> Iterator[int]:
        """Yield the rows of an item in the order in which they were added; none for an unknown item."""
        row = self.first.get(item_id, _END)
        while row != _END:
            yield row
            row = self._next[row]

    def display_row(self, item_id: str) -> int | None:
        """Return the row of an item's display text, None if it has none."""
        row = self.first.get(item_id, _END)
        while row != _END and self.kind(row).source != DISPLAY:
            row = self._next[row]
        return None if row == _END else row

    def kind(self, row: int) -> Kind:
        """Return what a row has in common with others."""
        return self.kinds[self._kind[row]]
