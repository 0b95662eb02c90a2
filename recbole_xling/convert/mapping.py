"""Which column of a table means what: from flags, from a YAML file, or from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from recbole_xling.convert.cells import FIELD_TYPES
from recbole_xling.errors import ConfigError, unknown_name

_FILES = ("input", "items", "users")


class Feature(NamedTuple):
    """A feature: the column it is in, and its type (``token``, ``token_seq``, ``float``)."""

    column: str
    kind: str = "token"


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
        items: file of the items.
        item_id: its column of ids; None for the name of ``item``.
        language: its column of language tags.
        text: its columns of text by the name of the part: ``{"title": "name"}``.
        item_features: further columns for the ``.item`` file, by their names there.
        users: file of the users.
        user_id: its column of ids; None for the name of ``user``.
        user_features: further columns for the ``.user`` file, by their names there.
        separator: between cells of text tables.
        encoding: of text tables.
    """

    input: Path
    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    time: str | None = None
    in_order: bool = False
    items: Path | None = None
    item_id: str | None = None
    language: str | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    item_features: Mapping[str, Feature] = field(default_factory=dict)
    users: Path | None = None
    user_id: str | None = None
    user_features: Mapping[str, Feature] = field(default_factory=dict)
    separator: str | None = None
    encoding: str = "utf-8"


def read_mapping(path: Path | None, settings: Mapping[str, Any]) -> TableMapping:
    """Return the mapping of a YAML file, None for no file, with ``settings`` in place of what it says.

    The keys of the file are the attributes of :class:`TableMapping`; its paths are relative to it. A feature is
    written ``column`` or ``column:type``, several names in a flag as ``name=column,name=column``.

    Raises:
        ConfigError: a key is unknown or a value malformed.
    """
    merged = {} if path is None else _read_yaml(path)
    merged |= {name: value for name, value in settings.items() if value is not None}
    known = [option.name for option in fields(TableMapping)]
    unknown = next((name for name in merged if name not in known), None)
    if unknown is not None:
        raise ConfigError(unknown_name("setting of a table", unknown, known))
    if "input" not in merged:
        raise ConfigError("table needs --input, the file of interactions")
    for name in ("item_features", "user_features"):
        if name in merged:
            merged[name] = {key: _feature(name, value) for key, value in _names(name, merged[name]).items()}
    if "text" in merged:
        merged["text"] = _names("text", merged["text"])
    merged |= {name: Path(merged[name]) for name in _FILES if name in merged}
    for name, value in merged.items():
        if not isinstance(value, (str, Path, dict)) and name != "in_order":
            raise ConfigError(f"{name} of a table must be a name, not {value!r}")
    mapping = TableMapping(**merged)
    _check(mapping)
    return mapping


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold 'name: value' lines, such as 'user: customer_id'")
    return {key: path.parent / value if key in _FILES else value for key, value in content.items()}


def _names(option: str, value: object) -> dict[str, str]:
    """Return ``title=name,year`` or the same as a dict: name to column, ``year`` for ``year=year``."""
    if isinstance(value, str):
        pairs = (pair.partition("=") for pair in value.split(","))
        value = {name.strip(): (column or name).strip() for name, _, column in pairs}
    if not isinstance(value, Mapping) or not all(
        isinstance(cell, str) and cell for pair in value.items() for cell in pair
    ):
        raise ConfigError(f"{option} of a table is written like title=name,description=desc, not {value!r}")
    return dict(value)


def _feature(option: str, value: str) -> Feature:
    column, colon, kind = value.rpartition(":")
    feature = Feature(column, kind) if colon else Feature(value)
    if feature.kind not in FIELD_TYPES:
        raise ConfigError(f"{option}: {value!r} has no known type; it is one of {', '.join(FIELD_TYPES)}")
    return feature


def _check(mapping: TableMapping) -> None:
    columns = [name for name in (mapping.user, mapping.item, mapping.rating, mapping.time) if name is not None]
    if len(set(columns)) < len(columns):
        raise ConfigError(f"user, item, rating and time are columns of their own, not {', '.join(columns)}")
    if mapping.in_order and mapping.time is not None:
        raise ConfigError("a table has either a column of times or is in order, not both")
    if mapping.items is None and (mapping.language or mapping.text or mapping.item_features):
        raise ConfigError("language, text and item_features are columns of a file of items; name it with --items")
    if mapping.users is None and mapping.user_features:
        raise ConfigError("user_features are columns of a file of users; name it with --users")
