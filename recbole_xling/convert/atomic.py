"""The only writer of data sets: RecBole's atomic files and the item texts beside them."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from recbole_xling.convert.base import Converter, Interaction
from recbole_xling.convert.staging import staged
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import DISPLAY, ItemText, is_language
from recbole_xling.text.store import itemtext_path, write_itemtext

logger = logging.getLogger(__name__)

Record = TypeVar("Record")
FIELD_TYPES = ("token", "token_seq", "float")
_FORBIDDEN = re.compile(r'^"|[\t\n\r\0\ud800-\udfff]')
# what pandas reads as a missing value
_MISSING = re.compile(r"#N/A|#N/A N/A|#NA|-?1\.#IND|-?1\.#QNAN|-?nan|-?NaN|<NA>|N/A|NA|NULL|None|n/a|null")


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What was written.

    Attributes:
        folder: the data set's folder.
        users: users in the data set: those of the ``.user`` file and those who interacted.
        items: rows of the ``.item`` file.
        interactions: rows of the ``.inter`` file.
        items_per_language: items by the language of their display text.
        texts_per_language: texts by language, parallel texts and translations included.
        unknown_items: items of the ``.inter`` file that the ``.item`` file lacks; RecBole drops their interactions.
    """

    folder: Path
    users: int
    items: int
    interactions: int
    items_per_language: Mapping[str, int]
    texts_per_language: Mapping[str, int]
    unknown_items: int


