"""Ranking without the matrix of all scores: they are made and reduced some thousand items at a time.

Where scores are inner products of user and item vectors, only the best items of each row and the ranks of its targets
are kept. The values of all metrics are those of the whole matrix: equal scores apart, the same items come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_xling.errors import XlingError
from recbole_xling.utils.devices import to_device

_ITEMS = 1 << 14  # scores of a row made at a time
_ROWS = {"cpu": 512}  # so that a block of scores takes 32 MiB and mostly stays in the processor's cache
_ROWS_ELSEWHERE = 4096  # 256 MiB
_GROUP = 64  # neighboring items of which the largest score stands for all


class Factors(NamedTuple):
    """Scores as inner products: ``users @ items.T + weight * bias``.

    Attributes:
        users: ``(B, D)``.
        items: ``(n_items, D)``.
        bias: ``(n_items,)``, or None.
        weight: how much the bias counts for each user, above 0, ``(B, 1)``; None for 1.
    """

    users: Tensor
    items: Tensor
    bias: Tensor | None = None
    weight: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """All scores, ``(B, n_items)``."""
        if self.bias is None:
            return self.users @ self.items.T
        bias = self.bias if self.weight is None else self.weight * self.bias
        return torch.addmm(bias, self.users, self.items.T)


class Pairs(NamedTuple):
    """Rows and items that belong together, ``(n,)`` each."""

    rows: Tensor
    items: Tensor

    def on(self, device: torch.device) -> Pairs:
        """Return the pairs on a device."""
        return Pairs(to_device(self.rows, device), to_device(self.items, device))

    def distinct(self) -> Pairs:
        """Return each pair once, ordered by row and item."""
        if not len(self.rows):
            return self
        size = int(self.items.max()) + 1
        key = torch.unique(self.rows * size + self.items)
        return Pairs(key // size, key % size)


class Ranked(NamedTuple):
    """What metrics need of a batch of rows.

    Attributes:
        best: the ``k`` items with the highest scores, the highest first, ``(B, k)``.
        scores: theirs, ``(B, k)``; minus infinity for items that are left out, where there are too few others.
        ranks: rank of each target, the mean of equal ones, ``(n_targets,)``; None unless asked for.
        n_ranked: number of items that are not left out of the ranking, and of targets, ``(B,)``; None unless asked for.
    """

    best: Tensor
    scores: Tensor
    ranks: Tensor | None
    n_ranked: Tensor | None


def rank_scores(scores: Tensor, targets: Pairs, k: int, *, with_ranks: bool) -> Ranked:
    """Rank items by a matrix of scores, ``(B, n_items)``; minus infinity leaves an item out.

    Args:
        scores: of all items.
        targets: whose ranks are asked for.
        k: length of the lists.
        with_ranks: whether to return ranks.

    Raises:
        XlingError: a score is not a number.
    """
    best = scores.topk(k, dim=-1)
    _check_numbers(best.values)  # what is not a number comes first
    if not with_ranks:
        return Ranked(best.indices, best.values, None, None)
    own = scores[targets.rows, targets.items]
    n_ranked = (scores > -torch.inf).sum(dim=1)
    return Ranked(best.indices, best.values, *_ranks(own, *_compare(scores, own, targets.rows), n_ranked, targets))


def rank_groups(
    groups: list[tuple[Tensor, Factors]], left_out: Pairs, targets: Pairs, k: int, *, with_ranks: bool
) -> Ranked:
    """Rank items by inner products, a block of rows and items at a time.

    Of equal scores those of items with smaller numbers come first, unless they are within the same ``2^14`` numbers,
    where ``torch.topk`` decides, as in RecBole.

    Args:
        groups: what :func:`~recbole_xling.model.factors.factors_of` returned for a batch.
        left_out: items that are not ranked; the padding item is left out in any case.
        targets: whose ranks are asked for.
        k: length of the lists.
        with_ranks: whether to return ranks, for which scores are made twice.

    Raises:
        XlingError: a factor is not a number.
    """
    n_rows, device = sum(len(rows) for rows, _ in groups), targets.rows.device
    at_once = _ROWS.get(device.type, _ROWS_ELSEWHERE)
    best = torch.empty(n_rows, k, dtype=torch.long, device=device)
    scores = torch.empty(n_rows, k, dtype=groups[0][1].users.dtype, device=device)
    ranks = torch.empty(len(targets.rows), dtype=torch.float64, device=device) if with_ranks else None
    n_ranked = torch.empty(n_rows, dtype=torch.long, device=device) if with_ranks else None
    for rows, factors in groups:
        _check_numbers(*(part for part in factors if part is not None))
        for at in range(0, len(rows), at_once):
            block = rows[at : at + at_once]
            place = torch.full((n_rows,), -1, device=device)
            place[block] = torch.arange(len(block), device=device)
            users, weight = factors.users[at : at + at_once], factors.weight
            if weight is not None:  # dividing by it leaves the order, and one bias for all
                weight = weight[at : at + at_once]
                users = users / weight
            part = Factors(users, factors.items, factors.bias)
            gone, _ = _renumbered(left_out, place)
            wanted, here = _renumbered(targets, place)
            ranked = _rank_block(part, gone, wanted, k, with_ranks)
            best[block] = ranked.best
            scores[block] = ranked.scores if weight is None else ranked.scores * weight
            if ranks is not None and n_ranked is not None:
                assert ranked.ranks is not None and ranked.n_ranked is not None
                ranks[here], n_ranked[block] = ranked.ranks, ranked.n_ranked
    return Ranked(best, scores, ranks, n_ranked)


def _check_numbers(*tensors: Tensor) -> None:
    """Raise an error rather than rank by chance."""
    if torch.stack([tensor.isnan().any() for tensor in tensors]).any():
        raise XlingError(
            "the model's scores are not numbers (NaN): its training has gone astray. Try a smaller learning_rate, or "
            "clip_grad_norm: {max_norm: 1}"
        )


def _renumbered(pairs: Pairs, place: Tensor) -> tuple[Pairs, Tensor]:
    """Return the pairs of some rows, given the new number of each row, -1 for all others, and where they were."""
    rows = place[pairs.rows]
    here = (rows >= 0).nonzero().squeeze(1)
    return Pairs(rows[here], pairs.items[here]), here


def _rank_block(factors: Factors, left_out: Pairs, targets: Pairs, k: int, with_ranks: bool) -> Ranked:
    by_item = torch.argsort(left_out.items)
    left_out = Pairs(left_out.rows[by_item], left_out.items[by_item])
    starts = torch.arange(0, len(factors.items) + _ITEMS, _ITEMS, device=factors.users.device)
    bounds = torch.searchsorted(left_out.items, starts).tolist()  # between what each block leaves out
    own = torch.zeros(len(targets.rows), dtype=factors.users.dtype, device=factors.users.device)
    best = number = None
    for start, scores in _score_blocks(factors, left_out, bounds):
        if best is None or number is None:
            best, number = scores.topk(min(k, scores.shape[1]), dim=1)
        else:
            best, number = _merge(best, number, scores, start, k)
        if with_ranks:
            place = (targets.items - start).clamp(0, scores.shape[1] - 1)
            own = torch.where(targets.items == start + place, scores[targets.rows, place], own)
    assert best is not None and number is not None
    if not with_ranks:
        return Ranked(number, best, None, None)
    higher, equal = torch.zeros_like(own, dtype=torch.long), torch.zeros_like(own, dtype=torch.long)
    n_ranked = torch.zeros(len(number), dtype=torch.long, device=number.device)
    for _, scores in _score_blocks(factors, left_out, bounds):
        more = _compare(scores, own, targets.rows)
        higher, equal, n_ranked = higher + more[0], equal + more[1], n_ranked + (scores > -torch.inf).sum(dim=1)
    return Ranked(number, best, *_ranks(own, higher, equal, n_ranked, targets))


def _score_blocks(factors: Factors, left_out: Pairs, bounds: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield the first item of each block and the block's scores, ``(B, n)``, which the next block overwrites.

    Args:
        factors: of the scores.
        left_out: pairs without a score, ordered by item.
        bounds: where the pairs of each block begin among these, and where those of the last one end.
    """
    users, n_items = factors.users, len(factors.items)
    buffer = users.new_empty(len(users), min(_ITEMS, n_items))
    for place, start in enumerate(range(0, n_items, _ITEMS)):
        items = factors.items[start : start + _ITEMS]
        out = buffer if len(items) == buffer.shape[1] else users.new_empty(len(users), len(items))
        if factors.bias is None:
            torch.mm(users, items.T, out=out)
        else:
            torch.addmm(factors.bias[start : start + _ITEMS], users, items.T, out=out)
        if not start:
            out[:, 0] = -torch.inf  # the padding item
        here = slice(bounds[place], bounds[place + 1])
        out[left_out.rows[here], left_out.items[here] - start] = -torch.inf
        yield start, out


