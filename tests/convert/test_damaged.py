"""Damaged files end in a dataset that loads, or in an error that says what is wrong.

Some hundred damaged files each time; ten thousand over all converters, in some minutes, with counts printed::

    RECBOLE_XLING_FUZZ=10000 pytest -rP tests/convert/test_damaged.py

A failure names source, number and file of each case; the number is the seed.
"""

from __future__ import annotations

import math
import traceback
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from damage import cases, damaged
from made import contents
from source_inputs import SOURCES, files_of

from recbole_xling.convert import ConvertReport, write_dataset
from recbole_xling.errors import XlingError
from recbole_xling.testing import check_dataset, check_loading
from recbole_xling.text.cleaning import TextCleaner

FILES = cases(340)
LOADED = 10  # of so many files one, if it gives a dataset, is loaded in RecBole as well
WRITTEN, ERROR = "dataset", "error"


class Bench:
    """The input of a source in a folder, and the dataset made of it."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.source = SOURCES[name]
        self.root = root
        self.input = root / "input"
        self.input.mkdir()
        self.files = files_of(self.source, self.input)
        self.convert(0.1)

    @property
    def dataset(self) -> dict[str, bytes]:
        return contents(self.root / "out" / "d")

    def convert(self, max_bad: float) -> ConvertReport:
        converter = self.source.converter(self.input)
        return write_dataset(
            converter, self.root / "out", "d", clean=TextCleaner(), max_bad=max_bad, show_progress=False
        )

    def run(self, number: int) -> tuple[str, str]:
        """Damage one file and convert; return what was done to which file, and how it ended."""
        choice = Random(f"{self.name} {number}")
        name = sorted(self.files)[number % len(self.files)]
        new_name, content, ways = damaged(name, self.files[name], choice, packed=self.source.packed)
        (self.input / name).unlink()
        (self.input / new_name).write_bytes(content)
        try:
            outcome = self._outcome(self.input / new_name, choice.choice([0.0, 0.3, 1.0, 1.0]), number % LOADED == 0)
        except BaseException as error:  # polars' panics are no Exceptions
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = "".join(traceback.format_exception(error, limit=-3))
        (self.input / new_name).unlink()
        (self.input / name).write_bytes(self.files[name])
        return f"{new_name} ({ways})", outcome

    def _outcome(self, path: Path, max_bad: float, load: bool) -> str:
        before = self.dataset
        try:
            report = self.convert(max_bad)
        except XlingError as error:
            assert self.dataset == before, "the previous dataset has changed"
            self._check_message(str(error), path)
            return ERROR
        check_dataset(report)
        if load:
            check_loading(report, self.root)
        return WRITTEN

    def _check_message(self, message: str, path: Path) -> None:
        """Check that the message names the file or its folder, or a list of bad rows that does."""
        listed = self.root / "out" / "d.rejects.jsonl"
        told = listed.read_text() if str(listed) in message else message
        assert str(path.parent) in told, f"the message does not name {path}: {message}"


@pytest.mark.parametrize("source", SOURCES)
def test_damaged_files_end_in_a_dataset_or_an_error(source: str, tmp_path: Path) -> None:
    bench = Bench(source, tmp_path)
    outcomes: Counter[str] = Counter()
    failures = []
    for number in range(FILES.start // len(SOURCES), math.ceil(FILES.stop / len(SOURCES))):
        case, outcome = bench.run(number)
        outcomes[outcome] += 1
        if outcome not in (WRITTEN, ERROR):
            failures.append(f"{source}, number {number}: {case}\n{outcome}")
    print(f"{source}: {outcomes[WRITTEN]} datasets, {outcomes[ERROR]} errors, {len(failures)} failures")
    assert not failures, "\n".join(failures[:20])
    assert outcomes[WRITTEN] and outcomes[ERROR]
