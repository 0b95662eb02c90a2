"""TypedConfig: settings with types, ranges and defaults, whose errors are sentences."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.utils.yaml_text import read_yaml_settings

_Typed = TypeVar("_Typed", bound="TypedConfig")

_MOST_LINES = 3
_LONGEST_VALUE = 200
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "True or False",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a dictionary",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "greater than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "string_too_short": "some text",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "too_long": "a dictionary of one entry",
    "too_short": "a {field_type} with an entry",
}  # pydantic's name of a fault -> what the value must be
_DEEPEST, _WIDEST = 256, 65_536
# Names of settings -> the largest whole number; the first row that fits counts. What is larger would take all memory,
# or would never end.
_LARGEST = (
    (r"batch_size$", 2**31 - 1),
    (r"^(n_|num_)?(\w+_)?(layers?|hops?|blocks?|heads|experts?|iter|iterations|depth)(_num)?$", _DEEPEST),
    (r"^(block_num|expert_num|worker)$", _DEEPEST),
    (r"decimal_place$", 100),
    (r"size|dim|length$|_len$|LENGTH$|rank$|layers?$|channels|kernel|factors?$|cin$|clusters$|memory$", _WIDEST),
    (r"^(seq_len|neigh_num|nh|nv|kfac|resolution|(adversarial_)?steps?|order\w*|high_order|n_facet\w*)$", _WIDEST),
    (r"^(sample_num|candidate_num|\w+_per_term|k_interests|class_num|num_basis\w*|dilations|cnn_strides)$", _WIDEST),
    (r"negatives$|^alignment_pairs$", 2**20),
    (r"^(seeds?|max_ranked_pairs|low|high)$", 2**53),
)
_LARGEST_OF_OTHERS = 2**31 - 1
_NUMBER, _OR_AUTO = "constrained-int", "literal['auto']"  # its names of the types of a setting that is either


class TypedConfig(BaseModel):
    """Base of all typed settings: a field per setting, with its type, range, default and one line that describes it.

    Types are strict: True is not a whole number and ``"1"`` is not a number, but a whole number is a number. The
    settings of a model can inherit from those of its layers, which then take the model's as they are.

    Attributes:
        section: heading of these settings in the tables of keys.

    Raises:
        ConfigError: values are not allowed; a line for each, three at most.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    section: ClassVar[str] = ""

    @model_validator(mode="after")
    def _not_too_large(self: _Typed) -> _Typed:
        for name in type(self).model_fields:
            value = getattr(self, name)
            for key, part in value.items() if isinstance(value, dict) else [("", value)]:
                is_list = isinstance(part, list)
                largest = _largest(str(key), is_list=is_list) or _largest(name, is_list=is_list) or _LARGEST_OF_OTHERS
                if any(isinstance(number, int) and number > largest for number in (part if is_list else [part])):
                    where = f"{name}[{key!r}]" if isinstance(value, dict) else name
                    raise ConfigError(f"{where} must be at most {largest:,}, not {_shown(part)}")
        return self

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults = [fault for fault in error.errors() if fault["loc"][-1:] != (_OR_AUTO,)]
            lines = [_message(type(self), fault) for fault in faults]
            raise ConfigError("\n".join(lines[:_MOST_LINES])) from error

    @classmethod
    def adjust_defaults(cls, settings: dict[str, Any], given: Mapping[str, Any]) -> None:
        """Change defaults that depend on which settings were given; none unless overridden.

        Args:
            settings: all of them, changed in place.
            given: what files, dictionaries and arguments say.

        Raises:
            ConfigError: what was given contradicts a default.
        """

    @classmethod
    def of(cls: type[_Typed], config: Any) -> _Typed:
        """Read these settings from all those of a run.

        Args:
            config: RecBole's ``Config`` or a mapping; a setting that it lacks gets its default.

        Raises:
            ConfigError: values are not allowed.
        """
        values = {name: config[name] for name in cls.model_fields if name in config}
        # RecBole's hyper-parameter search gives numbers of numpy
        return cls(**{name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()})

    @classmethod
    def from_file(cls: type[_Typed], file: str | os.PathLike[str], **changed: Any) -> _Typed:
        """Read these settings from a YAML file; ``changed`` ones replace the file's.

        Raises:
            ConfigError: the file cannot be read, or values are not allowed.
        """
        settings = {str(name): value for name, value in read_yaml_settings(Path(file)).items()}
        try:
            return cls(**{**settings, **changed})
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default of every setting that has one."""
        fields = cls.model_fields.items()
        return {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}


def _largest(name: str, *, is_list: bool) -> int | None:
    """Return the largest whole number of a setting, if its name tells; numbers in a list of layers are their sizes."""
    fitting = (most for names, most in _LARGEST if re.search(names, name) and not (is_list and most == _DEEPEST))
    return next(fitting, None)


def _shown(value: Any) -> str:
    """Return a value for a message, cut off where it is long; Python does not write numbers of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _message(kind: type[TypedConfig], fault: Any) -> str:
    """Say in one line which setting is wrong, what it must be and what it is."""
    fault_type, context, value = fault["type"], fault.get("ctx", {}), fault["input"]
    if fault_type == "value_error":  # a validator wrote the sentence
        return str(context["error"])
    key, *place = fault["loc"]
    or_auto = place == [_NUMBER]
    place = [] if or_auto else place
    name = key + "".join(f"[{part!r}]" for part in place)
    if fault_type == "missing":
        return f"{name} must be set"
    if fault_type == "extra_forbidden":
        return unknown_name("key", name, kind.model_fields)
    if fault_type == "too_short":
        context = {"field_type": context["field_type"].lower()}
    if fault_type == "string_type" and isinstance(value, bool):
        return f"{name} must be text, not {value}; words such as no and off mean False: put quotes around a text"
    hint, wanted = "", (_WANTED[fault_type].format(**context) if fault_type in _WANTED else fault["msg"])
    wanted += " or auto" * or_auto
    if fault_type == "literal_error":
        choices = [choice.strip("'") for choice in re.split(r", | or ", context["expected"])]
        near = difflib.get_close_matches(str(value), choices, n=1)
        wanted = f"one of {', '.join(choices)}"
        hint = f". Did you mean {near[0]!r}?" if near else ""
    elif examples := kind.model_fields[key].examples:
        wanted += "" if place else f" such as {examples[0]}"
    return f"{name} must be {wanted}, not {_shown(value)}{hint}"
