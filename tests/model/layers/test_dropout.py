"""Dropout keeps the mean, drops the share it is told to, and follows torch's seed."""

from __future__ import annotations

import pytest
import torch

from recbole_xling.model.layers.attention import CausalAttention
from recbole_xling.model.layers.cpu_kernels import dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_the_given_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(1001, 301)
    y = dropout(x, p, training=True)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)
    assert y[y > 0].unique().numel() == 1


def test_elements_are_dropped_independently():
    torch.manual_seed(0)
    kept = (dropout(torch.ones(4, 100_000), 0.5, training=True) > 0).float()
    lanes = kept.view(-1, 4)
    correlation = torch.corrcoef(lanes.T) - torch.eye(4)
    assert correlation.abs().max() < 0.02


def test_follows_the_seed_and_does_nothing_in_evaluation():
    x = torch.randn(7, 5)
    torch.manual_seed(3)
    first = dropout(x, 0.5, training=True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5, training=True))
    assert dropout(x, 0.5, training=False) is x
    assert (dropout(x, 1.0, training=True) == 0).all()


def test_attention_with_dropout_has_the_mean_of_attention_without():
    torch.manual_seed(0)
    attention = CausalAttention(8, 2, attn_dropout_prob=0.3)
    x = torch.randn(2, 6, 8)
    with torch.no_grad():
        mean = torch.stack([attention.train()(x) for _ in range(4000)]).mean(dim=0)
        torch.testing.assert_close(mean, attention.eval()(x), atol=0.03, rtol=0)
