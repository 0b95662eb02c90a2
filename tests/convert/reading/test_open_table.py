"""Every format reads the same rows, and leaves out what is wrong in a column that is not required."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dumps.table import write_rows

from recbole_xling.convert.reading.open_table import open_table, table_files
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import Column
from recbole_xling.errors import DataError

ROWS = [
    {"id": "a", "year": "1990", "name": "x"},
    {"id": "b", "year": "ca. 1990", "name": "y"},
    {"id": "c", "year": "", "name": "z"},
    {"id": "d", "year": "inf", "name": ""},
]
COLUMNS = {
    "id": Column("item"),
    "year": Column("year", "number", required=False),
    "name": Column("name", required=False),
    "maker": Column("brand", required=False, may_be_absent=True),
    "weight": Column("weight", "number", required=False, may_be_absent=True),
}
FORMATS = [".csv", ".csv.gz", ".tsv", ".jsonl", ".parquet"]


def read(path: Path, rejects: Rejects, **options: Any) -> list[tuple[Any, ...]]:
    frame = pl.concat(open_table(path, COLUMNS, rejects, **options))
    return frame.select("item", "year", "name", "brand", "weight").rows()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_bad_optional_number_is_left_out_and_the_row_stays(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"items{suffix}", ROWS)
    with Rejects(tmp_path / "rejects.jsonl", max_bad=0.0) as rejects:
        for _ in range(2):  # listed once
            assert read(path, rejects) == [
                ("a", 1990.0, "x", None, None),
                ("b", None, "y", None, None),
                ("c", None, "z", None, None),
                ("d", None, None, None, None),
            ]
        rejects.check()
        assert (rejects.count, rejects.seen) == (0, 4)
        assert rejects.omitted == {"no number in column 'year'": 2}
    listed = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [row["line"] - (suffix[:2] not in (".j", ".p")) for row in listed] == [2, 4]
    with Rejects(tmp_path / "strict.jsonl", strict=True) as rejects, pytest.raises(DataError, match="--strict"):
        read(path, rejects)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_needed_column_that_is_absent_is_named_with_the_hint(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"items{suffix}", ROWS)
    columns = COLUMNS | {"idd": Column("other", hint="--item names it")}
    with Rejects(tmp_path / "rejects.jsonl") as rejects, pytest.raises(DataError) as error:
        list(open_table(path, columns, rejects))
    assert "'idd'. Did you mean 'id'? Known: id, name, year. --item names it" in str(error.value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_lines_may_end_as_on_old_systems(suffix: str, end: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"items{suffix}", ROWS)
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        expected = read(path, rejects)
        path.write_bytes(path.read_bytes().replace(b"\n", end.encode()))
        assert read(path, rejects) == expected


def test_columns_without_names_have_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,"1,5",x\nb,2,y\n')
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        table = open_table(tmp_path / "t.csv", {"1": Column("item"), "2": Column("n")}, rejects, numbered=True)
        assert pl.concat(table).rows() == [(1, "a", "1,5"), (2, "b", "2")]
        with pytest.raises(DataError, match=r"unknown column '4'\. Known: 1, 2, 3"):
            list(open_table(tmp_path / "t.csv", {"4": Column("n")}, rejects, numbered=True))


@pytest.mark.parametrize("long", [False, True], ids=["many rows", "long cells"])
def test_a_small_parquet_file_that_unpacks_to_gigabytes_is_refused(long: bool, tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    rows, cell = (20_000, "x" * 200_000) if long else (20_000_000, "x")
    pl.select(id=pl.repeat(cell, rows), name=pl.repeat("y", rows), year=pl.repeat(1, rows)).write_parquet(path)
    assert path.stat().st_size < 200_000
    with Rejects(tmp_path / "rejects.jsonl") as rejects, pytest.raises(DataError, match="200 times as large"):
        list(open_table(path, COLUMNS, rejects))


def test_long_texts_of_a_parquet_file_are_refused_before_all_are_in_memory(tmp_path: Path) -> None:
    path, numbers = tmp_path / "items.parquet", pl.int_range(20_000).cast(pl.String)  # no two are equal
    pl.select(id=numbers, name=numbers + "x" * 20_000, year=pl.repeat(1, 20_000)).write_parquet(path)
    with Rejects(tmp_path / "rejects.jsonl") as rejects, pytest.raises(DataError, match="200 times as large"):
        for read, _ in enumerate(open_table(path, COLUMNS, rejects)):
            assert read < 2


def test_batches_of_a_parquet_file_are_all_its_rows_in_order(tmp_path: Path) -> None:
    path, rows = tmp_path / "items.parquet", 30_000
    pl.select(id=pl.int_range(rows), name=pl.int_range(rows).shuffle(1), year=pl.int_range(rows)).write_parquet(path)
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        batches = list(open_table(path, COLUMNS, rejects))
    table = pl.concat(batches)
    assert [batch.height for batch in batches[:3]] == [1_000, 4_000, 16_000]
    assert table["line"].to_list() == list(range(1, rows + 1))
    assert table["item"].cast(pl.Int64).to_list() == list(range(rows))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_floats_that_stand_for_several_ids_are_bad_rows(suffix: str, tmp_path: Path) -> None:
    path, rejects_file = tmp_path / f"clicks{suffix}", tmp_path / "rejects.jsonl"
    table = pl.DataFrame({"id": [1.0, 2.0**53, 3e20]})
    table.write_parquet(path) if suffix == ".parquet" else table.write_ndjson(path)
    with Rejects(rejects_file) as rejects:
        found = pl.concat(open_table(path, {"id": Column("item")}, rejects))
    assert found.select("item", "line").rows() == [("1", 1)]
    assert rejects_file.read_text().count("a float too large to be exact") == 2


@pytest.mark.parametrize("kind", [pl.Time, pl.Duration("us"), pl.List(pl.Int64)])
def test_a_parquet_column_of_what_is_neither_text_nor_number_is_named(kind: Any, tmp_path: Path) -> None:
    pl.DataFrame({"id": pl.Series([None], dtype=kind)}).write_parquet(tmp_path / "clicks.parquet")
    with Rejects(tmp_path / "rejects.jsonl") as rejects, pytest.raises(DataError, match=r"column .id. has .*it must"):
        list(open_table(tmp_path / "clicks.parquet", {"id": Column("item")}, rejects))


def test_shards_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["part-10.snappy.parquet", "part-9.snappy.parquet", "year=2/a.parquet", "year=10/a.parquet", "notes.txt"]
    for name in [*names, "_SUCCESS", ".part-9.parquet", "_temporary/part-1.parquet"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [file.relative_to(tmp_path).as_posix() for file in table_files(tmp_path)]
    assert found == [names[1], names[0], names[2], names[3]]


def test_a_compressed_file_beside_its_unpacked_copy_is_read_once_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.csv", "a.csv.gz", "b.csv.gz", "b.csv.xz", "c.csv", "d/a.csv.GZ"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [file.relative_to(tmp_path).as_posix() for file in table_files(tmp_path)]
    assert found == ["a.csv", "b.csv.gz", "c.csv", "d/a.csv.GZ"]
    assert "a.csv.gz' is left out: 'a.csv' beside it" in caplog.text
    assert "b.csv.xz' is left out: 'b.csv.gz' beside it" in caplog.text


def test_a_folder_without_shards_is_said(tmp_path: Path) -> None:
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(DataError, match="has no shards of a table"):
        table_files(tmp_path)
    assert table_files(tmp_path / "missing.csv") == [tmp_path / "missing.csv"]


def test_single_precision_of_a_parquet_file_adds_no_noise_and_ids_that_it_may_have_joined_are_refused(
    tmp_path: Path,
) -> None:
    cells = pl.Series([4.1, 0.1, 3.0, None, 1_400_000_128, 16_777_215, 16_777_217], dtype=pl.Float32)
    pl.DataFrame({"number": cells, "feature": cells, "id": cells}).write_parquet(tmp_path / "clicks.parquet")
    columns = {"number": Column("n", "number", required=False), "feature": Column("f", required=False)}
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        rows = pl.concat(open_table(tmp_path / "clicks.parquet", columns, rejects)).select("n", "f").rows()
        ids = pl.concat(open_table(tmp_path / "clicks.parquet", {"id": Column("item")}, rejects))["item"].to_list()
    assert rows == [
        *((4.1, "4.1"), (0.1, "0.1"), (3.0, "3"), (None, None)),
        *((1_400_000_128.0, "1400000128"), (16_777_215.0, "16777215"), (16_777_216.0, "16777216")),
    ]
    assert ids == ["4.1", "0.1", "3", "16777215"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_large_numbers_of_features_stay(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clicks{suffix}"
    table = pl.DataFrame({"plays": [1e20, -3e17, 2.5e16, None, float("inf")][: 5 if suffix == ".parquet" else 4]})
    table.write_parquet(path) if suffix == ".parquet" else table.write_ndjson(path)
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        found = pl.concat(open_table(path, {"plays": Column("plays", required=False)}, rejects))["plays"].to_list()
    assert [None if cell is None else float(cell) for cell in found[:4]] == [1e20, -3e17, 2.5e16, None]
    assert found[4:] in ([None], [])
