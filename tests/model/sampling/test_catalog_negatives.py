"""Negatives from the catalog: which are drawn, and the correction of their logits."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_xling.model.sampling.catalog_negatives import CatalogNegatives
from recbole_xling.model.sampling.in_batch import adjust_logits

COUNTS = torch.tensor([0, 3, 0, 1, 1, 9, 0, 2])


def negatives(number: int) -> CatalogNegatives:
    return CatalogNegatives(number, COUNTS)


def test_only_trained_items_are_drawn_evenly_and_the_same_numbers_draw_the_same():
    some = negatives(2)
    assert some.rate == 0.4
    drawn = [some.draw(0, step, 1) for step in range(1000)]
    assert all(len(items) == 2 and items[0] < items[1] for items in drawn)
    often = torch.bincount(torch.cat(drawn), minlength=8) / 1000
    torch.testing.assert_close(often, 0.4 * (COUNTS > 0), atol=0.05, rtol=0)
    assert drawn[7].equal(negatives(2).draw(0, 7, 1))


@pytest.mark.parametrize("number", [5, 100])
def test_a_small_catalog_is_taken_as_a_whole(number):
    every = negatives(number)
    assert every.rate == 1 and every.draw(0, 0, 0).tolist() == [1, 3, 4, 5, 7]


def test_without_a_number_nothing_is_drawn():
    assert negatives(0).rate == 0 and negatives(0).draw(0, 0, 0).tolist() == []


def test_the_correction_is_by_the_chance_of_a_text_to_come_by_either_way():
    of_item = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 4]])  # items 4 and 7 share a text
    rate, n_batches = 0.4, 3.0
    got = adjust_logits(of_item, 7, COUNTS[None], torch.zeros(8), n_batches, None, rate)
    for text, items in {1: [1], 3: [3], 4: [4, 7], 5: [5]}.items():
        missing = math.prod((1 - rate) * math.exp(-int(COUNTS[item]) / n_batches) for item in items)
        assert got[text].item() == pytest.approx(-math.log(1 - missing), rel=1e-5)
    certain = adjust_logits(of_item, 7, COUNTS[None], torch.zeros(8), n_batches, None, 1.0)
    assert certain[[1, 3, 4, 5]].tolist() == [0, 0, 0, 0]


def test_the_correction_where_items_are_shown_in_a_view_by_chance():
    of_item = torch.tensor([[0, 1, 2], [0, 3, 2]])  # item 1 has two texts, item 2 the same in both views
    counts, chance = torch.tensor([[0, 2, 1], [0, 2, 1]]), torch.tensor([[1.0, 0.3, 0.5], [0.0, 0.7, 0.5]])
    got = adjust_logits(of_item, 4, counts, torch.zeros(3), 2.0, chance, 0.25)
    has = 1 - 0.75 * math.exp(-2 / 2)
    assert got[1].item() == pytest.approx(-math.log(0.3 * has), rel=1e-5)
    assert got[3].item() == pytest.approx(-math.log(0.7 * has), rel=1e-5)


def test_a_text_that_an_item_has_in_two_views_is_drawn_once():
    of_item = torch.tensor([[0, 1, 2], [0, 3, 2]])
    counts = torch.tensor([[0, 2, 1], [0, 0, 0]])
    got = adjust_logits(of_item, 4, counts, torch.zeros(3), 2.0, None, 0.25)
    assert got[2].item() == pytest.approx(-math.log(1 - 0.75 * math.exp(-1 / 2)), rel=1e-5)
    assert got[3].item() == pytest.approx(-math.log(0.25), rel=1e-5)
