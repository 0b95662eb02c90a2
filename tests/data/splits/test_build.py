"""Split datasets: what training batches and evaluation rows contain, down to the single interaction."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, reject
from hypothesis import settings as limits
from hypothesis import strategies as st

from recbole_xling.config import XLingConfig
from recbole_xling.data.loader import TARGET_LIST, TARGET_WEIGHT, WindowLoader
from recbole_xling.data.sequences import cut_windows
from recbole_xling.data.splits.build import all_rows
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.evaluator.collector import excluded_items
from recbole_xling.quick_start.build import build

LANGUAGES = ("de", "en", "fr")
SPLITS = {
    "GT": {"GT": [0.6, 0.2, 0.2]},
    "CI": {"CI": [0.6, 0.2, 0.2]},
    "LT by item": {"LT": {"source": ["de"], "target": ["en"], "by": "item"}},
    "LT by user": {"LT": {"source": ["de", "fr"], "target": ["en"], "by": "user"}},
    "LT, both tested": {"LT": {"source": ["de", "fr"], "target": ["en"], "by": "user", "test": "both"}},
    "LT few-shot": {"LT": {"source": ["de"], "target": ["en", "fr"], "by": "item", "interactions": 1}},
}


NO_SAMPLES = {"train_neg_sample_args": None}


def write(root, sequences):
    """Write users' sequences of (item, time); ``rating`` numbers the interactions, ``i<k>`` is of language k mod 3."""
    folder = Path(root) / "made"
    folder.mkdir(exist_ok=True)
    rows = [(user, *step) for user, steps in enumerate(sequences) for step in steps]
    lines = [f"u{user}\ti{item}\t{number}\t{time}" for number, (user, item, time) in enumerate(rows)]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "made.inter").write_text("\n".join([head, *np.random.default_rng(0).permutation(lines)]))
    items = [f"i{item}\t{LANGUAGES[item % 3]}\tname" for item in range(12)]
    (folder / "made.item").write_text("\n".join(["item_id:token\titem_language:token\ttitle:token_seq", *items]))
    (folder / "made.user").write_text("user_id:token\tmarket:token\n" + "\n".join(f"u{u}\tm{u % 2}" for u in range(9)))
    return rows


def make(model, root, split, **changed):
    known = {
        "data_path": str(root),
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "eval_args": {"split": split},
        "topk": [1],
        "valid_metric": "NDCG@1",
        "encoder": "hashing",
        "item_representation": "none",
        "MAX_ITEM_LIST_LENGTH": 4,
        "allow_unknown_keys": True,
        **changed,
    }
    return build(XLingConfig(model, "made", config_dict=known))


def numbers_of(dataset, table):
    return table[dataset.config["RATING_FIELD"]].numpy().astype(int).tolist()


def rows_of(dataset):
    """Return (history, target) of each row, as numbers of interactions."""
    table = dataset[np.arange(len(dataset))]
    histories = table["rating_list"].numpy().astype(int)
    lengths = table["item_length"].tolist()
    return [(h[:n].tolist(), t) for h, n, t in zip(histories, lengths, numbers_of(dataset, table), strict=True)]


def window_numbers(dataset, max_length=4):
    """Return the numbers of all interactions that are input or target of a training window."""
    numbers = np.array(numbers_of(dataset, dataset.sequence))
    windows = cut_windows(dataset.segments, max_length, max_length // 2, np.random.default_rng(0))
    found = [numbers[s : s + n + 1] for s, n in zip(windows.start, windows.length, strict=True)]
    return set(np.concatenate(found).tolist())


SEQUENCES = st.lists(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 9)), min_size=1, max_size=9), min_size=6, max_size=9
)


