"""Items that training did not have: how they are given, as records of JSON lines or CSV, and what becomes of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError, DataError
from recbole_xling.language.tags import UNDETERMINED, cased_tag, covers, is_language, tag_among
from recbole_xling.serve.catalog import Catalog
from recbole_xling.serve.scorer import Scorer
from recbole_xling.text.template import TextTemplate
from recbole_xling.utils.json_text import parse_json

FloatArray = NDArray[np.float32]
_KEYS = ("item_id", "text", "language", "texts", "vector")
_TEXT = "text:"  # before a language, in the names of columns
_MOST_TEXT = 100_000  # characters of a field
_TITLE = 200  # characters of a text without a field "title"


@dataclass(frozen=True)
class Intake:
    """How a model takes items that training did not have.

    Attributes:
        template: the setting ``text_template``.
        text_view: the setting ``text_view``, where it is ``auto`` what that stands for.
        skipped: how many of the first numbers of a vector do not count for scores of new items.
        bias: that is added to their scores.
        separators: what stands between the values of a text, by column of several values (``token_seq``).
    """

    template: str
    text_view: str
    skipped: int
    bias: float
    separators: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NewItem:
    """An item that training did not have.

    Attributes:
        item: external id.
        texts: the fields of its text in each language, the one that everybody sees first; an item that is given by its
            vector alone has no fields in its language, and no language if that is unknown.
        columns: the values to filter by.
        vectors: as histories consist of them: under ``""`` that of everybody's view, under a language that of its
            readers where they see another text.
    """

    item: str
    texts: Mapping[str, Mapping[str, str]]
    columns: Mapping[str, Sequence[str]]
    vectors: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def has_text(self) -> bool:
        """Whether a model can read it."""
        return any(self.texts.values())

    def seen_in(self, language: str) -> tuple[str, Mapping[str, str]]:
        """Return the language and the fields of the text that readers of a language see.

        To them a text in a variant of their language is in it, as those of the items of the training are.
        """
        fitting = [tag for tag in self.texts if language and covers(language, tag)]
        if fitting:
            return language, self.texts[language if language in fitting else fitting[0]]
        shown = next(iter(self.texts), UNDETERMINED)
        return shown, self.texts.get(shown, {})

    def title(self, language: str) -> str:
        """Return the title that readers of a language see."""
        fields = self.seen_in(language)[1]
        whole = " · ".join(value for value in fields.values() if value.strip())
        return fields.get("title") or (whole if len(whole) <= _TITLE else whole[: _TITLE - 1] + "…")

    def vector(self, language: str) -> FloatArray:
        """Return the vector that readers of a language see."""
        return self.vectors.get(language, self.vectors[""])


# ---- records --------------------------------------------------------------------------------------------------


def read_records(file: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each record of a file is, and the record: JSON lines, or with the ending ``.csv`` a table.

    A table has a header; columns ``text:<language>`` are the texts in several languages, and empty cells are nothing.

    Raises:
        DataError: a line is wrong; the message names it.
    """
    path = Path(file)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if path.suffix.lower() != ".csv":
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield f"{path}:{number}", _json(f"{path}:{number}", line)
                return
            table = csv.DictReader(lines, strict=True)
            if "item_id" not in (table.fieldnames or ()):
                raise DataError(f"{path}: no column 'item_id', but {', '.join(map(repr, table.fieldnames or ()))}")
            for cells in table:
                where = f"{path}:{table.line_num}"
                if None in cells or None in cells.values():
                    raise DataError(f"{where}: the row has not as many cells as the header")
                given: dict[str, Any] = {name: cell for name, cell in cells.items() if cell}
                texts = {name[len(_TEXT) :]: given.pop(name) for name in list(given) if name.startswith(_TEXT)}
                yield where, {**given, "texts": texts} if texts else given
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error


def _json(where: str, line: str) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f'{where}: an item is an object such as {{"item_id": "p9", "text": "...", "language": "de"}}')
    return record


