"""In-batch softmax and alignment against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_xling.model.loss.alignment import alignment_loss
from recbole_xling.model.loss.in_batch_softmax import InBatch, in_batch_softmax


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    n, u, d = 7, 5, 4
    accidental_hit_mask = torch.rand(n, u, generator=generator) < 0.3
    target = torch.tensor([0, 1, 2, 3, 4, 1, 0])
    accidental_hit_mask[0, 0] = True  # a target in the history counts all the same
    return InBatch(
        states=torch.randn(n, d, generator=generator, dtype=torch.double),
        items=torch.randn(u, d, generator=generator, dtype=torch.double),
        target=target,
        weight=torch.rand(n, generator=generator, dtype=torch.double),
        accidental_hit_mask=accidental_hit_mask,
        logit_adjustment=torch.randn(u, generator=generator, dtype=torch.double),
        is_user=torch.tensor([True, True, False, True, True, True, False]),
    )


def test_cosines_keep_their_digits_under_autocast(batch):
    unit = [torch.nn.functional.normalize(rows.float(), dim=-1) for rows in (batch.states, batch.items)]
    batch = replace(batch, states=unit[0], items=unit[1])
    pairs = unit[0][:5], unit[1], torch.arange(5)
    scale = torch.tensor(100.0)  # at which a rounded cosine moves the loss by tenths
    want = [in_batch_softmax(batch, scale), alignment_loss(*pairs, scale)]
    with torch.autocast("cpu", torch.bfloat16):
        assert (unit[0] @ unit[1].T).dtype == torch.bfloat16
        got = [in_batch_softmax(batch, scale), alignment_loss(*pairs, scale)]
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def log_share(right: float, others: list[float]) -> float:
    return right - np.logaddexp.reduce([right, *others])


def by_loops(batch: InBatch, scale: float, hardness: float = 0.0) -> float:
    cosine = (batch.states @ batch.items.T).numpy()
    match, negative = cosine * scale, cosine * (scale + hardness)
    target, known = batch.target.tolist(), batch.accidental_hit_mask.numpy()
    offset = batch.logit_adjustment.numpy()
    n, u = match.shape
    total = 0.0
    for row in range(n):
        own, weight = target[row], float(batch.weight[row])
        others = [negative[row, c] + offset[c] for c in range(u) if c != own and not known[row, c]]
        total -= weight * log_share(match[row, own] + offset[own], others) / 2
        if batch.is_user[row]:
            users = [k for k in range(n) if k != row and batch.is_user[k] and target[k] != own and not known[k, own]]
            total -= weight * log_share(match[row, own], [negative[k, own] for k in users]) / 2
    return total


def test_both_directions_equal_plain_loops(batch):
    got = in_batch_softmax(batch, torch.tensor(3.0))
    assert got.item() == pytest.approx(by_loops(batch, 3.0), rel=1e-5)


def test_near_negatives_count_more_without_a_gradient_of_their_own(batch):
    got = in_batch_softmax(batch, torch.tensor(3.0), hardness=2.0)
    assert got.item() == pytest.approx(by_loops(batch, 3.0, 2.0), rel=1e-5)
    items = batch.items.clone().requires_grad_()
    alone = InBatch(**{**vars(batch), "items": items, "is_user": torch.zeros(7, dtype=torch.bool)})
    in_batch_softmax(alone, torch.tensor(3.0), hardness=2.0).backward()
    chosen = torch.nn.functional.one_hot(alone.target, 5)
    cosine = batch.states @ batch.items.T
    logits = cosine * torch.where(chosen == 1, 3.0, 5.0) + batch.logit_adjustment
    share = torch.softmax(logits.masked_fill(batch.accidental_hit_mask & (chosen == 0), float("-inf")), dim=1)
    by_hand = (alone.weight[:, None] * (share - chosen)).T @ alone.states * 3 / 2
    torch.testing.assert_close(items.grad, by_hand.to(items.grad), rtol=1e-5, atol=1e-6)


def test_a_matryoshka_loss_is_the_mean_over_the_first_dimensions(batch):
    unit = torch.nn.functional.normalize
    want = [by_loops(batch, 3.0)]
    for size in (1, 3):
        first = {"states": unit(batch.states[:, :size], dim=-1), "items": unit(batch.items[:, :size], dim=-1)}
        want.append(by_loops(InBatch(**{**vars(batch), **first}), 3.0))
    got = in_batch_softmax(batch, torch.tensor(3.0), sizes=(1, 3))
    assert got.item() == pytest.approx(np.mean(want), rel=1e-5)


def test_positions_without_a_history_get_no_gradient_from_the_users_direction(batch):
    states = batch.states.clone().requires_grad_()
    alone = InBatch(**{**vars(batch), "states": states, "is_user": torch.zeros(7, dtype=torch.bool)})
    in_batch_softmax(alone, torch.tensor(3.0)).backward()
    assert torch.isfinite(states.grad).all() and states.grad.abs().sum() > 0


@pytest.mark.parametrize("hardness", [0.0, 1.5])
def test_alignment_equals_plain_loops(hardness):
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(6, 3, generator=generator, dtype=torch.double) for _ in range(2))
    item = torch.tensor([4, 8, 8, 1, 2, 3])
    scores = (first @ second.T * 2.0).numpy()
    negative = scores * (2.0 + hardness) / 2.0
    want = 0.0
    for a in range(6):
        others = [b for b in range(6) if b != a and item[b] != item[a]]
        want -= log_share(scores[a, a], [negative[a, b] for b in others]) / 12
        want -= log_share(scores[a, a], [negative[b, a] for b in others]) / 12
    assert alignment_loss(first, second, item, torch.tensor(2.0), hardness).item() == pytest.approx(want, rel=1e-5)
