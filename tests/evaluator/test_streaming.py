"""Ranking in blocks gives what the whole matrix of scores gives."""

from __future__ import annotations

import pytest
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.errors import XlingError
from recbole_xling.evaluator import streaming
from recbole_xling.evaluator.streaming import Factors, Pairs, rank_groups, rank_scores
from recbole_xling.model.factors import factors_of
from recbole_xling.quick_start.build import build, build_trainer
from recbole_xling.quick_start.train import run
from recbole_xling.utils import chunks


@pytest.fixture(params=[(1 << 14, 512), (64, 7), (10, 3)], ids=["one block", "small blocks", "tiny blocks"])
def block_size(request, monkeypatch):
    monkeypatch.setattr(streaming, "_ITEMS", request.param[0])
    monkeypatch.setattr(streaming, "_ROWS", {"cpu": request.param[1]})
    monkeypatch.setattr(streaming, "_GROUP", 8)


def factors_and_pairs(n_items: int = 997, n_rows: int = 23):
    draw = torch.Generator().manual_seed(1)
    factors = Factors(*(torch.randn(n, 6, generator=draw) for n in (n_rows, n_items)), torch.randn(n_items))
    pairs = [
        Pairs(*(torch.randint(low, high, (n,), generator=draw) for low, high in ((0, n_rows), (1, n_items))))
        for n in (400, 60)
    ]
    return factors, *(pair.distinct() for pair in pairs)


@pytest.mark.parametrize("with_bias", [True, False])
def test_blocks_give_what_the_whole_matrix_gives(block_size, with_bias):
    factors, left_out, targets = factors_and_pairs()
    factors = factors if with_bias else factors._replace(bias=None)
    scores = factors.users @ factors.items.T + (factors.bias if with_bias else 0)
    scores[:, 0] = -torch.inf
    scores[left_out.rows, left_out.items] = -torch.inf
    want = scores.sort(dim=1, descending=True).indices[:, :20]
    got = rank_groups([(torch.arange(23), factors)], left_out, targets, 20, with_ranks=True)
    assert torch.equal(got.best, want)
    assert torch.equal(rank_scores(scores, targets, 20, with_ranks=True).best, want)
    own = scores[targets.rows, targets.items]
    higher, equal = ((scores[targets.rows] > own[:, None]).sum(1), (scores[targets.rows] == own[:, None]).sum(1))
    n_ranked, lost = (scores > -torch.inf).sum(1), own == -torch.inf
    n_lost = torch.bincount(targets.rows[lost], minlength=23)
    assert lost.any() and not lost.all()
    assert torch.equal(got.ranks[~lost], (higher + (equal.double() + 1) / 2)[~lost])
    rows = targets.rows[lost]  # what cannot be found comes behind all that can
    assert torch.equal(got.ranks[lost], n_ranked[rows] + (n_lost[rows].double() + 1) / 2)
    assert torch.equal(got.n_ranked, n_ranked + n_lost)


def test_groups_of_rows_have_their_own_items(block_size):
    factors, left_out, targets = factors_and_pairs()
    other = factors._replace(items=-factors.items)
    even, odd = torch.arange(0, 23, 2), torch.arange(1, 23, 2)
    groups = [(rows, part._replace(users=part.users[rows])) for rows, part in ((odd, other), (even, factors))]
    got = rank_groups(groups, left_out, targets, 5, with_ranks=True)
    for rows, part in ((even, factors), (odd, other)):
        alone = rank_groups([(torch.arange(23), part)], left_out, targets, 5, with_ranks=True)
        assert torch.equal(got.best[rows], alone.best[rows])
        assert torch.equal(got.n_ranked[rows], alone.n_ranked[rows])
        mine = torch.isin(targets.rows, rows)
        assert torch.equal(got.ranks[mine], alone.ranks[mine])


