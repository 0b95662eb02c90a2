"""Debian's package index [1]: what packages recommend, and descriptions of them in many languages.

[1] Debian Wiki: DebianRepository/Format. The descriptions are translated by the Debian Description Translation Project.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import md5
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User, chance_order
from recbole_xling.convert.reader_languages import ReaderLanguages
from recbole_xling.convert.reading.compressed import SUFFIXES, numbered_lines, without_copies
from recbole_xling.convert.reading.rejects import FILE, LINE, Rejects
from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.language.tags import UNDETERMINED, asked_language, stated_language
from recbole_xling.language.users import USER_LANGUAGE
from recbole_xling.text.raw_tables import LONGEST_LINE
from recbole_xling.text.record import DISPLAY, PARALLEL
from recbole_xling.utils.arguments import comma_list

ENGLISH = "en"
_FILE_NAME = re.compile(r"(?:.*_)?(?:Packages|Translation-(?P<language>[A-Za-z_@]+))")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")  # of a package, at the start of a relation
_RELATIONS = ("recommends", "suggests")
_DIGEST = "description-md5"
_KEPT = ("section", "tag", "description", *_RELATIONS)


class _Package(NamedTuple):
    """What the index tells of a package; ``digest`` is the MD5 of its English description, as translations have it."""

    name: str
    source: str
    digest: str
    fields: dict[str, str]
    location: SourceLocation


class _Index(NamedTuple):
    """All packages, those that are items, the histories of those that are users, and items not shown in English."""

    packages: dict[str, _Package]
    items: dict[str, _Package]
    histories: dict[str, dict[str, str]]
    shown: set[str]


class Debian(Converter):
    """The package index of Debian, Ubuntu or another distribution with apt, as mirrors and apt itself keep it.

    A user is a package, its history the packages that it recommends or suggests and that are built from another source;
    an item is a package with its descriptions.

    Args:
        input: the folder of the files.
        display_language: the language that packages are shown in; those without a text in it are shown in English.
        require_texts: packages that lack a text in one of these languages are no items.
        reader_language: share by language: each user reads the language that a hash of his source package draws, so
            that packages of one source read the same. Shares need not sum to 1.
        disjoint_catalogs: draw a language for the source package of each item likewise, and keep the interactions whose
            two languages are the same.

    Raises:
        ConfigError: ``input`` is not given, or an option makes no sense.
        DataError: a file is missing, or there are no texts in a language.
    """

    name = "debian"
    layout = """a folder of
  Packages            the packages, with what each recommends and suggests
  Translation-<tag>   descriptions in a language: Translation-en, Translation-de, Translation-pt_BR, ...
