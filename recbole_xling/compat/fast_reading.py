"""Fast replacements of the two slow calls by which RecBole reads and filters atomic files, with the same results.

RecBole 1.2.1 reads with pandas' Python parser (recbole/data/dataset/dataset.py:486) and counts users and items with a
``Counter`` over all rows (:893-900).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import pandas as pd


def with_names(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """Return a copy of ``function`` in which these global names mean something else."""
    assert isinstance(function, FunctionType)
    names = {**function.__globals__, **names}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__doc__, copy.__kwdefaults__ = function.__doc__, function.__kwdefaults__
    return copy


def read_csv(path: str, *, engine: str, **options: Any) -> pd.DataFrame:
    """Read as ``pandas.read_csv`` with the parser ``engine``, but use the C parser where it gives the same table.

    RecBole asks for the Python parser, which takes about ten times as long. A file that the C parser refuses is read
    again as asked, so that errors are RecBole's own.
    """
    if _parsers_agree(path, options["delimiter"]):
        try:
            return pd.read_csv(path, engine="c", **options)
        except (ValueError, OverflowError):  # pandas' own errors are ValueErrors
            pass
    return pd.read_csv(path, engine=engine, **options)  # type: ignore[call-overload,no-any-return]


def _parsers_agree(path: str, delimiter: str) -> bool:
    """Tell whether pandas' parsers read a file alike: they differ on quotes, and on a first row that is too long."""
    separator = delimiter.encode()
    if len(separator) != 1:
        return False
    with open(path, "rb") as file:
        header = file.readline()
        first = next((line for line in file if line.strip(b"\r\n ")), b"")
        if first.count(separator) > header.count(separator):
            return False
        file.seek(0)
        return not any(b'"' in block for block in iter(partial(file.read, 1 << 20), b""))


def count(values: Any = ()) -> Counter[Any]:
    """Count as ``Counter(values)`` does, without a Python step per value."""
    if not len(values):
        return Counter()
    return Counter(pd.Series(values).value_counts(sort=False, dropna=False).to_dict())
