"""Reading and checking ``eval_args.split``: RecBole's kinds of splits and those of recbole-xling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.language.tags import cased_tag
from recbole_xling.utils.arguments import parse_iso_time

_EXAMPLES = {
    "LS": "{'LS': 'valid_and_test'}",
    "RS": "{'RS': [0.8, 0.1, 0.1]}",
    "TS": "{'TS': [0.8, 0.1, 0.1]}",
    "GT": "{'GT': [0.8, 0.1, 0.1]} or {'GT': ['2024-05-01', '2024-06-01']}",
    "CI": "{'CI': [0.8, 0.1, 0.1]}",
    "LT": "{'LT': {'source': ['de'], 'target': ['en'], 'by': 'user'}}",
}
_TESTED = ("target", "both")
_LEAVE_OUT = ("valid_and_test", "valid_only", "test_only")

Shares = tuple[float, float, float]


@dataclass(frozen=True)
class GlobalTime:
    """``GT``: two points in time for everybody, given as times (seconds or the data's own unit) or as shares."""

    shares: Shares | None = None
    points: tuple[float, float] | None = None


@dataclass(frozen=True)
class ColdItems:
    """``CI``: shares of items trained on, validated on and tested on."""

    shares: Shares


@dataclass(frozen=True)
class LanguageTransfer:
    """``LT``: train on source languages, test on target languages.

    Attributes:
        source, target: BCP 47 tags.
        by: ``item`` (the language in which the user sees it), ``user`` (his own), or the column of the ``.user`` file
            with the user's language.
        users, interactions: how many of the target languages are added to training; at most one of them is set.
        test: the languages that are tested: ``target``, or ``both`` to compare them with the source languages.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    by: str
    users: int | None = None
    interactions: int | None = None
    test: str = "target"

    def transfer_of(self, language: str) -> str | None:
        """Return what a language is in this split: ``in-language``, ``zero-shot`` or ``few-shot``; None for others."""
        if language in self.source:
            return "in-language"
        few = self.users is not None or self.interactions is not None
        return ("few-shot" if few else "zero-shot") if language in self.target else None


SplitSetting = GlobalTime | ColdItems | LanguageTransfer


def read_split(split: Any) -> SplitSetting | None:
    """Check ``eval_args.split``; return the setting, or None for the kinds that RecBole itself splits.

    Raises:
        ConfigError: the kind is unknown, or its value is not what the kind needs.
    """
    if not isinstance(split, dict) or len(split) != 1:
        raise ConfigError(f"eval_args: split must be one of {'; '.join(_EXAMPLES.values())}; not {split!r}")
    ((kind, value),) = split.items()
    if kind not in _EXAMPLES:
        raise ConfigError(unknown_name("split", str(kind), _EXAMPLES))
    if kind == "LS":
        if value not in _LEAVE_OUT:
            raise ConfigError(unknown_name("way to leave one out (LS)", str(value), _LEAVE_OUT))
    elif kind in ("RS", "TS"):
        _shares(kind, value)
    elif kind == "GT":
        if isinstance(value, list) and len(value) == 2:
            return GlobalTime(points=_points(value))
        return GlobalTime(shares=_shares(kind, value, test=True))
    elif kind == "CI":
        return ColdItems(_shares(kind, value, test=True))
    else:
        return _transfer(value)
    return None


def _wrong(kind: str, value: Any, why: str) -> ConfigError:
    return ConfigError(f"eval_args: split {kind} {why}, like {_EXAMPLES[kind]}; not {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shares(kind: str, value: Any, *, test: bool = False) -> Shares:
    if not isinstance(value, list) or len(value) != 3 or not all(_is_number(share) and share >= 0 for share in value):
        raise _wrong(kind, value, "needs three shares: training, validation, test")
    if not value[0] or (test and not value[2]):
        raise _wrong(kind, value, "needs a share for training and one for the test")
    total = sum(value)
    if not any(math.isclose(total, whole, rel_tol=1e-6) for whole in (1, 10, 100)):
        raise _wrong(kind, value, f"needs shares whose sum is 1 (or 10, or 100), not {total:g}")
    return value[0] / total, value[1] / total, value[2] / total


def _points(value: list[Any]) -> tuple[float, float]:
    first, second = (_point(value, point) for point in value)
    if first > second:
        raise _wrong("GT", value, "needs its two points in time in order")
    return first, second


def _point(value: list[Any], point: Any) -> float:
    """Return a time stamp as it is, a date as seconds since 1970 (UTC where it names no zone)."""
    if _is_number(point):
        return float(point)
    moment = parse_iso_time(point) if isinstance(point, str) else None
    if moment is None:
        raise _wrong("GT", value, "needs dates or time stamps")
    return moment


def _transfer(value: Any) -> LanguageTransfer:
    if not isinstance(value, dict):
        raise _wrong("LT", value, "needs source, target and by")
    keys = ("source", "target", "by", "users", "interactions", "test")
    for key in value:
        if key not in keys:
            raise ConfigError(unknown_name("key of split LT", str(key), keys))
    for key in ("source", "target"):
        languages = value.get(key)
        if not isinstance(languages, list) or not languages or not all(isinstance(name, str) for name in languages):
            raise _wrong("LT", value, f"needs {key}: a list of languages")
    cased = cased_tag if value.get("by") in ("user", "item") else str
    try:
        source, target = (tuple(map(cased, value[key])) for key in ("source", "target"))
    except DataError as error:
        raise ConfigError(f"split LT: {error}") from None
    if set(source) & set(target):
        raise _wrong("LT", value, "needs source and target languages that differ")
    if not isinstance(value.get("by"), str):
        raise _wrong("LT", value, "needs by: user, item or a column of the .user file")
    users, interactions = value.get("users"), value.get("interactions")
    for key, count in (("users", users), ("interactions", interactions)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise _wrong("LT", value, f"needs {key}: a whole number of at least 1 or nothing")
    if users is not None and interactions is not None:
        raise _wrong("LT", value, "adds either users or interactions of the target languages")
    if (test := value.get("test", "target")) not in _TESTED:
        raise ConfigError(unknown_name("value of test in split LT", str(test), _TESTED))
    return LanguageTransfer(source, target, value["by"], users, interactions, test)
