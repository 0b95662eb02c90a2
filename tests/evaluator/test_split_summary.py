"""The contents of the parts of a split, in result.json and in the log, for every kind of split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recbole_xling.evaluator.slices import EvalContext
from recbole_xling.evaluator.split_summary import split_summary, summary_text
from recbole_xling.language.users import Readers
from recbole_xling.quick_start.train import run

CONTEXT = EvalContext(
    user_tokens=["[PAD]", "a", "b"],
    item_tokens=["[PAD]", "v", "w", "x"],
    readers=Readers(["und"] * 3, ["und", "de", "de", "fr"]),
    train_counts=np.array([0, 2, 1, 0]),
    known_users=np.array([1, 1, 2]),
    known_items=np.array([1, 2, 1]),
)
PARTS = {
    "train": (np.array([1, 1, 2]), np.array([1, 2, 1])),
    "valid": (np.array([], dtype=np.int64), np.array([], dtype=np.int64)),
    "test": (np.array([1, 2]), np.array([3, 1])),
}


def test_split_summary_counts_per_part_and_language():
    assert split_summary({"CI": [8, 0, 2]}, PARTS, CONTEXT) == {
        "split": {"CI": [8, 0, 2]},
        "train": {
            "users": 2,
            "items": 2,
            "interactions": 3,
            "languages": {"de": {"users": 2, "items": 2, "interactions": 3}},
        },
        "valid": {"users": 0, "items": 0, "targets": 0, "cold_targets": 0, "languages": {}},
        "test": {
            "users": 2,
            "items": 2,
            "targets": 2,
            "cold_targets": 1,
            "languages": {
                "de": {"users": 2, "items": 1, "targets": 1},
                "fr": {"users": 0, "items": 1, "targets": 1},
            },
        },
    }


def test_summary_text_has_a_line_per_part_and_language():
    text = summary_text(split_summary({"LS": "test_only"}, PARTS, CONTEXT))
    assert text.splitlines()[:3] == [
        "Split {'LS': 'test_only'}",
        "  train   2 users, 2 items, 3 interactions",
        "    de    2 users, 2 items, 3 interactions",
    ]
    assert "  test    2 users, 2 items, 2 targets, 1 cold targets" in text


SPLITS = [
    {"LS": "valid_and_test"},
    {"LS": "test_only"},
    {"RS": [0.6, 0.2, 0.2]},
    {"TS": [0.6, 0.2, 0.2]},
    {"GT": [0.6, 0.2, 0.2]},
    {"CI": [0.6, 0.2, 0.2]},
    {"LT": {"source": ["de"], "target": ["en"], "by": "item"}},
]


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec", "BPR"])
def test_parts_of_every_split_are_counted(small_dataset, build_small, split, model):
    small_dataset(lengths=[1, 2, 3, *[8] * 37], n_items=50)
    parts = build_small(model, allow_unknown_keys=True, eval_args={"split": split})
    summary = parts.splits
    n_targets = {name: len(getattr(parts, f"{name}_data")._dataset.inter_feat) for name in ("valid", "test")}
    assert {name: summary[name]["targets"] for name in n_targets} == n_targets
    if set(split) & {"LS", "RS"}:
        unseen = 1 if model != "BPR" else 0  # the user with a single interaction has no row
        assert summary["train"]["interactions"] + sum(n_targets.values()) == len(parts.interactions.users) - unseen
    for name, counted in (("train", "interactions"), ("valid", "targets"), ("test", "targets")):
        held = summary[name]
        for key in ("users", "items", counted):
            assert sum(sizes[key] for sizes in held["languages"].values()) == held[key]
    if "CI" in split:
        assert summary["test"]["cold_targets"] == summary["test"]["targets"] > 0
        assert summary["valid"]["cold_targets"] == summary["valid"]["targets"] > 0


@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec", "BPR"])
def test_a_run_on_cold_items_reports_them(small_dataset, settings, model):
    small_dataset(lengths=[12] * 40)
    split = {"CI": [0.6, 0.2, 0.2]}
    changed = {**settings, "allow_unknown_keys": True, "eval_args": {"split": split}}
    result = run(model, "small", config_dict=changed)
    folder = Path(result["run_dir"])
    assert json.loads((folder / "result.json").read_text())["splits"] == result["splits"]
    assert "Split {'CI': [0.6, 0.2, 0.2]}" in (folder / "log.txt").read_text()
    assert result["n_test"] == result["splits"]["test"]["targets"] == result["slices"]["popularity=cold"]["n"]
    assert set(pl.read_parquet(folder / "users.parquet")["popularity"]) == {"cold"}


def test_every_model_meets_the_same_test_users(small_dataset, settings):
    small_dataset(lengths=[12] * 40)
    tested = []
    for model in ("LLMSASRec", "SASRec", "BPR"):
        split = {"LT": {"source": ["de", "fr"], "target": ["en"], "by": "item", "users": 3}}
        changed = {**settings, "allow_unknown_keys": True, "epochs": 1, "eval_args": {"split": split}}
        folder = Path(run(model, "small", config_dict=changed)["run_dir"])
        tested.append(pl.read_parquet(folder / "users.parquet").select("user_id", "target_item", "target_language"))
    assert tested[0].equals(tested[1]) and tested[0].equals(tested[2])
    assert set(tested[0]["target_language"]) == {"en"}


def test_models_know_which_items_are_cold(small_dataset, build_small):
    small_dataset(lengths=[12] * 40)
    parts = build_small(item_representation="add", eval_args={"split": {"CI": [0.6, 0.2, 0.2]}})
    held_out = {
        item
        for part in ("valid", "test")
        for item in getattr(parts, f"{part}_data")._dataset.inter_feat["item_id"].tolist()
    }
    assert held_out and not held_out & set(parts.model.candidates.tolist())
    assert set(parts.model.candidates.tolist()) == set(np.flatnonzero(parts.context.train_counts).tolist())