def _merge(best: Tensor, number: Tensor, scores: Tensor, start: int, k: int) -> tuple[Tensor, Tensor]:
    """Return the best scores and items of the blocks before and of this one, ``(B, k)`` each.

    An item can only be among the best ``k`` of a block if its group is among the ``k`` groups with the largest maxima,
    so most scores are read once and never sorted; rows for which the block has nothing better are done with that.
    """
    if rest := -scores.shape[1] % _GROUP:
        scores = F.pad(scores, (0, rest), value=-torch.inf)
    groups = scores.view(len(scores), -1, _GROUP)
    largest = groups.amax(dim=-1)  # (B, n_groups)
    chosen = largest.topk(min(k, largest.shape[1]), dim=1, sorted=False)
    missing = best.shape[1] < k  # the first block had fewer items than the lists
    better = torch.nonzero((chosen.values > best[:, -1:]).any(dim=1) | missing).squeeze(1)
    if not len(better):
        return best, number
    group = chosen.indices[better]  # (R, k)
    found = groups[better[:, None], group].flatten(1)  # (R, k * _GROUP)
    items = start + group[..., None] * _GROUP + torch.arange(_GROUP, device=group.device)
    values = torch.cat([best[better], found], dim=1)
    top = values.topk(min(k, values.shape[1]), dim=1)
    if missing:
        return top.values, torch.cat([number, items.flatten(1)], dim=1).gather(1, top.indices)
    best[better] = top.values
    number[better] = torch.cat([number[better], items.flatten(1)], dim=1).gather(1, top.indices)
    return best, number


