"""The card counts what a run reports, whatever the split."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from recbole_xling.card import build_configured_card
from recbole_xling.config import XLingConfig
from recbole_xling.evaluator.collector import EvaluatedRows
from recbole_xling.evaluator.slices import user_table
from recbole_xling.evaluator.split_summary import target_pairs
from recbole_xling.quick_start.build import build

SPLITS = {
    "LS": {"LS": "valid_and_test"},
    "LS without validation": {"LS": "test_only"},
    "RS": {"RS": [0.7, 0.1, 0.2]},
    "TS": {"TS": [0.7, 0.1, 0.2]},
    "GT": {"GT": [0.6, 0.2, 0.2]},
    "CI": {"CI": [0.7, 0.1, 0.2]},
    "LT by item": {"LT": {"source": ["de"], "target": ["en"], "by": "item"}},
    "LT by user": {"LT": {"source": ["de", "fr"], "target": ["en"], "by": "user", "interactions": 3}},
    "LT, both tested": {"LT": {"source": ["de", "fr"], "target": ["en"], "by": "user", "test": "both"}},
    "LT by a column": {"LT": {"source": ["north"], "target": ["south"], "by": "market", "users": 4}},
}


FILTERS = {"rm_dup_inter": "first", "user_inter_num_interval": "[3,inf)"}
LANGUAGES = {"languages": ["de"], "language_of": "target"}
CASES = [*((split, {}) for split in SPLITS.values()), (SPLITS["LS"], FILTERS), (SPLITS["GT"], FILTERS)]
CASES += [(SPLITS["LS"], LANGUAGES)]


@pytest.fixture
def rows(small_dataset):
    """Write Unix seconds that single precision cannot tell apart, equal times, repeated items; return the rows.

    The rating of an interaction is its number.
    """
    lengths = [1, 2, 3, 4, *np.random.default_rng(5).integers(1, 13, size=56).tolist()]
    folder = small_dataset(n_users=60, n_items=40, lengths=lengths, ties=True)
    head, *lines = (folder / "small.inter").read_text().splitlines()
    found = [(user, item, float(time)) for user, item, _, time in (line.split("\t") for line in lines)]
    found += [(user, "i3", time) for user, _, time in found[::5]]
    found = [(user, item, 881250949 + 30 * time + 40 * int(user[1:])) for user, item, time in found]
    lines = [f"{user}\t{item}\t{number}\t{time}" for number, (user, item, time) in enumerate(found)]
    (folder / "small.inter").write_text("\n".join([head, *lines]))
    users = [f"u{user}\t{'north' if user % 3 else 'south'}" for user in range(60)]
    (folder / "small.user").write_text("\n".join(["user_id:token\tmarket:token", *users]))
    return found


def configured(settings, **changed):
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"], "user": "*", "item": ["item_id"]}
    return XLingConfig("LLMSASRec", "small", config_dict={**settings, "load_col": columns, **changed})


def as_in_result(splits):
    """Return a card's splits as ``result.json`` has them."""
    result = {"split": dict(splits.setting)}
    for name in ("train", "valid", "test"):
        part = getattr(splits, name)
        counted = "interactions" if name == "train" else "targets"

        def sizes(held, counted=counted):
            return {"users": held.users, "items": held.items, counted: held.interactions}

        languages = {language: sizes(held) for language, held in part.languages.items()}
        cold = {} if name == "train" else {"cold_targets": part.cold_interactions}
        result[name] = {**sizes(part), **cold, "languages": languages}
    return result


@pytest.mark.parametrize("split, filters", CASES, ids=[*SPLITS, "LS filtered", "GT filtered", "one language"])
def test_all_equals_a_runs(rows, settings, split, filters):
    changed = {"eval_args": {"split": split}, **filters}
    card, run = build_configured_card(configured(settings, **changed)), build(configured(settings, **changed))
    assert as_in_result(card.splits) == run.splits
    assert (card.size.users, card.size.interactions) == (
        len(np.unique(run.interactions.users)),
        len(run.interactions.users),
    )

    test = run.test_data._dataset
    users, items = target_pairs(test)
    table = user_table(EvaluatedRows(users, np.ones(len(users), dtype=np.int64), items), {}, run.context)
    pairs = table.group_by("user_language", "target_language").len().iter_rows()
    names = card.mixing.languages
    found = {(names[a], names[b]): n for a, row in enumerate(card.mixing.targets) for b, n in enumerate(row) if n}
    assert found == {(a, b): n for a, b, n in pairs}
    crossing = Counter(table["cross_language"].to_list())
    assert (card.mixing.cross_language, card.mixing.same_language) == (crossing["yes"], crossing["no"])
    bands = {band: n for band, n in card.splits.popularity.items() if n}
    assert bands == dict(table["popularity"].value_counts().iter_rows())

    checks = card.checks
    counted = odd_targets(rows, *(data["rating"].int().tolist() for data in (test.sequence, test.inter_feat)))
    assert (checks.repeated_targets, checks.tied_targets) == counted
    if not filters and split in (SPLITS["LS"], SPLITS["GT"]):
        assert all(counted)


def odd_targets(rows, seen, targets):
    """Count targets whose item was met before, and those at the time of another interaction."""
    counts = [0, 0]
    for target in targets:
        user, item, time = rows[target]
        mine = [number for number in seen if rows[number][0] == user]
        before = [rows[number] for number in mine[: mine.index(target)]]
        counts[0] += any(row[1] == item for row in before)
        counts[1] += sum(rows[number][2] == time for number in mine) > 1
        assert all(row[2] <= time for row in before)
    return tuple(counts)


def test_leave_one_out_is_the_same_both_ways(rows, settings):
    every_row = configured(settings, val_interval={"rating": "[0,inf)"})  # takes the way of other splits
    a, b = (build_configured_card(config) for config in (configured(settings), every_row))
    assert a == b
