"""Losses against references written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_xling.model.loss import linear_cross_entropy as module
from recbole_xling.model.loss.linear_cross_entropy import linear_cross_entropy
from recbole_xling.model.loss.sampled_softmax import (
    calibrated_bce,
    gbce_beta,
    refined_softmax,
    sampled_logits,
    sampled_softmax,
)


def reference(logits: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-(log_probability[np.arange(len(target)), target] * weight).sum())


@pytest.fixture(params=[1 << 19, 64, 1], ids=["one chunk", "some chunks", "row by row"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", {"cpu": request.param})
    monkeypatch.setattr(module, "_LEAST_ROWS", 1)


def test_linear_cross_entropy_equals_the_formula_and_torch_gradients(chunk):
    torch.manual_seed(0)
    hidden = (torch.randn(13, 8) * 3).requires_grad_()
    table = torch.randn(31, 8).requires_grad_()
    target, weight = torch.randint(31, (13,)), torch.rand(13)
    loss = linear_cross_entropy(hidden, table, target, weight)
    assert loss.item() == pytest.approx(
        reference((hidden @ table.T).detach().numpy(), target.numpy(), weight.numpy()), rel=1e-5
    )
    got = torch.autograd.grad(3 * loss, [hidden, table])
    plain = torch.nn.functional.cross_entropy(hidden @ table.T, target, reduction="none")
    want = torch.autograd.grad(3 * (plain * weight).sum(), [hidden, table])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_gradients_of_all_items(dtype):
    """A probability times a position's share of a large batch is far below what float16 can hold."""
    torch.manual_seed(0)
    hidden, table = torch.randn(64, 16), 0.1 * torch.randn(5000, 16)
    target, weight = torch.randint(0, 5000, (64,)), torch.rand(64) * 2e-5
    gradients = []
    for half in (False, True):
        parts = hidden.clone().requires_grad_(), table.clone().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=half):
            linear_cross_entropy(*parts, target, weight).backward()
        gradients.append([part.grad for part in parts])
    never_right = torch.bincount(target, minlength=5000) == 0
    for rows in (slice(None), never_right):
        exact, found = (table_gradient[rows] for _, table_gradient in gradients)
        assert (found - exact).norm() < 0.02 * exact.norm()
    assert (gradients[1][0] - gradients[0][0]).norm() < 0.02 * gradients[0][0].norm()