def _ranks(own: Tensor, higher: Tensor, equal: Tensor, n_ranked: Tensor, targets: Pairs) -> tuple[Tensor, Tensor]:
    """Return the ranks of targets, and the number of ranked items of each row.

    Targets that are left out of the ranking come behind all others, and count.
    """
    lost, rows = own == -torch.inf, targets.rows
    n_lost = torch.zeros_like(n_ranked).index_add_(0, rows, lost.to(n_ranked.dtype))
    ranks = torch.where(lost, n_ranked[rows] + (n_lost[rows].double() + 1) / 2, higher + (equal.double() + 1) / 2)
    return ranks, n_ranked + n_lost


def _compare(scores: Tensor, own: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many of a row's scores are higher than a target's own, and how many equal it, ``(n_targets,)``."""
    higher, equal = (torch.zeros(len(rows), dtype=torch.long, device=rows.device) for _ in range(2))
    step = max(1, _ROWS.get(scores.device.type, _ROWS_ELSEWHERE) * _ITEMS // scores.shape[1])
    for at in range(0, len(rows), step):  # a row may have many targets
        part = slice(at, at + step)
        of_row = scores[rows[part]]
        higher[part] = (of_row > own[part, None]).sum(dim=1)
        equal[part] = (of_row == own[part, None]).sum(dim=1)
    return higher, equal
