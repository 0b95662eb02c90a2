"""Negatives of a batch come at the rates that corrections are made for, and follow torch's seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_xling.errors import ConfigError
from recbole_xling.model.sampling.shared_negatives import NextItemLossConfig, SharedNegatives

COUNTS = np.array([0, 40, 0, 10, 30, 20])
KNOWN = torch.tensor([1, 3, 4, 5])
EVEN = np.array([0, 1, 0, 1, 1, 1]) / 4
RATES = {
    "in_batch": COUNTS / 100,
    "uniform": EVEN,
    "mixed": (COUNTS / 100 + EVEN) / 2,
    "popularity": COUNTS**0.75 / (COUNTS**0.75).sum(),
}


def make(negatives: str, candidates: torch.Tensor = KNOWN, **changed: object) -> SharedNegatives:
    given = {"loss_type": "sampled_softmax", "n_negatives": 50, **changed}
    return SharedNegatives(NextItemLossConfig(negatives=negatives, **given), COUNTS, lambda: COUNTS, candidates)


@pytest.mark.parametrize("negatives", RATES)
def test_items_are_drawn_at_the_rate_that_is_corrected_for(negatives):
    shared, drawn = make(negatives), np.zeros(6)
    torch.manual_seed(0)
    n = 2000
    for _ in range(n):
        target = torch.multinomial(torch.from_numpy(COUNTS / 100), 80, replacement=True)
        drawn += np.bincount(shared.draw(target), minlength=6)
    np.testing.assert_allclose(shared.rate.numpy(), RATES[negatives], rtol=1e-5)
    np.testing.assert_allclose(drawn / (50 * n), RATES[negatives], atol=0.005)
    assert not drawn[[0, 2]].any()


def test_an_odd_number_of_mixed_negatives_has_more_even_ones_in_draws_and_in_rates():
    shared, drawn = make("mixed", n_negatives=3), np.zeros(6)
    torch.manual_seed(0)
    for _ in range(n := 20_000):
        target = torch.multinomial(torch.from_numpy(COUNTS / 100), 9, replacement=True)
        drawn += np.bincount(shared.draw(target), minlength=6)
    np.testing.assert_allclose(drawn / (3 * n), shared.rate.numpy(), atol=0.01)
    np.testing.assert_allclose(shared.rate.numpy(), COUNTS / 300 + 2 * EVEN / 3, rtol=1e-5)


@pytest.mark.parametrize("negatives", RATES)
def test_the_same_state_of_the_generator_gives_the_same_negatives(negatives):
    shared, target = make(negatives), torch.tensor([1, 1, 4, 5])
    torch.manual_seed(1)
    first = shared.draw(target)
    assert len(first) == (4 if negatives == "in_batch" else 50)
    torch.manual_seed(1)
    assert torch.equal(first, shared.draw(target))
    assert negatives == "in_batch" or not torch.equal(first, shared.draw(target))


def test_items_without_interactions_are_drawn_evenly_where_they_are_candidates():
    shared = make("mixed", torch.arange(1, 6))
    assert shared.rate[2] == pytest.approx(0.1) and shared.rate[1] == pytest.approx((0.4 + 0.2) / 2)


@pytest.mark.parametrize("correction", [True, "refined"])
@pytest.mark.parametrize("negatives", RATES)
def test_corrected_losses_do_not_depend_on_how_items_are_drawn(negatives, correction):
    """Where many are drawn, each is near to the softmax over all of them."""
    torch.manual_seed(0)
    shared = make(negatives, n_negatives=40_000, logq_correction=correction)
    table, prior, states = torch.randn(6, 4), torch.randn(6), torch.randn(4, 4).requires_grad_()
    target = KNOWN[torch.tensor([0, 1, 2, 3])]
    of_batch = torch.multinomial(torch.from_numpy(COUNTS / 100), 40_000, replacement=True)
    drawn = shared.draw(of_batch)
    weight = torch.full((4,), 0.25)
    loss = shared(
        states, table[target], table[drawn], target=target, negative_id=drawn, position_weight=weight, prior=prior
    )
    got = torch.autograd.grad(loss, states)[0]
    logits = states @ table[KNOWN].T + prior[KNOWN]
    want = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, torch.arange(4)), states)[0]
    if correction is True:  # one target beside many draws: its own term hardly counts
        probability = logits.softmax(dim=1).detach().gather(1, torch.arange(4)[:, None])
        assert torch.cosine_similarity(got, want, dim=1).min() > 0.9 and probability.min() > 0
    else:
        torch.testing.assert_close(got, want, rtol=0.05, atol=0.01)


def test_gbce_is_calibrated_for_even_draws():
    with pytest.raises(ConfigError, match="uniform"):
        NextItemLossConfig(loss_type="gBCE", negatives="mixed")
