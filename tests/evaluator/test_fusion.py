"""Fusing scores: each method against its definition, and weights that suit the validation rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_xling.errors import ConfigError
from recbole_xling.evaluator.fusion import METHODS, candidates_of, fuse_scores, rerank, tuned_weights

A = [9.0, 5.0, 3.0, 1.0]
B = [0.1, 0.2, 0.6, 0.3]


def fused(method, weights=(1.0, 2.0), depth=3, a=A, b=B):
    return fuse_scores([torch.tensor([a]), torch.tensor([b])], method, weights, depth)[0].tolist()


def test_log_softmax_adds_weighted_logarithms():
    logs = [np.array(own) - np.log(np.exp(own).sum()) for own in (A, B)]
    want = logs[0] + 2 * logs[1]
    assert fused("log_softmax") == pytest.approx((want - want.max()).tolist(), rel=1e-5)


def test_differences_much_smaller_than_the_logarithms_of_many_items_count():
    scores = torch.arange(10_000.0)[None] * 1e-9
    assert torch.equal(fuse_scores([scores, scores], "log_softmax", [1, 1]).argsort(1)[0], torch.arange(10_000))


def test_reciprocal_ranks_count_as_deep_as_lists_go():
    # the lists of three: 0, 1, 2 and 2, 3, 1
    want = [1 / 61, 1 / 62 + 2 / 63, 1 / 63 + 2 / 61, 2 / 62]
    assert fused("rrf") == pytest.approx(want)


def test_equal_scores_share_their_mean_rank():
    assert fused("rrf", depth=4, b=[0.5, 0.5, 0.5, 0.1])[:3] == pytest.approx(
        [1 / 61 + 2 / 62, 3 / 62, 1 / 63 + 2 / 62]
    )


def test_combsum_scales_lists_and_combmnz_counts_them():
    want = np.array([1, (5 - 3) / 6, 0, 0]) + 2 * np.array([0, 0, 1, (0.3 - 0.2) / 0.4])
    assert fused("combsum") == pytest.approx(want.tolist(), abs=1e-6)
    assert fused("combmnz") == pytest.approx((want * [1, 2, 2, 1]).tolist(), abs=1e-6)


@pytest.mark.parametrize("method", ["rrf", "combsum", "combmnz"])
def test_where_a_list_ends_among_equal_scores_their_numbers_decide_nothing(method):
    scores = [[9.0, 4.0, 4.0, 4.0, 0.0], [0.3, 0.1, 0.2, 0.0, 0.5]]
    order = [3, 4, 1, 0, 2]
    one = fused(method, a=scores[0], b=scores[1])
    renumbered = fused(method, a=[scores[0][i] for i in order], b=[scores[1][i] for i in order])
    assert renumbered == pytest.approx([one[i] for i in order])
    hits = fused(method, a=[0.0, 0.9, 0.0, 0.0, 0.0], b=[0.5, 0.4, 0.3, 0.2, 0.1])
    assert hits[1] == max(hits), "the one hit of a sparse model counts in full"
    assert fused("rrf", a=scores[0], b=scores[1])[1] == 0, "third among equal ones, and not in the other list"
    assert fused(method, a=[1.0] * 5, b=[1.0] * 5) == [0.0] * 5


@pytest.mark.parametrize("method", METHODS)
def test_what_one_model_leaves_out_is_left_out_and_takes_no_place(method):
    out = float("-inf")
    with_gap = fused(method, a=[out, *A], b=[7.0, *B])
    assert with_gap[0] == out
    assert with_gap[1:] == pytest.approx(fused(method))
    assert fused(method, (1.0, 0.0), a=[2.0, out, 1.0, 0.0])[1] == out


# ---- two stages -----------------------------------------------------------------------------------------------

OUT = float("-inf")


def test_the_second_model_orders_the_candidates_and_the_rest_follows():
    first = torch.tensor([[OUT, 5.0, 9.0, 7.0, 8.0, 1.0], [OUT, 3.0, OUT, 2.0, OUT, OUT]])
    second = torch.tensor([[0.0, 3.0, -1.0, 6.0, 2.0, 9.0], [0.0, -4.0, 0.0, -3.0, 0.0, 0.0]])
    fused = rerank(first, lambda items: second.gather(1, items), (0.0, 1.0), 3)
    assert fused[0].argsort(descending=True).tolist()[:5] == [3, 4, 2, 1, 5]
    assert fused[1].argsort(descending=True).tolist()[:2] == [3, 1]
    assert torch.equal(fused == OUT, first == OUT)
    every = rerank(first, lambda items: second.gather(1, items), (0.0, 1.0), 9)
    assert every[0].argsort(descending=True).tolist() == [5, 3, 1, 4, 2, 0]


def test_weights_mix_the_ranks_among_the_candidates():
    first, second = torch.tensor([[5.0, 4.0, 3.0, 9.0]]), torch.tensor([[0.0, 4.0, 1.0, -9.0]])
    fused = rerank(first, lambda items: second.gather(1, items), (3.0, 0.5), 3)
    assert fused[0, [3, 0, 1]].tolist() == pytest.approx([3 / 61 + 0.5 / 63, 3 / 62 + 0.5 / 62, 3 / 63 + 0.5 / 61])
    assert fused[0, 2] == 0


def test_a_candidate_that_the_second_model_does_not_rank_is_left_out():
    first, second = torch.tensor([[5.0, 4.0, 3.0, 9.0]]), torch.tensor([[1.0, OUT, 1.0, OUT]])
    fused = rerank(first, lambda items: second.gather(1, items), (0.0, 1.0), 3)
    assert fused[0].tolist() == pytest.approx([1 / 61, OUT, 0.0, OUT])
    every = rerank(first, lambda items: torch.full_like(first, OUT).gather(1, items), (0.0, 1.0), 4)
    assert every.tolist() == [[OUT] * 4]


# ---- weights --------------------------------------------------------------------------------------------------


def _parts(scores, targets, size):
    rows = torch.arange(len(targets))
    return [
        candidates_of(
            [own[at : at + size] for own in scores], rows[: len(targets[at : at + size])], targets[at : at + size]
        )
        for at in range(0, len(targets), size)
    ]


def _ndcg(fused, targets, k=5):
    own = fused.gather(1, targets[:, None])
    place = (fused > own).sum(1) + 1
    return float(torch.where(place <= k, 1 / torch.log2(place + 1.0), 0.0).mean())


def _tuned(scores, targets, size=150):
    weights = tuned_weights(_parts(scores, targets, size), 5)
    return weights, _ndcg(fuse_scores(scores, "log_softmax", weights), targets)


def test_tuned_weights_are_as_good_as_any():
    torch.manual_seed(0)
    scores = [torch.randn(400, 30) for _ in range(3)]
    targets = torch.multinomial((3 * scores[0] + scores[1]).softmax(1), 1)[:, 0]
    weights, found = _tuned(scores, targets)
    grid = [(a, b, c) for a in (0.5, 1, 2, 4) for b in (0, 0.5, 1, 2) for c in (0, 0.2, 0.5, 1)]
    best = max(_ndcg(fuse_scores(scores, "log_softmax", point), targets) for point in grid)
    assert found >= best - 0.01
    assert weights[0] > weights[1] > weights[2] >= 0
    assert sum(weights) == pytest.approx(1)


def test_the_scale_of_a_models_scores_does_not_change_the_fusion():
    torch.manual_seed(1)
    scores = [torch.randn(200, 20), torch.randn(200, 20)]
    targets = torch.multinomial((scores[0] + scores[1]).softmax(1), 1)[:, 0]
    flat = [scores[0], scores[1] / 500]
    orders = [fuse_scores(own, "log_softmax", _tuned(own, targets)[0]).argsort(1) for own in (scores, flat)]
    assert (orders[0] == orders[1]).float().mean() > 0.99


def test_a_model_that_only_harms_gets_no_weight():
    torch.manual_seed(2)
    good = torch.randn(500, 20)
    targets = torch.multinomial((2 * good).softmax(1), 1)[:, 0]
    weights, found = _tuned([good, -good], targets)
    assert weights[0] > weights[1]
    assert found == _ndcg(good, targets)


def test_targets_that_no_model_has_near_the_top_or_ranks_at_all_say_nothing():
    scores = torch.arange(300.0)[None]
    own = candidates_of([scores, scores], torch.tensor([0, 0]), torch.tensor([3, 299]))
    assert own.target.tolist() == [99 * 2]  # each candidate twice, the second time not counted
    assert np.isfinite(own.scores[0, 0]).sum() == 100
    hidden = scores.masked_fill(scores == 299, -torch.inf)
    with pytest.raises(ConfigError, match="weights cannot be tuned"):
        tuned_weights([candidates_of([scores, hidden], torch.tensor([0]), torch.tensor([299]))], 5)


def test_models_of_a_kind_share_a_weight():
    torch.manual_seed(3)
    taste, other = torch.randn(400, 30), torch.randn(400, 30)
    targets = torch.multinomial((2 * taste + other).softmax(1), 1)[:, 0]
    seeds = [taste + torch.randn(400, 30), 7 * (taste + torch.randn(400, 30))]
    parts = _parts([*seeds, other], targets, 150)
    weights = tuned_weights(parts, 5, ["taste", "taste", "other"])
    assert weights[0] == pytest.approx(7 * weights[1], rel=0.1)  # evenly, whatever their scales
    assert sum(weights) == pytest.approx(1)
    alone = tuned_weights(_parts([seeds[0] + seeds[1] / 7, other], targets, 150), 5)
    assert weights[0] / weights[2] == pytest.approx(alone[0] / alone[1], rel=0.5)  # a step of the search
    same = tuned_weights(parts, 5, ["all"] * 3)
    assert same[0] == pytest.approx(7 * same[1], rel=0.1)
