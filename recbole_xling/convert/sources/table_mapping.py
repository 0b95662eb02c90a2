"""What the columns of one's own tables mean: options of the command line, or a YAML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from recbole_xling.convert.cells import FIELD_TYPES
from recbole_xling.convert.sources.table_conditions import Condition, parse_condition
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.language.tags import asked_language
from recbole_xling.utils.yaml_text import read_yaml_settings

_FILES = ("input", "items", "users")
_FEATURES = ("interaction_features", "item_features", "user_features")
_FLAGS = ("in_order", "random_order", "no_header")
_TAB = ("\\t", "tab")  # as people write it in a shell


class Feature(NamedTuple):
    """A feature: the column it is in, and its type (``token``, ``token_seq``, ``float``)."""

    column: str
    kind: str = "token"


class TextPart(NamedTuple):
    """A part of the items' texts: its name, its language if the name tells it (``title:de``), and its column."""

    name: str
    language: str | None
    column: str


@dataclass(frozen=True, slots=True)
class TableMapping:
    """The files, and the names of their columns.

    Attributes:
        input: file of the interactions.
        user: its column of user ids.
        item: its column of item ids.
        rating: its column of ratings.
        time: its column of times: numbers, or ISO dates and times.
        in_order: the interactions are in order of time; their number becomes the time stamp.
        random_order: the interactions are in no order of time; a hash of user and item becomes the time stamp.
        interaction_features: further columns for the ``.inter`` file, by their names there.
        where: which rows are interactions.
        items: file of the items.
        item_id: its column of ids; None for the name of ``item``.
        language: its column of language tags.
        text: its columns of text.
        item_features: further columns for the ``.item`` file, by their names there.
        users: file of the users.
        user_id: its column of ids; None for the name of ``user``.
        user_features: further columns for the ``.user`` file, by their names there.
        separator: between cells of text tables.
        encoding: of text tables.
        no_header: the text tables do not name their columns, which are called ``1``, ``2``, ...

    Raises:
        ConfigError: two settings contradict each other, or one lacks its file.
    """

    input: Path
    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    time: str | None = None
    in_order: bool = False
    random_order: bool = False
    interaction_features: Mapping[str, Feature] = field(default_factory=dict)
    where: tuple[Condition, ...] = ()
    items: Path | None = None
    item_id: str | None = None
    language: str | None = None
    text: tuple[TextPart, ...] = ()
    item_features: Mapping[str, Feature] = field(default_factory=dict)
    users: Path | None = None
    user_id: str | None = None
    user_features: Mapping[str, Feature] = field(default_factory=dict)
    separator: str | None = None
    encoding: str = "utf-8"
    no_header: bool = False

    def __post_init__(self) -> None:
        columns = [name for name in (self.user, self.item, self.rating, self.time) if name is not None]
        if len(set(columns)) < len(columns):
            raise ConfigError(f"user, item, rating and time are columns of their own, not {', '.join(columns)}")
        if (self.time is not None) + self.in_order + self.random_order > 1:
            raise ConfigError("a table has a column of times, is in order, or is in no order (random_order): not both")
        if self.items is None and (self.language or self.text or self.item_features):
            raise ConfigError("language, text and item_features are columns of a file of items; name it with --items")
        if self.users is None and self.user_features:
            raise ConfigError("user_features are columns of a file of users; name it with --users")
        if self.separator is not None and (not self.separator or set(self.separator) & set('"\r\n')):
            raise ConfigError(f"separator of a table must be characters between cells, not {self.separator!r}")
        try:
            is_ascii = "a,\n".encode(self.encoding) == b"a,\n"
        except LookupError:
            raise ConfigError(f"unknown text encoding '{self.encoding}'; use utf-8, latin-1 or cp1252") from None
        if not is_ascii:
            raise ConfigError(f"tables in '{self.encoding}' cannot be read line by line; convert them to UTF-8")

    @property
    def text_languages(self) -> tuple[str, ...]:
        """The languages that names of text parts tell, in their order."""
        return tuple(dict.fromkeys(part.language for part in self.text if part.language is not None))