# building datasets is too slow to look for the smallest example as well
@limits(max_examples=12, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(sequences=SEQUENCES)
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_rows_and_windows_never_see_held_out_interactions(split, sequences):
    with tempfile.TemporaryDirectory() as root:
        rows = write(root, sequences)
        try:
            parts = make("LLMSASRec", root, split)
        except (DataError, ConfigError):  # nothing left to train or test on, or a language that nobody has
            reject()
        train, valid, test = (data._dataset for data in (parts.train_data, parts.valid_data, parts.test_data))
        found = {"train": rows_of(train), "valid": rows_of(valid), "test": rows_of(test)}
        theirs = make("SASRec", root, split, **NO_SAMPLES)
        for name, data in (("train", theirs.train_data), ("valid", theirs.valid_data), ("test", theirs.test_data)):
            assert rows_of(data._dataset) == found[name]

    held_out = [target for name in ("valid", "test") for _, target in found[name]]
    trained = window_numbers(train)
    assert trained == {number for history, target in found["train"] for number in (*history, target)}
    assert len(set(held_out)) == len(held_out) and not trained & set(held_out)
    assert not {target for _, target in found["test"]} & {n for history, _ in found["valid"] for n in history}
    for history, target in (row for part in found.values() for row in part):
        user, _, time = rows[target]
        assert history and target not in history
        assert all(rows[number][0] == user and rows[number][2] <= time for number in history)
    if "GT" in split:
        end, start = max(rows[n][2] for n in trained), min((rows[t][2] for _, t in found["valid"]), default=np.inf)
        assert end < min(start, min(rows[t][2] for _, t in found["test"]))
    if "CI" in split:
        assert not {rows[n][1] for n in trained} & {rows[target][1] for target in held_out}
        histories = {n for name in ("valid", "test") for history, _ in found[name] for n in history}
        assert not {rows[n][1] for n in histories} & {rows[target][1] for target in held_out}
    counts = np.bincount(train.training_pairs()[1], minlength=train.item_num)
    assert (counts == train.train_item_counts).all() and counts.sum() == len(trained)
    cold = [token for token, count in zip(train.field2id_token["item_id"], counts, strict=True) if not count]
    assert set(cold) == {"[PAD]", *(f"i{item}" for _, item, _ in rows)} - {f"i{rows[n][1]}" for n in trained}


@pytest.fixture
def made(tmp_path):
    rng = np.random.default_rng(1)
    walks = [[(int(rng.integers(12)), step) for step in range(int(rng.integers(1, 12)))] for _ in range(9)]
    return tmp_path, write(
        tmp_path,
        [[*walk, *((item + 1, 20 + i) for i, (item, _) in enumerate(walk[:3]) if item < 11)] for walk in walks],
    )


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_batches_are_made_of_training_interactions_alone(made, split):
    parts = make("LLMSASRec", made[0], split)
    assert isinstance(parts.train_data, WindowLoader)
    train = parts.train_data._dataset
    pairs = set(zip(*(column.tolist() for column in train.training_pairs()), strict=True))
    trained = {item for _, item in pairs}
    n_targets = 0
    for batch in parts.train_data:
        assert set(batch["item_id_list"].unique().tolist()) - {0} <= trained
        assert set(batch[TARGET_LIST].unique().tolist()) - {0} <= trained
        n_targets += int((batch[TARGET_WEIGHT] > 0).sum())
    assert n_targets == len(train)


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_recboles_models_are_tested_on_the_same_targets(made, split):
    ours, general = make("LLMSASRec", made[0], split), make("BPR", made[0], split)
    for name in ("valid_data", "test_data"):
        tables = [getattr(parts, name)._dataset.inter_feat for parts in (ours, general)]
        one, other = (list(zip(table["user_id"].tolist(), table["rating"].tolist(), strict=True)) for table in tables)
        assert one == other
    sequential, trained = (
        set(zip(*map(list, p.train_data._dataset.training_pairs()), strict=True)) for p in (ours, general)
    )
    assert sequential <= trained  # users with a single interaction have no row in a sequential model
    assert (general.context.train_counts >= ours.context.train_counts).all()


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_recboles_models_do_not_rank_what_their_users_have_met(made, split):
    ours = make("LLMSASRec", made[0], {**split}, exclude_history=True)
    general = make("BPR", made[0], split)
    known = {}
    for batch, *_ in ours.test_data:
        for user, target, items in zip(
            batch["user_id"].tolist(), batch["item_id"].tolist(), excluded_items(ours.config, batch).tolist(),
            strict=True,
        ):  # fmt: skip
            known.setdefault(user, set()).update({*items} - {0, target})
    found = {user: {*left_out.tolist()} for user, left_out in enumerate(general.test_data.uid2history_item)
             if left_out is not None}  # fmt: skip
    targets = {user: {*items.tolist()} for user, items in enumerate(general.test_data.uid2positive_item)
               if items is not None}  # fmt: skip
    assert known and all(items - targets[user] <= found[user] for user, items in known.items())
    again = make("BPR", made[0], split, repeatable=True).test_data
    assert not any(len(items) for items in again.uid2history_item if items is not None)


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_what_is_known_of_users_is_what_the_split_uses(made, split):
    root, rows = made
    parts = make("LLMSASRec", root, split, MAX_ITEM_LIST_LENGTH=20)  # whole histories
    found = [rows_of(data._dataset) for data in (parts.train_data, parts.valid_data, parts.test_data)]
    used = {number for part in found for history, target in part for number in (*history, target)}
    left = used - {target for _, target in found[2]}
    for context in (parts.context, make("BPR", root, split).context):
        pairs = zip(context.known_users.tolist(), context.known_items.tolist(), strict=True)
        known = Counter((context.user_tokens[user], context.item_tokens[item]) for user, item in pairs)
        expected = Counter((f"u{rows[number][0]}", f"i{rows[number][1]}") for number in left)
        assert expected <= known
        with_rows = {f"u{rows[target][0]}" for _, target in found[0]}
        assert not {user for user, _ in known - expected} & with_rows  # a single one to train on is no row
    is_by_item = "CI" in split or split.get("LT", {}).get("by") == "item"
    assert (known.total() + len(found[2]) < len(rows)) == is_by_item  # what comes later than a user's last target


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, *SPLITS.values()], ids=["LS", *SPLITS])
def test_all_rows_are_those_of_every_interaction_with_a_history_for_all_sequential_models(made, split):
    root, rows = made
    ours, theirs = (make(model, root, split, **more) for model, more in (("LLMSASRec", {}), ("SASRec", NO_SAMPLES)))
    found = rows_of(all_rows(ours.dataset))
    assert sorted(found) == sorted(rows_of(all_rows(theirs.dataset)))
    users = [user for user, *_ in rows]
    assert len(found) == len(users) - len(set(users))


