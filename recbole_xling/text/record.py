"""One text of one item: its record, the checks of it, and its line in a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from recbole_xling.errors import DataError
from recbole_xling.language.tags import is_language

DISPLAY = "display"
PARALLEL = "parallel"
_SOURCE = re.compile(r"display|parallel|translation:\S+")
_KEYS = ("item_id", "language", "fields", "source")
_CONFIDENCE = "language_confidence"


@dataclass(frozen=True, slots=True)
class ItemText:
    """One text of one item.

    Attributes:
        item_id: external id of the item.
        language: BCP 47 tag of the text, ``und`` where unknown.
        fields: the parts of the text by name (``title``, ``genres``, ...), at least one; a part may be empty.
        source: ``display``, ``parallel`` or ``translation:<system>``.
        language_confidence: of an identified language, from 0 to 1; None if the source states the language.
    """

    item_id: str
    language: str
    fields: Mapping[str, str]
    source: str
    language_confidence: float | None = field(default=None, kw_only=True)

    def excerpt(self, length: int) -> str:
        """Return the beginning of the text, all fields one after the other."""
        whole = " · ".join(value for value in self.fields.values() if value.strip())
        return whole if len(whole) <= length else whole[: length - 1] + "…"


# much faster than Python's own parser, but of a key that is there twice it keeps the last value in silence
_DECODER = TypeAdapter(ItemText).validator


def check_text(text: ItemText) -> None:
    """Check one record.

    Raises:
        DataError: a value has the wrong type or form; the caller adds file and line to the message.
    """
    for key, value in (("item_id", text.item_id), ("language", text.language), ("source", text.source)):
        if not isinstance(value, str) or not value:
            raise DataError(f"'{key}' must be a text that is not empty, not {value!r}")
    _check_kind(text.language, text.source)
    sure = text.language_confidence
    if sure is not None and (isinstance(sure, bool) or not isinstance(sure, int | float) or not 0 <= sure <= 1):
        raise DataError(f"'language_confidence' must be a number from 0 to 1, not {sure!r}")
    if not isinstance(text.fields, Mapping) or not text.fields:
        raise DataError(f"'fields' must be an object with at least one text, not {text.fields!r}")
    _check_characters(text.item_id)
    for name, value in text.fields.items():
        if not isinstance(name, str) or not name or not isinstance(value, str):
            raise DataError(f"field {name!r} must be a text, not {value!r}")
        _check_characters(name)
        _check_characters(value)


def parse_text(line: str) -> ItemText:
    """Read and check one line of an itemtext file; keys beyond the known ones are ignored.

    Raises:
        DataError: the line is not JSON, or the record is wrong.
    """
    try:
        text: ItemText = _DECODER.validate_json(line, strict=True)
        if "\\u" in line or text.language_confidence is not None:
            check_text(text)
        else:  # types are right already, and without escapes there is no NUL or surrogate
            _check_kind(text.language, text.source)
        if text.item_id and text.fields and "" not in text.fields and _has_no_other_key(line, text):
            return text
    except (ValueError, DataError):
        pass  # what is wrong is told below
    return _parse_closely(line)


def _has_no_other_key(line: str, text: ItemText) -> bool:
    """Whether a line surely has no unknown key and none twice: its colons follow the text's keys or are in its values.

    Lines with colons in values of which one may be escaped are not sure.
    """
    n_others = line.count(":") - len(_KEYS) - len(text.fields) - (text.language_confidence is not None)
    if n_others == 0:
        return True
    inside = "".join((text.item_id, text.source, *text.fields, *text.fields.values()))
    return n_others == inside.count(":") and "\\u003" not in line


def _parse_closely(line: str) -> ItemText:
    """Do the same as :func:`parse_text` by Python's own parser: it finds keys that are there twice."""
    try:
        record = json.loads(line)
        if not _has_each_key_once(record, line):
            record = json.loads(line, object_pairs_hook=_record)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"expected a JSON object with {', '.join(_KEYS)}, not {line[:60]!r}")
    missing = [key for key in _KEYS if key not in record]
    if missing:
        raise DataError(f"'{missing[0]}' is missing; a record has {', '.join(_KEYS)}")
    text = ItemText(*(record[key] for key in _KEYS), language_confidence=record.get(_CONFIDENCE))
    check_text(text)
    return text


def _has_each_key_once(record: Any, line: str) -> bool:
    """Whether a line surely has no key twice: a colon follows each key. Texts with colons are looked at closely."""
    objects = [record, *record.values()] if isinstance(record, dict) else ()
    return line.count(":") == sum(len(part) for part in objects if isinstance(part, dict))


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dictionary; Python itself keeps the last of several values in silence."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is given twice")
    return record


def format_text(text: ItemText) -> str:
    """Return the line of an itemtext file for one record, without the line break."""
    record: dict[str, object] = {
        "item_id": text.item_id,
        "language": text.language,
        "fields": dict(text.fields),
        "source": text.source,
    }
    if text.language_confidence is not None:
        record[_CONFIDENCE] = text.language_confidence
    return json.dumps(record, ensure_ascii=False)


@lru_cache(maxsize=4096)
def _check_kind(language: str, source: str) -> None:
    if not is_language(language):
        raise DataError(f"language {language!r} is not a BCP 47 tag; write it like 'de' or 'zh-Hant', unknown as 'und'")
    if _SOURCE.fullmatch(source) is None:
        raise DataError(f"unknown source {source!r}; use 'display', 'parallel' or 'translation:<system>'")


def _check_characters(value: str) -> None:
    if "\0" in value:
        raise DataError(f"{value[:60]!r} contains a NUL character; remove it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{value[:60]!r} contains half a surrogate pair, which is invalid Unicode; remove it") from None
