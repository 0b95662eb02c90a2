"""Settings as text: YAML files, and words of the command line that mean what they mean in a YAML file."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from recbole_xling.errors import ConfigError

_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)  # YAML 1.1 wants a point and a sign in 1e-3; RecBole does not
_NULL = re.compile(r"(?:~|null|Null|NULL|None|)$")
_LEFT_OUT = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float", "tag:yaml.org,2002:null")


class SettingsLoader(yaml.SafeLoader):
    """Reads plain data: dates stay text, ``None`` is null as in Python, and a key that is given twice is an error."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag not in _LEFT_OUT]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.deep_construct = True  # a list that contains itself is an error then

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return the dictionary of a node.

        Raises:
            yaml.constructor.ConstructorError: a key is given twice.
        """
        lines: dict[Any, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in lines and key != "<<":
                problem = f"'{key}' is given twice, first in line {lines[key]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            lines.setdefault(key, key_node.start_mark.line + 1) if key is not None else None
        return super().construct_mapping(node, deep)


class SettingsDumper(yaml.SafeDumper):
    """Writes plain data such that :class:`SettingsLoader` reads the same: texts like numbers get quotes."""


for _reader_or_writer in (SettingsLoader, SettingsDumper):
    _reader_or_writer.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    _reader_or_writer.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""])


def settings_text(settings: Mapping[str, Any], *, sort_keys: bool = False) -> str:
    """Return settings, which consist of plain data, as a YAML file that reads back as the same."""
    text: str = yaml.dump(dict(settings), Dumper=SettingsDumper, allow_unicode=True, sort_keys=sort_keys)
    return text


def read_yaml_settings(file: Path) -> dict[str, Any]:
    """Read a YAML file of ``key: value`` lines.

    Raises:
        ConfigError: the file does not exist or cannot be read as such; the message names file and line.
    """
    if file.is_dir():
        raise ConfigError(f"configuration file '{file}' is a folder; name the YAML file in it")
    if not file.exists():
        raise ConfigError(f"configuration file '{file}' does not exist (seen from {Path.cwd()})")
    text = ""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        content = yaml.load(text, Loader=SettingsLoader)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: the file is not UTF-8 text (byte {error.start}): save it as such") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number such as 0b2, a huge one
        raise ConfigError(f"{file}{_fault(error, text)}") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: lists or dictionaries are nested too deeply") from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{file}:1: the file must consist of 'key: value' lines, and is {_kind(content)}")
    return content or {}


def _fault(error: Exception, text: str) -> str:
    """Return the line of an error of PyYAML's and what is wrong there, in one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, problem = mark.line + 1 if mark else 0, getattr(error, "problem", None) or str(error)
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character {text[error.position]!r} is not allowed"
    elif "'\\t'" in problem:
        problem = "a tab where only spaces are allowed: indent with spaces"
    elif problem.startswith("could not determine a constructor"):
        problem = "settings are plain values: leave out the tag that begins with '!'"
    return f"{f':{line}' if line else ''}: not valid YAML: {' '.join(problem.split())}"


def _kind(content: Any) -> str:
    return "a list" if isinstance(content, list) else f"{content!r:.40}"


def parse_value(text: str) -> Any:
    """Turn a word of the command line into what it means in a YAML file: a number, a list, True, None, or itself.

    ``[query, value]``, ``{a: 1}``, ``no`` and ``1e-3`` are read as YAML, and so are Python's lists, dictionaries,
    numbers, ``None`` and quoted texts; tuples become lists. Anything else stays the text that it is.
    """
    readers = (_python_value, _yaml_value) if "(" in text else (_yaml_value, _python_value)  # YAML has no tuples
    for read in readers:
        try:
            return read(text)
        except (yaml.YAMLError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return text


def as_words(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings, which were read from text before, such that reading them as words changes nothing.

    Texts that would be something else are put in quotes; the names of a model and a dataset are never read.
    """
    kept = ("model", "dataset")
    return {
        key: json.dumps(value, ensure_ascii=False)
        if isinstance(value, str) and key not in kept and parse_value(value) != value
        else value
        for key, value in settings.items()
    }


def _yaml_value(text: str) -> Any:
    node = yaml.compose(text, Loader=SettingsLoader)
    quoted = isinstance(node, yaml.ScalarNode) and bool(node.style)
    plain = isinstance(node, yaml.ScalarNode) and node.value == text.strip()
    if not (quoted or plain or (isinstance(node, yaml.CollectionNode) and node.flow_style)):
        raise ValueError("what is not one value on one line is text")
    value = yaml.load(text, Loader=SettingsLoader)
    if isinstance(value, str) and not quoted:
        raise ValueError("a text without quotes stays as it is, spaces included")
    return value


def _python_value(text: str) -> Any:
    value = ast.literal_eval(text)
    if not isinstance(value, list | tuple | dict | str):
        raise ValueError("other values mean the same in YAML, or nothing in settings")
    return list(value) if isinstance(value, tuple) else value
