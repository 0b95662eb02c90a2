"""Exceptions of recbole-xling.

Every message says what was wrong, where, and how to mend it. Catch :class:`XlingError` to catch them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XlingError(Exception):
    """Base class of every error this package raises on purpose."""


class ConfigError(XlingError, ValueError):
    """A setting is unknown, malformed, or contradicts another one."""


class DataError(XlingError, ValueError):
    """An input file or dataset cannot be used as it is."""


class EncoderError(XlingError, RuntimeError):
    """A text encoder cannot be built or returned something unusable."""


class TranslationError(XlingError, RuntimeError):
    """A translator cannot be built, does not know a language, or returned something unusable."""


class CheckpointError(XlingError, RuntimeError):
    """A checkpoint or run folder is missing, damaged or belongs to another model."""


class MissingExtraError(XlingError, ImportError):
    """A feature needs a package of an optional extra that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package '{package}': pip install 'recbole-xling[{extra}]'")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown ``name`` of a ``kind``: the nearest match, then everything that exists."""
    options = sorted(known)
    lowered = {option.lower(): option for option in options}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    hint = f" Did you mean '{lowered[near[0]]}'?" if near else ""
    return f"unknown {kind} '{name}'.{hint} Known: {', '.join(options)}"
