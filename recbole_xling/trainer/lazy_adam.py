"""LazyAdam: Adam whose step costs what the batch touched, where gradients are sparse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

from recbole_xling.errors import ConfigError


class LazyAdam(optim.Adam):
    """Adam (Kingma & Ba, ICLR 2015) that updates only those rows of a parameter which its sparse gradient has.

    All other rows keep their values and their moments. So a row that a step does not touch does not move on by its
    momentum, and its moments do not decay meanwhile: the ``LazyAdamOptimizer`` of TensorFlow and the ``SparseAdam`` of
    torch, which takes no dense gradients, do likewise. Where each step touches all rows, and for dense gradients, it is
    Adam. State and checkpoints are Adam's.

    Args:
        groups: parameter groups.
        options: of :class:`torch.optim.Adam`.

    Raises:
        ConfigError: there is a weight decay, which would have to reach every row.
    """

    def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
        if options.get("weight_decay"):
            raise ConfigError("learner=sparse_adam updates the rows of a batch alone, weight_decay all: set that to 0")
        super().__init__(groups, **options)
        self._step_supports_amp_scaling = False  # the scaler itself skips steps whose gradients are not finite

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; a parameter whose gradient is None stays as it is."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._step_rows(parameter, group)
                    sparse.append((parameter, parameter.grad))
                    parameter.grad = None  # Adam itself refuses it
        super().step()
        for parameter, gradient in sparse:
            parameter.grad = gradient
        return loss

    def _step_rows(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad.coalesce()  # type: ignore[union-attr]
        rows, values = gradient.indices()[0], gradient.values()  # (U,), (U, ...)
        state = self.state[parameter]
        if not state:
            device = parameter.device if group["fused"] or group["capturable"] else "cpu"
            state["step"] = torch.zeros((), device=device)
            state["exp_avg"], state["exp_avg_sq"] = _zeros_like(parameter), _zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        mean = state["exp_avg"][rows].lerp_(values, 1 - first)
        square = state["exp_avg_sq"][rows].mul_(second).addcmul_(values, values, value=1 - second)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        unbiased = mean / (1 - first ** state["step"])
        scale = (square / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        parameter.index_add_(0, rows, unbiased.div_(scale), alpha=-group["lr"])


def _zeros_like(parameter: Tensor) -> Tensor:
    """Return zeros; on the CPU, rows take no memory until they are written to, which torch's own zeros do."""
    if parameter.device.type != "cpu":
        return torch.zeros_like(parameter)
    flat = torch.from_numpy(np.zeros(parameter.nbytes, dtype=np.uint8))
    return flat.view(parameter.dtype).view(parameter.shape)


def for_clipping(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return parameters for torch's clipping, which does not know sparse gradients: their rows stand for these.

    Args:
        parameters: with gradients or without; sparse ones are coalesced, and share memory with what is returned.
    """
    shown = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            rows = parameter.grad.values()
            parameter = nn.Parameter(torch.empty_like(rows))
            parameter.grad = rows
        shown.append(parameter)
    return shown
