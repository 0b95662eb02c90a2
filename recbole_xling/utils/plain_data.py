"""Values as plain data, which ``torch.load(weights_only=True)`` reads, and plain data as values again.

Checkpoints of this package store :func:`to_plain`'s result and apply :func:`from_plain` after reading. RecBole's own
code uses what ``torch.load`` returns as it is, so its checkpoints store the same plain data as :func:`self_restoring`.

What rebuilds values is called with anything a file says. So it checks its arguments, builds one kind of object, and
never evaluates, imports by name or unpickles anything.
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

#: RecBole's enumerations (recbole/utils/enum_type.py), the only ones a checkpoint may contain.
ENUMS = ("ModelType", "KGDataLoaderState", "EvaluatorType", "InputType", "FeatureType", "FeatureSource")

#: Formats of scipy's sparse matrices that a checkpoint may contain; all are stored as CSR.
SPARSE_FORMATS = ("coo", "csc", "csr", "dok", "lil")


def to_plain(value: Any, where: str = "a value") -> Any:
    """Return ``value`` made of numbers, strings, tensors and dictionaries that say what to rebuild from them.

    Numpy scalars become Python numbers; lists, tuples, sets and dictionaries lose their subclass. Arrays of numbers,
    sparse matrices and RecBole's enumerations keep their type.

    Args:
        value: anything.
        where: names the value in the error.

    Raises:
        CheckpointError: the value is, or contains, something of another type.
    """
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if isinstance(value, (Tensor, torch.device, torch.dtype, torch.Size)):
        return value
    if any(kind.__module__ == "recbole.config.configurator" for kind in type(value).__mro__):
        return value  # a Config, which pickles as plain data: see compat/checkpoint.py
    if isinstance(value, np.generic):
        return to_plain(value.item(), where)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return {"kind": "array", "values": _tensor(value)}
    if scipy.sparse.issparse(value) and value.format in SPARSE_FORMATS:  # before dict, which a dok_matrix is
        rows = value.tocsr()
        parts = {name: _tensor(getattr(rows, name)) for name in ("data", "indices", "indptr")}
        return {"kind": "sparse", "format": value.format, "shape": [int(size) for size in value.shape], **parts}
    if isinstance(value, enum.Enum) and type(value).__module__ == "recbole.utils.enum_type":
        return {"kind": "enum", "enum": type(value).__name__, "name": value.name}
    if isinstance(value, dict):
        items = [[to_plain(key, where), to_plain(item, f"{where}[{key!r}]")] for key, item in value.items()]
        return {"kind": "dict", "items": items}
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            items = [to_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
            return {"kind": kind.__name__, "items": items}
    raise CheckpointError(
        f"{where} is a {type(value).__qualname__}, which a checkpoint that is safe to load cannot contain; "
        "make it numbers, strings, lists, dictionaries, tensors, arrays of numbers or sparse matrices"
    )


def from_plain(value: Any) -> Any:
    """Undo :func:`to_plain`; arrays come back wherever ``map_location`` has put their tensors.

    Raises:
        CheckpointError: the data are not what :func:`to_plain` returns.
    """
    if not isinstance(value, dict):
        return value
    try:
        kind = value["kind"]
        if kind == "array":
            return restore_array(value["values"])
        if kind == "sparse":  # older files have no format: all their matrices are CSR
            parts = [value[name] for name in ("data", "indices", "indptr")]
            return restore_sparse(value.get("format", "csr"), value["shape"], *parts)
        if kind == "enum":
            return restore_enum(value["enum"], value["name"])
        if kind == "dict":
            return {from_plain(key): from_plain(item) for key, item in value["items"]}
        return {"list": list, "tuple": tuple, "set": set}[kind](from_plain(item) for item in value["items"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the checkpoint is damaged: a value is not plain data ({error!r})") from error


class Call:
    """Pickles as "call this function with these arguments", and so unpickles as the result."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def self_restoring(value: Any, where: str) -> Any:
    """Return plain data that ``torch.load`` turns into the value itself; arguments and errors as :func:`to_plain`."""
    plain = to_plain(value, where)
    return Call(from_plain, plain) if isinstance(plain, dict) else plain


def restore_enum(kind: str, name: str) -> enum.Enum:
    """Return the member ``name`` of RecBole's enumeration ``kind``, e.g. ``ModelType`` and ``SEQUENTIAL``."""
    from recbole.utils import enum_type

    _check(kind in ENUMS, f"{kind!r} is not one of RecBole's enumerations")
    members: dict[str, enum.Enum] = getattr(enum_type, kind).__members__
    _check(name in members, f"{kind} has no member {name!r}")
    return members[name]


def restore_array(tensor: Any) -> Any:
    """Return the numpy array of a tensor."""
    _check(isinstance(tensor, Tensor), f"an array is stored as a {type(tensor).__qualname__}")
    return tensor.detach().cpu().numpy()


def restore_sparse(layout: str, shape: Sequence[int], data: Any, indices: Any, indptr: Any) -> Any:
    """Return a sparse matrix in the format ``layout``; the tensors are its CSR form.

    Positions outside ``shape`` are an error here, since scipy's compiled code would read or write beyond its arrays.
    """
    _check(layout in SPARSE_FORMATS, f"{layout!r} is not a sparse format")
    try:
        parts = tuple(restore_array(part) for part in (data, indices, indptr))
        matrix = scipy.sparse.csr_matrix(parts, shape=tuple(shape))
        matrix.check_format(full_check=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint is damaged: a sparse matrix is not valid ({error})") from error
    return matrix.asformat(layout)


def _tensor(array: Any) -> Tensor:
    """Return a tensor with the array's values and type; it shares memory where torch can share it."""
    array = np.asarray(array, order="C")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise CheckpointError(f"the checkpoint is damaged or was not written by recbole-xling: {what}")
