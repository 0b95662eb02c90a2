"""How often cold items are shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_xling.config import XLingConfig
from recbole_xling.evaluator.streaming import Pairs, rank_groups
from recbole_xling.model.layers import score_bias
from recbole_xling.model.layers.score_bias import cold_share, entry_gaps, exposure_offset
from recbole_xling.quick_start.build import build
from recbole_xling.serve.vectors import LEAST_WEIGHT, bias_weight

GATE = {"untuned_count": 1.0}


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


@pytest.mark.parametrize(
    ("name", "changed"),
    [("LLMSASRec", {}), ("LLMSASRec", {"exclude_history": True}), ("XLingTwoTower", {}), ("XLingTwoTower", GATE)],
)
def test_items_that_come_later_have_a_place_where_training_had_no_cold_ones(
    name, changed, small_dataset, settings, settings_without_layers, tiny_encoder
):
    """Some trained items stand in for them: by their texts alone and in nobody's history, they get their share."""
    small_dataset(n_users=200, n_items=100, lengths=np.full(200, 14))
    of_two_towers = {**settings_without_layers, "encoder": str(tiny_encoder), "encoder_options": None, "peft": "frozen"}
    own = {**(settings if name == "LLMSASRec" else of_two_towers), **changed, "popularity_prior": True}
    model = build(XLingConfig(name, "small", config_dict=own)).model.eval()
    bias, items = model.score_bias, model.score_bias.stand_ins
    assert not bias.cold.any() and len(items) > 1 and bias.share == pytest.approx(5 * len(items) / 100)
    if name == "LLMSASRec":
        torch.nn.init.normal_(model.items.item_embedding.weight)  # what IDs learned
    before = {key: value.clone() for key, value in (*model.named_parameters(), *model.named_buffers())}
    with torch.no_grad():
        model.end_epoch(0)
        histories = bias._histories[slice(0, 200)]
        scores = model.full_sort_predict(histories)
        if name == "LLMSASRec":
            model.items.id_weight[items] = 0
        elif model.gate is not None:
            model.gate.share[items], model.gate._joined = 0, None
        bias.prior[items], bias.cold[items] = 0, True
        bias.cold_offset += 1e-4
        places = model.full_sort_predict(histories)
    seen = histories["item_id_list"]
    chosen = places.scatter(1, seen, float("-inf"))
    places[:, items] = chosen[:, items]
    places = chosen if own.get("exclude_history") else places
    assert torch.isin(places.topk(10).indices, items).float().mean() == pytest.approx(bias.share, abs=0.004)
    others = ~torch.isin(torch.arange(101), items)
    changed_scores = model.full_sort_predict(histories)[:, others]
    if name != "LLMSASRec":  # there histories have other vectors as well
        torch.testing.assert_close(changed_scores, scores[:, others])
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert {key.rpartition(".")[2] for key in moved} <= {
        "cold_offset",
        "prior",
        "log_popularity",
        "cold",
        "id_weight",
        "share",
    }


@pytest.mark.parametrize("name", ["LLMSASRec", "XLingTwoTower"])
def test_popularity_counts_as_far_as_training_knows_the_history(
    name, small_dataset, settings, settings_without_layers, tiny_encoder
):
    """By the equation, match + weight * bias; all ways to score agree."""
    small_dataset(n_users=12, n_items=20)
    of_two_towers = {**settings_without_layers, "encoder": str(tiny_encoder), "encoder_options": None, "peft": "frozen"}
    own = settings if name == "LLMSASRec" else of_two_towers
    scores = {}
    for by_history in (True, False):
        changed = {"bias_by_history": by_history}
        model = build(XLingConfig(name, "small", config_dict={**own, **changed})).model.eval()
        if by_history:
            model.score_bias.known[[1, 2, 3]] = False
        model.score_bias.prior[1:] = torch.linspace(-3, 0, 20)
        seq = torch.tensor([[4, 5, 6, 7, 1], [1, 2, 4, 5, 0], [1, 2, 3, 4, 0], [1, 2, 0, 0, 0], [4, 1, 1, 1, 1]])
        rows = {"user_id": torch.ones(5, dtype=torch.long), "item_id": torch.arange(8, 13)}
        seq = torch.nn.functional.pad(seq, (0, model.max_seq_length - 5))
        batch = Interaction({**rows, model.ITEM_SEQ: seq, model.ITEM_SEQ_LEN: torch.tensor([5, 4, 4, 2, 5])})
        with torch.no_grad():
            scores[by_history] = model.full_sort_predict(batch)[:, 1:]
            found = model.predict(batch)
            torch.testing.assert_close(found, scores[by_history][torch.arange(5), torch.arange(7, 12)])
            vectors = model.history_vectors()[seq]
            state = model.user_of_vectors(
                *(vectors, batch[model.ITEM_SEQ_LEN], torch.zeros_like(seq), torch.zeros(5, dtype=torch.long))
            )
            (_, factors), *_ = model.factors(batch)
            torch.testing.assert_close(state, factors.users)
            bias = model.score_bias()[1:]
            nothing = Pairs(torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))
            ranked = rank_groups(model.factors(batch), nothing, nothing, 20, with_ranks=False)
            torch.testing.assert_close(ranked.scores, scores[by_history].sort(dim=1, descending=True).values)
            histories = [row[:n].numpy() for row, n in zip(seq, batch[model.ITEM_SEQ_LEN].tolist(), strict=True)]
            known = None if model.score_bias.known is None else model.score_bias.known.numpy()
            torch.testing.assert_close(factors.weight, torch.from_numpy(bias_weight(known, histories, 5)))
    weight = torch.tensor([1.0, 1.0, 0.5, LEAST_WEIGHT, 0.4])[:, None]
    torch.testing.assert_close(scores[True], scores[False] + (weight - 1) * bias, rtol=1e-4, atol=1e-4)


def test_without_a_history_popularity_counts_whole(small_dataset, settings):
    small_dataset(n_users=10, n_items=20)
    bias = build(XLingConfig("LLMSASRec", "small", config_dict=settings)).model.score_bias
    assert bias.weight(torch.zeros(1, 4, dtype=torch.long), torch.tensor([0])) == 1
    assert bias_weight(bias.known.numpy(), [np.empty(0, dtype=np.int64)], 4) == 1
