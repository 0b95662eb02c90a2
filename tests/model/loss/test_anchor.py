"""The anchor: the mean distance of tuned vectors from those of before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_xling.model.loss.anchor import anchor_loss


def test_it_is_the_mean_of_one_minus_the_cosine_and_a_repeated_text_counts_once():
    generator = torch.Generator().manual_seed(0)
    tuned, untuned = (torch.randn(4, 3, generator=generator) for _ in range(2))
    tuned[3], untuned[3] = tuned[1], untuned[1]
    a, b = tuned.numpy()[:3], untuned.numpy()[:3]
    want = np.mean([1 - x @ y / np.sqrt(x @ x * (y @ y)) for x, y in zip(a, b, strict=True)])
    assert anchor_loss(torch.tensor([5, 2, 9, 2]), tuned, untuned).item() == pytest.approx(want, rel=1e-5)


def test_vectors_that_did_not_turn_are_at_no_distance_whatever_their_length():
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert anchor_loss(torch.arange(4), 3 * vectors, vectors).item() == pytest.approx(0, abs=1e-6)
