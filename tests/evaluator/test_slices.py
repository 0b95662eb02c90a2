"""Slices: group-bys over per-user values, with the rows that their names promise."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from recbole_xling.data.columns import stated_bilingual
from recbole_xling.evaluator.collector import EvaluatedRows
from recbole_xling.evaluator.measure import LabelMetrics, MeanValues
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


@pytest.mark.parametrize(("n", "popular"), [(1, 1), (5, 1), (6, 2), (10, 2), (11, 3)])
def test_the_popular_items_are_the_top_fifth_rounded_up_and_ties(n, popular):
    counts = np.arange(10, 10 + n)
    assert popularity_bands(counts).count("popular") == popular
    counts[: n - popular] = counts[n - popular]
    assert popularity_bands(counts).count("popular") == n


def test_remaining_pairs_takes_each_held_out_occurrence_away_once():
    users, items = np.array([1, 1, 1, 2, 2]), np.array([5, 5, 6, 5, 7])
    left = remaining_pairs(users, items, [rows([1, 2], [[5], [7]])])
    assert sorted(zip(*map(list, left), strict=True)) == [(1, 5), (1, 6), (2, 5)]
    left = remaining_pairs(users, items, [rows([1], [[5]]), rows([1], [[5]])])
    assert sorted(zip(*map(list, left), strict=True)) == [(1, 6), (2, 5), (2, 7)]


def test_user_table_says_who_what_and_how_well():
    table = user_table(rows([1, 2, 3], [[3], [4], [1]]), {"ndcg@10": np.array([1.0, 0.5, 0.0])}, context())
    assert table.rows() == [
        ("a", "x", 1, "fr", "de", "yes", "no", "medium", 1.0),
        ("b", "y", 1, "fr", "fr", "no", "no", "cold", 0.5),
        ("c", "v", 1, "de", "und", None, None, "popular", 0.0),
    ]


def test_user_table_says_mixed_where_several_targets_differ():
    table = user_table(rows([1, 2], [[1, 3], [3, 4]]), {"ndcg@10": np.array([1.0, 0.5])}, context())
    assert table["target_language"].to_list() == ["mixed", "fr"]
    assert table["target_item"].to_list() == ["v x", "x y"]
    assert table["cross_language"].to_list() == [None, "no"]


def test_who_is_bilingual_is_stated_or_comes_from_the_history():
    users = np.repeat([1, 2, 3, 4, 5], [4, 5, 11, 1, 4])
    items = np.array([1, 1, 3, 3, 1, 1, 1, 1, 3, *[1] * 9, 3, 3, 0, 1, 1, 3, 3])  # 4 knows an item of no language
    tokens = ["[PAD]", "half", "one of five", "two of eleven", "nothing", "says no"]
    known = context(
        user_tokens=tokens, readers=Readers(["und"] * 6, LANGUAGES), known_users=users, known_items=items,
        stated_bilingual={"says no": "no"},
    )  # fmt: skip
    assert dict(zip(tokens[1:], known.bilingual[1:], strict=True)) == {
        "half": "yes", "one of five": "no", "two of eleven": "no", "nothing": None, "says no": "no",
    }  # fmt: skip
    table = user_table(rows([1, 4], [[3], [3]]), {"ndcg@10": np.ones(2)}, known)
    assert table["bilingual"].to_list() == ["yes", None]


def test_a_profile_of_display_texts_is_nothing_that_a_reader_of_a_stated_language_says(tmp_path):
    config = {"data_path": str(tmp_path), "dataset": "d", "USER_ID_FIELD": "user_id", "field_separator": "\t"}
    head = "user_id:token\tbilingual:token\tlanguage_source:token"
    (tmp_path / "d.user").write_text(f"{head}\na\tyes\tstated\nb\tyes\tderived\nc\tno\tunknown\n")
    assert stated_bilingual({**config, "encoding": None}) == {"b": "yes", "c": "no"}


def without_intervals(entry):
    return {key: value for key, value in entry.items() if key != "intervals"}


def sliced(table, metrics=("ndcg@10",), seed=0, **options):
    return slice_results(table, MeanValues(table, metrics, seed), metrics[0], **options)


@pytest.fixture
def read():
    """Three readers of German and two of French; the last of each is met twice, once across languages."""
    return pl.DataFrame(
        {
            "user_id": ["a", "b", "c", "c", "d", "e", "e", "f"],
            "target_language": ["de", "fr", "de", "fr", "fr", "fr", "de", "fr"],
            "user_language": ["de", "de", "de", "de", "fr", "fr", "fr", "und"],
            "cross_language": ["no", "yes", "no", "yes", "no", "no", "yes", None],
            "bilingual": ["no", "no", "yes", "yes", "no", "yes", "yes", None],
            "popularity": ["cold"] * 8,
            "ndcg@10": [1.0, 0.5, 0.75, 0.25, 0.5, 0.25, 0.0, 0.9],
        }
    )


def test_the_gap_is_cross_language_minus_same_language_in_all_and_by_reader(read):
    found = sliced(read)
    assert without_intervals(found["language_gap"]) == {
        "n": 7, "n_cross": 3, "n_same": 4, "ndcg@10": pytest.approx(0.75 / 3 - 2.5 / 4),
    }  # fmt: skip
    of_germans, of_french = found["language_gap=de"], found["language_gap=fr"]
    assert without_intervals(of_germans) == {"n": 4, "n_cross": 2, "n_same": 2, "ndcg@10": pytest.approx(-0.5)}
    assert without_intervals(of_french) == {"n": 3, "n_cross": 1, "n_same": 2, "ndcg@10": pytest.approx(-0.375)}
    assert "language_gap=und" not in found
    same = sliced(read.filter(pl.col("cross_language") == "no"))
    assert not [name for name in same if name.startswith("language_gap")]


def test_users_of_both_kinds_of_rows_are_resampled_with_both(read):
    # one user, so that each resample is the result itself: an unpaired bootstrap of rows would not be
    one = read.filter(pl.col("user_id") == "c")
    assert sliced(one)["language_gap"]["intervals"]["ndcg@10"] == pytest.approx([-0.5, -0.5])
    # who is easy is easy in both languages: within users the gap is always -0.1
    levels = np.random.default_rng(0).normal(size=50)
    pairs = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in range(50)] * 2,
            "target_language": ["de"] * 50 + ["fr"] * 50,
            "user_language": ["de"] * 100,
            "cross_language": ["no"] * 50 + ["yes"] * 50,
            "bilingual": [None] * 100,
            "popularity": ["rare"] * 100,
            "ndcg@10": [*levels, *(levels - 0.1)],
        },
        schema_overrides={"bilingual": pl.String},
    )
    assert sliced(pairs)["language_gap"]["intervals"]["ndcg@10"] == pytest.approx([-0.1, -0.1])
    apart = pairs.with_columns(user_id=pl.Series([f"u{n}" for n in range(100)]))
    low, high = sliced(apart)["language_gap"]["intervals"]["ndcg@10"]
    assert low < -0.3 and high > 0.1


def test_every_slice_has_the_interval_of_its_own_users(read):
    found = sliced(read, seed=3)
    rng, users = np.random.default_rng(3), np.array([0, 1, 2, 2, 3, 4, 4, 5])
    values = read["ndcg@10"].to_numpy()
    expected = {"target_language=fr": [], "bilingual=yes": [], "language_pair=de>fr": [], "language_macro": []}
    for _ in range(1000):
        times = np.bincount(rng.integers(0, 6, size=6), minlength=6)[users]  # how often each row counts
        means = {}
        for name, of_slice in {
            "target_language=fr": [1, 3, 4, 5, 7], "bilingual=yes": [2, 3, 5, 6], "language_pair=de>fr": [1, 3],
            "target_language=de": [0, 2, 6],
        }.items():  # fmt: skip
            if times[of_slice].any():
                means[name] = np.average(values[of_slice], weights=times[of_slice])
        both = [means[name] for name in ("target_language=fr", "target_language=de") if name in means]
        means["language_macro"] = np.mean(both)
        for name, list_ in expected.items():
            list_ += [means[name]] if name in means else []
    for name, means in expected.items():
        assert found[name]["intervals"]["ndcg@10"] == pytest.approx(np.quantile(means, [0.025, 0.975])), name
    assert all("ndcg@10" in entry["intervals"] for entry in found.values())
    assert found["language_worst"]["intervals"] == found["target_language=fr"]["intervals"]
    assert sliced(read, seed=3) == found != sliced(read, seed=4)


def test_pairs_of_languages_are_slices_where_both_are_known(read):
    pairs = {name: entry["n"] for name, entry in sliced(read).items() if name.startswith("language_pair")}
    assert pairs == {f"language_pair={pair}": n for pair, n in (("de>de", 2), ("de>fr", 2), ("fr>de", 1), ("fr>fr", 2))}


def test_slices_are_means_of_their_rows_and_absent_without_any():
    table = pl.DataFrame(
        {
            "user_id": [str(number) for number in range(24)],
            "bilingual": ["no"] * 24,
            "target_language": ["de"] * 10 + ["fr"] * 12 + ["it"] + ["und"],
            "user_language": ["de"] * 24,
            "cross_language": ["no"] * 10 + ["yes"] * 13 + [None],
            "popularity": ["cold"] * 24,
            "ndcg@10": [0.5] * 10 + [0.25] * 12 + [0.0] + [0.9],
        }
    )
    found = {name: without_intervals(entry) for name, entry in sliced(table).items()}
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
    found = sliced(table)
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
            "user_id": [str(number) for number in range(30)],
            "bilingual": ["no"] * 30,
            "target_language": ["de"] * 10 + ["fr"] * 10 + ["it"] * 10,
            "user_language": ["de"] * 30,
            "cross_language": ["no"] * 10 + ["yes"] * 20,
            "popularity": ["cold"] * 30,
            "score": [0.2, 0.8] * 5 + [0.9, 0.1] * 5 + [0.5] * 10,
            "label": [0.0, 1.0] * 10 + [1.0] * 10,
        }
    )

    def value_of(metric, score, label):
        if metric == "mae":
            return float(np.abs(score - label).mean())
        pairs = score[label == 1][:, None] - score[label == 0]
        return float((pairs > 0).mean()) if pairs.size else None

    def of_labels(rows, metrics, worst_by):
        found = slice_results(rows, LabelMetrics(rows, metrics, 0, value_of), worst_by, lower_is_better=True)
        assert all(set(entry["intervals"]) == set(metrics) & set(entry) for entry in found.values())
        return {name: without_intervals(entry) for name, entry in found.items()}

    found = of_labels(table, ["auc", "mae"], "mae")
    assert found["target_language=de"] == {"n": 10, "auc": 1.0, "mae": pytest.approx(0.2)}
    assert found["target_language=it"] == {"n": 10, "mae": 0.5}
    assert found["cross_language=yes"]["auc"] == pytest.approx(0.0)
    assert found["language_macro"] == {"n": 3, "auc": 0.5, "mae": pytest.approx((0.2 + 0.9 + 0.5) / 3)}
    assert found["language_worst"]["language"] == "fr"
    found = of_labels(table.filter(pl.col("target_language") == "it"), ["auc"], "auc")
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
