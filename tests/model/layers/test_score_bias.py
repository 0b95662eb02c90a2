"""How often cold items are shown."""

from __future__ import annotations

import pytest
import torch

from recbole_xling.model.layers.score_bias import cold_share, entry_gaps, exposure_offset


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_offset_gives_cold_items_their_share_of_the_first_ten(share):
    generator = torch.Generator().manual_seed(0)
    warm = torch.randn(200, 300, generator=generator) * 3
    cold = torch.randn(200, 40, generator=generator) - 5
    offset = exposure_offset(entry_gaps(warm, cold), share)
    places = torch.cat([warm, cold + offset + 1e-4], dim=1).topk(10).indices
    assert (places >= 300).float().mean() == pytest.approx(share, abs=0.001)


def test_fewer_cold_items_than_places_take_at_most_one_each():
    warm, cold = torch.randn(50, 30), torch.randn(50, 2)
    offset = exposure_offset(entry_gaps(warm, cold), 0.9)
    assert torch.isfinite(offset)
    assert ((cold + offset + 1e-4) > warm.topk(10).values[:, -1:]).all()


def test_lists_without_other_items_need_no_offset():
    assert exposure_offset(entry_gaps(torch.full((5, 1), float("-inf")), torch.randn(5, 3)), 0.2) == 0


def test_a_share_has_a_bound():
    assert cold_share(5, 10, 1000) == 0.05
    assert cold_share(5, 900, 1000) == 0.2
    assert cold_share(5, 0, 1000) == 0
