"""Turning the fields of an item text into one string.

``"{title} ({year}). {genres}"`` gives ``Toy Story (1995). Animation``, and without a year ``Toy Story. Animation``:
what a missing field would leave behind (brackets, punctuation, spaces, the words next to it) goes with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from recbole_xling.errors import ConfigError

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<field>[^{}]*)\}|(?P<stray>[{}])|[^{}]+")
_CLOSING = {
    "(": ")", "[": "]", "（": "）", "［": "］", "【": "】", "「": "」", "『": "』", "《": "》", "〈": "〉",
    "«": "»", "„": "“", "“": "”", '"': '"',
}  # fmt: skip
_CLOSERS = frozenset(_CLOSING.values())
_ENDING = ".,;:!?…。、，；：！？"
# what stands between two fields: punctuation (a hyphen only beside a space) and the spaces around it
_SEPARATOR = re.compile(rf"\s*(?:[{_ENDING}|/·•・–—]|(?<!\w)-|-(?!\w))(?:[{_ENDING}|/·•・–—\s]|(?<!\w)-|-(?!\w))*")


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Field:
    name: str


@dataclass(frozen=True, slots=True)
class _Group:
    opening: str
    parts: _Sequence
    closing: str


@dataclass(frozen=True, slots=True)
class _Unit:
    """A field or a bracketed group with the words that belong to it, and what separates it from the unit before."""

    separator: str
    prefix: str
    content: _Field | _Group
    suffix: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    units: tuple[_Unit, ...]
    tail: str


_Node: TypeAlias = _Text | _Field | _Group


class TextTemplate:
    """A text with fields in braces; ``{{`` and ``}}`` stand for braces.

    Rendering leaves no debris of missing or empty fields: a bracket or quotation with nothing in it goes, of the
    separators between two fields that remain one is kept, and words next to a field go with it (words before it as
    far as the punctuation before them, words behind it as far as the punctuation behind them). Punctuation of
    the template is not added behind a value that ends in punctuation already. Values themselves are never altered.

    Args:
        template: for example ``"{title} ({year}). {genres}"``.

    Raises:
        ConfigError: braces or brackets do not match, a field name is not a plain name, or there is no field.
    """

    __slots__ = ("_sequence", "fields", "template")

    def __init__(self, template: str) -> None:
        if not isinstance(template, str):
            raise ConfigError(f"text_template must be a text such as '{{title}}. {{genres}}', not {template!r}")
        self.template = template
        names: dict[str, None] = {}
        self._sequence = _compile(_parse(template.strip(), names))
        if not names:
            raise ConfigError(f"text_template {template!r} names no field; name one in braces, as in '{{title}}'")
        self.fields = tuple(names)

    def render(self, fields: Mapping[str, str]) -> str:
        """Return the text for the given fields; names that the template lacks are ignored, no field gives ``""``."""
        return _render(self._sequence, fields)

    def __repr__(self) -> str:
        return f"TextTemplate({self.template!r})"


def _render(sequence: _Sequence, fields: Mapping[str, str]) -> str:
    text = waiting = ""
    for unit in sequence.units:
        if unit.separator.strip() or (unit.separator and not waiting.strip()):
            waiting = unit.separator
        content = _render_content(unit.content, fields)
        if content:
            text = (_join(text, waiting) if text else "") + unit.prefix + content + unit.suffix
            waiting = ""
    return _join(text, sequence.tail) if text else ""


def _render_content(content: _Field | _Group, fields: Mapping[str, str]) -> str:
    if isinstance(content, _Field):
        value = fields.get(content.name)
        return value if value and not value.isspace() else ""
    inner = _render(content.parts, fields)
    return content.opening + inner + content.closing if inner else ""


def _join(text: str, separator: str) -> str:
    """Append a separator, without the punctuation it starts with if the text ends in punctuation already."""
    return text + (separator.lstrip(_ENDING) if text[-1] in _ENDING else separator)


def _parse(template: str, names: dict[str, None]) -> list[_Node]:
    """Split a template into texts, fields and groups in brackets; collect the names of the fields."""
    levels: list[tuple[str, list[_Node]]] = [("", [])]
    for match in _TOKEN.finditer(template):
        token, name = match[0], match["field"]
        if match["stray"]:
            raise ConfigError(f"text_template {template!r}: single '{token}'; write '{token * 2}' for the character")
        if name is not None:
            if not name.isidentifier():
                raise ConfigError(f"text_template {template!r}: {token!r} is no field; write a plain name in braces")
            names[name] = None
            levels[-1][1].append(_Field(name))
        elif token in ("{{", "}}"):
            levels[-1][1].append(_Text(token[0]))
        else:
            for character in token:
                _bracket(levels, character, template)
    if len(levels) > 1:
        raise ConfigError(f"text_template {template!r}: '{levels[-1][0]}' is never closed")
    return levels[0][1]


def _bracket(levels: list[tuple[str, list[_Node]]], character: str, template: str) -> None:
    """Take one literal character: open or close a group, or add text."""
    opening, nodes = levels[-1]
    if opening and character == _CLOSING[opening]:
        levels.pop()
        sequence = _compile(nodes)
        if sequence.units:
            levels[-1][1].append(_Group(opening, sequence, character))
        else:  # a constant bracket is text
            levels[-1][1].append(_Text(opening + sequence.tail + character))
    elif character in _CLOSING:
        levels.append((character, []))
    elif character in _CLOSERS:
        raise ConfigError(f"text_template {template!r}: '{character}' closes nothing")
    else:
        nodes.append(_Text(character))


def _compile(nodes: list[_Node]) -> _Sequence:
    """Give the text between fields to its neighbors: words behind a field, a separator, words before the next."""
    literals, contents = [""], []
    for node in nodes:
        if isinstance(node, _Text):
            literals[-1] += node.text
        else:
            contents.append(node)
            literals.append("")
    if not contents:
        return _Sequence((), literals[0])
    last = _SEPARATOR.search(literals[-1])
    end = last.start() if last else len(literals[-1])
    splits = [("", "", literals[0]), *map(_split, literals[1:-1]), (literals[-1][:end], "", "")]
    units = (
        _Unit(separator, prefix, content, suffix)
        for (_, separator, prefix), content, (suffix, _, _) in zip(splits[:-1], contents, splits[1:], strict=True)
    )
    return _Sequence(tuple(units), literals[-1][end:])


def _split(literal: str) -> tuple[str, str, str]:
    """Split the text between two fields into words behind the first, separator, words before the second."""
    found = _SEPARATOR.search(literal)
    start, end = found.span() if found else (0, len(literal) - len(literal.lstrip()))
    return literal[:start], literal[start:end], literal[end:]
