"""Values of a checkpoint come back from plain data; what cannot be stored is named."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse
import torch
from recbole.utils import EvaluatorType, ModelType

from recbole_xling.errors import CheckpointError
from recbole_xling.utils.plain_data import plain


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1, "text", [1, (2, "x")], {"a": {1: None}}, {3, 4}, 2**40, torch.device("cpu"), torch.float16],
    ids=str,
)
def test_plain_values_come_back_from_a_file(value, through_file):
    loaded = through_file(plain(value, "it"))
    assert loaded == value
    assert type(loaded) is type(value)


def test_numbers_of_numpy_become_numbers_of_python(through_file):
    loaded = through_file(plain({np.str_("k"): [np.float64(0.5), np.int64(7), np.bool_(True)]}, "it"))
    assert loaded == {"k": [0.5, 7, True]}
    assert [type(item) for item in loaded["k"]] == [float, int, bool]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool", "complex64"])
def test_arrays_come_back_from_a_file_with_dtype_and_values(dtype, through_file):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    array.flags.writeable = False
    for given in (array, array.T):
        loaded = through_file(plain(given, "it"))
        assert loaded.dtype == given.dtype
        assert np.array_equal(loaded, given)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil", "dok"])
def test_sparse_matrices_come_back_from_a_file_in_their_layout(layout, through_file):
    matrix = scipy.sparse.random(5, 7, density=0.3, dtype=np.float32, random_state=1).asformat(layout)
    loaded = through_file(plain(matrix, "it"))
    assert (loaded.format, loaded.dtype, loaded.shape) == (layout, np.float32, (5, 7))
    assert (loaded != matrix).nnz == 0


def test_enumerations_come_back_from_a_file(through_file):
    assert through_file(plain([ModelType.KNOWLEDGE, EvaluatorType.VALUE], "it")) == [
        ModelType.KNOWLEDGE,
        EvaluatorType.VALUE,
    ]


@pytest.mark.parametrize("value", [len, object(), np.array(["a"]), torch.nn.Linear(1, 1), logging.INFO.__add__])
def test_a_value_that_cannot_be_stored_safely_is_refused_by_name(value):
    with pytest.raises(CheckpointError, match=r"other_parameter\['w'\]\[1\]"):
        plain({"w": [0, value]}, "other_parameter")
