"""Datasets of a run, ours and RecBole's: what is read and left out, and exact order in time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from recbole.data.dataset import SequentialDataset

from recbole_xling.card import build_configured_card
from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.quick_start.build import build_data

HEADER = "user_id:token\titem_id:token\ttags:token_seq\tscores:float_seq\ttimestamp:float"
ROWS = ["u1\ti1\ta b\t1 2.5\t1.5", "u1\ti2\tc\t3\t2", "u2\ti1\tb\t\t881250949.123456789", "u2\ti3\té 日本\t0.1\t1e3"]

FILES = {
    "plain": ROWS,
    "empty cells": [*ROWS, "u3\ti1\t\t\t", "u3\ti2\t\t1\t4"],
    "blank lines": [*ROWS[:2], "", *ROWS[2:], "", ""],
    "long numbers": [*ROWS, "u3\ti1\ta\t1\t1700000000123456789", "u3\ti2\ta\t1\t0.1234567890123456789012345"],
    "tokens like numbers": ["007\t1.0\t1 01\t1\t1", "7\t1\t1\t1\t2", "1e3\t-0\t1\t1\t3"],
    "Windows line ends": [row + "\r" for row in ROWS],
    "spaces": ["u1 \t i1\t a  b \t 1  2 \t 1.5 ", *ROWS[1:]],
}


def write(folder, rows, suffix="inter", encoding="utf-8"):
    (folder / "data" / "made").mkdir(parents=True, exist_ok=True)
    path = folder / "data" / "made" / f"made.{suffix}"
    path.write_text("\n".join(rows), encoding=encoding, newline="")
    return path


def configured(settings, model="LLMSASRec", **changed):
    return XLingConfig(model, "made", config_dict={**settings, "allow_unknown_keys": True, **changed})


# ---- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("separator", ["\t", ",", "::"])
def test_tables_equal_recbole_where_it_reads_files_as_they_are(tmp_path, settings, rows, separator):
    write(tmp_path, [row.replace("\t", separator) for row in (HEADER, *rows)])
    config = configured(settings, load_col={"inter": "*"}, field_separator=separator)
    config["eval_args"]["order"] = "RO"  # rows without a time stay then, as in RecBole
    theirs, ours = SequentialDataset(config), XLingDataset(config)
    # pandas 2 errs in the last bit of a number
    pd.testing.assert_frame_equal(theirs.inter_feat, ours.inter_feat, check_exact=False, rtol=1e-15, atol=0)
    assert (theirs.field2seqlen, theirs.field2type) == (ours.field2seqlen, ours.field2type)
    assert (theirs.field2source, theirs.field2bucketnum) == (ours.field2source, ours.field2bucketnum)
    for field, tokens in theirs.field2id_token.items():
        assert list(tokens) == list(ours.field2id_token[field])


WORDS = ["NA", "null", "nan", "None", "1e5", "007", '"', '"a', 'a"b', "'", "#c", " lead", "trail ", "N/A", "\\", "日本"]


@pytest.mark.parametrize("model", ["LLMSASRec", "BPR", "GRU4Rec"])
def test_a_token_is_its_text_as_it_is_written(tmp_path, settings, model):
    rows = [f"{user}\t{item}\t{1 + place}" for user in WORDS for place, item in enumerate(WORDS)]
    write(tmp_path, ["user_id:token\titem_id:token\ttimestamp:float", *rows], encoding="utf-8-sig")
    items = [*WORDS, "never met"]  # so that there is something to draw negatives from
    write(tmp_path, ["item_id:token\ttitle:token_seq", *(f"{item}\t{item} x" for item in items)], "item")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "title"]}
    dataset = build_data(configured(settings, model, load_col=columns)).dataset
    assert sorted(dataset.field2id_token["user_id"][1:]) == sorted(WORDS)
    assert sorted(dataset.field2id_token["item_id"][1:]) == sorted(items)
    assert (dataset.file_rows["inter"].used, dataset.file_rows["item"].used) == (len(WORDS) ** 2, len(items))


@pytest.mark.parametrize(("suffix", "row"), [("inter", "[PAD]\ta\t1"), ("item", "[PAD]")])
def test_an_id_cannot_be_recboles_name_for_none(tmp_path, settings, suffix, row):
    files = {"inter": ["user_id:token\titem_id:token\ttimestamp:float", "u1\ta\t1"], "item": ["item_id:token", "a"]}
    for name, rows in files.items():
        write(tmp_path, [*rows, *[row] * (name == suffix)], name)
    with pytest.raises(DataError, match=rf"made\.{suffix}:3: .*_id '\[PAD\]' is the name"):
        XLingDataset(configured(settings))


NASTY = """
u1 a 1|u1 b 2|u1 NA 3|u1 null 4|u1 "q 5|u1 strange 6
u2 a 1|u2 a 1|u2 b 2|u2 c 3| c 3|u2  3|  4
nan a 1|nan b 2|nan c 3|u3 a |u3 b 2|u3 c 3|u3 d 4"""


@pytest.mark.parametrize("model", ["LLMSASRec", "BPR"])
@pytest.mark.parametrize(
    "changed",
    [
        {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}},
        {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"], "user": ["user_id"]}},
        {"load_col": {"inter": "*", "item": "*"}, "rm_dup_inter": "first", "val_interval": {"timestamp": "[2,9]"}},
        {"user_inter_num_interval": "[4,inf)"},
    ],
    ids=["interactions", "all files", "filters", "counts"],
)
def test_run_and_card_count_the_same_rows(tmp_path, settings, model, changed):
    rows = [row.replace(" ", "\t") for row in NASTY.strip().replace("\n", "|").split("|")]
    write(tmp_path, ["user_id:token\titem_id:token\ttimestamp:float\r", *(row + "\r" for row in rows)])
    write(
        tmp_path,
        ["item_id:token\tname:token", 'a\t"', "a\tagain", "b\t", "c\tNA", "NA\tx", "null\tx", '"q\tx', "\tx", "d\t"],
        "item",
    )
    write(tmp_path, ["user_id:token", "u1", "nan", "u3", "u9"], "user")
    del settings["load_col"]
    config = configured(settings, model, topk=[2], valid_metric="NDCG@2", **changed)
    card, data = build_configured_card(config), build_data(config)
    rows = data.dataset.file_rows["inter"]
    assert (
        (card.checks.rows_read, card.checks.rows_dropped)
        == (rows.read, dict(+rows.dropped))
        == (20, card.checks.rows_dropped)
    )
    assert card.size.interactions == rows.used == len(data.interactions.users)
    assert card.size.users == len(np.unique(data.interactions.users))
    assert card.size.items == len(np.unique(data.interactions.items))
    assert card.checks.missing_ids == 3
    if "item" in changed.get("load_col", {}):
        assert rows.dropped["of unknown items"] == 1
        assert dict(+data.dataset.file_rows["item"].dropped) == {"without item_id": 1, "of an id that came before": 1}


def test_interactions_without_a_time_have_no_place_in_the_order(tmp_path, settings, caplog):
    """RecBole gives them the mean of all times: b would be the last of u1."""
    rows = ["u1 a 1", "u1 b ", "u1 c 2", "u1 d 3", "u2 a 90", "u2 b 91", "u2 c 92"]
    write(tmp_path, ["user_id:token\titem_id:token\ttimestamp:float", *(row.replace(" ", "\t") for row in rows)])
    with caplog.at_level("INFO"):
        data = build_data(configured(settings, topk=[2], valid_metric="NDCG@2"))
    assert "made.inter: 7 rows read, 6 used (1 without timestamp)" in caplog.text
    test = data.test_data._dataset
    assert list(test.id2token("item_id", test.inter_feat["item_id"])) == ["d", "c"]


def test_a_file_that_load_col_names_and_that_is_not_there_is_named(tmp_path, settings, caplog):
    write(tmp_path, ["user_id:token\titem_id:token\ttimestamp:float", *(f"u1\ti{n}\t{n}" for n in range(5))])
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "age"]}
    XLingDataset(configured(settings, load_col=columns))
    assert "load_col names columns of" in caplog.text
    assert "made.user, but there is no such file" in caplog.text


def test_the_log_says_which_rows_are_used(tmp_path, settings, caplog):
    rows = ["u1 a 1", "u1 b 2", "u1 q 2", " b 3", "u1  3", "  4", "u1 c 3"]
    write(tmp_path, ["user_id:token\titem_id:token\ttimestamp:float", *(row.replace(" ", "\t") for row in rows)])
    write(tmp_path, ["item_id:token", "a", "b", "c", ""], "item")
    with caplog.at_level("INFO"):
        XLingDataset(configured(settings))
    assert "made.inter: 7 rows read, 3 used (2 without user_id, 1 without item_id, 1 of unknown items)" in caplog.text
    assert "made.item: 3 rows read, 3 used" in caplog.text
    with pytest.raises(
        DataError, match=r"nothing of made.inter is left: 7 rows read, 0 used \(.*4 outside val_interval\)"
    ):
        XLingDataset(configured(settings, val_interval={"timestamp": "[9,10]"}))


@pytest.mark.parametrize("setting", [{"val_interval": {"rating": "[3,5]"}}, {"threshold": {"rating": 3}}])
def test_a_setting_about_a_column_that_is_not_loaded_says_how_to_load_it(small_dataset, settings, setting):
    small_dataset()
    (name,) = setting
    changed = {**settings, **setting, "load_col": {"inter": ["user_id", "item_id"]}}
    with pytest.raises(ConfigError, match=rf"{name}: name column 'rating' in load_col: inter, so that it is loaded"):
        XLingDataset(XLingConfig("LLMSASRec", "small", config_dict=changed))
    changed[name] = {"ratings": setting[name]["rating"]}
    with pytest.raises(ConfigError, match=rf"{name}: unknown column 'ratings'. Did you mean 'rating'"):
        XLingDataset(XLingConfig("LLMSASRec", "small", config_dict=changed))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"rating": [1, 3]}, r"'rating' has numbers: write intervals and no list, as in '\[1,1\];\[3,3\]'"),
        ({"user_id": "[1,3]"}, r"'user_id' has no numbers: list the values to keep, not '\[1,3\]'"),
    ],
)
def test_numbers_are_kept_by_intervals_and_tokens_by_lists(small_dataset, settings, kept, message):
    small_dataset()
    loaded = {"load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}}
    with pytest.raises(ConfigError, match=message):
        XLingDataset(XLingConfig("LLMSASRec", "small", config_dict={**settings, **loaded, "val_interval": kept}))


BOUNDS = [("[0,inf)", None), ("[5,inf)", "[5,inf)"), (None, "(2,20]"), ("[3,8];[10,11]", None), ("[0,2];[5,inf)", None)]


@pytest.mark.parametrize("bounds", BOUNDS)
def test_filtering_by_counts_equals_recbole(small_dataset, settings, bounds):
    small_dataset(n_users=60, n_items=50, lengths=list(np.random.default_rng(3).integers(1, 14, size=60)))
    changed = {**settings, "user_inter_num_interval": bounds[0], "item_inter_num_interval": bounds[1]}
    config = XLingConfig("LLMSASRec", "small", config_dict=changed)
    theirs, ours = SequentialDataset(config), XLingDataset(config)
    pd.testing.assert_frame_equal(theirs.inter_feat, ours.inter_feat)
    pd.testing.assert_frame_equal(theirs.item_feat, ours.item_feat)
    assert len(ours.inter_feat)


# ---- order in time ----------------------------------------------------------------------------------------------

SECOND = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
SPLITS = {
    "LS": {"LS": "valid_and_test"},
    "RS": {"RS": [0.6, 0.2, 0.2]},
    "TS": {"TS": [0.6, 0.2, 0.2]},
    "GT": {"GT": [0.6, 0.2, 0.2]},
    "CI": {"CI": [0.6, 0.2, 0.2]},
    "LT": {"LT": {"source": ["de"], "target": ["en", "fr"], "by": "item"}},
}


def write_newest_first(small_dataset, stamp, kind="float"):
    """Write each user's clicks 20 s apart, the newest first; ``rating`` numbers a user's clicks from the oldest."""
    folder = small_dataset()
    rows = [
        f"u{user}\ti{(7 * user + place) % 30}\t{place}\t{stamp(1_700_000_000 + 20 * place + user % 3)}"
        for user in range(40)
        for place in reversed(range(8))
    ]
    (folder / "small.inter").write_text(
        "\n".join([f"user_id:token\titem_id:token\trating:float\ttimestamp:{kind}", *rows])
    )


def last_click_share(model, settings, split, **changed):
    """Return the share of test targets that are later than all else of their user but later test targets."""
    config = XLingConfig(
        model, "small", config_dict={**settings, "allow_unknown_keys": True, "eval_args": {"split": split}, **changed}
    )
    data = build_data(config)
    parts = [loader._dataset for loader in (data.train_data, data.valid_data, data.test_data)]
    tables = [part[np.arange(len(part))] for part in parts]
    assert all(table["timestamp"].dtype == tables[0]["rating"].dtype for table in tables)  # single precision
    if "rating_list" in tables[2]:
        for table in tables:
            history, length = table["rating_list"].numpy(), table["item_length"].numpy()
            for row, n, target in zip(history, length, table["rating"].tolist(), strict=True):
                assert [*row[:n], target] == sorted([*row[:n], target])
    latest = [dict.fromkeys(range(data.dataset.user_num), -1.0) for _ in parts]
    for last, table in zip(latest, tables, strict=True):
        for user, place in zip(table["user_id"].tolist(), table["rating"].tolist(), strict=True):
            last[user] = max(last[user], place)
    return tables, latest


@pytest.mark.parametrize("model", ["LLMSASRec", "GRU4Rec", "BPR"])
@pytest.mark.parametrize("unit", SECOND)
def test_the_last_click_is_the_target_whatever_the_unit(small_dataset, settings, settings_without_layers, model, unit):
    write_newest_first(small_dataset, lambda second: second * SECOND[unit])
    known = settings if model == "LLMSASRec" else settings_without_layers
    tables, _ = last_click_share(model, known, SPLITS["LS"])
    assert tables[2]["rating"].tolist() == [7.0] * 40
    assert tables[1]["rating"].tolist() == [6.0] * 40


@pytest.mark.parametrize("model", ["LLMSASRec", "GRU4Rec", "BPR"])
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_every_split_orders_times_exactly(small_dataset, settings, settings_without_layers, model, split):
    write_newest_first(small_dataset, str)
    known = settings if model == "LLMSASRec" else settings_without_layers
    tables, latest = last_click_share(model, known, split)
    assert len(tables[2])
    if "CI" in split:
        return  # parts differ in items
    for user, place in zip(tables[2]["user_id"].tolist(), tables[2]["rating"].tolist(), strict=True):
        assert latest[0][user] < place
        assert latest[1][user] < place


@pytest.mark.parametrize("order", ["TO", "RO"])
def test_a_boundary_in_time_is_the_same_in_any_order_of_rows(small_dataset, settings_without_layers, order):
    write_newest_first(small_dataset, str)
    config = XLingConfig(
        "BPR",
        "small",
        config_dict={
            **settings_without_layers,
            "eval_args": {"split": SPLITS["TS"], "order": order, "group_by": "user"},
        },
    )
    data = build_data(config)
    times = [loader._dataset.inter_feat["timestamp"] for loader in (data.train_data, data.valid_data, data.test_data)]
    assert max(times[0].max(), times[1].max()) < times[2].min()
    assert len(times[2]) == 53  # a fifth of 320 would be 64, but 11 of them happen at the point in time


@pytest.mark.parametrize("order", ["TO", "RO"])
def test_a_boundary_in_time_knows_no_interactions_without_a_time(small_dataset, settings_without_layers, order):
    """RecBole gives them the mean of all times."""
    write_newest_first(small_dataset, lambda second: "" if second % 20 == 1 else second)
    split = {"split": SPLITS["TS"], "order": order, "group_by": "user"}
    data = build_data(XLingConfig("BPR", "small", config_dict={**settings_without_layers, "eval_args": split}))
    parts = [loader._dataset for loader in (data.train_data, data.valid_data, data.test_data)]
    users = {user for part in parts for user in part.id2token("user_id", part.inter_feat["user_id"])}
    assert users == {f"u{user}" for user in range(40) if user % 3 != 1}
    assert data.dataset.file_rows["inter"].dropped["without timestamp"] == 13 * 8


DATES = {
    "dates and times": lambda second: np.datetime64(int(second), "s"),
    "with a zone": lambda second: f"{np.datetime64(int(second) + 7200, 's')}+02:00",
    "with fractions": lambda second: f"{np.datetime64(int(second), 's')}.000250Z",
    "numbers": str,
}


@pytest.mark.parametrize("kind", ["token", "float"])
@pytest.mark.parametrize("stamp", DATES.values(), ids=DATES.keys())
def test_dates_are_times(small_dataset, settings, stamp, kind):
    write_newest_first(small_dataset, stamp, kind)
    tables, _ = last_click_share("LLMSASRec", settings, SPLITS["LS"])
    assert tables[2]["rating"].tolist() == [7.0] * 40
    dataset = XLingDataset(XLingConfig("LLMSASRec", "small", config_dict=settings))
    assert dataset.inter_feat["timestamp"].max() == pytest.approx(1_700_000_142, abs=1e-3)
    config = XLingConfig(
        "LLMSASRec",
        "small",
        config_dict={**settings, "eval_args": {"split": {"GT": ["2023-11-14T22:14:20", "2023-11-14T22:15:00"]}}},
    )
    assert len(build_data(config).test_data._dataset) == sum(
        20 * place + user % 3 >= 100 for user in range(40) for place in range(8)
    )


def test_clicks_at_the_same_time_keep_the_order_of_the_file(small_dataset, settings, settings_without_layers):
    folder = small_dataset()
    rows = [f"u{user}\ti{place}\t{place}\t{1_700_000_000}" for place in range(8) for user in range(40)]
    (folder / "small.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\trating:float\ttimestamp:float", *rows])
    )
    for model, known in (("LLMSASRec", settings), ("BPR", settings_without_layers)):
        tables, _ = last_click_share(model, known, SPLITS["LS"])
        assert tables[2]["rating"].tolist() == [7.0] * 40


def test_the_column_of_times_is_loaded_without_being_named(small_dataset, settings):
    write_newest_first(small_dataset, str)
    tables, _ = last_click_share(
        "LLMSASRec", settings, SPLITS["LS"], load_col={"inter": ["user_id", "item_id", "rating"]}
    )
    assert tables[2]["rating"].tolist() == [7.0] * 40


@pytest.mark.parametrize("split", [SPLITS["LS"], SPLITS["GT"]], ids=["LS", "GT"])
def test_times_that_nobody_named_order_interactions_and_are_no_feature(small_dataset, settings_without_layers, split):
    """A context-aware model would multiply Unix seconds by a weight."""
    write_newest_first(small_dataset, str)
    known = settings_without_layers | {"eval_args": {"split": split, "mode": "full"}, "allow_unknown_keys": True}
    known |= {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    for named in (False, True):
        columns = ["user_id", "item_id", "rating", *["timestamp"] * named]
        data = build_data(XLingConfig("DeepFM", "small", config_dict={**known, "load_col": {"inter": columns}}))
        for loader in (data.train_data, data.valid_data, data.test_data):
            assert ("timestamp" in loader._dataset.fields(), "timestamp" in loader._dataset.inter_feat) == (
                named,
                named,
            )
        test = data.test_data._dataset.inter_feat["rating"]
        assert sorted(test.tolist()) == ([7.0] * 40 if "LS" in split else [6.0] * 26 + [7.0] * 40)


def test_a_file_without_times_is_refused_for_what_it_lacks(small_dataset, settings, settings_without_layers):
    folder = small_dataset()
    for model, known in (
        ("LLMSASRec", settings),
        ("GRU4Rec", settings_without_layers),
        ("BPR", settings_without_layers),
    ):
        with pytest.raises(
            DataError, match="no column 'when' to order interactions by, only user_id, item_id, rating, timestamp"
        ):
            build_data(XLingConfig(model, "small", config_dict={**known, "TIME_FIELD": "when"}))
    rows = (folder / "small.inter").read_text().splitlines()
    (folder / "small.inter").write_text("\n".join([rows[0], *(row.rpartition("\t")[0] + "\t" for row in rows[1:])]))
    with pytest.raises(DataError, match="column 'timestamp', but no interaction has a time in it"):
        build_data(XLingConfig("LLMSASRec", "small", config_dict=settings))
