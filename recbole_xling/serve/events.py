"""Interactions of an atomic file in the order of time, in little memory and with numpy alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import DataError
from recbole_xling.text.raw_tables import table_rows
from recbole_xling.utils.arguments import finite_number, parse_iso_time

logger = logging.getLogger(__name__)
_SECONDS = (2e8, 1e10)  # times that are dates of 1976 to 2286


@dataclass(frozen=True)
class Events:
    """Interactions in the order of time; of those at the same time in that of users and items, whatever the file's.

    Attributes:
        user_tokens: external ids by number.
        item_tokens: the same of items.
        users: of each interaction, ``(n,)``.
        items: of each interaction, ``(n,)``.
        times: of each interaction, as the file has them, ``(n,)``.
    """

    user_tokens: Sequence[str]
    item_tokens: Sequence[str]
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.float64]

    @property
    def scale(self) -> float | None:
        """How many units of the times make a second, if they look like dates, else None."""
        for scale in (1.0, 1e3, 1e6, 1e9):
            if len(self.times) and _SECONDS[0] <= self.times[0] / scale and self.times[-1] / scale <= _SECONDS[1]:
                return scale
        return None

    def moments(self) -> Iterator[slice]:
        """Yield the places of interactions at the same time, the earliest first."""
        begin = 0
        for last in np.flatnonzero(np.diff(self.times)):
            yield slice(begin, int(last) + 1)
            begin = int(last) + 1
        yield slice(begin, len(self.times))


def read_events(path: Path, columns: Sequence[str]) -> Events:
    """Read a file of interactions: some 50 bytes each while they are sorted, half of it afterwards, and the ids once.

    Rows without a user, an item or a time are left out, as in a run; warnings tell how many. Times are numbers, which
    are taken as they are, or ISO 8601 dates and times, which become Unix seconds.

    Args:
        path: of the ``.inter`` file.
        columns: names of those of users, items and times.

    Raises:
        DataError: the file is missing, empty, lacks a column or a cell, is no text in UTF-8, or has a time that cannot
            be read as the others are.
    """
    numbers: tuple[dict[str, int], dict[str, int]] = ({}, {})
    places: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
    block: tuple[list[int], list[int], list[float]] = ([], [], [])
    without_id = without_time = 0
    read: Callable[[str], float | None] | None = None  # as in a run, the first time tells whether they are dates
    for line, (user, item, time) in table_rows(path, columns):
        if not user or not item:
            without_id += 1
            continue
        if not time.strip():
            without_time += 1
            continue
        if read is None:
            read = parse_iso_time if finite_number(time) is None else finite_number
        moment = read(time)
        if moment is None:
            is_first = len(block[0]) + len(places[0]) == 0
            wanted = "number as others are" if read is finite_number else "date as others are"
            wanted = "number, and no date like 2024-05-31T18:30:00" if is_first else wanted
            raise DataError(f"'{path}', line {line}: the time {time!r:.40} is no {wanted}; correct it")
        block[0].append(numbers[0].setdefault(user, len(numbers[0])))
        block[1].append(numbers[1].setdefault(item, len(numbers[1])))
        block[2].append(moment)
        if len(block[0]) == 1 << 16:
            _move(block, places)
    _move(block, places)
    if without_id:
        logger.warning("'%s': %d rows without a user or an item are left out", path, without_id)
    if without_time:
        logger.warning("'%s': %d rows without a time are left out", path, without_time)
    users, items, times = (np.concatenate(part) for part in places)
    if not len(times):
        raise DataError(f"'{path}' has no interaction")
    tokens = [list(of_field) for of_field in numbers]
    ranks = []  # of the ids, so that the order of rows does not count
    for of_field in tokens:
        rank = np.empty(len(of_field), dtype=np.int32)
        rank[sorted(range(len(of_field)), key=of_field.__getitem__)] = np.arange(len(of_field))
        ranks.append(rank)
    order = np.lexsort((ranks[1][items], ranks[0][users], times))
    return Events(tokens[0], tokens[1], users[order], items[order], times[order])


def _move(block: tuple[list[int], list[int], list[float]], places: tuple[list[np.ndarray], ...]) -> None:
    """Move what was read into arrays."""
    parts: list[tuple[list[Any], type]] = [(block[0], np.int32), (block[1], np.int32), (block[2], np.float64)]
    for (values, kind), part in zip(parts, places, strict=True):
        part.append(np.array(values, dtype=kind))
        values.clear()
