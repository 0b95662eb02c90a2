"""A table gives its good rows and names its bad ones, whatever the block size and whichever way a block is read."""

from __future__ import annotations

import csv
import json
import zipfile
from io import BytesIO

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import PACKED, pack

from recbole_xling.convert.reading import compressed, text_table
from recbole_xling.convert.reading.open_table import open_table
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import Column, Layout, TextTable
from recbole_xling.errors import ConfigError, DataError

COLUMNS = {
    "userId": Column("user_id"),
    "rating": Column("rating", "number"),
    "note": Column("note", required=False),
}
PLAIN = Layout()
HEADER = "userId,rating,note\n"


@pytest.fixture
def rejects(tmp_path):
    with Rejects(tmp_path / "rejects.jsonl", max_bad=1.0) as rejects:
        yield rejects


@pytest.fixture
def read(tmp_path, rejects):
    """A function that reads bytes as a table: all rows, and the rejects."""

    def read_bytes(data: bytes, layout: Layout = PLAIN, columns=COLUMNS) -> list[tuple]:
        path = tmp_path / "raw.csv"
        path.write_bytes(data)
        frames = list(TextTable(path, columns, rejects, layout=layout))
        return [row for frame in frames for row in frame.iter_rows()]

    return read_bytes


def listed(rejects: Rejects) -> list[dict]:
    if rejects._file is None:
        return []
    rejects._file.flush()
    return [json.loads(line) for line in rejects.path.read_text().splitlines()]


def test_rows_have_line_numbers_and_types(read, rejects):
    rows = read((HEADER + "a,3.5,x\nb,4,y\n").encode())
    assert rows == [(2, "a", 3.5, "x"), (3, "b", 4.0, "y")]
    assert (rejects.seen, rejects.count) == (2, 0)
    assert not rejects.path.exists()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"a,3", "3 cells expected"),
        (b"a,3,x,y", "3 cells expected, more found"),
        (b",3,x", "nothing in column 'userId'"),
        (b"a,drei,x", "no number in column 'rating'"),
        (b"a,nan,x", "no number in column 'rating'"),
        (b"a,1_0,x", "no number in column 'rating'"),
        (b"a,3,\xff", "not valid utf-8"),
        (b"a\0,3,x", "NUL byte"),
        (b'a,3,"x', "a quote is not closed"),
        (b'a,3,"x"y"z"', "broken quotes"),
        (b"a,3,x\rb,4,y", "a carriage return within the row"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_read(read, rejects, row, reason):
    rows = read(HEADER.encode() + b"a,1,x\n" + row + b"\nb,2,y\n")
    assert rows == [(2, "a", 1.0, "x"), (4, "b", 2.0, "y")]
    (bad,) = listed(rejects)
    assert (bad["line"], bad["reason"], bad["file"][-7:]) == (3, reason, "raw.csv")
    assert rejects.seen == 3


def test_empty_optional_cells_are_null_and_empty_lines_are_not_rows(read, rejects):
    assert read((HEADER + "a,1,\n\r\n\nb,2,y\r\n").encode()) == [(2, "a", 1.0, None), (5, "b", 2.0, "y")]
    assert rejects.seen == 2


def test_quoted_cells_may_have_separators_quotes_and_line_breaks(read):
    rows = read((HEADER + 'a,1,"x, ""y"" \nz"\nb,2,w\n').encode())
    assert rows == [(2, "a", 1.0, 'x, "y" \nz'), (4, "b", 2.0, "w")]


def test_an_open_quote_costs_one_row_not_the_rest(read, rejects):
    lines = [f'u{n},{n},"{n}"' for n in range(1000)]
    lines[10] = 'u10,10,"10'
    assert len(read((HEADER + "\n".join(lines) + "\n").encode())) == 999
    assert [bad["line"] for bad in listed(rejects)] == [12]


def test_a_quote_within_a_cell_is_text(read, rejects):
    rows = read((HEADER + 'a,1,5" x\nb,2,\nc,3,"6"" y"\nd,4,7"\ne,5,x"",",\n"\n').encode())
    assert [row[1:] for row in rows] == [
        ("a", 1.0, '5" x'),
        ("b", 2.0, None),
        ("c", 3.0, '6" y'),
        ("d", 4.0, '7"'),
    ]
    assert [(row["line"], row["reason"]) for row in listed(rejects)] == [(6, "3 cells expected, more found")]
    assert rejects.seen == 5


def test_broken_quotes_cost_their_line_only(read, rejects):
    lines = [f"u{n},{n},x" for n in range(100)]
    lines[10] = lines[90] = 'u,1,"5" x"'
    assert len(read((HEADER + "\n".join(lines) + "\n").encode())) == 98
    assert [(row["line"], row["reason"]) for row in listed(rejects)] == [(12, "broken quotes"), (92, "broken quotes")]


def test_a_quoted_cell_may_be_longer_than_the_csv_module_expects(read, rejects):
    before = csv.field_size_limit()
    text = "long, " * 50_000
    assert read(f'{HEADER}a,1,"{text}"\n'.encode()) == [(2, "a", 1.0, text)]
    assert csv.field_size_limit() == before


def test_escaped_quotes_are_quotes(read):
    layout = Layout(separator=";", escape="\\")
    rows = read(b'userId;rating;note\n"a";"1";"say \\"hi\\"; ok"\n', layout)
    assert rows == [(2, "a", 1.0, 'say "hi"; ok')]


def test_a_file_may_have_long_separators_latin_1_and_no_header(read):
    layout = Layout(separator="::", quote=None, encoding="latin-1", names=["userId", "rating", "note"])
    assert read('a::1::caf\xe9 "\n'.encode("latin-1"), layout) == [(1, "a", 1.0, 'caf\xe9 "')]
    layout = Layout(separator="|", quote=None, encoding="latin-1", names=["userId", "rating", "note"])
    assert read('a|1|caf\xe9 "\n'.encode("latin-1"), layout) == [(1, "a", 1.0, 'caf\xe9 "')]


def test_a_byte_order_mark_is_not_part_of_the_first_column(read):
    assert read(b"\xef\xbb\xbf" + HEADER.encode() + b"a,1,x\n") == [(2, "a", 1.0, "x")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"user,rating,note\na,1,x\n", "unknown column 'userId'. Did you mean 'user'"),
        (b"userId,rating,userId,note\n", "column 'userId': appears twice"),
        (b'userId,"rating,note\na,1,x\n', "raw.csv:1: broken quotes"),
    ],
)
def test_wrong_headers_are_named(read, data, message):
    with pytest.raises(DataError, match=message):
        read(data)