as in /var/lib/apt/lists, where names begin with the archive (deb.debian.org_..._i18n_Translation-de), or on a mirror;
each may be compressed (.gz, .xz, .bz2, .lz4, .zst, .zip). All Packages and translations of the folder are read."""
    item_fields = {"section": "token", "source_package": "token", "tags": "token_seq"}
    user_fields = {USER_LANGUAGE: "token", "user_section": "token", "user_source_package": "token"}
    interaction_fields = {"relation": "token"}
    arbitrary_order = True

    def __init__(
        self,
        *,
        input: str | Path | None = None,
        display_language: str = ENGLISH,
        require_texts: Sequence[str] = (),
        reader_language: Mapping[str, float] | None = None,
        disjoint_catalogs: bool = False,
    ) -> None:
        super().__init__(input=input)
        self.folder = self.needed_input("the folder of Packages and Translation-<language>")
        self.display_language = asked_language(display_language)
        self.require_texts = tuple(map(asked_language, require_texts))
        self.readers = ReaderLanguages(reader_language, by="their source package")
        if disjoint_catalogs and len(self.readers.shares) < 2:
            raise ConfigError("--disjoint-catalogs needs --reader-language with several languages, as in it=.5,da=.5")
        self.disjoint_catalogs = disjoint_catalogs
        self._counts: Counter[str] = Counter()
        self._index: _Index | None = None

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare ``--display-language``, ``--require-texts``, ``--reader-language`` and ``--disjoint-catalogs``."""
        display = "the language that packages are shown in, English where they have no text in it (default: en)"
        require = "only packages with a text in each of these languages are items (it,da)"
        disjoint = "with --reader-language: no package is an item for users of two languages"
        parser.add_argument("--display-language", default=ENGLISH, metavar="TAG", help=display)
        parser.add_argument("--require-texts", type=comma_list, default=(), metavar="TAGS", help=require)
        ReaderLanguages.add_argument(parser, "their source package")
        parser.add_argument("--disjoint-catalogs", action="store_true", help=disjoint)

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield what packages recommend and suggest, in an order by chance."""
        index = self._read(rejects)
        rows = [
            (user, item, relation, index.packages[user].location.file, index.packages[user].location.line)
            for user, history in index.histories.items()
            for item, relation in history.items()
        ]
        schema = {"user_id": pl.String, "item_id": pl.String, "relation": pl.String, FILE: pl.String, LINE: pl.Int64}
        frame = pl.DataFrame(rows, schema, orient="row")
        yield frame.with_columns(chance_order(frame))

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the packages that have the texts asked for."""
        index = self._read(rejects)
        for package in index.items.values():
            features: dict[str, str | tuple[str, ...]] = {
                "section": package.fields.get("section", ""),
                "source_package": package.source,
                "tags": tuple(package.fields.get("tag", "").replace(",", " ").split()),
            }
            language = self.display_language if package.name in index.shown else ENGLISH
            yield Item(package.name, language, features, package.location)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the packages that recommend or suggest an item."""
        index = self._read(rejects)
        for name in index.histories:
            package = index.packages[name]
            features = {
                USER_LANGUAGE: self.readers.draw(package.source),
                "user_section": package.fields.get("section", ""),
                "user_source_package": package.source,
            }
            yield User(name, features, package.location)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield the descriptions by language: the short one as title, the long one as description."""
        index = self._read(rejects)
        for language in sorted({ENGLISH, *self._files[1]}):
            for name, description, location in self._descriptions(language, rejects):
                if name in index.items:
                    shown = self.display_language if name in index.shown else ENGLISH
                    source = DISPLAY if language == shown else PARALLEL
                    yield SourceText(name, language, _fields(description), source, location)

    def notes(self) -> Iterator[str]:
        """Yield what the order is, how users got their languages, and what was left out."""
        yield (
            "no times in the source, and the order of a list means nothing: the time stamp is a hash of user and item, "
            "so what comes last is left to chance, the same on every machine"
        )
        if self.readers.shares:
            yield self.readers.note()
        if self.disjoint_catalogs:
            yield "users of different languages have no item in common: the items are divided among the languages"
        left_out = {
            "of a package built from the same source": self._counts["same source"],
            "of packages that are not listed (virtual ones, for instance)": self._counts["unknown"],
            "of packages without the texts asked for": self._counts["no item"],
            "of another language's items": self._counts["other catalog"],
        }
        yield "recommendations left out: " + ", ".join(
            f"{number} {what}" for what, number in left_out.items() if number
        )
        if again := self._counts["again"]:
            yield f"{again} packages are listed again, for other versions or machines; the first one counts"

    # ---- what is read -----------------------------------------------------------------------------------------

    @cached_property
    def _files(self) -> tuple[list[Path], dict[str, list[Path]]]:
        """The files of packages, and those of texts by language; of a file that is there twice the plain one counts."""
        if not self.folder.is_dir():
            raise DataError(f"folder {self.folder} does not exist")
        packages: list[Path] = []
        translations: dict[str, list[Path]] = {}
        names = {path: path.stem if path.suffix in SUFFIXES else path.name for path in sorted(self.folder.iterdir())}
        named = {
            path: found for path, name in names.items() if (found := _FILE_NAME.fullmatch(name)) and path.is_file()
        }
        for path in without_copies(named):
            found = named[path]
            if found["language"] is None:
                packages.append(path)
                continue
            language = stated_language(found["language"].replace("@latin", "_Latn").partition("@")[0])
            if language != UNDETERMINED:
                translations.setdefault(language, []).append(path)
        if not packages:
            raise DataError(f"{self.folder} has no file Packages; apt keeps its files in /var/lib/apt/lists")
        asked = {self.display_language, *self.require_texts, *self.readers.shares}
        if missing := sorted(asked - {ENGLISH, *translations}):
            raise DataError(f"{self.folder}: {unknown_name('language of the texts', missing[0], translations)}")
        return packages, translations

    def _read(self, rejects: Rejects) -> _Index:
        """Return what the files of packages tell; they are read once."""
        if self._index is None:
            packages: dict[str, _Package] = {}
            for path in self._files[0]:
                for line, fields in _paragraphs(path, rejects):
                    package = _package(fields, SourceLocation(str(path), line))
                    self._counts["again"] += packages.setdefault(package.name, package) is not package
            self._index = _Index(packages, dict(packages), {}, set())
            for language in self.require_texts:
                named = {name for name, *_ in self._descriptions(language, rejects)}
                for name in self._index.items.keys() - named:
                    del self._index.items[name]
            if self.display_language != ENGLISH:
                self._index.shown.update(name for name, *_ in self._descriptions(self.display_language, rejects))
            for package in packages.values():
                if history := self._history(package, self._index, rejects):
                    self._index.histories[package.name] = history
        return self._index

    def _history(self, package: _Package, index: _Index, rejects: Rejects) -> dict[str, str]:
        """Return the items that a package recommends or suggests, with the relation."""
        history: dict[str, str] = {}
        reader = self.readers.draw(package.source)
        for relation in _RELATIONS:
            for wanted in filter(None, map(str.strip, package.fields.get(relation, "").split(","))):
                found = _NAME.match(wanted)  # of alternatives (a | b) the first; without its version and architecture
                if found is None:
                    file, line = package.location.file, package.location.line
                    rejects.omit(file, line, f"a name that is none in '{relation}'", wanted)
                    continue
                other = index.packages.get(found[0])
                if other is None:
                    self._counts["unknown"] += 1
                elif other.source == package.source:
                    self._counts["same source"] += 1
                elif found[0] not in index.items:
                    self._counts["no item"] += 1
                elif self.disjoint_catalogs and reader != self.readers.draw(other.source, "item"):
                    self._counts["other catalog"] += 1
                else:
                    history.setdefault(found[0], relation)
        return history

    def _descriptions(self, language: str, rejects: Rejects) -> Iterator[tuple[str, str, SourceLocation]]:
        """Yield name, description and place of each package that has one in a language, each once.

        A translation names the English description that it was made from. That of the present one is preferred to
        others, which are of other versions. English ones that no translation has are taken from the packages.
        """
        packages = self._index.packages if self._index else {}
        found: set[str] = set()
        others: dict[str, tuple[str, SourceLocation]] = {}
        for path in self._files[1].get(language, []):
            for line, fields in _paragraphs(path, rejects):
                package = packages.get(fields["package"])
                key = next((key for key in fields if key.startswith("description-") and key != _DIGEST), None)
                if key is None:
                    rejects.add(path, line, "a translation without a description", fields["package"])
                elif package is not None and package.name not in found:
                    text = fields[key], SourceLocation(str(path), line)
                    if fields.get(_DIGEST) == package.digest:
                        found.add(package.name)
                        others.pop(package.name, None)
                        yield package.name, *text
                    else:
                        others.setdefault(package.name, text)
        if language == ENGLISH:
            for package in packages.values():
                if package.name not in found and (description := package.fields.get("description")):
                    others.setdefault(package.name, (description, package.location))
        for name, text in others.items():
            yield name, *text