def read_mapping(path: Path | None, settings: Mapping[str, Any]) -> TableMapping:
    """Return the mapping of a YAML file, None for no file, with ``settings`` in place of what it says.

    The keys of the file are the attributes of :class:`TableMapping`; its paths are relative to it. A feature is
    written ``column`` or ``column:type``, several names in a flag as ``name=column,name=column``.

    Raises:
        ConfigError: a key is unknown or a value malformed.
    """
    merged: dict[str, Any] = {} if path is None else _read_yaml(path)
    merged |= {name: value for name, value in settings.items() if value is not None}
    known = [option.name for option in fields(TableMapping)]
    unknown = next((name for name in merged if name not in known), None)
    if unknown is not None:
        raise ConfigError(unknown_name("setting of a table", unknown, known))
    if "input" not in merged:
        raise ConfigError("table needs --input, the file of interactions")
    for option in _FEATURES:
        if option in merged:
            merged[option] = dict(_features(option, merged[option]))
    if "text" in merged:
        merged["text"] = _text_parts(merged["text"])
    if "where" in merged:
        merged["where"] = _conditions(merged["where"])
    if merged.get("separator") in _TAB:
        merged["separator"] = "\t"
    merged |= {name: Path(merged[name]) for name in _FILES if name in merged}
    for name, value in merged.items():
        if name in _FLAGS and not isinstance(value, bool):
            raise ConfigError(f"{name} of a table is true or false, not {value!r}")
        if name not in _FLAGS and not isinstance(value, (str, Path, dict, tuple)):
            raise ConfigError(f"{name} of a table must be a name, not {value!r}")
    return TableMapping(**merged)


def _read_yaml(path: Path) -> dict[str, Any]:
    content = read_yaml_settings(path)
    if not content:
        raise ConfigError(f"{path} must have 'name: value' lines, such as 'user: customer_id'")
    unnamed = next((key for key in content if not isinstance(key, str)), None)
    if unnamed is not None:
        raise ConfigError(f"{path}: a setting's name must be text, not {unnamed!r}")
    wrong = next((key for key in _FILES if not isinstance(content.get(key, ""), str)), None)
    if wrong is not None:
        raise ConfigError(f"{path}: {wrong} of a table must be the path of a file, not {content[wrong]!r}")
    return {key: path.parent / value if key in _FILES else value for key, value in content.items()}


def _names(option: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the names and columns of ``title=name,year`` or a dict; ``year`` stands for ``year=year``.

    Raises:
        ConfigError: it is written otherwise, or names something twice.
    """
    pairs: Sequence[tuple[object, object]] = []
    if isinstance(value, str):
        words = [word.partition("=") for word in value.split(",")]
        pairs = [(name.strip(), (column or name).strip()) for name, _, column in words]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    names: set[str] = set()
    for name, column in pairs:
        if not (isinstance(name, str) and name and isinstance(column, str) and column):
            pairs = []
            break
        if name in names:
            raise ConfigError(f"{option} of a table has '{name}' twice; give each part a name of its own")
        names.add(name)
        yield name, column
    if not pairs:
        raise ConfigError(f"{option} of a table is written like title=name,description=desc, not {value!r}")


def _features(option: str, value: object) -> Iterator[tuple[str, Feature]]:
    for name, written in _names(option, value):
        column, colon, kind = written.rpartition(":")
        feature = Feature(column, kind) if colon else Feature(written)
        if feature.kind not in FIELD_TYPES:
            raise ConfigError(f"{option}: {written!r} has no known type; it is one of {', '.join(FIELD_TYPES)}")
        yield column if name == written and colon else name, feature  # price:float stands for price=price:float


def _text_parts(value: object) -> tuple[TextPart, ...]:
    parts = []
    for written, column in _names("text", value):
        name, colon, tag = written.partition(":")
        if not name:
            raise ConfigError(f"text of a table is written like title:de=title_de, not {written!r}")
        parts.append(TextPart(name, asked_language(tag) if colon else None, column))
    keys = [(part.name, part.language) for part in parts]
    twice = next((f"{name}:{language}" for name, language in keys if keys.count((name, language)) > 1), None)
    if twice is not None:
        raise ConfigError(f"text of a table has '{twice}' twice, in two spellings of the language; leave one out")
    return tuple(parts)


def _conditions(value: object) -> tuple[Condition, ...]:
    written = [value] if isinstance(value, str) else value
    if not isinstance(written, (list, tuple)) or not all(isinstance(condition, str) for condition in written):
        raise ConfigError(f"where of a table is a condition like event=purchase, or a list of them, not {value!r}")
    return tuple(parse_condition(condition) for condition in written)
