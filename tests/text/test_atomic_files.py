"""Atomic files are read as they are written, and what is wrong with one is named with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.atomic_files import read_atomic_file, read_header

HEADER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def write(folder: Path, content: bytes) -> Path:
    path = folder / "d[1].inter"
    path.write_bytes(content)
    return path


def test_cells_are_what_is_written(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + HEADER + b'NA\t"a\t\t1\r\n\r\nnull\ta"b\t 2.5 \t-1e3\r\n nan\t\xe2\x80\xa8\t3\t\n'
    file = read_atomic_file(write(tmp_path, content))
    assert file.types == {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
    assert file.tokens("user_id").tolist() == ["NA", "null", " nan"]
    assert file.tokens("item_id").tolist() == ['"a', 'a"b', "\u2028"]
    assert np.array_equal(file.numbers("rating"), [np.nan, 2.5, 3], equal_nan=True)
    assert np.array_equal(file.times("timestamp"), [1, -1000, np.nan], equal_nan=True)
    assert file.lines.to_list() == [2, 4, 5]


def test_empty_cells_are_missing(tmp_path: Path) -> None:
    file = read_atomic_file(write(tmp_path, HEADER + b"\t\t\t\n"), ["item_id", "rating", "other"])
    assert (file.types, file.tokens("item_id").tolist()) == ({"item_id": "token", "rating": "float"}, [None])
    assert np.isnan(file.numbers("rating")).all()


def test_lists(tmp_path: Path) -> None:
    path = write(tmp_path, "tags:token_seq\tscores:float_seq\na  NA b\t1 2.5\n\t\né\t-3\n".encode())
    file = read_atomic_file(path)
    assert [tags.tolist() for tags in file.token_lists("tags", " ")] == [["a", "NA", "b"], [], ["é"]]
    assert [scores.tolist() for scores in file.number_lists("scores", " ")] == [[1, 2.5], [], [-3]]
    path.write_bytes(b"scores:float_seq\n1 2\n1 x\n")
    with pytest.raises(DataError, match=r":3: scores '1 x' is not a list of finite numbers"):
        read_atomic_file(path).number_lists("scores", " ")


def test_other_separators_and_encodings(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id:token::name:token\nu1::Käthe\n".encode("latin-1"))
    file = read_atomic_file(path, separator="::", encoding="latin-1")
    assert file.tokens("name").tolist() == ["Käthe"]
    with pytest.raises(ConfigError, match="unknown text encoding 'x'"):
        read_atomic_file(path, encoding="x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: the line is empty; it must name the columns and their types, such as 'user_id:token"),
        (b"\n" + HEADER, ":1: the line is empty"),
        (b"u1\ti1\t1\t1\n", ":1: column 1 is 'u1', without name or type; the first line must name"),
        (b"user_id\titem_id:token\n", ":1: column 1 is 'user_id', without name or type"),
        (b"user_id:token\t\titem_id:token\n", ":1: column 2 has no name; remove the separator that is there twice"),
        (b"user_id:token\t:token\n", ":1: column 2 is ':token', without name or type"),
        (b"user_id:token\titem_id:tokens\n", ":1: column 'item_id': unknown type 'tokens'. Did you mean 'token'?"),
        (b"user_id:token\tuser_id:float\n", ":1: column 'user_id' appears twice"),
        (b"user_id:token,item_id:token\n", ":1: no '\\t' between the columns in 'user_id:token,item_id:token'; "),
        (b"user_id,item_id\n", "set field_separator: ','"),
        (b"user_id:token item_id:token\n", "set field_separator: ' '"),
        (b"user_id:token\titem_id:token\ru1\ti1\r", ":1: lines end in a carriage return alone"),
        (HEADER + b"u1\ti1\t1\t1\nu1\ti1\t1\n", ":3: 3 cells, but the header has 4"),
        (HEADER + b"\nu1\ti1\t1\t1\t\n", ":3: 5 cells, but the header has 4"),
        (HEADER + b"u1,i1,1,1\n", ":2: 1 cells, but the header has 4"),
        (HEADER + b"u1\ti1\t1\t1\nu1\ti\xff\t1\t1\n", ":3: byte 5 is not valid utf-8"),
        (HEADER + b"u1\ti\0\t1\t1\n", ":2: the line contains a NUL byte"),
        (HEADER + b"u1\ti1\t1\t1\nu1\ti1\t1\t1\0\n", ":3: the line contains a NUL byte"),
        (HEADER + b"u1\ti1\t1\t1\0", ":2: the line contains a NUL byte"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as error:
        read_atomic_file(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    if ":1:" in message:
        with pytest.raises(DataError) as error:
            read_header(path)
        assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.inter does not exist"):
        read_atomic_file(tmp_path / "no.inter")


@pytest.mark.parametrize("cell", ["NA", "nan", "inf", "-inf", "1e999", "1,5", "1_0", "$15.00", "0x10", "—", "True"])
def test_what_is_not_a_finite_number_is_named(tmp_path: Path, cell: str) -> None:
    file = read_atomic_file(write(tmp_path, HEADER + f"u1\ti1\t1\t1\nu1\ti1\t{cell}\t{cell}\n".encode()))
    with pytest.raises(DataError) as error:
        file.numbers("rating")
    assert f":3: rating '{cell}' is not a finite number" in str(error.value)
    with pytest.raises(DataError) as error:
        file.times("timestamp")
    assert f":3: timestamp '{cell}' is not a number as others are" in str(error.value)


def times_of(folder: Path, *cells: str) -> list[float]:
    rows = "".join(f"u\t{cell}\n" for cell in ("timestamp:token", *cells)).replace("u", "user_id:token", 1)
    return read_atomic_file(write(folder, rows.encode())).times("timestamp").tolist()


def test_dates_are_unix_seconds(tmp_path: Path) -> None:
    assert times_of(tmp_path, "1970-01-02", "1970-01-01T00:00:10", "1970-01-01 01:00:00.500Z") == [86400, 10, 3600.5]
    assert times_of(tmp_path, "1970-01-01T01:00:00+01:00", "1969-12-31") == [0, -86400]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("noon", "2024-05-31"), ":2: timestamp 'noon' is neither a number nor a date"),
        (("2024-05-31", "31.05.2024"), ":3: timestamp '31.05.2024' is neither a number nor a date"),
        (("1700000000", "2024-05-31"), ":3: timestamp '2024-05-31' is not a number as others are"),
        (("2024-05-31T00:00:00.1234567", "2024-05-31"), ":2: timestamp '2024-05-31T00:00:00.1234567' is neither"),
        (("1700000000123456789", "1700000000123456788"), ":2: timestamp '1700000000123456789' has more digits than"),
        (
            ("", "1700000000123456789", "5", "1700000000123456788"),
            ":3: timestamp '1700000000123456789' has more digits",
        ),
        (("1700000000.123456789", "1", "1700000000.123456788"), ":2: timestamp '1700000000.123456789' has more digits"),
    ],
)
def test_times_that_cannot_be_ordered_are_named(tmp_path: Path, cells: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError) as error:
        times_of(tmp_path, *cells)
    assert message in str(error.value)


def test_long_times_that_stay_different_are_read(tmp_path: Path) -> None:
    long = (
        "1700000000000000001",
        "1700000000000001000",
        "1700000000000002000",
        "1700000000.1234565",
        "1700000000.1234560",
    )
    found = times_of(tmp_path, *long, "1700000000.12345650")
    assert len(set(found)) == 5 and found[0] < found[1] < found[2] and found[4] < found[3] == found[5]