def test_of_equal_scores_earlier_blocks_come_first(monkeypatch):
    monkeypatch.setattr(streaming, "_ITEMS", 64)
    factors = Factors(torch.ones(2, 1), torch.ones(1000, 1), None)
    none = Pairs(*torch.zeros(2, 0, dtype=torch.long))
    got = rank_groups(
        [(torch.arange(2), factors)], none, Pairs(torch.tensor([1]), torch.tensor([7])), 10, with_ranks=True
    )
    assert got.best.max() < 64
    assert got.ranks.tolist() == [500.0]  # the middle of 999 equal ones


@pytest.mark.parametrize("part", ["users", "items", "bias"])
def test_scores_that_are_no_numbers_are_an_error(block_size, part):
    factors, left_out, targets = factors_and_pairs()
    getattr(factors, part)[-1] = torch.nan
    with pytest.raises(XlingError, match="not numbers"):
        rank_groups([(torch.arange(23), factors)], left_out, targets, 5, with_ranks=False)
    scores = torch.addmm(factors.bias, factors.users, factors.items.T)
    with pytest.raises(XlingError, match="not numbers"):
        rank_scores(scores, targets, 5, with_ranks=False)


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "NARM", "LLMSASRec"])
def test_histories_are_read_without_padding_to_the_same_users(
    small_dataset, settings, settings_without_layers, monkeypatch, model
):
    small_dataset(lengths=[3 + user % 9 for user in range(40)])
    monkeypatch.setattr(chunks, "_HISTORIES_AT_ONCE", 7)
    known = settings if model in ("LLMSASRec", "SASRec") else settings_without_layers
    parts = build(XLingConfig(model, "small", config_dict={**known, "MAX_ITEM_LIST_LENGTH": 12}))
    rows = next(iter(parts.test_data))[0]
    model = parts.model.eval()
    with torch.no_grad():
        ((_, own),) = factors_of(model, rows)
        args = [rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN]] + ([own.items] if own.bias is not None else [])
        assert len(set(rows[model.ITEM_SEQ_LEN].tolist())) > 5
        torch.testing.assert_close(own.users, model.forward(*args), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "model", ["LLMSASRec", "SASRec", "BPR", "LightGCN", "GRU4Rec", "NARM", "STAMP", "DGCF", "SINE"]
)
@pytest.mark.parametrize("exclude_history", [True, False])
def test_factors_of_models_give_their_scores(
    small_dataset, settings, settings_without_layers, model, exclude_history, monkeypatch
):
    """Every metric, bit by bit: with blocks, and without factors."""
    small_dataset()
    known = settings if model in ("LLMSASRec", "SASRec") else settings_without_layers
    metrics = ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP", "GAUC", "ItemCoverage", "AveragePopularity"]
    changed = {"metrics": metrics, "valid_metric": "NDCG@10", "exclude_history": exclude_history}
    parts = build(XLingConfig(model, "small", config_dict={**known, **changed}))
    assert factors_of(parts.model.eval(), next(iter(parts.test_data))[0]) is not None
    trainer = build_trainer(parts.config, parts.model)
    trainer.eval_collector.data_collect(parts.train_data)
    monkeypatch.setattr(streaming, "_ITEMS", 8)
    trainer.evaluate(parts.test_data, load_best_model=False)
    blocks = trainer.evaluator.exact
    monkeypatch.setattr("recbole_xling.trainer.mixin.factors_of", lambda model, rows: None)
    trainer.evaluate(parts.test_data, load_best_model=False)
    assert blocks == trainer.evaluator.exact


@pytest.mark.device
def test_epochs_are_validated_on_a_sample_of_users(small_dataset, settings, caplog):
    small_dataset()
    changed = {"epochs": 2, "eval_step": 1}
    with caplog.at_level("INFO"):
        some = run("LLMSASRec", "small", config_dict={**settings, **changed, "valid_users": 5})
    assert "Epochs are validated on 5 of" in caplog.text
    every = run("LLMSASRec", "small", config_dict={**settings, **changed})
    assert some["best_valid"] != every["best_valid"]
    assert some["splits"] == every["splits"]
    assert some["n_test"] == every["n_test"]
    again = run("LLMSASRec", "small", config_dict={**settings, **changed, "valid_users": 5})
    assert again["best_valid"] == some["best_valid"]
