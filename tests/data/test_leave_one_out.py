"""The splits' grouping equals RecBole's, whatever the order of the rows."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from recbole_xling.data.sequences import group_rows, leave_one_out_parts, ratio_parts

GROUPS = {
    "sorted": np.repeat([1, 4, 9], [2, 1, 3]),
    "mixed": np.array([7, 2, 7, 5, 2, 7, 1]),
    "one group": np.zeros(4, dtype=np.int64),
    "random": np.random.default_rng(0).integers(0, 20, size=100),
    "empty": np.empty(0, dtype=np.int64),
}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS.keys())
def test_groups_come_by_first_appearance(groups):
    index = defaultdict(list)  # as recbole/data/dataset/dataset.py, Dataset._grouped_index
    for row, group in enumerate(groups):
        index[group].append(row)
    order, position, size = group_rows(groups)
    assert order.tolist() == [row for rows in index.values() for row in rows]
    assert position.tolist() == [place for rows in index.values() for place in range(len(rows))]
    assert size.tolist() == [len(rows) for rows in index.values() for _ in rows]


def test_leave_one_out_parts_take_the_last_rows_of_each_group():
    parts = leave_one_out_parts(GROUPS["mixed"], 2)
    assert [part.tolist() for part in parts] == [[0, 1, 3, 6], [2], [5, 4]]


def test_ratio_parts_cut_each_group():
    first, second = ratio_parts(GROUPS["mixed"], 2, lambda size: [size // 2])
    assert (first.tolist(), second.tolist()) == ([0, 1], [2, 5, 4, 3, 6])
