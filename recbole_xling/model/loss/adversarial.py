"""Adversarial training: losses under the small changes of item vectors that hurt most."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recbole_xling.utils.typed_config import TypedConfig

_SCALE = 1024.0  # of the loss whose gradients are taken: under autocast small ones would vanish in float16


class AdversarialConfig(TypedConfig):
    """How item vectors of histories are perturbed in training."""

    section: ClassVar[str] = "adversarial training"

    adversarial: Literal["none", "fgm", "pgd"] = Field(
        "none", description="Also train on perturbed item vectors of histories: one step (`fgm`) or several (`pgd`)."
    )
    adversarial_weight: float = Field(1.0, ge=0, description="Weight of the loss on perturbed vectors.")
    adversarial_epsilon: float = Field(
        0.1, gt=0, description="Length of a perturbation, as a share of the vector's length."
    )
    adversarial_steps: int = Field(3, ge=1, description="Steps of `pgd`.")


def adversarial_loss(settings: AdversarialConfig, loss: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    """Return a loss plus its weighted value on perturbed vectors, a scalar; without ``adversarial`` the loss alone.

    Each vector is moved by at most ``adversarial_epsilon`` of its length. ``fgm`` moves it all that way along its
    gradient (fast gradient method: Miyato, Dai & Goodfellow, "Adversarial Training Methods for Semi-Supervised Text
    Classification", ICLR 2017; for recommenders He et al., "Adversarial Personalized Ranking for Recommendation",
    SIGIR 2018). ``pgd`` goes several steps of 2.5 / ``adversarial_steps`` of it, and after each one back into the ball
    (projected gradient descent: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR
    2018); it starts at the vectors themselves, so that nothing random is drawn. Perturbations are constants to the
    weights.

    Args:
        settings: kind, weight, length and steps.
        loss: of vectors of the shape of ``vectors``.
        vectors: ``(..., D)``; those that are zero, such as padding, stay zero.
    """
    if settings.adversarial == "none" or not settings.adversarial_weight:
        return loss(vectors)
    if not vectors.requires_grad:  # of an encoder that is not trained
        vectors = vectors.detach().requires_grad_()
    clean = loss(vectors)
    radius = settings.adversarial_epsilon * vectors.detach().norm(dim=-1, keepdim=True)  # (..., 1)
    n_steps = settings.adversarial_steps if settings.adversarial == "pgd" else 1
    step = radius * min(1.0, 2.5 / n_steps)
    (gradient,) = torch.autograd.grad(clean * _SCALE, vectors, retain_graph=True)
    shift = step * _directions(gradient)  # (..., D)
    for _ in range(n_steps - 1):
        shift.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(vectors.detach() + shift) * _SCALE, shift)
        shift = shift.detach() + step * _directions(gradient)
        shift = shift * (radius / shift.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp(max=1.0)
    return clean + settings.adversarial_weight * loss(vectors + shift)


def _directions(gradient: Tensor) -> Tensor:
    """Return gradients of unit length, ``(..., D)``; zero where they are zero."""
    return gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-30)
