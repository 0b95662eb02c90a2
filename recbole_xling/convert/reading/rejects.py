"""Rows that cannot be used: kept in a file with the reason, counted, and limited."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from recbole_xling.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

FILE = "file"
"""Column of interactions: the file a row comes from."""

LINE = "line"
"""Column of every batch: the number of the row's first line in its file, from 1."""

_REASON = "reason of rejection"
_LONGEST_ROW = 2000  # characters of a bad row that are kept


class BadRowError(ValueError):
    """A row of the source cannot be used; the message is the reason given in the rejects."""


class Rejects:
    """Takes the bad rows of a conversion; a context manager that owns the file it writes.

    The file has one JSON object per line: ``{"file", "line", "reason", "row"}``. It is written only if there is one. A
    source file may be read more than once: its rows count once, and a line is bad once, for the first reason found.

    A row that is only short of something optional is not bad: it stays without that, is listed all the same, and does
    not count for ``max_bad``.

    Args:
        path: where bad rows are written.
        strict: fail at the first bad row.
        max_bad: largest share of bad rows among all rows read that :meth:`check` accepts, from 0 to 1.

    Attributes:
        reasons: number of bad rows by reason.
        omitted: number of rows that stay without a cell or a text, by what is wrong with it.
    """

    def __init__(self, path: Path, *, strict: bool = False, max_bad: float = 0.01) -> None:
        if not 0 <= max_bad <= 1:
            raise ConfigError(f"max_bad is a share between 0 and 1, not {max_bad}")
        self.path = path
        self.strict = strict
        self.max_bad = max_bad
        self.reasons: Counter[str] = Counter()
        self.omitted: Counter[str] = Counter()
        self._rows: dict[str, int] = {}  # by file
        # by file and what is left out of the row, "" for a bad one; a bit per line: little memory even for millions
        self._listed: dict[tuple[str, str], bytearray] = {}
        self._file: TextIO | None = None

    def begin(self, file: Path | str) -> None:
        """Tell that a file is read from its start, and forget what :meth:`saw` counted for it before."""
        self._rows[str(file)] = 0

    def saw(self, file: Path | str, rows: int) -> None:
        """Count rows that were read, bad ones included."""
        self._rows[str(file)] = self._rows.get(str(file), 0) + rows

    @property
    def seen(self) -> int:
        """Number of rows read, bad ones included."""
        return sum(self._rows.values())

    def add(self, file: Path | str, line: int, reason: str, row: str) -> None:
        """Take one bad row.

        Args:
            file: the file it is in.
            line: number of its first line, from 1; 0 if unknown.
            reason: what is wrong, in words that are the same for all rows with this fault.
            row: the row as it is in the file.

        Raises:
            DataError: ``strict`` is set.
        """
        if self._list(file, line, reason, row, omitted=False):
            self.reasons[reason] += 1

    def omit(self, file: Path | str, line: int, reason: str, row: str) -> None:
        """Take a row that stays without a cell or a text; arguments and errors are those of :meth:`add`."""
        if self._list(file, line, reason, row, omitted=True):
            self.omitted[reason] += 1

    def _list(self, file: Path | str, line: int, reason: str, row: str, *, omitted: bool) -> bool:
        """Write a row to the list; return whether it was not there yet."""
        if line:
            key = (str(file), reason if omitted else "")
            bits, byte, bit = self._listed.setdefault(key, bytearray()), line >> 3, 1 << (line & 7)
            bits.extend(bytes(max(byte + 1 - len(bits), 0)))
            if bits[byte] & bit:
                return False
            bits[byte] |= bit
        if self.strict:
            raise DataError(f"{file}:{line}: {reason}: {row[:200]!r}; fix the file, or convert without --strict")
        if self._file is None:
            self._file = open(self.path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        record = {"file": str(file), "line": line, "reason": reason, "row": row[:_LONGEST_ROW]}
        self._file.write(json.dumps(record) + "\n")  # ASCII, because a bad row may contain any bytes
        return True

    def sift(
        self,
        frame: pl.DataFrame,
        reasons: Iterable[pl.Expr],
        row: Callable[[dict[str, Any]], str],
        file: Path | str | None = None,
    ) -> pl.DataFrame:
        """Take the bad rows of a batch; return the others, in order.

        Args:
            frame: the batch, with the column :data:`LINE`.
            reasons: each is null where a row is good, otherwise why it is bad; the first one counts.
            row: turns the cells of a bad row, by column, into the row as it is listed.
            file: the file of the rows; None if the column :data:`FILE` names it.

        Raises:
            DataError: ``strict`` is set, and a row is bad.
        """
        import polars as pl

        checked = frame.with_columns(pl.coalesce(reasons).alias(_REASON))
        for cells in checked.filter(pl.col(_REASON).is_not_null()).iter_rows(named=True):
            self.add(file or cells[FILE], cells[LINE], cells.pop(_REASON), row(cells))
        return checked.filter(pl.col(_REASON).is_null()).drop(_REASON)

    @property
    def count(self) -> int:
        """Number of bad rows."""
        return self.reasons.total()

    def check(self) -> None:
        """Fail if too many rows were bad.

        Raises:
            DataError: their share is larger than ``max_bad``; the message counts the reasons.
        """
        if self.count > self.max_bad * self.seen:
            reasons = "; ".join(f"{reason}: {n}" for reason, n in self.reasons.most_common(5))
            raise DataError(
                f"{self.count} of {self.seen} rows are bad, more than --max-bad {self.max_bad:g} allows ({reasons}); "
                f"they are listed in {self.path}"
            )

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
