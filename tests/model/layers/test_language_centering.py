"""Taking from vectors what all texts of a language have in common."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recbole_xling.model.layers.language_centering import LanguageCentering
from recbole_xling.model.layers.language_embedding import language_numbers

N = 400


@pytest.fixture
def texts():
    """Texts in two languages, each beside its translation: what they say, and much that all of a language share."""
    generator = torch.Generator().manual_seed(0)
    meaning = torch.randn(N, 16, generator=generator) * 0.3
    common = torch.randn(2, 16, generator=generator)
    vectors = F.normalize(torch.cat([meaning + common[0], meaning + common[1]]), dim=-1)
    return vectors, language_numbers(["de"] * N + ["en"] * N)


def found(vectors):
    match = vectors @ vectors.T
    match.fill_diagonal_(-1)
    return (match.argmax(dim=1)[:N] == torch.arange(N, 2 * N)).float().mean().item()


def test_translations_are_nearer_than_other_texts_of_the_same_language(texts):
    vectors, language = texts
    centered = LanguageCentering()(vectors, language, torch.ones(2 * N))
    torch.testing.assert_close(centered.norm(dim=1), torch.ones(2 * N))
    assert found(vectors) < 0.1
    assert found(centered) > 0.9


def test_means_are_of_the_language_and_thirty_average_texts(texts):
    vectors, language = texts
    few = 5
    rows = torch.cat([torch.arange(N), torch.arange(N, N + few)])
    vectors, language = vectors[rows], language[rows]
    mean = vectors.mean(dim=0)
    means = [(part.sum(dim=0) + 30 * mean) / (len(part) + 30) for part in (vectors[:N], vectors[N:])]
    want = F.normalize(torch.cat([vectors[:N] - means[0], vectors[N:] - means[1]]), dim=-1)
    torch.testing.assert_close(LanguageCentering()(vectors, language, torch.ones(N + few)), want)


def test_texts_without_weight_are_centered_and_change_nothing(texts):
    vectors, language = texts
    weight = torch.ones(2 * N)
    weight[:50] = 0
    centered = LanguageCentering()(vectors, language, weight)
    torch.testing.assert_close(centered[50:], LanguageCentering()(vectors[50:], language[50:], weight[50:]))
    assert (centered[:50] * vectors[:50]).sum(dim=1).max() < 1


def test_one_text_alone_stays_finite():
    one = F.normalize(torch.ones(1, 4), dim=-1).requires_grad_()
    centered = LanguageCentering()(one, language_numbers(["de"]), torch.ones(1))
    centered.sum().backward()
    assert centered.isfinite().all() and one.grad.isfinite().all()