def test_linear_cross_entropy_adds_a_constant_to_the_logits(chunk):
    torch.manual_seed(0)
    hidden, table = torch.randn(13, 8, requires_grad=True), torch.randn(31, 8, requires_grad=True)
    bias, target, weight = torch.randn(31), torch.randint(31, (13,)), torch.rand(13)
    loss = linear_cross_entropy(hidden, table, target, weight, bias=bias)
    plain = torch.nn.functional.cross_entropy(hidden @ table.T + bias, target, reduction="none")
    want = (plain * weight).sum()
    torch.testing.assert_close(loss, want)
    for a, b in zip(*(torch.autograd.grad(value, [hidden, table]) for value in (loss, want)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_linear_cross_entropy_under_autocast_is_close(chunk):
    torch.manual_seed(0)
    hidden, table = torch.randn(50, 8, requires_grad=True), torch.randn(31, 8, requires_grad=True)
    target, weight = torch.randint(31, (50,)), torch.full((50,), 1 / 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = linear_cross_entropy(hidden, table, target, weight)
    full = linear_cross_entropy(hidden, table, target, weight)
    assert half.item() == pytest.approx(full.item(), rel=1e-2)
    a, b = (torch.autograd.grad(loss, table)[0] for loss in (half, full))
    assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999


def test_linear_cross_entropy_survives_large_logits():
    hidden = torch.tensor([[1e4, 0.0]], requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.eye(2), torch.tensor([1]), torch.ones(1))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert torch.isfinite(hidden.grad).all()


def test_sampled_softmax_equals_the_formula():
    torch.manual_seed(0)
    hidden, positive, negative = torch.randn(5, 4), torch.randn(5, 4), torch.randn(7, 4)
    target, negative_id = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([3, 9, 9, 2, 8, 7, 6])
    weight, log_q = torch.rand(5), torch.rand(10).log()
    adjusted = -log_q[target], -log_q[negative_id]
    got = sampled_softmax(*sampled_logits(hidden, positive, negative, target, negative_id, *adjusted), weight)
    total = 0.0
    for i in range(5):
        logits = [float(hidden[i] @ positive[i] - log_q[target[i]])]
        logits += [
            float(hidden[i] @ negative[j] - log_q[negative_id[j]])
            for j in range(7)
            if negative_id[j] != target[i]  # the own target is no negative
        ]
        total += float(weight[i]) * (np.log(np.exp(logits).sum()) - logits[0])
    assert got.item() == pytest.approx(total, rel=1e-5)


def test_log_q_makes_the_sampled_loss_approach_the_full_softmax():
    torch.manual_seed(0)
    n_items, hidden, table = 50, torch.randn(200, 8), torch.randn(50, 8)
    target = torch.randint(n_items, (200,))
    rate = torch.linspace(1, 20, n_items)
    rate = rate / rate.sum()
    full = torch.nn.functional.cross_entropy(hidden @ table.T, target).item()
    weight = torch.full((200,), 1 / 200)

    def sampled(corrected: bool) -> float:
        # every position sees its target once among its draws, as in a batch
        drawn = torch.multinomial(rate, 20000, replacement=True)
        log_q = (rate * len(drawn)).log() if corrected else torch.zeros(n_items)
        adjusted = torch.zeros(200), -log_q[drawn]
        logits = sampled_logits(hidden, table[target], table[drawn], target, drawn, *adjusted)
        return sampled_softmax(*logits, weight).item()

    assert sampled(True) == pytest.approx(full, rel=0.02)
    assert abs(sampled(False) - full) > 1


def test_refined_softmax_equals_the_formula():
    """Khrylchenko et al. 2025: the target's own logit is not corrected, and the rate is that among other items."""
    generator = torch.Generator().manual_seed(0)
    right, wrong = torch.randn(4, generator=generator), torch.randn(4, 6, generator=generator)
    rate, target = torch.rand(9, generator=generator).softmax(0), torch.tensor([1, 2, 3, 4])
    negative, weight = torch.tensor([5, 2, 8, 8, 0, 1]), torch.rand(4, generator=generator)
    total = 0.0
    for i in range(4):
        kept = [j for j in range(6) if negative[j] != target[i]]
        others = 1 - rate[target[i]].item()
        terms = [np.exp(wrong[i, j].item()) / (rate[negative[j]].item() / others) for j in kept]
        probability = np.exp(right[i].item()) / (np.exp(right[i].item()) + np.mean(terms))
        total += weight[i].item() * -(1 - probability) * np.log(np.exp(right[i].item()) / np.mean(terms))
    hit = negative == target[:, None]
    corrected = (wrong - rate[negative].log()).masked_fill(hit, float("-inf"))
    assert refined_softmax(right, corrected, rate[target], weight).item() == pytest.approx(total, rel=1e-5)


def test_a_position_without_negatives_has_no_refined_loss():
    right = torch.zeros(2, requires_grad=True)
    wrong = torch.tensor([[0.0], [float("-inf")]], requires_grad=True)
    refined_softmax(right, wrong, torch.full((2,), 0.1), torch.ones(2)).backward()
    assert right.grad[1] == 0 and wrong.grad[1] == 0 and right.grad[0] < 0 and torch.isfinite(wrong.grad).all()


def test_the_refined_gradient_estimates_that_of_the_full_softmax_and_yis_does_not():
    """On few draws, averaged over many samples: the mean of both is compared with the exact gradient."""
    torch.manual_seed(0)
    n_items, target, draws = 8, 3, 4000
    logits = (torch.randn(n_items) * 0.5).requires_grad_()
    rate = torch.linspace(1, 6, n_items)
    rate = rate / rate.sum()
    exact = torch.autograd.grad(torch.nn.functional.cross_entropy(logits[None], torch.tensor([target])), logits)[0]
    drawn = torch.multinomial(rate, draws * 64, replacement=True).view(draws, 64)
    hit = drawn == target
    wrong = (logits[drawn] - rate[drawn].log()).masked_fill(hit, float("-inf"))
    right, weight = logits[target].expand(draws), torch.full((draws,), 1 / draws)
    refined = torch.autograd.grad(
        refined_softmax(right, wrong, rate[target].expand(draws), weight), logits, retain_graph=True
    )[0]
    plain = torch.autograd.grad(sampled_softmax(right - rate[target].log(), wrong, weight), logits)[0]
    assert (refined - exact).norm() < 0.03 * exact.norm()  # a ratio of means: its bias falls with the draws
    assert (plain - exact).norm() > 2 * (refined - exact).norm()


def test_gbce_equals_the_formula():
    """Petrov & Macdonald 2023: the probability of the target to a power, by which probabilities are calibrated."""
    generator = torch.Generator().manual_seed(0)
    right, wrong = torch.randn(3, generator=generator), torch.randn(3, 5, generator=generator)
    wrong[1, 2] = float("-inf")
    weight, t, n_items = torch.rand(3, generator=generator), 0.75, 101
    alpha = 5 / (n_items - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    total = 0.0
    for i in range(3):
        kept = [j for j in range(5) if wrong[i, j] > float("-inf")]
        log_likelihood = np.log(torch.sigmoid(right[i]).item() ** beta)
        log_likelihood += sum(np.log(1 - torch.sigmoid(wrong[i, j]).item()) for j in kept)
        total -= weight[i].item() * log_likelihood / (len(kept) + 1)
    assert gbce_beta(5, n_items, t) == pytest.approx(beta)
    assert calibrated_bce(right, wrong, beta, weight).item() == pytest.approx(total, rel=1e-5)
    assert gbce_beta(5, n_items, 0.0) == 1 and gbce_beta(5, n_items, 1.0) == pytest.approx(alpha)
    assert gbce_beta(500, n_items, 0.3) == 1  # all items are drawn: nothing to calibrate


def test_with_full_calibration_the_best_scores_are_probabilities():
    """Where the sigmoid of each score is its item's probability, the expected gradient is zero; with t = 0 it rises."""
    probability = torch.tensor([0.5, 0.3, 0.15, 0.05])
    score = torch.logit(probability).requires_grad_()
    gradients = []
    for t in (1.0, 0.0):
        beta, loss = gbce_beta(1, 4, t), torch.zeros(())
        for item in range(4):  # the expectation over targets and one even draw among the others
            wrong = score[[other for other in range(4) if other != item]][:, None]
            loss = loss + calibrated_bce(score[item].expand(3), wrong, beta, probability[item].expand(3) / 3)
        gradients.append(torch.autograd.grad(loss, score)[0])
    torch.testing.assert_close(gradients[0], torch.zeros(4), atol=1e-6, rtol=0)
    assert (gradients[1] < -0.01).all()
