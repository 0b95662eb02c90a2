"""Slices: group-bys over per-user values, with the rows that their names promise."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from recbole_xling.evaluator.collector import EvaluatedRows
from recbole_xling.evaluator.slices import (
    EvalContext,
    mark_transfer,
    over_languages,
    popularity_bands,
    remaining_pairs,
    slice_results,
    user_table,
)
from recbole_xling.language.users import Readers

LANGUAGES = ["und", "de", "de", "fr", "fr", "und"]


def rows(users, targets):
    return EvaluatedRows(
        np.array(users), np.array([len(t) for t in targets]), np.array([i for t in targets for i in t])
    )


def context(**changed):
    known = {"known_users": np.array([1, 1, 1, 2, 2, 3]), "known_items": np.array([1, 2, 3, 3, 4, 5])}
    values = {
        "user_tokens": ["[PAD]", "a", "b", "c"],
        "item_tokens": ["[PAD]", "v", "w", "x", "y", "z"],
        "readers": Readers(["und"] * 4, LANGUAGES),
        "train_counts": np.array([0, 100, 3, 10, 0, 10]),
        **known,
        **changed,
    }
    return EvalContext(**values)


def test_main_language_is_the_most_frequent_one():
    assert context().user_languages == ["und", "de", "fr", "und"]


def test_popularity_bands_are_cold_rare_medium_and_popular():
    assert popularity_bands(np.array([0, 1, 5, 6, 7, 8, 9, 10, 99, 100])) == [
        "cold",
        "rare",
        "rare",
        "medium",
        "medium",
        "medium",
        "medium",
        "medium",
        "popular",
        "popular",
    ]
    assert popularity_bands(np.zeros(3, dtype=np.int64)) == ["cold"] * 3


def test_remaining_pairs_takes_each_held_out_occurrence_away_once():
    users, items = np.array([1, 1, 1, 2, 2]), np.array([5, 5, 6, 5, 7])
    left = remaining_pairs(users, items, [rows([1, 2], [[5], [7]])])
    assert sorted(zip(*map(list, left), strict=True)) == [(1, 5), (1, 6), (2, 5)]
    left = remaining_pairs(users, items, [rows([1], [[5]]), rows([1], [[5]])])
    assert sorted(zip(*map(list, left), strict=True)) == [(1, 6), (2, 5), (2, 7)]


def test_user_table_says_who_what_and_how_well():
    table = user_table(rows([1, 2, 3], [[3], [4], [1]]), {"ndcg@10": np.array([1.0, 0.5, 0.0])}, context())
    assert table.rows() == [
        ("a", "x", 1, "fr", "de", "yes", "medium", 1.0),
        ("b", "y", 1, "fr", "fr", "no", "cold", 0.5),
        ("c", "v", 1, "de", "und", None, "popular", 0.0),
    ]


def test_user_table_says_mixed_where_several_targets_differ():
    table = user_table(rows([1, 2], [[1, 3], [3, 4]]), {"ndcg@10": np.array([1.0, 0.5])}, context())
    assert table["target_language"].to_list() == ["mixed", "fr"]
    assert table["target_item"].to_list() == ["v x", "x y"]
    assert table["cross_language"].to_list() == [None, "no"]


def test_slices_are_means_of_their_rows_and_absent_without_any():
    table = pl.DataFrame(
        {
            "target_language": ["de"] * 10 + ["fr"] * 12 + ["it"] + ["und"],
            "user_language": ["de"] * 24,
            "cross_language": ["no"] * 10 + ["yes"] * 13 + [None],
            "popularity": ["cold"] * 24,
            "ndcg@10": [0.5] * 10 + [0.25] * 12 + [0.0] + [0.9],
        }
    )
    found = slice_results(table, ["ndcg@10"], "ndcg@10")
    assert found["target_language=de"] == {"n": 10, "ndcg@10": 0.5}
    assert found["target_language=it"] == {"n": 1, "ndcg@10": 0.0}
    assert found["cross_language=yes"]["ndcg@10"] == pytest.approx(12 * 0.25 / 13)
    assert found["language_macro"] == {"n": 2, "ndcg@10": pytest.approx(0.375)}  # one target is no evidence
    assert found["language_worst"] == {"language": "fr", "n": 12, "ndcg@10": 0.25}
    assert "popularity=rare" not in found


@pytest.mark.parametrize("largest", [4, 60])
def test_mean_over_languages_and_the_worst_one_are_those_of_the_slices(largest):
    rng = np.random.default_rng(largest)
    languages = np.repeat(["de", "fr", "it", "und"], [largest, 3, largest // 2, 9])
    targets = [[int(item) for item in rng.choice(len(languages), rng.integers(1, 3))] for _ in range(2 * largest)]
    known = context(readers=Readers(["und"] * 4, languages), train_counts=np.ones(len(languages), dtype=np.int64))
    known = dataclasses.replace(known, item_tokens=[str(item) for item in range(len(languages))])
    tested, values = rows(rng.integers(1, 4, len(targets)), targets), rng.random(len(targets))
    table = user_table(tested, {"ndcg@10": values}, known)
    found = slice_results(table, ["ndcg@10"], "ndcg@10")
    n = dict(table.group_by("target_language").len().iter_rows())
    counted = [name for name in ("de", "fr", "it") if n.get(name, 0) >= (10 if largest == 60 else 1)]
    assert found["language_macro"]["n"] == len(counted)
    means = [found[f"target_language={name}"]["ndcg@10"] for name in counted]
    assert found["language_macro"]["ndcg@10"] == pytest.approx(np.mean(means))
    assert over_languages("macro", values, tested, known.readers) == pytest.approx(np.mean(means))
    assert over_languages("worst", values, tested, known.readers) == pytest.approx(min(means))
    assert over_languages("worst", values, tested, Readers(["und"] * 4, ["und"] * len(languages))) is None


def test_slices_of_labels_are_computed_from_their_rows_and_left_out_where_undefined():
    table = pl.DataFrame(
        {
            "target_language": ["de"] * 10 + ["fr"] * 10 + ["it"] * 10,
            "user_language": ["de"] * 30,
            "cross_language": ["no"] * 10 + ["yes"] * 20,
            "popularity": ["cold"] * 30,
            "score": [0.2, 0.8] * 5 + [0.9, 0.1] * 5 + [0.5] * 10,
            "label": [0.0, 1.0] * 10 + [1.0] * 10,
        }
    )

    def value_of(metric, part):
        score, label = part["score"].to_numpy(), part["label"].to_numpy()
        if metric == "mae":
            return float(np.abs(score - label).mean())
        pairs = score[label == 1][:, None] - score[label == 0]
        return float((pairs > 0).mean()) if pairs.size else None

    found = slice_results(table, ["auc", "mae"], "mae", value_of=value_of, lower_is_better=True)
    assert found["target_language=de"] == {"n": 10, "auc": 1.0, "mae": pytest.approx(0.2)}
    assert found["target_language=it"] == {"n": 10, "mae": 0.5}
    assert found["cross_language=yes"]["auc"] == pytest.approx(0.0)
    assert found["language_macro"] == {"n": 3, "auc": 0.5, "mae": pytest.approx((0.2 + 0.9 + 0.5) / 3)}
    assert found["language_worst"]["language"] == "fr"
    found = slice_results(table.filter(pl.col("target_language") == "it"), ["auc"], "auc", value_of=value_of)
    assert found["language_macro"] == {"n": 1} and "language_worst" not in found


@pytest.mark.parametrize(
    ("more", "few"), [({}, "zero-shot"), ({"users": 5}, "few-shot"), ({"interactions": 5}, "few-shot")]
)
def test_a_split_by_language_says_what_each_language_is(more, few):
    slices = {
        name: {"n": 1}
        for name in (
            "user_language=it",
            "user_language=da",
            "user_language=en",
            "target_language=it",
            "popularity=cold",
        )
    }
    mark_transfer(slices, {"LT": {"source": ["it"], "target": ["da"], "by": "user", **more}})
    marked = {name: values["transfer"] for name, values in slices.items() if "transfer" in values}
    assert marked == {"user_language=it": "in-language", "user_language=da": few}
    mark_transfer(slices, {"LT": {"source": ["it"], "target": ["da"], "by": "item"}})
    assert slices["target_language=it"]["transfer"] == "in-language"
    unmarked = {"user_language=it": {"n": 1}}
    mark_transfer(unmarked, {"LS": "valid_and_test"})
    assert unmarked == {"user_language=it": {"n": 1}}