def write_dataset(
    converter: Converter, output_root: str | Path, name: str, *, show_progress: bool = True
) -> ConvertReport:
    """Write ``<output_root>/<name>/<name>.inter``, ``.item``, ``.user`` and ``.itemtext.jsonl``.

    All or nothing: the files are written to a hidden folder beside them and replaced together at the end. A failure
    leaves the previous data set whole, and so does a killed run as soon as the next one starts. Other files of the
    folder are kept. A ``.user`` or itemtext file is not written where the converter yields nothing for it.

    Args:
        converter: the source.
        output_root: the folder of data sets (RecBole's ``data_path``).
        name: name of the data set.
        show_progress: show progress bars.

    Raises:
        ConfigError: ``name`` is no plain file name.
        DataError: a record cannot be written so that RecBole reads back the same; nothing has been written.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError(f"'{name}' is no name for a data set; use letters, digits and hyphens")
    folder = Path(output_root) / name
    names = [f"{name}.inter", f"{name}.item", f"{name}.user", itemtext_path(folder, name).name]
    with staged(folder, name, names) as staging:
        writer = _Writer(converter, staging.new, name, show_progress)
        report = writer.write(folder)
        staging.commit()
    if report.unknown_items:
        logger.warning("%s: %d items with interactions are not in the .item file", name, report.unknown_items)
    return report


class _Writer:
    """Writes the files of one data set and remembers what they have to agree on."""

    def __init__(self, converter: Converter, folder: Path, name: str, show_progress: bool) -> None:
        self.converter = converter
        self.folder = folder
        self.name = name
        self.show_progress = show_progress
        self.languages: dict[str, str] = {}  # by item
        self.users: set[str] = set()
        self.unknown_items: set[str] = set()
        self.texts_per_language: Counter[str] = Counter()

    def write(self, folder: Path) -> ConvertReport:
        _check_fields(self.converter)
        if not self._write_table("item", self._item_lines()):
            raise DataError(f"{self.converter.name}: the source has no items; is it the right folder?")
        self._write_table("user", self._user_lines())
        interactions = self._write_table("inter", self._interaction_lines())
        if not interactions:
            raise DataError(f"{self.converter.name}: the source has no interactions; is it the right folder?")
        path = itemtext_path(self.folder, self.name)
        if not write_itemtext(path, self._texts()):
            path.unlink()
        return ConvertReport(
            folder=folder,
            users=len(self.users),
            items=len(self.languages),
            interactions=interactions,
            items_per_language=dict(Counter(self.languages.values()).most_common()),
            texts_per_language=dict(self.texts_per_language.most_common()),
            unknown_items=len(self.unknown_items),
        )

    def _write_table(self, suffix: str, lines: Iterator[str]) -> int:
        """Write a header and rows; return the number of rows, without a file where there are none."""
        path = self.folder / f"{self.name}.{suffix}"
        lines_written = 0
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(line + "\n")
                lines_written += 1
        if lines_written <= 1:
            path.unlink()
        return max(lines_written - 1, 0)

    def _progress(self, records: Iterable[Record], what: str) -> Iterable[Record]:
        bar: Iterable[Record] = tqdm(records, desc=f"{self.name}: {what}", unit=" rows", disable=not self.show_progress)
        return bar

    def _item_lines(self) -> Iterator[str]:
        columns = self.converter.item_fields
        yield _header({"item_id": "token", "item_language": "token"} | dict(columns))
        for item in self._progress(self.converter.items(), "items"):
            where = f"{self.converter.name}: item {item.item_id!r}"
            if item.item_id in self.languages:
                raise DataError(f"{where} appears twice; keep one")
            if not is_language(item.language):
                raise DataError(
                    f"{where}: language {item.language!r} is no BCP 47 tag; write it like 'de' or 'zh-Hant'"
                )
            cells = [_id(item.item_id, where), _id(item.language, where)]
            self.languages[item.item_id] = item.language
            yield "\t".join([*cells, *_features(item.features, columns, where)])

    def _user_lines(self) -> Iterator[str]:
        columns = self.converter.user_fields
        yield _header({"user_id": "token"} | dict(columns))
        for user in self._progress(self.converter.users(), "users"):
            where = f"{self.converter.name}: user {user.user_id!r}"
            if user.user_id in self.users:
                raise DataError(f"{where} appears twice; keep one")
            self.users.add(user.user_id)
            yield "\t".join([_id(user.user_id, where), *_features(user.features, columns, where)])

    def _interaction_lines(self) -> Iterator[str]:
        columns: list[str] | None = None
        for number, record in enumerate(self._progress(self.converter.interactions(), "interactions"), start=1):
            where = f"{self.converter.name}: interaction {number}"
            numbers = _numbers(record, where)
            if columns is None:
                columns = list(numbers)
                yield _header({"user_id": "token", "item_id": "token"} | dict.fromkeys(columns, "float"))
            elif list(numbers) != columns:
                raise DataError(f"{where} has {list(numbers)}, those before it {columns}; give all or none a value")
            if record.item_id not in self.languages:
                self.unknown_items.add(_id(record.item_id, where))
            if record.user_id not in self.users:
                self.users.add(_id(record.user_id, where))
            yield "\t".join([record.user_id, record.item_id, *numbers.values()])

    def _texts(self) -> Iterator[ItemText]:
        for text in self._progress(self.converter.texts(), "texts"):
            where = f"{self.converter.name}: text of item {text.item_id!r}"
            language = self.languages.get(text.item_id)
            if language is None:
                raise DataError(f"{where}: there is no such item")
            if text.source == DISPLAY and text.language != language:
                raise DataError(f"{where}: it is shown in {text.language!r}, but the item's language is {language!r}")
            self.texts_per_language[text.language] += 1
            yield text


def _check_fields(converter: Converter) -> None:
    fields = [*converter.item_fields.items(), *converter.user_fields.items()]
    names = ["item_id", "item_language", "user_id", *(name for name, _ in fields)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{converter.name}: column '{twice}' appears twice; RecBole needs distinct names of all columns"
        )
    for name, kind in fields:
        if kind not in FIELD_TYPES or not name.isidentifier():
            raise DataError(f"{converter.name}: column '{name}:{kind}'; a type is one of {', '.join(FIELD_TYPES)}")


def _header(columns: Mapping[str, str]) -> str:
    return "\t".join(f"{name}:{kind}" for name, kind in columns.items())


def _features(features: Mapping[str, str | tuple[str, ...]], columns: Mapping[str, str], where: str) -> Iterator[str]:
    unknown = next((name for name in features if name not in columns), None)
    if unknown is not None:
        raise DataError(f"{where}: column '{unknown}' is not declared by the converter")
    for name, kind in columns.items():
        yield _feature(features.get(name, ""), kind, f"{where}, column '{name}'")


def _feature(value: str | tuple[str, ...], kind: str, where: str) -> str:
    if kind == "token_seq":
        tokens = (value,) if isinstance(value, str) and value else tuple(value)
        spaced = next((token for token in tokens if not token or " " in token), None)
        if spaced is not None:
            raise DataError(f"{where}: {spaced!r} in a sequence; an element is not empty and holds no space")
        return " ".join(_token(token, where) for token in tokens)
    if not isinstance(value, str):
        raise DataError(f"{where}: {value!r} must be a text; declare the column as token_seq for a sequence")
    return _float(value, where) if kind == "float" and value else _token(value, where)


def _id(value: str, where: str) -> str:
    if not value or _MISSING.fullmatch(value):
        raise DataError(f"{where}: RecBole reads {value!r} as a missing value; spell it in another way")
    return _token(value, where)


def _token(value: str, where: str) -> str:
    if _FORBIDDEN.search(value):
        raise DataError(
            f"{where}: {value!r} would not survive RecBole's reader; remove tabs, line breaks, leading quotes"
        )
    return value


def _float(value: str | float, where: str) -> str:
    """Return the shortest text of a number that reads back as the same."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {value!r} is no finite number")
    return str(int(number)) if number.is_integer() and abs(number) < 2**63 else repr(number)


def _numbers(record: Interaction, where: str) -> dict[str, str]:
    values = {"rating": record.rating, "timestamp": record.timestamp}
    return {name: _float(value, where) for name, value in values.items() if value is not None}
