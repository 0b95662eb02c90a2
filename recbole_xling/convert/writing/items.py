"""Items, users and texts of a dataset: checked while they are read, written when it is known which of them stay."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import polars as pl
from tqdm.auto import tqdm

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User
from recbole_xling.convert.cells import feature_cells, header, id_cell
from recbole_xling.convert.reading.rejects import BadRowError, Rejects
from recbole_xling.convert.writing.languages import LanguageReader
from recbole_xling.errors import DataError
from recbole_xling.language.tags import UNDETERMINED, stated_language
from recbole_xling.language.users import USER_LANGUAGE
from recbole_xling.text.record import DISPLAY, ItemText, check_text, format_text
from recbole_xling.text.store import RowIndex

Record = TypeVar("Record")
_NO_TEXT = "title"  # the field of a text that has none
_BROKEN = re.compile("[\0\ud800-\udfff]")


class RecordDrafts:
    """Reads and checks the items, users and texts of a source; keeps the good ones in files until they are written.

    Bad records go to the rejects; of two with the same id the first one counts.

    Args:
        converter: the source.
        folder: an empty folder for the files.
        rejects: takes the bad records.
        clean: applied to each part of each text.
        reader: makes tags of languages.
        show_progress: show progress bars.

    Attributes:
        languages: language by item.
        users: ids of the users that the source describes.
    """

    def __init__(
        self,
        converter: Converter,
        folder: Path,
        rejects: Rejects,
        *,
        clean: Callable[[str], str] | None = None,
        reader: LanguageReader | None = None,
        show_progress: bool = True,
    ) -> None:
        self.converter = converter
        self.rejects = rejects
        self.clean = clean
        self.reader = reader or LanguageReader()
        self.show_progress = show_progress
        self.languages: dict[str, str] = {}
        self.users: set[str] = set()
        self._repeated: set[tuple[str, SourceLocation]] = set()  # items and where rows of them are that do not count
        self._unsure: set[str] = set()  # items shown in a language that is not identified surely
        self._drafts = {kind: folder / kind for kind in ("items", "users", "texts")}

    def read(self) -> None:
        """Read items, users and texts.

        Raises:
            DataError: the source has no items, the converter breaks its declarations, or ``rejects`` is strict.
        """
        for kind, lines in (("items", self._items()), ("users", self._users()), ("texts", self._texts())):
            with open(self._drafts[kind], "w", encoding="utf-8", newline="\n") as draft:
                draft.writelines(line + "\n" for line in lines)
            if not self.languages:
                self.rejects.check()
                raise DataError(f"{self.converter.name}: {self.converter.origin} has no items; is it the right one?")
        if self._unsure:
            main = self.reader.find_main(self.languages.values())
            if main == UNDETERMINED:
                self._unsure.clear()
            self.languages.update(dict.fromkeys(self._unsure, main))

    # ---- reading ----------------------------------------------------------------------------------------------

    def _items(self) -> Iterator[str]:
        columns = self.converter.item_fields
        for item in self._progress(self.converter.items(self.rejects), "items"):
            cells = self._cells(item.item_id, item, columns)
            if cells is None:
                continue
            if item.item_id in self.languages:
                self._list(item, item.item_id, "a second row of the same item")
                if item.location is not None:
                    self._repeated.add((item.item_id, item.location))
            else:
                self.languages[item.item_id] = self.reader.tag(item.language)
                yield cells

    def _users(self) -> Iterator[str]:
        columns = self.converter.user_fields
        for user in self._progress(self.converter.users(self.rejects), "users"):
            if USER_LANGUAGE in columns:
                stated = str(user.features.get(USER_LANGUAGE, ""))
                user = replace(user, features={**user.features, USER_LANGUAGE: self.reader.tag(stated)})
            cells = self._cells(user.user_id, user, columns)
            if cells is None:
                continue
            if user.user_id in self.users:
                self._list(user, user.user_id, "a second row of the same user")
            else:
                self.users.add(user.user_id)
                yield cells

    def _texts(self) -> Iterator[str]:
        if self.reader.lacks_candidates:
            stated = {stated_language(text.language) for text in self._source_texts("languages")}
            self.reader.choose_among({*self.languages.values(), *stated})
        index = RowIndex()
        empty: dict[str, tuple[SourceText, ItemText]] = {}  # display texts, which tell the language of their item
        for source_text in self._source_texts("texts"):
            fields = dict(source_text.fields)
            if self.clean is not None:
                fields = {name: self.clean(value) for name, value in fields.items()}
            # the language of a display text has been counted with its item's
            tag = stated_language if source_text.source == DISPLAY else self.reader.tag
            text = ItemText(source_text.item_id, tag(source_text.language), fields, source_text.source)
            text = self.reader.identified(text)
            if not any(fields.values()) and text.item_id in self.languages:
                self._list(source_text, format_text(text), "an empty text", self.rejects.omit)
                if text.source == DISPLAY and text.language != UNDETERMINED:
                    empty.setdefault(text.item_id, (source_text, replace(text, fields=fields or {_NO_TEXT: ""})))
                continue
            reason = self._fault(text, index)
            if reason is not None:
                self._list(source_text, format_text(text), reason)
                continue
            if text.source == DISPLAY:
                empty.pop(text.item_id, None)
                if self.reader.is_unsure(text):
                    self._unsure.add(text.item_id)
            yield format_text(text)
        for source_text, text in empty.values():
            reason = self._fault(text, index)
            if reason is None:
                yield format_text(text)
            else:
                self._list(source_text, format_text(text), reason)

    def _source_texts(self, what: str) -> Iterator[SourceText]:
        """Yield the texts of the source but those in rows that the rejects have as second ones of their items."""
        for text in self._progress(self.converter.texts(self.rejects), what):
            if text.location is None or (text.item_id, text.location) not in self._repeated:
                yield text

    def _fault(self, text: ItemText, index: RowIndex) -> str | None:
        """Return why a text cannot be kept; an item of unknown language gets that of its first display text."""
        stated = self.languages.get(text.item_id)
        if stated is None:
            return "a text of an unknown item"
        if text.source == DISPLAY and stated not in (text.language, UNDETERMINED):
            return "a display text in another language than its item's"
        if any(_BROKEN.search(value) for value in text.fields.values()):
            return "a NUL or half a surrogate pair in a text"
        check_text(text)
        try:
            index.add(text)
        except DataError:
            return "a second text of the item in the same language"
        if text.source == DISPLAY:
            self.languages[text.item_id] = text.language
        return None

    def _cells(self, record_id: str, record: Item | User, columns: Mapping[str, str]) -> str | None:
        """Return id and features as they are written, or hand the record to the rejects."""
        faults: list[str] = []
        try:
            cells = "\t".join([id_cell(record_id), *feature_cells(record.features, columns, faults)])
        except BadRowError as error:
            self._list(record, f"{record_id} {dict(record.features)}", str(error))
            return None
        except DataError as error:
            raise DataError(f"{self.converter.name}: {record_id!r}: {error}") from None
        for fault in faults:
            self._list(record, f"{record_id} {dict(record.features)}", fault, self.rejects.omit)
        return cells

    def _list(
        self,
        record: Item | User | SourceText,
        row: str,
        reason: str,
        take: Callable[[str, int, str, str], None] | None = None,
    ) -> None:
        """Hand a record to the rejects, as a bad one unless ``take`` says otherwise."""
        location = record.location or SourceLocation(self.converter.name, 0)
        (take or self.rejects.add)(location.file, location.line, reason, row)

    def _progress(self, records: Iterable[Record], what: str) -> Iterable[Record]:
        bar: Iterable[Record] = tqdm(records, desc=what, unit=" rows", disable=not self.show_progress)
        return bar

    # ---- writing ----------------------------------------------------------------------------------------------

    def write_items(self, path: Path, kept: Collection[str]) -> None:
        """Write RecBole's ``.item`` file of the items in ``kept``."""
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(header({"item_id": "token", "item_language": "token"} | dict(self.converter.item_fields)) + "\n")
            for line in self._lines("items"):
                item_id, tab, features = line.removesuffix("\n").partition("\t")
                if item_id in kept:
                    file.write(f"{item_id}\t{self.languages[item_id]}{tab}{features}\n")

    def write_users(self, path: Path, kept: Collection[str], interacting: pl.Series) -> None:
        """Write RecBole's ``.user`` file; without users in ``kept`` no file is written.

        Args:
            path: of the new file.
            kept: the described users who stay.
            interacting: all users who interact. Those whom the source does not describe follow with empty features,
                because RecBole drops the interactions of users that are not in the file.
        """
        if kept:
            columns = self.converter.user_fields
            unknown = {USER_LANGUAGE: UNDETERMINED} if USER_LANGUAGE in columns else {}
            empty = "".join("\t" + cell for cell in feature_cells(unknown, columns, []))
            others = interacting.filter(~interacting.is_in(pl.Series(list(kept), dtype=pl.String))).sort()
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                file.write(header({"user_id": "token"} | dict(columns)) + "\n")
                for line in self._lines("users"):
                    if line.removesuffix("\n").partition("\t")[0] in kept:
                        file.write(line)
                file.writelines(f"{user}{empty}\n" for user in others)

    def described_users(self, kept: Collection[str]) -> pl.DataFrame:
        """Return the ids and features of the users in ``kept`` as they are written."""
        schema = dict.fromkeys(("user_id", *self.converter.user_fields), pl.String)
        # from bytes with a header: polars expands a path as a pattern, and takes a first id "x^" for zlib
        table = "\t".join(schema).encode() + b"\n" + self._drafts["users"].read_bytes()
        users = pl.read_csv(table, schema=schema, separator="\t", quote_char=None)
        ids = pl.DataFrame({"user_id": list(kept)}, {"user_id": pl.String})
        return users.join(ids, on="user_id", how="semi", maintain_order="left").fill_null("")

    def write_texts(self, path: Path, kept: Collection[str]) -> dict[str, int]:
        """Write the texts of the items in ``kept``, if any; return their number by language."""
        languages: Counter[str] = Counter()
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            for line in self._lines("texts"):
                record = json.loads(line)
                if record["item_id"] in self._unsure and record["source"] == DISPLAY:
                    record |= {"language": self.languages[record["item_id"]], "language_confidence": 0.0}
                    line = json.dumps(record, ensure_ascii=False) + "\n"
                if record["item_id"] in kept:
                    languages[record["language"]] += 1
                    file.write(line)
        if not languages:
            path.unlink()
        return dict(languages.most_common())

    def _lines(self, kind: str) -> Iterator[str]:
        with open(self._drafts[kind], encoding="utf-8", newline="\n") as draft:
            yield from draft
