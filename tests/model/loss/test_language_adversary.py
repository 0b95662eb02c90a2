"""The classifier of languages, its reversed gradient, and how strong that is."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from recbole_xling.errors import ConfigError
from recbole_xling.model.loss.language_adversary import LanguageAdversary


@pytest.fixture
def adversary():
    torch.manual_seed(0)
    made = LanguageAdversary(6, 0.5, torch.tensor([3, 7]))
    made.total_steps = 100
    return made


def test_the_loss_is_cross_entropy_and_its_gradient_is_reversed_for_vectors_alone(adversary):
    vectors, language = torch.randn(5, 6, requires_grad=True), torch.tensor([3, 7, 0, 3, 7])
    for step, strength in ((0, 0.0), (20, 2 / (1 + math.exp(-2)) - 1), (100, 2 / (1 + math.exp(-10)) - 1)):
        adversary.zero_grad()
        (want,) = torch.autograd.grad(reference(adversary, vectors, language), vectors)
        plain = torch.autograd.grad(reference(adversary, vectors, language), list(adversary.parameters()))
        vectors.grad = None
        loss = adversary(vectors, language, step)
        assert loss.item() == pytest.approx(reference(adversary, vectors, language).item())
        loss.backward()
        torch.testing.assert_close(vectors.grad, -strength * want)
        for parameter, gradient in zip(adversary.parameters(), plain, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def reference(adversary, vectors, language):
    known = language > 0
    logits = adversary.classifier(vectors[known] / vectors[known].norm(dim=1, keepdim=True) * 6**0.5)
    return 0.5 * F.cross_entropy(logits, language[known])


def test_a_vector_that_several_processes_have_counts_once(adversary):
    vectors, language = torch.randn(3, 6), torch.tensor([3, 7, 7])
    again = torch.tensor([0, 1, 2, 1])
    want, got = adversary(vectors, language, 5), adversary(vectors[again], language[again], 5, again)
    torch.testing.assert_close(got, want)


def test_vectors_that_differ_by_language_alone_become_alike():
    """A linear map of vectors whose first part says the language and whose second part says something else."""
    torch.manual_seed(0)
    language = torch.tensor([3, 7]).repeat(100)
    content = torch.randn(200, 4)
    raw = torch.cat([torch.where(language == 3, 2.0, -2.0)[:, None], content], dim=1)
    layer, adversary = torch.nn.Linear(5, 5, bias=False), LanguageAdversary(5, 1.0, language)
    torch.nn.init.eye_(layer.weight)
    adversary.total_steps = 400
    optimizer = torch.optim.Adam([*layer.parameters(), *adversary.parameters()], lr=0.01)
    for step in range(400):
        optimizer.zero_grad()
        keeps = F.mse_loss(layer(raw)[:, 1:], content)
        (adversary(layer(raw), language, step) + keeps).backward()
        optimizer.step()
    moved = layer(raw).detach()
    between = moved[language == 3].mean(dim=0) - moved[language == 7].mean(dim=0)
    assert between.norm() < 1.0  # it was 4
    torch.testing.assert_close(moved[:, 1:], content, rtol=0, atol=0.6)


def test_one_language_is_refused():
    with pytest.raises(ConfigError, match="train_text_view: random"):
        LanguageAdversary(6, 0.5, torch.tensor([0, 3, 3]))
    LanguageAdversary(6, 0.5, None)
