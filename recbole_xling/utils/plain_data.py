"""Turns the values of a RecBole checkpoint into plain data and tensors, and rebuilds them while torch reads the file.

The ``restore_*`` functions are called with whatever a file says, so each checks its arguments, builds one kind of
object, and neither evaluates, imports by name nor unpickles anything.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from recbole_xling.errors import CheckpointError

_PLAIN = (str, bytes, bool, int, float, type(None), Tensor)


def to_plain(value: Any) -> Any:
    """Return ``value`` as something ``torch.load(weights_only=True)`` reads: arrays and sparse matrices as tensors.

    Raises:
        CheckpointError: the value cannot be expressed as plain data.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {"kind": "array", "values": torch.from_numpy(np.array(value))}
    if scipy.sparse.issparse(value):
        rows = value.tocsr()
        parts = {name: torch.from_numpy(np.array(getattr(rows, name))) for name in ("data", "indices", "indptr")}
        return {"kind": "sparse", "shape": list(rows.shape), **parts}
    if isinstance(value, dict):
        return {"kind": "dict", "items": [[to_plain(key), to_plain(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"kind": type(value).__name__, "items": [to_plain(item) for item in value]}
    raise CheckpointError(f"a value of type {type(value).__name__} cannot be stored in a checkpoint as plain data")


def from_plain(value: Any) -> Any:
    """Undo :func:`to_plain`."""
    if not isinstance(value, dict):
        return value
    kind = value["kind"]
    if kind == "array":
        return value["values"].cpu().numpy()
    if kind == "sparse":
        parts = tuple(value[name].cpu().numpy() for name in ("data", "indices", "indptr"))
        return scipy.sparse.csr_matrix(parts, shape=tuple(value["shape"]))
    if kind == "dict":
        return {from_plain(key): from_plain(item) for key, item in value["items"]}
    items = [from_plain(item) for item in value["items"]]
    return tuple(items) if kind == "tuple" else items


#: RecBole's enumerations (recbole/utils/enum_type.py), the only ones a checkpoint may hold.
ENUMS = ("ModelType", "KGDataLoaderState", "EvaluatorType", "InputType", "FeatureType", "FeatureSource")

#: Formats of scipy's sparse matrices that a checkpoint may hold; all are stored as CSR.
SPARSE_FORMATS = ("coo", "csc", "csr", "dok", "lil")


class Call:
    """Pickles as "call this function with these arguments", and so unpickles as the result."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def plain(value: Any, where: str) -> Any:
    """Return ``value`` made of what ``torch.load(weights_only=True)`` accepts; ``where`` names it in the error.

    Numpy scalars become Python numbers, tuples, sets and dictionaries lose their subclass. Arrays, sparse matrices and
    RecBole's enumerations come back from the file as what they are.

    Raises:
        CheckpointError: the value is of a type that a safe checkpoint cannot hold.
    """
    import numpy as np
    import torch
    from recbole.config import Config
    from scipy import sparse

    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if isinstance(value, (torch.Tensor, torch.device, torch.dtype, torch.Size, Config)):
        return value
    if isinstance(value, np.generic):
        return plain(value.item(), where)
    if sparse.issparse(value) and value.format in SPARSE_FORMATS:  # before dict, which a dok_matrix is
        rows = value.tocsr()
        parts = [_tensor(part) for part in (rows.data, rows.indices, rows.indptr)]
        return Call(restore_sparse, value.format, list(map(int, value.shape)), *parts)
    if isinstance(value, dict):
        return {plain(key, where): plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(plain(item, f"{where}[{index}]") for index, item in enumerate(value))
    if isinstance(value, enum.Enum) and type(value).__module__ == "recbole.utils.enum_type":
        return Call(restore_enum, type(value).__name__, value.name)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return Call(restore_array, _tensor(value))
    raise CheckpointError(
        f"{where} is a {type(value).__qualname__}, which a checkpoint that is safe to load cannot hold; "
        "make it numbers, strings, lists, dictionaries, tensors, arrays of numbers or sparse matrices"
    )


def _tensor(array: Any) -> Any:
    """Return a tensor with the array's values and type; it shares memory where torch can share it."""
    import numpy as np
    import torch

    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise CheckpointError(f"the checkpoint is damaged or not written by RecBole: {what}")


def restore_enum(kind: str, name: str) -> enum.Enum:
    """Return the member ``name`` of RecBole's enumeration ``kind``, e.g. ``ModelType`` and ``SEQUENTIAL``."""
    from recbole.utils import enum_type

    _check(kind in ENUMS, f"{kind!r} is not one of RecBole's enumerations")
    members: dict[str, enum.Enum] = getattr(enum_type, kind).__members__
    _check(name in members, f"{kind} has no member {name!r}")
    return members[name]


def restore_array(tensor: Any) -> Any:
    """Return the numpy array of a tensor, wherever ``map_location`` has put it."""
    import torch

    _check(isinstance(tensor, torch.Tensor), f"an array is stored as a {type(tensor).__qualname__}")
    return tensor.detach().cpu().numpy()


def restore_sparse(layout: str, shape: Sequence[int], data: Any, indices: Any, indptr: Any) -> Any:
    """Return a sparse matrix in the format ``layout``; the tensors are its CSR form.

    Positions outside ``shape`` are an error here, since scipy's compiled code would read or write beyond its arrays.
    """
    from scipy import sparse

    _check(layout in SPARSE_FORMATS, f"{layout!r} is not a sparse format")
    try:
        parts = tuple(restore_array(part) for part in (data, indices, indptr))
        matrix = sparse.csr_matrix(parts, shape=tuple(shape))
        matrix.check_format(full_check=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint is damaged: a sparse matrix is not valid ({error})") from error
    return matrix.asformat(layout)
