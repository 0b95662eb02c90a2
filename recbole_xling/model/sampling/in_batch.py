"""From windows of histories to the positions and candidates of an in-batch softmax, over all processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_xling.model.loss.in_batch_softmax import InBatch
from recbole_xling.utils.distributed import gather_rows, process

_WINDOWS_PER_PROCESS = 1 << 32


@dataclass(frozen=True)
class Windows:
    """The windows of a batch, padded on the right; texts are numbers of distinct texts.

    Attributes:
        states: ``(B, L, D)`` the user after each position.
        empty: ``(B, D)`` the user before the first one.
        history: ``(B, L)`` texts of the inputs.
        in_history: ``(B, L)`` whether there is an input.
        target: ``(B, L)`` texts to predict.
        weight: ``(B, L)`` of the positions in the loss, 0 where there is none.
    """

    states: Tensor
    empty: Tensor
    history: Tensor
    in_history: Tensor
    target: Tensor
    weight: Tensor


def in_batch(windows: Windows, texts: Tensor, vectors: Tensor, offset: Tensor) -> InBatch:
    """Return all positions of the batch and all candidates, of all processes.

    Beside its positions every window gives one for a user without a history, whose target is the first input.

    Args:
        windows: those of this process.
        texts: ``(U,)`` the distinct texts of this process's windows, and other negatives.
        vectors: ``(U, D)`` their vectors.
        offset: ``(n_texts,)`` constants of the logits of texts that come into a batch with a window; others, which
            were chosen and not drawn, get the mean of these.
    """
    trained = windows.weight > 0  # (B, L)
    n_windows, device = len(windows.history), windows.history.device
    number = torch.arange(n_windows, device=device) + process()[0] * _WINDOWS_PER_PROCESS
    each = number[:, None].expand_as(trained)  # (B, L)
    unit = windows.weight.max().expand(n_windows)
    states = gather_rows(torch.cat([windows.states[trained], windows.empty]))  # (N, D)
    window = gather_rows(torch.cat([each[trained], number]))  # (N,)
    target = gather_rows(torch.cat([windows.target[trained], windows.history[:, 0]]))
    weight = gather_rows(torch.cat([windows.weight[trained], unit]))
    is_user = gather_rows(torch.cat([torch.ones_like(each[trained]), torch.zeros_like(number)])).bool()
    of_window = gather_rows(torch.cat([each[windows.in_history], each[trained]]))  # (K,)
    known = gather_rows(torch.cat([windows.history[windows.in_history], windows.target[trained]]))  # (K,)
    texts, vectors = _distinct(gather_rows(texts), gather_rows(vectors))
    rows, window = torch.unique(window, return_inverse=True)
    belongs = torch.zeros(len(rows), len(texts), dtype=torch.bool, device=device)  # (B of all processes, U)
    belongs[torch.searchsorted(rows, of_window), torch.searchsorted(texts, known)] = True
    drawn, constants = belongs.any(dim=0), offset[texts]
    return InBatch(
        states=states,
        items=vectors,
        target=torch.searchsorted(texts, target),
        weight=weight / weight.sum(),
        false_negative=belongs[window],
        offset=torch.where(drawn, constants, constants[drawn].mean()),
        is_user=is_user,
    )


def _distinct(texts: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct texts, sorted, and one vector for each."""
    distinct, place = torch.unique(texts, return_inverse=True)
    order = torch.arange(len(texts), device=texts.device)
    first = torch.full_like(distinct, len(texts)).scatter_reduce_(0, place, order, "amin")
    return distinct, vectors[first]
