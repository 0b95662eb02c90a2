from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.errors import DataError


def test_a_file_that_is_read_twice_counts_once(tmp_path: Path) -> None:
    with Rejects(tmp_path / "rejects.jsonl", max_bad=0.2) as rejects:
        for _ in range(2):
            for file in ("a.csv", "b.csv"):
                rejects.begin(file)
                rejects.saw(file, 3)
                rejects.saw(file, 2)
                rejects.add(file, 2, "too short", "x")
        rejects.add("a.csv", 2, "another reason", "x")
        rejects.check()
        rejects.add("a.csv", 100_000, "too long", "y")
        assert (rejects.seen, rejects.count) == (10, 3)
        assert rejects.reasons == {"too short": 2, "too long": 1}
        with pytest.raises(DataError, match="3 of 10 rows are bad"):
            rejects.check()
    records = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(record["file"], record["line"]) for record in records] == [("a.csv", 2), ("b.csv", 2), ("a.csv", 100_000)]


def test_rows_whose_line_is_not_known_all_count(tmp_path: Path) -> None:
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        for _ in range(3):
            rejects.add("made", 0, "bad", "x")
        assert rejects.count == 3
