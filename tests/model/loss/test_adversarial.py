"""Adversarial perturbations against a reference written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_xling.model.loss.adversarial import AdversarialConfig, adversarial_loss

POINT, CURVES = np.array([[[1.0, 2.0], [0.5, -1.0]]]), np.array([[[1.0, -3.0], [2.0, 0.5]]])


def value(vectors: np.ndarray) -> float:
    return float((CURVES * vectors**2 + vectors).sum())


def reference(epsilon: float, n_steps: int) -> float:
    radius = epsilon * np.linalg.norm(POINT, axis=-1, keepdims=True)
    shift = np.zeros_like(POINT)
    for _ in range(n_steps):
        gradient = 2 * CURVES * (POINT + shift) + 1
        shift = shift + radius * min(1, 2.5 / n_steps) * gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)
        shift *= np.minimum(1, radius / np.linalg.norm(shift, axis=-1, keepdims=True))
    return value(POINT + shift)


@pytest.mark.parametrize(("kind", "n_steps"), [("fgm", 1), ("pgd", 1), ("pgd", 4)])
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "frozen"])
def test_the_loss_has_its_value_on_perturbed_vectors_besides(kind, n_steps, trained):
    settings = AdversarialConfig(
        adversarial=kind, adversarial_weight=0.7, adversarial_epsilon=0.3, adversarial_steps=n_steps
    )
    vectors = torch.tensor(POINT, requires_grad=trained)
    loss = adversarial_loss(settings, lambda given: (torch.tensor(CURVES) * given**2 + given).sum(), vectors)
    assert loss.item() == pytest.approx(value(POINT) + 0.7 * reference(0.3, n_steps))
    if trained:  # the perturbation is a constant
        loss.backward()
        assert torch.isfinite(vectors.grad).all() and vectors.grad.abs().sum() > 0


def test_several_steps_find_a_worse_point_than_one():
    assert reference(0.5, 10) > reference(0.5, 1) > value(POINT)


def test_padding_stays_zero():
    vectors = torch.tensor([[1.0, 1.0], [0.0, 0.0]], requires_grad=True)
    seen = []

    def loss(given):
        seen.append(given.detach())
        return (given * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum()

    adversarial_loss(AdversarialConfig(adversarial="pgd"), loss, vectors).backward()
    assert len(seen) == 4 and all((given[1] == 0).all() for given in seen)
    assert (seen[-1][0] != seen[0][0]).all() and torch.isfinite(vectors.grad).all()


def test_without_it_the_loss_is_computed_once():
    calls = []
    adversarial_loss(
        AdversarialConfig(), lambda given: calls.append(1) or given.sum(), torch.ones(2, requires_grad=True)
    )
    assert len(calls) == 1
