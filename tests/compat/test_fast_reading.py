"""XLingDataset reads and filters atomic files as RecBole does, by faster means."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from recbole.data.dataset import SequentialDataset

from recbole_xling.compat import fast_reading as reading
from recbole_xling.compat.fast_reading import count, read_csv
from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset

HEADER = "user_id:token\titem_id:token\ttags:token_seq\tscores:float_seq\ttimestamp:float"
ROWS = ["u1\ti1\ta b\t1 2.5\t1.5", "u1\ti2\tc\t3\t2", "u2\ti1\tb\t\t881250949.123456789", "u2\ti3\té 日本\t0.1\t1e3"]

FILES = {
    "plain": ROWS,
    "missing values": [*ROWS, "u3\ti1\t\t\t", "u3\tNA\tnull\tNaN\t4", "\ti2\ta\t1\t5"],
    "quotes": [*ROWS, 'u3\ti1\t"a b"\t1\t7', 'u3\t"i ""2"""\ta\t1\t8', 'u3\ti"3\ta\t1\t9'],
    "short rows and blank lines": [*ROWS[:2], "", "u2\ti1", "   ", "u2\ti2\ta", *ROWS[2:], ""],
    "long numbers": [*ROWS, "u3\ti1\ta\t1\t1700000000123456789", "u3\ti2\ta\t1\t0.1234567890123456789012345"],
    "tokens like numbers": ["007\t1.0\t1 01\t1\t1", "7\t1\t1\t1\t2", "1e3\t-0\t1\t1\t3"],
    "a row too long": [*ROWS, "u3\ti1\ta\t1\t5\textra"],
    "Windows line ends": [row + "\r" for row in ROWS],
    "spaces": ["u1 \t i1\t a  b \t 1  2 \t 1.5 ", *ROWS[1:]],
    "truth as numbers": ["u1\ti1\ta\t1\tTrue", "u1\ti2\ta\t1\tFalse"],
}

BROKEN = {
    "the first row too long": [ROWS[0] + "\textra", *ROWS[1:]],
    "a word for a number": [*ROWS, "u3\ti1\ta\t1\tnoon"],
    "an open quote": [*ROWS, 'u3\t"i1\ta\t1\t5'],
    "text after a quote": [*ROWS, 'u3\t"i1"2\ta\t1\t5'],
}


def load(kind, folder, settings, rows, **changed):
    folder = folder / "data" / "made"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "made.inter").write_text("\n".join([HEADER, *rows]), encoding="utf-8", newline="")
    changed = {**settings, "load_col": {"inter": "*"}, **changed}
    return kind(XLingConfig("LLMSASRec", "made", config_dict=changed))


@pytest.mark.parametrize("rows", FILES.values(), ids=FILES.keys())
def test_tables_equal_recbole(tmp_path, settings, rows):
    theirs, ours = (load(kind, tmp_path, settings, rows) for kind in (SequentialDataset, XLingDataset))
    pd.testing.assert_frame_equal(theirs.inter_feat, ours.inter_feat, check_exact=True)
    assert (theirs.field2seqlen, theirs.field2type) == (ours.field2seqlen, ours.field2type)
    for field, tokens in theirs.field2id_token.items():
        assert list(tokens) == list(ours.field2id_token[field])


@pytest.mark.parametrize("rows", BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_are_refused_as_by_recbole(tmp_path, settings, rows):
    errors = []
    for kind in (SequentialDataset, XLingDataset):
        with pytest.raises(ValueError) as error:
            load(kind, tmp_path, settings, rows)
        errors.append(str(error.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("separator", [",", "::"])
def test_other_separators_equal_recbole(tmp_path, settings, separator):
    folder = tmp_path / "data" / "made"
    folder.mkdir(parents=True)
    (folder / "made.inter").write_text("\n".join([HEADER, *ROWS]).replace("\t", separator), encoding="utf-8")
    settings |= {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "field_separator": separator}
    config = XLingConfig("LLMSASRec", "made", config_dict=settings)
    theirs, ours = SequentialDataset(config), XLingDataset(config)
    pd.testing.assert_frame_equal(theirs.inter_feat, ours.inter_feat, check_exact=True)


def test_parsers_agree_on_random_tables(tmp_path):
    rng = random.Random(0)
    tokens = ["u1", "NA", "null", "", " ", "a b", "007", "1.0", "日本", 'q"q', "None", "#c", "a\\b", " lead", "\u2028x"]
    numbers = ["1", "2.5", "-3", "1e5", "", "nan", "inf", " 7", "1_0", "9007199254740993", "5e-324", "1e400", "+4", "."]
    types = {"a:token": str, "b:float": np.float64, "c:token_seq": str}
    read = 0
    for _ in range(300):
        rows = [[rng.choice(tokens), rng.choice(numbers), rng.choice(tokens)] for _ in range(rng.randint(1, 6))]
        text = "\n".join("\t".join(row[: rng.choice([1, 3, 3, 3])]) for row in [list(types), *rows])
        (tmp_path / "table").write_text(text, encoding="utf-8")
        options = {"delimiter": "\t", "usecols": list(types), "dtype": types, "encoding": "utf-8"}
        try:
            wanted = pd.read_csv(tmp_path / "table", engine="python", **options)
        except ValueError:
            with pytest.raises(ValueError):
                read_csv(tmp_path / "table", engine="python", **options)
            continue
        got = read_csv(tmp_path / "table", engine="python", **options)
        pd.testing.assert_frame_equal(wanted, got, check_exact=True)
        read += 1
    assert read > 100


def test_plain_files_are_read_by_the_c_parser_alone(tmp_path, settings, monkeypatch):
    engines = []
    original = pd.read_csv
    recorder = lambda path, **options: engines.append(options["engine"]) or original(path, **options)  # noqa: E731
    monkeypatch.setattr(reading.pd, "read_csv", recorder)
    load(XLingDataset, tmp_path, settings, ROWS)
    assert engines == ["c"]


BOUNDS = [("[0,inf)", None), ("[5,inf)", "[5,inf)"), (None, "(2,20]"), ("[3,8];[10,11]", None)]


@pytest.mark.parametrize("bounds", BOUNDS)
def test_filtering_by_counts_equals_recbole(small_dataset, settings, bounds):
    small_dataset(n_users=60, n_items=50, lengths=list(np.random.default_rng(3).integers(1, 14, size=60)))
    changed = {**settings, "user_inter_num_interval": bounds[0], "item_inter_num_interval": bounds[1]}
    config = XLingConfig("LLMSASRec", "small", config_dict=changed)
    theirs, ours = SequentialDataset(config), XLingDataset(config)
    pd.testing.assert_frame_equal(theirs.inter_feat, ours.inter_feat)
    pd.testing.assert_frame_equal(theirs.item_feat, ours.item_feat)
    assert len(ours.inter_feat)


def test_count_is_a_counter():
    values = np.array(["b", "a", "b"], dtype=object)
    assert count(values) == count(pd.Series(values).array) == Counter(values)
    assert count() == Counter()
