"""Turning what RecBole models keep beside their weights into plain data, and back."""

from __future__ import annotations

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
