"""Files that are split already: RecBole's rows with histories, and plain rows of interactions."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.dataset import SequentialDataset

from recbole_xling.config import XLingConfig
from recbole_xling.data.loader import TARGET_LIST, TARGET_WEIGHT, WindowLoader
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.quick_start.build import build, build_trainer, find_dataset
from recbole_xling.quick_start.evaluate import evaluate_run
from recbole_xling.quick_start.train import run

FILES = {"benchmark_filename": ["train", "valid", "test"]}
LISTS = {"load_col": {"inter": ["user_id", "item_id", "item_id_list"], "item": ["item_id", "item_language"]}}
PARTS = ("train", "valid", "test")


@pytest.fixture
def files(small_dataset, tmp_path):
    """Return a function that writes the small dataset as three files and returns its rows: user, item, time."""

    def write(form="rows", times=True, lengths=None, longest=8):
        folder = small_dataset(lengths=lengths)
        rows = [line.split("\t") for line in (folder / "small.inter").read_text().splitlines()[1:]]
        rows = sorted(((user, item, float(time)) for user, item, _, time in rows), key=lambda row: (row[0], row[2]))
        (folder / "small.inter").unlink()
        lines = {part: [] for part in PARTS}
        for _, walk in itertools.groupby(rows, key=lambda row: row[0]):
            walk = list(walk)
            for place, (user, item, time) in enumerate(walk):
                part = PARTS[max(0, 2 - (len(walk) - 1 - place))]
                history = " ".join(item for _, item, _ in walk[max(0, place - longest) : place])
                if form == "lists" and place:
                    lines[part].append(f"{user}\t{history}\t{item}")
                elif form == "rows":
                    lines[part].append(f"{user}\t{item}" + (f"\t{time}" if times else ""))
        head = "user_id:token\titem_id_list:token_seq\titem_id:token"
        if form == "rows":
            head = "user_id:token\titem_id:token" + ("\ttimestamp:float" if times else "")
        for part, found in lines.items():
            found = found[::-1] if times and form == "rows" else found  # the order of rows must not matter then
            (folder / f"small.{part}.inter").write_text("\n".join([head, *found]) + "\n")
        return rows

    return write


def make(settings, model="LLMSASRec", **changed):
    return build(XLingConfig(model, "small", config_dict={**settings, **FILES, "allow_unknown_keys": True, **changed}))


def named_rows(part):
    """Return (user, history, target) of each row, by name."""
    table, names = part[np.arange(len(part))], part.field2id_token
    items = names["item_id"]
    return [
        (str(names["user_id"][user]), [str(items[i]) for i in history[:length]], str(items[target]))
        for user, history, length, target in zip(
            table["user_id"].tolist(), table["item_id_list"].tolist(), table["item_length"].tolist(),
            table["item_id"].tolist(), strict=True,
        )
    ]  # fmt: skip


def wanted_rows(rows, longest=8):
    """Return the rows of leave-one-out, from the interactions alone."""
    parts = {part: [] for part in PARTS}
    for user, walk in itertools.groupby(rows, key=lambda row: row[0]):
        items = [item for _, item, _ in walk]
        for place in range(1, len(items)):
            part = PARTS[max(0, 2 - (len(items) - 1 - place))]
            parts[part].append((user, items[max(0, place - longest) : place], items[place]))
    return [sorted(part) for part in parts.values()]


@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec"])
@pytest.mark.parametrize("form", ["rows", "rows without times", "lists"])
def test_rows_are_those_of_the_split_that_the_files_hold(files, settings, model, form):
    rows = files(form.split()[0], times=form == "rows")
    changed = LISTS if form == "lists" else {"load_col": {"inter": "*", "item": ["item_id", "item_language"]}}
    parts = make(settings, model, **changed)
    found = [sorted(named_rows(loader._dataset)) for loader in (parts.train_data, parts.valid_data, parts.test_data)]
    assert found == wanted_rows(rows)
    summary = parts.splits
    assert summary["split"] == FILES
    assert summary["train"]["interactions"] == len(rows) - 2 * 40
    assert summary["test"]["targets"] == 40


def test_stated_histories_give_the_batches_that_recbole_makes(files, settings):
    files("lists", longest=12)  # longer than MAX_ITEM_LIST_LENGTH
    config = XLingConfig("LLMSASRec", "small", config_dict={**settings, **FILES, **LISTS})
    config["alias_of_item_id"] = ["item_id_list"]
    config["MAX_ITEM_LIST_LENGTH"] = 12
    theirs = SequentialDataset(config).build()
    config["alias_of_item_id"] = None
    ours = build(config)
    for their, loader in zip(theirs, (ours.train_data, ours.valid_data, ours.test_data), strict=True):
        want, got = their[np.arange(len(their))], loader._dataset[np.arange(len(their))]
        width = want["item_id_list"].shape[1]
        assert torch.equal(got["item_id_list"][:, :width], want["item_id_list"])
        for field in ("user_id", "item_id", "item_length"):
            assert torch.equal(got[field], want[field])
    config["MAX_ITEM_LIST_LENGTH"] = 8
    cut = build(config).test_data._dataset
    assert [history for _, history, _ in named_rows(cut)] == [
        history[-8:] for _, history, _ in named_rows(ours.test_data._dataset)
    ]


def test_training_on_stated_histories_predicts_their_targets_alone(files, settings):
    files("lists")
    train = make(settings, **LISTS).train_data
    assert isinstance(train, WindowLoader)
    pairs = []
    for batch in train:
        trained = batch[TARGET_WEIGHT] > 0
        assert (trained.sum(dim=1) == 1).all() and torch.equal(trained, batch[TARGET_LIST] > 0)
        assert batch[TARGET_WEIGHT].sum().item() == pytest.approx(1)
        for history, length, targets in zip(
            batch["item_id_list"], batch["item_length"], batch[TARGET_LIST], strict=True
        ):
            pairs.append((history[:length].tolist(), int(targets[length - 1])))
    part = train._dataset
    table = part[np.arange(len(part))]
    rows = zip(table["item_id_list"].tolist(), table["item_length"].tolist(), table["item_id"].tolist(), strict=True)
    assert sorted(pairs) == sorted((history[:length], target) for history, length, target in rows)


@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec", "BPR"])
@pytest.mark.parametrize("form", ["rows", "lists"])
def test_a_run_on_files_trains_and_is_loaded_again(files, settings, model, form):
    files(form)
    changed = LISTS if form == "lists" else {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    result = run(model, "small", config_dict={**settings, **FILES, **changed, "allow_unknown_keys": True, "epochs": 1})
    assert result["n_test"] == 40 and len(result["slices"]) > 3
    assert evaluate_run(result["run_dir"])["test"] == result["test"]


def test_general_and_sequential_models_have_the_same_targets(files, settings):
    files("rows")
    found = []
    for model in ("LLMSASRec", "BPR"):
        parts = make(settings, model, load_col={"inter": ["user_id", "item_id", "timestamp"]})
        trainer = build_trainer(parts.config, parts.model)
        trainer.evaluate(parts.test_data, load_best_model=False)
        rows, names = trainer.eval_collector.rows, parts.dataset.field2id_token
        pairs = zip(rows.users, rows.targets, strict=True)
        found.append(sorted((names["user_id"][user], names["item_id"][item]) for user, item in pairs))
    assert found[0] == found[1]


def test_targets_without_an_earlier_interaction_are_left_out_and_counted(files, settings, caplog):
    caplog.set_level(logging.WARNING)
    files("rows", lengths=[1] * 5 + [6] * 35)
    parts = make(settings, load_col={"inter": ["user_id", "item_id", "timestamp"]})
    assert len(parts.test_data._dataset) == 35
    assert "5 of 40 interactions of 'test' are their user's first" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"benchmark_filename": ["train", "test"]}, "three files"),
        ({"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}}}, "set either it or eval_args: split"),
        ({"val_interval": {"rating": "[3,inf)"}}, "leave out val_interval"),
        ({"user_inter_num_interval": "[5,inf)"}, "leave out user_inter_num_interval"),
    ],
)
def test_settings_that_files_cannot_follow_are_refused(files, settings, changed, message):
    files("rows")
    with pytest.raises(ConfigError, match=message):
        make(settings, **changed)


def test_a_missing_file_and_an_empty_history_are_named(files, settings, tmp_path):
    files("lists")
    folder = tmp_path / "data" / "small"
    with (folder / "small.train.inter").open("a") as file:
        file.write("u0\t\ti1\n")
    with pytest.raises(DataError, match=r"1 rows of .* of 'small' have an empty item_id_list"):
        make(settings, **LISTS)
    (folder / "small.valid.inter").unlink()
    with pytest.raises(DataError, match=r"small\.valid\.inter"):
        find_dataset(XLingConfig("LLMSASRec", "small", config_dict={**settings, **FILES}))


def test_interactions_without_a_time_among_others_are_refused_as_files_are_used_whole(files, settings, tmp_path):
    files("rows")
    with (tmp_path / "data" / "small" / "small.train.inter").open("a") as file:
        file.write("u0\ti1\t\n")
    with pytest.raises(DataError, match=r"1 of [0-9]+ interactions of .*'train'.* of 'small' have no timestamp"):
        make(settings)


def test_items_that_stated_histories_show_are_known(files, settings):
    """A history that training rows state is met by training, although none of its items was a target."""
    files(form="lists")
    file = Path(settings["data_path"]) / "small" / "small.train.inter"
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([head, *sorted(lines, key=len)[-3:]]) + "\n")
    part = make({**settings, **LISTS}).train_data._dataset
    shown = {item for _, history, target in named_rows(part) for item in (*history, target)}
    names = part.field2id_token["item_id"]
    assert {str(names[item]) for item in np.flatnonzero(part.known_items)} == shown
    assert (part.train_item_counts > 0).sum() < part.known_items.sum()
