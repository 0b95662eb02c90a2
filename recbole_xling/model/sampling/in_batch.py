"""From windows of histories to the positions and candidates of an in-batch softmax, over all processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_xling.model.layers.attention import Places
from recbole_xling.model.loss.in_batch_softmax import InBatch
from recbole_xling.model.text_encoder.distinct_texts import DistinctTexts
from recbole_xling.utils.distributed import gather_rows, process

_WINDOWS_PER_PROCESS = 1 << 32


@dataclass(frozen=True)
class BatchWindows:
    """The windows of a batch, padded on the right; texts are numbers of distinct texts, or of sets of texts.

    Attributes:
        states: ``(B, L, D)`` the user after each position.
        empty: ``(B, D)`` the user before the first one.
        empty_weight: ``(B,)`` of that user in the loss, whose target is the first input; 0 where it is not trained.
        history: ``(B, L)`` texts of the inputs.
        inputs: places of the inputs, ``(K,)`` rows and columns; the rest is padding.
        target: ``(B, L)`` texts to predict.
        weight: ``(B, L)`` of the positions in the loss as the loader gives them, 0 where nothing is predicted.
        trained: places where it is not 0.
    """

    states: Tensor
    empty: Tensor
    empty_weight: Tensor
    history: Tensor
    inputs: Places
    target: Tensor
    weight: Tensor
    trained: Places


def in_batch(
    windows: BatchWindows,
    texts: DistinctTexts,
    logit_adjustment: Tensor,
    same: Tensor,
    drawn: Tensor | None = None,
    met: tuple[Tensor, Tensor] | None = None,
) -> InBatch:
    """Return all positions of the batch and all candidates, of all processes.

    Args:
        windows: those of this process.
        texts: the distinct texts of this process's windows, and other negatives.
        logit_adjustment: ``(n_texts,)`` constants of the logits of texts that enter a batch with a window, or drawn.
        same: ``(n_texts,)`` a number that texts share which one item has in different languages.
        drawn: texts that were drawn from the catalog for the batch, each once, the same in all processes.
        met: rows of windows, and the numbers by ``same`` of items that their users meet in training, ``(M,)`` each;
            needed for what windows do not show: other items, and other texts of items that have none in these views.
    """
    trained, inputs = windows.trained, windows.inputs
    n_windows, device = len(windows.history), windows.history.device
    # Everything below is gathered from all processes, so a window needs a number that no other process uses: by it
    # each position finds the texts of its own window among candidates that come from anywhere.
    number = torch.arange(n_windows, device=device) + process()[0] * _WINDOWS_PER_PROCESS  # (B,)
    of_position = number[:, None].expand_as(windows.weight)  # (B, L)
    # Each window also trains the user without a history, whose target is the first input. Otherwise nothing would
    # train the vectors that score such users.
    states = gather_rows(torch.cat([windows.states[trained], windows.empty]))  # (N, D)
    window = gather_rows(torch.cat([of_position[trained], number]))  # (N,)
    target = gather_rows(torch.cat([windows.target[trained], windows.history[:, 0]]))  # (N,)
    weight = gather_rows(torch.cat([windows.weight[trained], windows.empty_weight]))  # (N,)
    is_user = gather_rows(torch.cat([torch.ones_like(of_position[trained]), torch.zeros_like(number)])).bool()  # (N,)
    # The loader divides by the number of targets, and users without a history make the positions more. What it weighs
    # more or less keeps its weight: the weights of a batch sum to 1 only on average where languages are weighted.
    n_targets, n_positions = is_user.sum(), (weight > 0).sum()
    weight = weight * (n_targets / (process()[1] * n_positions.clamp(min=1)))
    candidates = texts.of_all_processes()  # (U,), (U, D)

    # A candidate that the user of a position chose at another time is an accidental hit. As a negative it would teach
    # that his own items are wrong, and so would their texts in other languages.
    of_text = gather_rows(torch.cat([of_position[inputs], of_position[trained]]))  # (K,) windows of
    known = gather_rows(torch.cat([windows.history[inputs], windows.target[trained]]))  # (K,) these texts
    each, window = torch.unique(window, return_inverse=True)  # (W,) windows of all processes, (N,)
    kinds, kind = torch.unique(same[candidates.texts], return_inverse=True)  # (S,), (U,)
    belongs = torch.zeros(len(each) + 1, len(kinds), dtype=torch.bool, device=device)  # the last row is of no window
    belongs[torch.searchsorted(each, of_text), torch.searchsorted(kinds, same[known])] = True
    at_rate = belongs.any(dim=0)[kind]  # (U,)
    if met is not None:
        row, item = torch.searchsorted(each, gather_rows(number[met[0]])), gather_rows(met[1])  # (M,)
        place = torch.searchsorted(kinds, item).clamp_max(len(kinds) - 1)
        belongs[torch.where(kinds[place] == item, row, len(each)), place] = True
    belongs = belongs[:-1, kind]  # (W, U)

    # Mined negatives come into the batch because of their scores, not at a rate that a correction could use. They get
    # the mean of the others' constants, so that their logits stay comparable.
    constant = logit_adjustment[candidates.texts]  # (U,)
    if drawn is not None:
        at_rate |= torch.isin(candidates.texts, drawn, assume_unique=True)
    return InBatch(
        states=states,
        items=candidates.vectors,
        target=candidates.rows(target),
        weight=weight,
        accidental_hit_mask=belongs[window],  # (N, U)
        logit_adjustment=torch.where(at_rate, constant, constant[at_rate].mean()),
        is_user=is_user,
    )


def adjust_logits(
    of_item: Tensor,
    number: int,
    counts: Tensor,
    prior: Tensor,
    n_batches: float | None,
    chance: Tensor | None = None,
    rate: float = 0.0,
    shown: Tensor | None = None,
) -> Tensor:
    """Return what training adds to the logits of each text, or set of texts, ``(number,)``.

    That is the prior of the most popular item with this text, and the logQ correction. The correction is by the chance
    that a batch has the text, and not by its rate: a text that occurs several times is one candidate.

    Args:
        of_item: text of each item in each view, ``(n_views, n_items)``.
        number: of all texts.
        counts: training interactions of each item in each view, ``(n_views, n_items)``.
        prior: of each item, ``(n_items,)``.
        n_batches: of an epoch; None leaves out the correction.
        chance: that a batch which has an item shows it in a view, ``(n_views, n_items)``; 1 if not given.
        rate: at which a batch has an item of training, in a view, because it was drawn from the catalog.
        shown: how often an epoch shows each item in each view, ``(n_views, n_items)``, if not as often as counted:
            where languages are balanced or left out, or files state histories.
    """
    shown = counts if shown is None else shown
    met = ((counts > 0) | (shown > 0)).expand_as(of_item)
    of_each = torch.where(met, prior.expand_as(of_item), -torch.inf).flatten()
    of_text = torch.full((number,), -torch.inf).scatter_reduce_(0, of_item.flatten(), of_each, "amax")
    of_text = torch.where(of_text > -torch.inf, of_text, 0.0)  # only items of training are candidates
    if n_batches is None:
        return of_text
    occurs = shown.double()
    if rate:  # being drawn is like so many more interactions
        occurs = occurs + torch.where(counts > 0, -n_batches * math.log1p(-rate) if rate < 1 else torch.inf, 0.0)
    if chance is not None:  # the rate at which a text would have to occur to be missing as often
        missing = torch.log1p(chance.double() * torch.expm1(-occurs / n_batches))
        occurs = torch.where(chance < 1, -n_batches * missing, occurs)
    occurs = torch.zeros(number).index_add_(0, of_item.flatten(), occurs.flatten().float())
    return of_text - torch.log(-torch.expm1(-torch.where(occurs > 0, occurs, 1) / n_batches))
