"""Exceptions of recbole-xling.

Every message says what was wrong, where, and how to mend it. Catch :class:`XlingError` to catch them all.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

# Control characters but tab and line feed; line and paragraph separators; marks that turn the direction of a text;
# halves of surrogate pairs.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_LONGEST = 2000  # characters of a message

_OS_ERROR_ADVICE = {
    errno.ENOSPC: "free space, then repeat the command",
    errno.EDQUOT: "free space, then repeat the command",
    errno.EACCES: "get access to it, or choose another place",
    errno.EPERM: "get access to it, or choose another place",
    errno.EROFS: "choose another place, which can be written to",
    errno.EEXIST: "choose another place, or remove what is there",
    errno.ENOTDIR: "a file is where a folder must be: choose another place",
    errno.EISDIR: "a folder is where a file must be: choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def shown(text: str) -> str:
    """Return a text that is safe to print: characters that could steer a terminal are written as escapes.

    Tabs and line breaks stay.
    """
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class XlingError(Exception):
    """Base class of every error this package raises on purpose; its message is safe to print, and no novel."""

    def __str__(self) -> str:
        text = shown(super().__str__())  # which may name a cell or a setting of any length
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} [...] {text[-_LONGEST // 2 :]}"


class ConfigError(XlingError, ValueError):
    """A setting is unknown, malformed, or contradicts another one."""


class DataError(XlingError, ValueError):
    """An input file or dataset cannot be used as it is."""


class NoTextError(DataError):
    """A dataset has no item texts."""


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


def os_error_message(error: OSError) -> str:
    """Return what the system refused, where, and what to do about it."""
    number = error.errno
    if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):  # an error of polars
        number = int(found[1])
    reason = str(error) if number is None else os.strerror(number)
    where = "" if error.filename is None else f": '{os.fsdecode(error.filename)}'"
    advice = f"; {_OS_ERROR_ADVICE[number]}" if number in _OS_ERROR_ADVICE else ""
    return shown(f"{reason}{where}{advice}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown ``name`` of a ``kind``: the nearest match, then everything that exists."""
    options = sorted(known)
    lowered = {option.lower(): option for option in options}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    hint = f" Did you mean '{lowered[near[0]]}'?" if near else ""
    return f"unknown {kind} '{name}'.{hint} Known: {', '.join(options)}"


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever RecBole raises about settings or data into an error of one line that says what was not possible.

    The traceback is logged where ``state`` is DEBUG, and is the cause of the new error.

    Args:
        what: such as "BPR cannot be built with these settings".

    Raises:
        ConfigError: something else than an XlingError or an OSError was raised meanwhile.
    """
    try:
        yield
    except (XlingError, OSError):
        raise
    except Exception as error:
        logger.debug(what, exc_info=error)
        problem = " ".join(str(error).split())
        raise ConfigError(f"{what}: {type(error).__name__}: {problem:.300}") from error
