"""Features of a record and of a batch are written by one rule."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_xling.convert.cells import bad_ids, checked_features, feature_cells, id_cell
from recbole_xling.convert.reading.numbers import number_text
from recbole_xling.convert.reading.rejects import BadRowError

_LONGEST = 131_072  # characters


def of_record(value: str, kind: str) -> tuple[str | None, list[str]]:
    faults: list[str] = []
    (cell,) = feature_cells({"x": value}, {"x": kind}, faults)
    return (None if faults else cell), faults


def of_batch(value: str, kind: str) -> tuple[str | None, list[str]]:
    ((cells, fault),) = checked_features({"x": kind})
    found = pl.DataFrame({"x": [value]}, {"x": pl.String}).select(cells, fault.alias("fault"))
    cell = found["x"].item()
    written = number_text(cell) if isinstance(cell, float) else cell
    return ("" if not value else written), found["fault"].drop_nulls().to_list()


@given(st.text(st.sampled_from("015.eE+-_ ina\xa0\t１٣x"), max_size=6))
def test_numbers_are_the_same_in_both(value: str) -> None:
    assert of_record(value, "float") == of_batch(value, "float")


@pytest.mark.parametrize("value", ["1_000", "１２", "1e3", " 5 ", "inf"])
def test_what_is_a_number_is_the_same_in_both(value: str) -> None:
    assert of_record(value, "float") == of_batch(value, "float")


@pytest.mark.parametrize("length", [_LONGEST, _LONGEST + 1])
def test_the_limit_is_in_characters(length: int) -> None:
    value = "é" * length
    assert of_record(value, "token") == of_batch(value, "token")
    assert (of_record(value, "token")[1] == []) == (length == _LONGEST)
    reason = pl.DataFrame({"id": [value]}).select(bad_ids("id")).item()
    try:
        assert id_cell(value) == value and reason is None
    except BadRowError as error:
        assert str(error) == reason
