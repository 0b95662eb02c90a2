"""A GPU that is not there: its tensors are kept on the CPU, and what a host would wait for is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("cuda", 0)
_INSIDE = torch.device("meta")  # where torch itself thinks that they are: it runs what it has no kernels for
_SHAPED_BY_DATA = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "_coalesce"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
_COPIES = {"_to_copy", "copy_"}


class FarTensor(Tensor):
    """A tensor that says it is on :data:`FAR`."""

    near: Tensor
    device = FAR  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        where = {} if near.is_sparse else {"strides": near.stride(), "storage_offset": near.storage_offset()}
        far: FarTensor = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, dtype=near.dtype, layout=near.layout, device=_INSIDE, **where
        )
        far.near = near
        return far

    def tolist(self) -> Any:
        """Return the numbers, which torch would not take from a subclass."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return FarDevice().__torch_dispatch__(func, types, args, kwargs)


def move_far(module: nn.Module) -> None:
    """Move parameters and buffers to :data:`FAR`, as ``to`` does."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(FarTensor(parameter.detach()), parameter.requires_grad)
        part._buffers.update({name: FarTensor(value) for name, value in part._buffers.items() if value is not None})


class FarDevice(TorchDispatchMode):
    """Computes on :data:`FAR`, and counts what makes the host wait until a GPU has done all that it was asked.

    Attributes:
        waits: how often: for ``item``; for shapes that depend on data, by the operator, ``by mask`` for an index; for
            copies, ``down`` to the CPU and ``up`` from it, unless that is pinned memory and nobody waits.

    Raises:
        RuntimeError: an operator got tensors of both devices.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._pinned: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func._schema.name.removeprefix("aten::")
        if name == "_pin_memory":
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        if name == "_fused_sdp_choice":
            return 0  # no kernel of a GPU's own
        near_args, near_kwargs = tree_map(lambda value: getattr(value, "near", value), (args, kwargs))
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        is_far = goes_far = any(isinstance(tensor, FarTensor) for tensor in given)
        if kwargs.get("device") is not None:
            goes_far = torch.device(kwargs["device"]).type != "cpu"
            near_kwargs["device"] = torch.device("cpu")
        if name in _COPIES:
            self._count_copy(name, args, kwargs, goes_far)
        elif is_far:
            self._count(name, args, given)
        found = func(*near_args, **near_kwargs)
        if not goes_far:
            return found
        found = tree_map(lambda value: FarTensor(value) if isinstance(value, Tensor) else value, found)
        return return_and_correct_aliasing(func, args, kwargs, found)

    def _count(self, name: str, args: Any, given: list[Tensor]) -> None:
        if near := [tensor for tensor in given if not isinstance(tensor, FarTensor) and tensor.dim()]:
            if name not in _INDEXED:
                raise RuntimeError(f"{name} got tensors of both devices")
            self.waits["up"] += len(near)
        by_mask = name in _INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1])
        if by_mask and (name == "index" or args[2].dim()):  # a number is filled in without looking for the places
            self.waits["by mask"] += 1
        elif name in _SHAPED_BY_DATA or name == "_local_scalar_dense":
            self.waits["item" if name == "_local_scalar_dense" else name] += 1

    def _count_copy(self, name: str, args: Any, kwargs: Any, goes_far: bool) -> None:
        source = args[0] if name == "_to_copy" else args[1]
        to_far = goes_far if name == "_to_copy" else isinstance(args[0], FarTensor)
        if isinstance(source, FarTensor) == to_far:
            return
        waits_not = kwargs.get("non_blocking") if name == "_to_copy" else args[2:] == (True,)
        if not (waits_not and (not to_far or any(source is pinned for pinned in self._pinned))):
            self.waits["up" if to_far else "down"] += 1
