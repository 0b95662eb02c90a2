"""What the tests of all converters share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_xling.convert import Converter, ConvertReport, Filters, write_dataset

Convert = Callable[..., ConvertReport]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """A function that writes the dataset ``d`` of a converter to ``tmp_path/out``, by default without any bad row."""

    def convert(converter: Converter, *, max_bad: float = 0.0, filters: Filters = Filters()) -> ConvertReport:  # noqa: B008
        return write_dataset(converter, tmp_path / "out", "d", filters=filters, max_bad=max_bad, show_progress=False)

    return convert
