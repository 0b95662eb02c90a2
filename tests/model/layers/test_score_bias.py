"""How often cold items are shown."""

from __future__ import annotations

import pytest
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.model.layers import score_bias
from recbole_xling.model.layers.score_bias import cold_share, entry_gaps, exposure_offset
from recbole_xling.quick_start.build import build


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


def test_fewer_histories_tell_it_of_large_catalogs(small_dataset, settings, monkeypatch):
    small_dataset(n_users=10, n_items=80)
    asked = []
    for n_scores in (1 << 26, 81 * 4):
        monkeypatch.setattr(score_bias, "_N_SCORES", n_scores)
        model = build(XLingConfig("LLMSASRec", "small", config_dict=settings)).model.eval()
        with torch.no_grad():
            model.score_bias.calibrate(lambda rows: asked.append(len(rows)) or torch.rand(len(rows), 81))
        assert model.score_bias.cold_offset.isfinite()
    assert asked == [10, 4]
