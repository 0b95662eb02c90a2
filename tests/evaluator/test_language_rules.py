"""Rules for the languages of lists: filters, quotas, calibration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_xling.errors import ConfigError
from recbole_xling.evaluator.language_rules import LanguageRules
from recbole_xling.evaluator.slices import EvalContext
from recbole_xling.language.users import Readers

ITEMS = ["und", *(["de"] * 6), *(["fr"] * 6), *(["it"] * 6)]
N = len(ITEMS)


@pytest.fixture
def context():
    """User 1 reads German three times out of four, user 2 nothing that is known."""
    readers = Readers(stated=["und"] * 3, displayed=ITEMS)
    users, items = np.array([1, 1, 1, 1]), np.array([1, 2, 3, 7])
    tokens = [str(number) for number in range(N)]
    return EvalContext(["0", "1", "2"], tokens, readers, np.ones(N, dtype=np.int64), users, items)


@pytest.fixture
def scores():
    """Italian items are best, then French ones, then German ones."""
    values = torch.arange(N, dtype=torch.float32)[None]
    values[:, 0] = float("-inf")
    return values


def listed(rules, scores, user=1, k=4):
    return [ITEMS[item] for item in rules(scores, np.array([user]))[0].topk(k).indices.tolist()]


def test_without_rules_scores_stay(context, scores):
    assert torch.equal(LanguageRules(context, 4)(scores, np.array([1])), scores)


def test_filters_keep_the_order_of_what_they_let_through(context, scores):
    filtered = LanguageRules(context, 4, ["de", "fr"])(scores, np.array([1]))[0]
    assert filtered.topk(7).indices.tolist() == [12, 11, 10, 9, 8, 7, 6]
    assert filtered[13:].eq(float("-inf")).all()
    assert listed(LanguageRules(context, 4, ["reader"]), scores) == ["de"] * 4
    assert listed(LanguageRules(context, 4, ["reader"]), scores, user=2) == ["it"] * 4


def test_quotas_take_the_best_of_each_language_and_fill_up_by_score(context, scores):
    rules = LanguageRules(context, 4, quotas={"de": 1, "fr": 1})
    assert rules(scores, np.array([1]))[0].topk(4).indices.tolist() == [18, 17, 12, 6]


@pytest.mark.parametrize("rule", [{"quotas": {"de": 1, "fr": 1}}, {"calibration": 0.9}])
def test_scores_of_any_size_keep_the_order_of_the_list(context, scores, rule):
    rules = LanguageRules(context, 4, **rule)
    best = [rules(scores * size, np.array([1]))[0].topk(4).indices.tolist() for size in (1.0, 1e9, 1e-9)]
    assert best[0] == best[1] == best[2]
    nothing = torch.full_like(scores, float("-inf"))
    assert torch.equal(rules(nothing, np.array([1])), nothing)


def test_calibration_brings_lists_to_the_languages_of_the_history(context, scores):
    assert listed(LanguageRules(context, 4, calibration=0.99), scores).count("de") == 3
    assert listed(LanguageRules(context, 4, calibration=0.99), scores).count("fr") == 1
    assert listed(LanguageRules(context, 4, calibration=1e-6), scores) == ["it"] * 4
    assert listed(LanguageRules(context, 4, calibration=0.99), scores, user=2) == ["it"] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["es"]}, "unknown language of items 'es'"),
        ({"quotas": {"de": 3, "fr": 2}}, "do not fit into a list of 4"),
        ({"quotas": {"de": 0}}, "do not fit"),
        ({"calibration": 1.5}, "between 0 and 1"),
        ({"quotas": {"de": 1}, "calibration": 0.5}, "either quotas or calibration"),
    ],
)
def test_rules_that_cannot_hold_are_refused(context, arguments, message):
    with pytest.raises(ConfigError, match=message):
        LanguageRules(context, 4, **arguments)