def test_a_language_transfer_can_go_by_a_column_of_the_user_file(made):
    split = {"LT": {"source": ["m0"], "target": ["m1"], "by": "market"}}
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"], "user": ["user_id", "market"]}
    parts = make("LLMSASRec", made[0], split, load_col=columns)
    for data, market in ((parts.train_data, 0), (parts.valid_data, 0), (parts.test_data, 1)):
        users = data._dataset.inter_feat["user_id"].numpy()
        assert {int(token[1:]) % 2 for token in parts.dataset.field2id_token["user_id"][users]} == {market}
    with pytest.raises(ConfigError, match=r"'marked'.*item, market, user"):
        make("LLMSASRec", made[0], {"LT": {**split["LT"], "by": "marked"}}, load_col=columns)


def test_the_users_of_a_few_shot_split_are_in_training_and_in_the_test(made):
    transfer = {"source": ["de", "fr"], "target": ["en"], "by": "user"}
    zero = make("LLMSASRec", made[0], {"LT": transfer})
    few = make("LLMSASRec", made[0], {"LT": {**transfer, "users": 1}})
    tested = [rows_of(parts.test_data._dataset) for parts in (zero, few)]
    assert tested[0] == tested[1]
    users = [set(parts.train_data._dataset.training_pairs()[0].tolist()) for parts in (zero, few)]
    assert users[0] < users[1] and len(users[1] - users[0]) == 1
    (added,) = users[1] - users[0]
    assert added in few.test_data._dataset.inter_feat["user_id"].tolist()
    with pytest.raises(ConfigError, match=r"asks for 99 users of en, but training may have \d"):
        make("LLMSASRec", made[0], {"LT": {**transfer, "users": 99}})


def test_readers_of_all_languages_may_be_tested_in_one_run(made):
    root, interactions = made
    transfer = {"source": ["de", "fr"], "target": ["en"], "by": "user"}
    zero, both = (make("LLMSASRec", root, {"LT": {**transfer, "test": test}}) for test in ("target", "both"))
    left_out = make("LLMSASRec", root, {"LS": "valid_and_test"})
    languages = dict(zip(both.context.user_tokens, both.context.user_languages, strict=True))

    def of(data, *wanted):
        return [row for row in rows_of(data._dataset) if languages[f"u{interactions[row[1]][0]}"] in wanted]

    # readers of the target languages as without the setting, the others as in leave-one-out
    assert of(both.test_data, "en") == of(zero.test_data, "en") != []
    assert of(both.test_data, "de", "fr") == of(left_out.test_data, "de", "fr") != []
    assert of(both.valid_data, "de", "en", "fr") == of(left_out.valid_data, "de", "fr")
    users = both.train_data._dataset.training_pairs()[0].tolist()
    assert {both.context.user_languages[user] for user in users} == {"de", "fr"}


