"""Hooks of models: of those that inherit them, of RecBole's own, and of users' models that only name some."""

from __future__ import annotations

import pytest
from recbole.model.abstract_recommender import AbstractRecommender, SequentialRecommender
from recbole.model.sequential_recommender import SASRec

from recbole_xling.config import XLingConfig
from recbole_xling.model.base import ModelHooks, XLingRecommender, hooks_of
from recbole_xling.model.llmsasrec import LLMSASRec
from recbole_xling.model.xlingtwotower import XLingTwoTower
from recbole_xling.quick_start.build import build, build_trainer


class Named(SequentialRecommender):
    """Extends RecBole's class only, and names two hooks."""

    ranks_without_history = True

    def __init__(self) -> None:
        AbstractRecommender.__init__(self)
        self.epochs: list[int] = []

    def end_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class Inheriting(XLingRecommender):
    """Inherits all hooks."""


@pytest.mark.parametrize("model", [LLMSASRec, XLingTwoTower, Inheriting])
def test_a_model_that_inherits_the_hooks_answers_itself(model):
    one = model.__new__(model)
    assert hooks_of(one) is one
    assert issubclass(model, ModelHooks)


def test_recboles_own_models_get_the_defaults():
    hooks = hooks_of(SASRec)
    assert not hooks.ranks_without_history and not hooks.warm_start_parts and hooks.config_class is None
    assert hooks.bound_to_data({"model": "SASRec"}) == [
        "SASRec learns from ids, or does not say otherwise (class method bound_to_data)"
    ]
    assert hooks.begin_training(10, 0) is hooks.end_step(0) is hooks.end_epoch(0) is None


def test_a_hook_that_a_model_defines_by_name_is_called():
    model = Named()
    hooks = hooks_of(model)
    hooks.begin_training(10, 0)
    hooks.end_epoch(3)
    assert model.epochs == [3] and hooks.ranks_without_history


def test_a_class_is_asked_before_it_is_built():
    assert hooks_of(XLingTwoTower).bound_to_data({}) == []
    assert hooks_of(Inheriting).bound_to_data({"model": "Inheriting"})
    assert hooks_of(Named).bound_to_data({"model": "Named"})


def test_the_trainer_calls_the_hooks_in_order(small_dataset, settings, monkeypatch):
    small_dataset()
    calls = []
    for name in ("begin_training", "end_step", "end_epoch"):
        monkeypatch.setattr(LLMSASRec, name, lambda self, *given, name=name: calls.append((name, *given)))
    parts = build(XLingConfig("LLMSASRec", "small", config_dict={**settings, "epochs": 2, "train_batch_size": 10_000}))
    build_trainer(parts.config, parts.model).fit(parts.train_data, saved=False, verbose=False)
    assert calls == [("begin_training", 2, 0), ("end_step", 0), ("end_epoch", 0), ("end_step", 1), ("end_epoch", 1)]
