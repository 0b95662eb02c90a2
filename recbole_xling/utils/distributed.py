"""Several processes: which one is the first, and gathering and summing tensors of all, with gradients."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
import torch.distributed as dist
from recbole.config import Config
from torch import Tensor, nn
from torch.nn import Parameter

from recbole_xling.utils.terminal import on_screen


def is_main_process(config: Config) -> bool:
    """Whether this process is the first of its group, on whatever machine: the one that writes files."""
    settings = config.final_config_dict
    return (settings.get("local_rank") or 0) + (settings.get("offset") or 0) == 0


def shows_progress(config: Config) -> bool:
    """Whether this process shows progress bars: the first one, on a terminal, if ``show_progress`` is set."""
    return bool(config["show_progress"]) and is_main_process(config) and on_screen()


class _GatherRows(torch.autograd.Function):
    """Gather rows of all processes; a loss that every process computes alike sends gradients to its own rows.

    ``torch.distributed.nn.functional.all_gather`` has the same values and gradients, but the present torch deprecates
    it, and its backward pass sends the gradients of all rows to all processes, which know them already.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        own = torch.full((1,), len(rows), device=rows.device)
        everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, own)
        sizes = torch.cat(everyone).tolist()
        ctx.begin, ctx.size = sum(sizes[: dist.get_rank()]), len(rows)
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        everyone = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(everyone, padded)
        return torch.cat([part[:size] for part, size in zip(everyone, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]
        # the trainer averages gradients over the processes, and each one has only the part of its own rows
        return grad_output[ctx.begin : ctx.begin + ctx.size] * dist.get_world_size()


def process() -> tuple[int, int]:
    """Return the number of this process and the number of processes: ``(0, 1)`` for a single one."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes in the order of their ranks; with one process, ``rows`` itself.

    Meant for losses that every process computes as a whole: gradients reach each process's own rows, and averaging
    them over the processes, as :class:`~recbole_xling.trainer.trainer.XLingTrainer` does, gives the gradient that one
    process with all rows would have.

    Args:
        rows: ``(N, ...)``; N may differ between the processes.
    """
    if process()[1] == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]
        total = grad_output.clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(values: Tensor) -> Tensor:
    """Return the sum over all processes; with one process, ``values`` itself.

    The gradient is the sum of the processes' gradients. Where :func:`gather_rows` follows in the computation, it is
    that of one process with all rows.

    Args:
        values: of the same shape in all processes.
    """
    if process()[1] == 1:
        return values
    total: Tensor = _SumOverProcesses.apply(values)
    return total


_ALONE = 1 << 20  # numbers: larger gradients are exchanged by themselves, without a copy


@torch.no_grad()
def average_gradients(parameters: Iterable[Parameter], sparse: Collection[Parameter] = ()) -> None:
    """Give all processes the mean of their gradients; a part that a process's batch did not reach counts as zero.

    Of sparse gradients, the rows that some process has are exchanged, and no others.

    Args:
        parameters: the same ones in all processes, in the same order.
        sparse: those of them whose gradients have the rows of a batch alone.
    """
    n_processes, by_identity = dist.get_world_size(), {id(parameter) for parameter in sparse}
    dense = []
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if id(parameter) in by_identity:
            parameter.grad = _mean_of_rows(parameter, n_processes)
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dense.append(parameter.grad)
    together: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    works = []
    for gradient in dense:
        if gradient.numel() < _ALONE:
            together.setdefault((gradient.dtype, gradient.device), []).append(gradient)
        else:
            works.append(dist.all_reduce(gradient, async_op=True))
    for small in together.values():  # each exchange takes as long as some computation: the small ones share one
        joined = torch.cat([gradient.flatten() for gradient in small])
        dist.all_reduce(joined)
        for gradient, total in zip(small, joined.split([part.numel() for part in small]), strict=True):
            gradient.copy_(total.view_as(gradient))
    for work in works:
        work.wait()
    for gradient in dense:
        gradient /= n_processes


def _mean_of_rows(parameter: Parameter, n_processes: int) -> Tensor:
    """Return the mean of the processes' gradients by row, a sparse tensor."""
    own = parameter.grad
    if own is None:
        rows, values = torch.zeros(0, dtype=torch.long, device=parameter.device), parameter[:0]
    else:
        own = own.coalesce() if own.is_sparse else own.to_sparse(1)
        rows, values = own.indices()[0], own.values()
    rows, values = gather_rows(rows), gather_rows(values)
    return torch.sparse_coo_tensor(rows[None], values / n_processes, parameter.shape).coalesce()


def take_from_first_process(values: Tensor) -> None:
    """Give all processes the values that the first one has, in place; all of them must call it."""
    if process()[1] > 1:
        dist.broadcast(values, src=0)


def share_buffers(model: nn.Module) -> None:
    """Give all processes what the first one has besides parameters in its state, such as means of normalized batches.

    Each process normalizes its own part of a batch, so that these would be others in each.
    """
    if process()[1] > 1:
        trained = {name for name, _ in model.named_parameters()}
        for name, values in model.state_dict().items():
            if name not in trained:
                take_from_first_process(values)