def new_item(record: Mapping[str, Any], intake: Intake, catalog: Catalog) -> NewItem:
    """Return the item that a record describes.

    Args:
        record: ``item_id``; ``texts``, a text or its fields by language, the one that everybody sees first, or ``text``
            and ``language``; ``vector`` in place of texts (perhaps with ``language``) or beside them; all others are
            columns to filter by.
        intake: of the model.
        catalog: whose columns there are.

    Raises:
        DataError: a value is wrong.
        ConfigError: there is no such column.
    """
    item = record.get("item_id")
    item = str(item) if type(item) is int else item  # as convert reads ids of JSON
    if not isinstance(item, str) or not item or "\0" in item or len(item) > 1000 or not _is_unicode(item):
        raise DataError(f"'item_id' must be a text that is not empty, not {item!r:.60}")
    given, known = record.get("texts", {}), catalog.language_names | set(catalog.view_of)
    if "text" in record:
        if given:
            raise DataError(f"item '{item}' has 'text' and 'texts': give one of them")
        given = {_language(item, record.get("language") or UNDETERMINED, known): record["text"]}
    if not isinstance(given, Mapping):
        raise DataError(f"'texts' of item '{item}' must be an object such as {{\"de\": \"...\"}}")
    vectors = {"": _vector(item, record["vector"])} if record.get("vector") is not None else {}
    if not given and not vectors:
        raise DataError(f"item '{item}' has neither a text nor a vector")
    template = TextTemplate(intake.template)
    texts = {_language(item, tag, known): _fields(item, tag, text, template) for tag, text in given.items()}
    if len(texts) < len(given):
        raise DataError(f"item '{item}' has two texts in one language ({', '.join(map(str, given))}): keep one")
    if not texts and record.get("language"):
        texts = {_language(item, record["language"], known): {}}
    columns = {}
    for name, values in record.items():
        if name not in _KEYS:
            catalog.check_column(name)
            listed = values if isinstance(values, list) else [values]
            if not all(isinstance(value, str) and _is_unicode(value) for value in listed):
                raise DataError(f"'{name}' of item '{item}' must be a text or a list of texts, not {values!r:.60}")
            if isinstance(values, str) and name in intake.separators:
                listed = values.split(intake.separators[name])
            columns[name] = [value for value in listed if value]
    return NewItem(item, texts, columns, vectors)


def _is_unicode(text: str) -> bool:
    """Tell whether a text can be written; half of an emoji, which some programs leave of it, cannot."""
    return text.encode("utf-8", "replace").decode() == text


def _language(item: str, tag: object, known: Collection[str]) -> str:
    """Return the tag as those of the items that there are, which ``convert`` writes."""
    if not isinstance(tag, str) or not is_language(tag):
        raise DataError(f"language {tag!r} of item '{item}' is not a BCP 47 tag; write it like 'de' or 'zh-Hant'")
    found = tag_among(tag, known)
    return cased_tag(tag) if found == UNDETERMINED else found


def _fields(item: str, tag: object, text: object, template: TextTemplate) -> Mapping[str, str]:
    """Return the fields of a text; one without fields is the title, or the first field of the template."""
    plain = "title" if "title" in template.fields else template.fields[0]
    fields = {plain: text} if isinstance(text, str) else text
    if not isinstance(fields, Mapping) or not all(isinstance(value, str) for value in fields.values()):
        raise DataError(f"the text of item '{item}' in '{tag}' must be a text, or an object of texts by field")
    for value in fields.values():
        if "\0" in value or len(value) > _MOST_TEXT or not _is_unicode(value):
            raise DataError(f"a text of item '{item}' in '{tag}' is no Unicode, or longer than {_MOST_TEXT:,} letters")
    if not template.render(fields).strip():
        raise DataError(f"item '{item}' has no text in '{tag}' under text_template {template.template!r}")
    return dict(fields)


def _vector(item: str, values: object) -> FloatArray:
    try:
        vector = np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError):
        vector = np.empty((0, 0), dtype=np.float32)
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise DataError(f"'vector' of item '{item}' must be a list of finite numbers")
    return vector


# ---- vectors --------------------------------------------------------------------------------------------------


def with_vectors(items: Sequence[NewItem], intake: Intake, scorer: Scorer, catalog: Catalog) -> list[NewItem]:
    """Return items with their vectors; those that are given by their texts are encoded.

    Raises:
        ConfigError: the model does not read texts, or a vector has another size than those of the model.
        DataError: an item has no text in the language that all are read in (``text_view: pivot:<x>``).
    """
    read = [item for item in items if not item.vectors]
    found = {item.item: dict(item.vectors) for item in items}
    languages = ["", *sorted(catalog.view_of, key=lambda language: catalog.view_of[language])]
    for language in languages[: scorer.n_views] if read else ():
        # a model that sees one view of several takes the mean of what their readers see
        together = languages if scorer.n_views == 1 and intake.text_view == "reader" else [language]
        shown = [_shown(item, together, intake) for item in read]
        vectors = scorer.vectors_of_items([[*texts] for texts in shown], [[*texts.values()] for texts in shown])
        for item, vector in zip(read, vectors, strict=True):
            found[item.item][language] = vector
    size = scorer.history_size
    for name, of_item in found.items():
        for vector in of_item.values():
            if len(vector) != size:
                raise ConfigError(f"the vector of item '{name}' has {len(vector)} numbers, those of the model {size}")
    return [NewItem(item.item, item.texts, item.columns, found[item.item]) for item in items]


def _shown(item: NewItem, languages: Sequence[str], intake: Intake) -> dict[str, str]:
    """Return the different texts that readers of some languages see of an item, and the language of each."""
    template, (kind, _, everybody) = TextTemplate(intake.template), intake.text_view.partition(":")
    found: dict[str, str] = {}
    for language in languages:
        tag, fields = item.seen_in(language or everybody)
        if kind == "pivot" and not covers(everybody, tag):
            raise DataError(f"item '{item.item}' has no text in {everybody}, in which the model reads all items")
        found.setdefault(template.render(fields), tag)
    return found
