"""Values of a checkpoint come back from plain data; what cannot be stored is named."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse
import torch
from recbole.utils import EvaluatorType, ModelType

from recbole_xling.errors import CheckpointError
from recbole_xling.utils.plain_data import from_plain, self_restoring, to_plain


@pytest.fixture(params=["ours", "RecBole's"])
def restored(request, through_file):
    """A function that stores a value in one of the two kinds of checkpoints and reads it."""
    if request.param == "ours":
        return lambda value: from_plain(through_file(to_plain(value)))
    return lambda value: through_file(self_restoring(value, "it"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.1,
        "text",
        [1, (2, "x")],
        {"a": {1: None}},
        {3, 4},
        2**40,
        1j,
        torch.device("cpu"),
        torch.float16,
    ],
    ids=str,
)
def test_plain_values_come_back_from_a_file(value, restored):
    loaded = restored(value)
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_arrays_of_any_shape_come_back_from_a_file(shape, restored):
    assert restored(np.zeros(shape)).shape == shape


def test_numbers_of_numpy_become_numbers_of_python(restored):
    loaded = restored({np.str_("k"): [np.float64(0.5), np.int64(7), np.bool_(True)]})
    assert loaded == {"k": [0.5, 7, True]}
    assert [type(item) for item in loaded["k"]] == [float, int, bool]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool", "complex64"])
def test_arrays_come_back_from_a_file_with_dtype_and_values(dtype, restored):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    array.flags.writeable = False
    for given in (array, array.T):
        loaded = restored(given)
        assert loaded.dtype == given.dtype
        assert np.array_equal(loaded, given)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil", "dok"])
def test_sparse_matrices_come_back_from_a_file_in_their_layout(layout, restored):
    matrix = scipy.sparse.random(5, 7, density=0.3, dtype=np.float32, random_state=1).asformat(layout)
    loaded = restored(matrix)
    assert (loaded.format, loaded.dtype, loaded.shape) == (layout, np.float32, (5, 7))
    assert (loaded != matrix).nnz == 0


def test_enumerations_come_back_from_a_file(restored):
    assert restored([ModelType.KNOWLEDGE, EvaluatorType.VALUE]) == [
        ModelType.KNOWLEDGE,
        EvaluatorType.VALUE,
    ]


@pytest.mark.parametrize("value", [len, object(), np.array(["a"]), torch.nn.Linear(1, 1), logging.INFO.__add__])
def test_a_value_that_cannot_be_stored_safely_is_refused_by_name(value):
    with pytest.raises(CheckpointError, match=r"other_parameter\['w'\]\[1\]"):
        self_restoring({"w": [0, value]}, "other_parameter")


def test_values_in_checkpoints_of_the_first_releases_are_read(through_file):
    matrix = scipy.sparse.random(3, 4, density=0.5, format="csr", random_state=1)
    parts = {name: torch.from_numpy(getattr(matrix, name)) for name in ("data", "indices", "indptr")}
    items = [
        ["w", {"kind": "sparse", "shape": [3, 4], **parts}],
        ["a", {"kind": "array", "values": torch.arange(3)}],
        [{"kind": "tuple", "items": [1, "x"]}, {"kind": "list", "items": [None, {"kind": "dict", "items": []}]}],
    ]
    loaded = from_plain(through_file({"kind": "dict", "items": items}))
    assert (loaded["w"] != matrix).nnz == 0
    assert loaded["a"].tolist() == [0, 1, 2]
    assert loaded[1, "x"] == [None, {}]
