"""Negatives from the catalog: which are drawn, and the correction of their logits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_xling.model.sampling.catalog_negatives import CatalogNegatives, CatalogNegativesConfig
from recbole_xling.model.sampling.in_batch import adjust_logits

COUNTS = torch.tensor([[0, 3, 0, 1, 1, 9, 0, 2]])
UNITS = torch.arange(8)[None]


def negatives(
    number: Any, counts: Tensor = COUNTS, units: Tensor = UNITS, *, frozen: bool = False, by_chance: bool = False
) -> CatalogNegatives:
    config = CatalogNegativesConfig(catalog_negatives=number)
    return CatalogNegatives(config, counts, units, frozen=frozen, by_chance=by_chance)


def test_only_trained_items_are_drawn_evenly_and_the_same_numbers_draw_the_same() -> None:
    some = negatives(2)
    assert some.rate == 0.4
    drawn = [some.draw(None, 0, step, 1) for step in range(1000)]
    assert all(len(units) == 2 for units in drawn)
    often = torch.bincount(torch.cat(drawn), minlength=8) / 1000
    torch.testing.assert_close(often, 0.4 * (COUNTS[0] > 0), atol=0.05, rtol=0)
    assert drawn[7].equal(negatives(2).draw(None, 0, 7, 1))


@pytest.mark.parametrize(("number", "frozen"), [(5, False), (100, False), ("auto", True)])
def test_a_small_catalog_is_taken_as_a_whole(number: Any, frozen: bool) -> None:
    every = negatives(number, frozen=frozen)
    assert every.rate == 1 and every.draw(None, 0, 0, 0).tolist() == [1, 3, 4, 5, 7]


@pytest.mark.parametrize(("number", "frozen"), [(0, True), ("auto", False)])
def test_an_encoder_that_is_tuned_has_none_unless_they_are_asked_for(number: Any, frozen: bool) -> None:
    none = negatives(number, frozen=frozen)
    assert none.rate == 0 and none.draw(None, 0, 0, 0).tolist() == []


def test_a_large_catalog_with_a_frozen_encoder_is_sampled() -> None:
    counts = torch.ones(1, 20_000)
    sampled = negatives("auto", counts, torch.arange(20_000)[None], frozen=True)
    assert sampled.rate == 0.5 and len(sampled.draw(None, 0, 0, 0)) == 10_000


def test_texts_that_no_training_reader_sees_are_no_negatives() -> None:
    counts, units = torch.tensor([[0, 3, 0, 1], [0, 0, 0, 2]]), torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6]])
    assert negatives(9, counts, units).draw(None, 0, 0, 0).tolist() == [1, 3, 6]


def test_each_item_is_in_the_view_that_is_drawn_for_the_batch() -> None:
    counts, units = torch.tensor([[0, 3, 0, 1], [0, 3, 0, 1]]), torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6]])
    drawn = negatives(9, counts, units, by_chance=True)
    assert drawn.rate == 1
    assert drawn.draw(torch.tensor([0, 1, 1, 0]), 0, 0, 0).tolist() == [3, 4]
    assert drawn.draw(torch.tensor([0, 0, 0, 1]), 0, 0, 0).tolist() == [1, 6]


def test_the_correction_is_by_the_chance_of_a_text_to_come_by_either_way() -> None:
    of_item = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 4]])  # items 4 and 7 share a text
    rate, n_batches = 0.4, 3.0
    got = adjust_logits(of_item, 7, COUNTS, torch.zeros(8), n_batches, None, rate)
    for text, items in {1: [1], 3: [3], 4: [4, 7], 5: [5]}.items():
        missing = math.prod((1 - rate) * math.exp(-int(COUNTS[0, item]) / n_batches) for item in items)
        assert got[text].item() == pytest.approx(-math.log(1 - missing), rel=1e-5)
    certain = adjust_logits(of_item, 7, COUNTS, torch.zeros(8), n_batches, None, 1.0)
    assert certain[[1, 3, 4, 5]].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("rate", "has"), [(0.25, 1 - 0.75 * math.exp(-2 / 2)), (1.0, 1.0)])
def test_the_correction_where_items_are_shown_in_a_view_by_chance(rate: float, has: float) -> None:
    of_item = torch.tensor([[0, 1, 2], [0, 3, 2]])  # item 1 has two texts
    counts, chance = torch.tensor([[0, 2, 1], [0, 2, 1]]), torch.tensor([[1.0, 0.3, 1.0], [0.0, 0.7, 0.0]])
    got = adjust_logits(of_item, 4, counts, torch.zeros(3), 2.0, chance, rate)
    assert got[1].item() == pytest.approx(-math.log(0.3 * has), rel=1e-5)
    assert got[3].item() == pytest.approx(-math.log(0.7 * has), rel=1e-5)
    assert got[2].item() == pytest.approx(-math.log(1 - (1 - rate) * math.exp(-1 / 2)), rel=1e-5)
