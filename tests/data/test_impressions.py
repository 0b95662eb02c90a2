"""Impressions: reading in blocks, checks, and the histories before them."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_xling.data import impressions as module
from recbole_xling.data.impressions import Interactions, UserHistories, read_impressions
from recbole_xling.errors import DataError

HEADER = "impression_id:token\tuser_id:token\ttimestamp:float\titem_id:token_seq\tlabel:float_seq\n"
USERS, ITEMS = ["[PAD]", "u1", "u2"], ["[PAD]", "a", "b", "c"]


@pytest.fixture
def read(tmp_path):
    def read_text(text, header=HEADER):
        path = tmp_path / "x.imp"
        path.write_text(header + text)
        return list(read_impressions(path, USERS, ITEMS))

    return read_text


def test_candidates_are_read_one_impression_after_the_other(read):
    (block,) = read('1\tu2\t1573463158.0\ta c\t0 1\n"2\tnew\t5\tb\t1\n')
    assert block.impression_ids.tolist() == ["1", '"2']
    assert (block.users.tolist(), block.user_tokens.tolist()) == ([2, 0], ["u2", "new"])
    assert block.times.tolist() == [1573463158.0, 5.0]
    assert (block.sizes.tolist(), block.items.tolist(), block.clicked.tolist()) == ([2, 1], [1, 3, 2], [0, 1, 1])
    assert block.n_clicked.tolist() == [1, 1]
    assert block.where(np.array([False, True])).items.tolist() == [2]


def test_dates_are_the_times_that_they_are_in_interactions(read):
    (block,) = read("1\tu2\t2019-11-11T09:05:58Z\ta c\t0 1\n2\tu1\t2019-11-11\tb\t1\n", header="\ufeff" + HEADER)
    assert block.times.tolist() == [1573463158.0, 1573430400.0]


def test_blocks_have_the_impressions_of_the_file_in_order(read, monkeypatch):
    text = "".join(f"{n}\tu1\t{n}\ta b\t1 0\n" for n in range(50))
    (whole,) = read(text)
    monkeypatch.setattr(module, "_BLOCK", 100)
    blocks = read(text)
    assert len(blocks) > 5
    assert [i for block in blocks for i in block.impression_ids] == whole.impression_ids.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tu1\t1\ta b\t1 0\n2\tu1\t1\ta b\t1\n", "imp:3"),
        ("1\tu1\tsoon\ta b\t1 0\n", "imp:2"),
        ("1\tu1\t5\ta b\t1 0\n2\tu1\tnan\ta b\t1 0\n", "imp:3"),
        ("1\tu1\t5\ta b\t1 0\n2\tu1\t2019-11-11\ta b\t1 0\n", "imp:3"),
        ("1\tu1\t1\ta b\t1 x\n", "imp:2"),
        ("1\tu1\t1\ta b\t1 2\n", "imp:2"),
        ("1\tu1\t1\n", "imp:2"),
        ("1\tu1\t1\ta b\t1 0\tmore\n", "lines 2 to 2"),
        ("1\tu1\t1\ta z\t1 0\n", "impression 1 shows 'z'.*load_col"),
    ],
)
def test_an_unusable_impression_is_refused_with_its_line(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_a_missing_column_of_impressions_is_named(read):
    with pytest.raises(DataError, match="'label'"):
        read("", header="impression_id:token\tuser_id:token\ttimestamp:float\titem_id:token_seq\n")


INTERACTIONS = Interactions(
    users=np.array([2, 1, 2, 1, 1]), items=np.array([5, 6, 7, 8, 9]), times=np.array([3.0, 1.0, 1.0, 1.0, 1e9 + 1])
)


def test_a_history_has_the_interactions_strictly_before_the_impression():
    histories = UserHistories(INTERACTIONS, 4)
    users, times = np.array([1, 1, 1, 1, 2, 2, 3]), np.array([1.0, 1.5, 1e9 + 1, 1e9 + 2, 3.0, 3.5, 9.0])
    items, length = histories.padded(*histories.before(users, times), 2)
    assert length.tolist() == [0, 2, 2, 2, 1, 2, 0]
    assert items.tolist() == [[0, 0], [6, 8], [6, 8], [8, 9], [7, 0], [7, 5], [0, 0]]
