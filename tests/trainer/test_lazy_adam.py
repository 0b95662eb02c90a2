"""LazyAdam: Adam where all rows are touched, else the rows of the batch alone; chosen and refused with a reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from resumed import resume_like_whole
from torch import nn, optim

from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError
from recbole_xling.quick_start.build import build, build_trainer
from recbole_xling.trainer.lazy_adam import LazyAdam, for_clipping
from recbole_xling.trainer.optimizer import build_optimizer

SAMPLED = {"loss_type": "sampled_softmax", "n_negatives": 16}
SPARSE = {**SAMPLED, "learner": "sparse_adam"}


def _trained(optimizer_class, sparse, batches, **options):
    """Train a table of 6 rows and a dense layer on rows of it; return both and the optimizer."""
    torch.manual_seed(3)
    table, layer = nn.Parameter(torch.randn(6, 4)), nn.Linear(4, 1)
    groups = [{"params": [table], "lr": 0.1}, {"params": list(layer.parameters()), "lr": 0.01}]
    optimizer = optimizer_class(groups, **options)
    for rows in batches:
        optimizer.zero_grad(set_to_none=True)
        layer(F.embedding(torch.tensor(rows), table, sparse=sparse)).pow(2).mean().backward()
        optimizer.step()
    return table, layer, optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_it_is_adam_where_each_step_touches_all_rows(fused):
    batches = [[0, 1, 2, 3, 4, 5], [5, 5, 4, 3, 2, 1, 0], [3, 1, 0, 2, 2, 2, 4, 5]] * 3
    table, layer, optimizer = _trained(LazyAdam, True, batches, fused=fused)
    wanted, wanted_layer, adam = _trained(optim.Adam, False, batches, fused=fused)
    torch.testing.assert_close(table, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.weight, wanted_layer.weight, rtol=1e-5, atol=1e-6)
    for key, value in adam.state[wanted].items():
        torch.testing.assert_close(optimizer.state[table][key], value, rtol=1e-5, atol=1e-6)


def test_dense_gradients_are_adams_to_the_last_bit():
    batches = [[0, 1], [2], [1, 4]]
    table, *_ = _trained(LazyAdam, False, batches)
    wanted, *_ = _trained(optim.Adam, False, batches)
    assert torch.equal(table, wanted)


def test_it_equals_sparse_adam_of_torch_and_leaves_other_rows_alone():
    torch.manual_seed(3)
    start = torch.randn(6, 4)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = LazyAdam([{"params": [ours], "lr": 0.1}]), optim.SparseAdam([theirs], lr=0.1)
    for rows in ([0, 1], [1, 1, 4], [4, 0]):
        for table, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            F.embedding(torch.tensor(rows), table, sparse=True).pow(2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert torch.equal(ours[[2, 3, 5]], start[[2, 3, 5]]) and not torch.equal(ours[4], start[4])
    moments = optimizers[0].state[ours]
    assert not moments["exp_avg"][[2, 3, 5]].any() and not moments["exp_avg_sq"][[2, 3, 5]].any()


def test_sparse_gradients_are_clipped_with_the_others():
    def norm_after_clipping(sparse):
        table, other = nn.Parameter(torch.ones(5, 3)), nn.Parameter(torch.ones(3))
        (F.embedding(torch.tensor([1, 1, 3]), table, sparse=sparse) * other).pow(2).sum().backward()
        total = nn.utils.clip_grad_norm_(for_clipping([table, other]), max_norm=0.5)
        return total, table.grad.to_dense() if sparse else table.grad, other.grad

    for found, wanted in zip(norm_after_clipping(True), norm_after_clipping(False), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_weight_decay_is_refused():
    with pytest.raises(ConfigError, match=r"sparse_adam.*weight_decay.*set that to 0"):
        build_optimizer("sparse_adam", [{"params": [nn.Parameter(torch.ones(2))], "lr": 0.1}], 0.1)


# ---- in training ----------------------------------------------------------------------------------------------


def _parts(settings, **changed):
    run = build(XLingConfig("LLMSASRec", "small", config_dict={**settings, **changed}))
    return run, build_trainer(run.config, run.model)


def test_a_step_touches_the_items_of_its_batch_alone(small_dataset, settings):
    small_dataset()
    few = {"train_batch_size": 8, "n_negatives": 2, "item_representation": "add"}
    run, trainer = _parts(settings, **{**SPARSE, **few})
    run.model.begin_training(10, 0)
    table, batch = run.model.items.item_embedding.weight, next(iter(run.train_data))
    before = table.detach().clone()
    run.model.calculate_loss(batch).backward()
    assert table.grad.is_sparse
    trainer.optimizer.step()
    moved = (table != before).any(dim=1).nonzero().squeeze(1)
    known = {*batch[run.model.ITEM_SEQ].flatten().tolist(), *batch["target_id_list"].flatten().tolist()}
    assert 0 < len(moved) < len(table) - 1 and set(moved.tolist()) <= known


@pytest.mark.parametrize("name", ["none", "delta"])
def test_the_loss_and_its_gradient_are_those_of_dense_training(small_dataset, settings, name):
    small_dataset()
    found = []
    for learner in ("adam", "sparse_adam"):
        run, _ = _parts(settings, **SAMPLED, learner=learner, item_representation=name)
        run.model.begin_training(10, 0)
        torch.manual_seed(1)
        loss = run.model.calculate_loss(next(iter(run.train_data)))
        loss.backward()
        found.append((loss, run.model.items.item_embedding.weight.grad))
    (dense, wanted), (sparse, gradient) = found
    assert torch.equal(dense, sparse) and not wanted.is_sparse
    torch.testing.assert_close(gradient.to_dense(), wanted)


@pytest.mark.parametrize("extra", [{}, {"clip_grad_norm": {"max_norm": 0.1}, "accumulation_steps": 2}])
def test_a_resumed_run_ends_like_a_whole_one(small_dataset, settings, extra):
    small_dataset()
    changed = {**settings, **SPARSE, **extra, "epochs": 4, "stopping_step": 10, "train_batch_size": 64}
    *_, weights = resume_like_whole("LLMSASRec", "small", changed, after=1)
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.parametrize("other", [{"learner": "adam"}, {"loss_type": "CE"}, {"item_representation": "text_only"}])
def test_gradients_are_dense_unless_asked_for_and_possible(small_dataset, settings, other):
    small_dataset()
    run, trainer = _parts(settings, **{**SPARSE, **other})
    assert not isinstance(trainer.optimizer, LazyAdam) and not run.model.items.sparse_gradients
    run, trainer = _parts(settings, **SPARSE)
    assert isinstance(trainer.optimizer, LazyAdam) and run.model.items.sparse_gradients


def test_sparse_adam_is_plain_adam_where_all_rows_are_scored_and_says_so(small_dataset, settings, caplog):
    small_dataset()
    _, trainer = _parts(settings, learner="sparse_adam")
    assert type(trainer.optimizer) is optim.Adam
    assert "learner=sparse_adam is plain Adam here" in caplog.text


def test_sparse_adam_is_refused_where_it_cannot_do_what_is_asked(small_dataset, settings):
    small_dataset()
    with pytest.raises(ConfigError, match=r"sparse_adam.*l2_sp.*set learner=adam"):
        _parts(settings, **SPARSE, l2_sp=0.1)
    with pytest.raises(ConfigError, match="weight_decay"):
        _parts(settings, **SPARSE, weight_decay=0.1)