def test_a_missing_file_is_named(tmp_path, rejects):
    with pytest.raises(DataError, match=r"file .*nowhere\.csv does not exist"):
        list(TextTable(tmp_path / "nowhere.csv", COLUMNS, rejects))


# ---- compressed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_files_are_read_in_place(read, suffix):
    data = (HEADER + "".join(f"u{n},{n},x\n" for n in range(5000))).encode()
    assert len(read(pack(data, suffix))) == 5000


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_files_that_are_cut_off_are_an_error(read, suffix):
    data = (HEADER + "".join(f"u{hash(str(n)) % 9999},{n},x\n" for n in range(5000))).encode()
    packed = pack(data, suffix)
    with pytest.raises(DataError, match="is it complete"):
        read(packed[: len(packed) // 2])


def test_archives_of_several_files_are_refused(read):
    with pytest.raises(DataError, match="has 2 files in it"):
        read(pack(b"", ".zip", names=("a.csv", "b.csv")))


@pytest.mark.parametrize("line", ["u,1,x\n", "\n", '"u,1,x\n', "\0"])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(read, suffix, line):
    data = HEADER.encode() + line.encode() * (40_000_000 // len(line))
    with pytest.raises(DataError, match=r"unpacking makes it more than 200 times as large.*unpack it yourself"):
        read(pack(data, suffix))


def test_a_zip_archive_is_unpacked_by_a_method_that_can_be_bounded(read):
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.csv", HEADER)
    with pytest.raises(DataError, match="unusual way: unpack it"):
        read(file.getvalue())


@pytest.mark.parametrize("quote", ["", '"'])
def test_lines_without_an_end_are_refused_or_bad(read, rejects, monkeypatch, quote):
    monkeypatch.setattr(compressed, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(compressed, "LONGEST_LINE", 5000)
    with pytest.raises(DataError, match=r"raw\.csv:3: a line of more than"):
        read(f"{HEADER}a,1,x\n{quote}{'b' * 6000},2,y\n".encode())


def test_a_quote_left_open_does_not_swallow_more_than_a_long_line(read, rejects, monkeypatch):
    monkeypatch.setattr(text_table, "LONGEST_LINE", 50)
    rows = read(f'{HEADER}a,1,"x\n{"b" * 60}\nc,2,y\n'.encode())
    assert [row[1] for row in rows] == ["c"]
    assert [row["line"] for row in listed(rejects)] == [2, 3]


@pytest.mark.parametrize("name", ["a[1].parquet", "a*.parquet", "a?.parquet"])
def test_the_name_of_a_parquet_file_is_no_pattern(tmp_path, rejects, name):
    for other, user in (("a1.parquet", "other"), (name, "mine")):
        pl.DataFrame({"userId": [user]}).write_parquet(tmp_path / other)
    (frame,) = open_table(tmp_path / name, {"userId": Column("user_id")}, rejects)
    assert frame["user_id"].to_list() == ["mine"]


# ---- rejects -----------------------------------------------------------------------------------------------------


def test_strict_fails_at_the_first_bad_row(tmp_path):
    path = tmp_path / "raw.csv"
    path.write_text(HEADER + "a,1,x\nb,?,y\n")
    with Rejects(tmp_path / "rejects.jsonl", strict=True) as rejects, pytest.raises(DataError, match=r"raw\.csv:3: no"):
        list(TextTable(path, COLUMNS, rejects))


def test_too_many_bad_rows_are_an_error_that_counts_the_reasons(read, rejects):
    read((HEADER + "a,1,x\n" * 98 + "a,?,x\n,1,x\n").encode())
    rejects.max_bad = 0.02
    rejects.check()
    rejects.max_bad = 0.0199
    with pytest.raises(DataError, match=r"2 of 100 rows.*no number in column 'rating': 1"):
        rejects.check()


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_max_bad_is_a_share(tmp_path, share):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Rejects(tmp_path / "x", max_bad=share)


# ---- both ways of reading a block --------------------------------------------------------------------------------

cell = st.text(st.sampled_from(list('ab1.,;"\\\n\r\0\té漢-+e_ ')), max_size=6)
number = st.one_of(st.floats(allow_nan=False, allow_infinity=False).map(str), st.integers(-9, 9).map(str), cell)


def written(rows: list[tuple[str, str, str]], quoted: bool) -> bytes:
    """The rows with quotes where they are needed, or without any (csv.writer takes no NUL before Python 3.11)."""

    def raw(text: str) -> str:
        if not quoted or not set(text) & set(',"\r\n'):
            return text
        return '"' + text.replace('"', '""') + '"'

    return "".join(",".join(map(raw, row)) + "\n" for row in rows).encode()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(cell, number, cell), max_size=8),
    quoted=st.booleans(),
    damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=2),
    block=st.sampled_from([7, 40, 1 << 24]),
)
def test_both_ways_of_reading_and_all_block_sizes_agree(tmp_path, rows, quoted, damage, block):
    data = bytearray(written(rows, quoted))
    for place, byte in damage:
        if place < len(data):
            data[place] = byte
    path = tmp_path / "raw.csv"
    path.write_bytes(HEADER.encode() + data)

    def everything(block_bytes: int, slow: bool) -> tuple[list, list, int]:
        with pytest.MonkeyPatch.context() as patch, Rejects(tmp_path / "r.jsonl", max_bad=1.0) as rejects:
            patch.setattr(compressed, "BLOCK_BYTES", block_bytes)
            if slow:
                patch.setattr(TextTable, "_parse_whole", lambda self, data: None)
            frames = list(TextTable(path, COLUMNS, rejects))
            kept = pl.concat(frames).rows() if frames else []
            return kept, listed(rejects), rejects.seen

    reference = everything(1 << 24, slow=True)
    assert everything(block, slow=False) == reference
    assert len(reference[0]) + len(reference[1]) == reference[2]


def test_a_clean_block_is_not_read_row_by_row(read, monkeypatch):
    monkeypatch.delattr(TextTable, "_parse_rows")
    assert len(read(HEADER.encode() + b"a,1,\nb,2,y\n")) == 2


def test_what_a_csv_writer_writes_comes_back(read):
    rows = [("a", "1.5", 'x,"y"'), ("b", "-2e3", "line\nbreak"), ("c", "0", "漢字")]
    got = read(HEADER.encode() + written(rows, True))
    assert [(user, rating, note) for _, user, rating, note in got] == [(u, float(r), n) for u, r, n in rows]