def test_an_unknown_language_of_a_split_is_refused_with_the_known_ones(made):
    split = {"LT": {"source": ["de"], "target": ["it"], "by": "item"}}
    with pytest.raises(ConfigError, match=r"'it'.*de, en, fr"):
        make("LLMSASRec", made[0], split)


def test_points_in_time_beyond_the_data_are_refused_with_its_range(made):
    with pytest.raises(DataError, match=r"nothing to test on.*from 0 to 22"):
        make("LLMSASRec", made[0], {"GT": ["2024-05-01", "2024-06-01"]})
    parts = make("BPR", made[0], {"GT": [10, 21]})
    assert parts.train_data._dataset.inter_feat["timestamp"].max() < 10
    assert parts.test_data._dataset.inter_feat["timestamp"].min() == 21


def test_a_split_in_time_tells_times_one_second_apart(tmp_path):
    start = 1_700_000_000
    write(tmp_path, [[(user, start), (user + 1, start + 1), (user + 2, start + 2)] for user in range(6)])
    parts = make("BPR", tmp_path, {"GT": [start + 1, start + 2]})
    items = [
        set(data._dataset.inter_feat["rating"].long().remainder(3).tolist())
        for data in (parts.train_data, parts.valid_data, parts.test_data)
    ]
    assert items == [{0}, {1}, {2}]


def test_a_split_in_time_without_times_is_refused(made):
    with pytest.raises(DataError, match=r"no column 'when' to order interactions by, only user_id, .*TIME_FIELD"):
        make("BPR", made[0], SPLITS["GT"], TIME_FIELD="when")


def test_the_column_of_times_need_not_be_named_in_load_col(made):
    columns = ["user_id", "item_id", "timestamp"]
    named, unnamed = (make("BPR", made[0], SPLITS["GT"], load_col={"inter": columns[:n]}) for n in (3, 2))
    for data in ("train_data", "valid_data", "test_data"):
        ours, theirs = (getattr(parts, data)._dataset.inter_feat["item_id"] for parts in (named, unnamed))
        assert ours.tolist() == theirs.tolist()


def test_a_model_with_rows_of_its_own_is_refused_for_our_splits(made):
    with pytest.raises(ConfigError, match=r"DIEN.*LS"):
        make(
            "DIEN",
            made[0],
            SPLITS["GT"],
            metrics=["AUC"],
            valid_metric="AUC",
            eval_args={"split": SPLITS["GT"], "mode": "labeled"},
        )


def test_unused_columns_are_dropped_from_every_part(made):
    parts = make("SASRec", made[0], SPLITS["GT"], train_neg_sample_args=None, unused_col={"inter": ["timestamp"]})
    for data in (parts.train_data, parts.valid_data, parts.test_data):
        assert "timestamp" not in data._dataset.inter_feat and "rating" in data._dataset.inter_feat


_VALIDATED = [split for name, split in SPLITS.items() if name != "CI"]
_VALIDATED += [{"CI": [0.3, 0.4, 0.3]}, {"LS": "valid_and_test"}, {"RS": [0.6, 0.2, 0.2]}]


@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec", "BPR"])
@pytest.mark.parametrize("split", _VALIDATED, ids=str)
def test_validation_rows_can_be_trained_on(made, split, model):
    separate, joined = (make(model, made[0], split, train_on_validation=both) for both in (False, True))

    def targets(run):
        loaders = (run.train_data, run.valid_data, run.test_data)
        return [sorted(numbers_of(run.dataset, loader._dataset.inter_feat)) for loader in loaders]

    train, valid, test = targets(separate)
    assert valid
    assert targets(joined) == [sorted(train + valid), [], test]
    if model == "LLMSASRec":
        assert rows_of(joined.test_data._dataset) == rows_of(separate.test_data._dataset)
        part = joined.train_data._dataset
        assert window_numbers(part).isdisjoint(set(test) if "CI" in split else set(test) - set(train + valid))
        assert set(train + valid) <= window_numbers(part)