def _package(fields: dict[str, str], location: SourceLocation) -> _Package:
    name = fields["package"]
    source = next(iter(fields.get("source", "").split()), name)  # without a version in brackets
    digest = fields.get(_DIGEST) or md5(f"{fields.get('description', '')}\n".encode()).hexdigest()
    return _Package(name, source, digest, {key: fields[key] for key in _KEPT if key in fields}, location)


def _fields(description: str) -> dict[str, str]:
    """Return the short and the long description; a line with a dot is an empty one, and ends a paragraph."""
    short, *lines = description.split("\n")
    long = "\n".join("" if line.strip() == "." else line.strip() for line in lines).strip()
    return {"title": short, "description": long} if long else {"title": short}


def _paragraphs(path: Path, rejects: Rejects) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the paragraphs of a control file (deb822): first line, and values by the field's name in small letters.

    Further lines of a value follow a line break. What cannot be read, or is of no package, goes to the rejects.
    """
    rejects.begin(path)
    fields: dict[str, list[str]] = {}
    first, size, key, fault, bad = 0, 0, "", "", b""
    for number, line in chain(numbered_lines(path), [(0, b"")]):
        if not line.strip():
            if first:
                rejects.saw(path, 1)
                if not fault and not any(fields.get("package", ())):
                    fault = "nothing in field 'Package'"
                if fault:
                    rejects.add(path, first, fault, bad.decode("utf-8", "replace"))
                else:
                    yield first, {name: "\n".join(lines) for name, lines in fields.items()}
            fields, first, size, key, fault = {}, 0, 0, "", ""
            continue
        first, size = first or number, size + len(line)
        if fault:
            continue
        bad, line = line, line.rstrip(b"\r")
        try:
            text = line.decode()
        except UnicodeDecodeError:
            fault = "not valid utf-8"
            continue
        name, colon, value = text.partition(":")
        if size > LONGEST_LINE:
            fault = f"a paragraph of more than {LONGEST_LINE >> 20} MiB"
        elif text[0] in " \t" and key:
            fields[key].append(text)
        elif text[0] in " \t" or not colon or name.lower() in fields:
            fault = "a line that neither begins a field nor goes on with one"
        else:
            key = name.lower()
            fields[key] = [value.strip()]
