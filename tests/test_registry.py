"""RecBole, as it comes, knows our models by name."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import recbole.data.dataset
import recbole.trainer
import recbole.utils
import torch
from recbole.config import Config
from recbole.model.general_recommender import BPR, EASE
from recbole.model.sequential_recommender import SASRec

import recbole_xling
from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.errors import ConfigError
from recbole_xling.registry import install, known_models, register_model, registered_models
from recbole_xling.trainer.trainer import XLingTrainer

quick_start = pytest.importorskip("recbole.quick_start", reason="RecBole's quick start needs ray")


def test_recbole_and_recbole_xling_give_the_same_model_class():
    ours = importlib.import_module("recbole_xling.model.llmsasrec")
    theirs = importlib.import_module("recbole.model.sequential_recommender.llmsasrec")
    assert recbole.utils.get_model("LLMSASRec") is ours.LLMSASRec is theirs.LLMSASRec
    assert recbole.data.dataset.LLMSASRecDataset is XLingDataset
    assert recbole.utils.get_trainer(ours.LLMSASRec.type, "LLMSASRec") is XLingTrainer
    assert "LLMSASRec" in registered_models() and {"LLMSASRec", "BPR"} <= known_models()


def test_a_second_install_changes_nothing():
    before = recbole.data.utils.get_dataloader, Config._load_internal_config_dict
    install()
    assert before == (recbole.data.utils.get_dataloader, Config._load_internal_config_dict)


def test_recboles_own_models_keep_recboles_defaults():
    config = Config("BPR", "ml-100k")
    assert config["encoder"] is None
    assert config["eval_args"]["split"] == {"RS": [0.8, 0.1, 0.1]}


def test_an_unknown_model_is_answered_with_the_nearest_and_all_names():
    with pytest.raises(ConfigError, match=r"Did you mean 'SASRec'.*LLMSASRec"):
        recbole.utils.get_model("SASRek")


@pytest.mark.parametrize(
    "setting", [{"languages": ["de"]}, {"stages": ["joint"]}, {"valid_users": 5}, {"beyond_accuracy": True}]
)
def test_settings_that_recboles_quick_start_would_only_half_follow_are_refused(small_dataset, settings, setting):
    small_dataset()
    with pytest.raises(ConfigError, match=r"for recbole_xling\.run"):
        quick_start.run_recbole(model="LLMSASRec", dataset="small", config_dict={**settings, **setting})


def test_quick_start_runs_reloads_and_tunes_by_name(small_dataset, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_dataset()
    result = quick_start.run_recbole(model="LLMSASRec", dataset="small", config_dict=dict(settings))
    assert 0 < result["test_result"]["ndcg@10"] <= 1
    (file,) = Path(settings["checkpoint_dir"]).glob("LLMSASRec-*.pth")
    torch.load(file, weights_only=True)
    config, model, _, _, _, test_data = quick_start.load_data_and_model(str(file))
    trainer = recbole.utils.get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    assert trainer.evaluate(test_data, load_best_model=False) == result["test_result"]

    reported = {}
    module = importlib.import_module("recbole.quick_start.quick_start")
    monkeypatch.setattr(module.tune, "report", lambda **values: reported.update(values))  # needs a running ray
    tuned = quick_start.objective_function({**settings, "model": "LLMSASRec", "dataset": "small"})
    assert reported == tuned["test_result"] == result["test_result"]


@pytest.mark.parametrize("key", ["save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path"])
def test_pickles_are_neither_written_nor_read(small_dataset, settings, key):
    small_dataset()
    with pytest.raises(ConfigError, match=f"{key} is for pickles"):
        quick_start.run_recbole(model="LLMSASRec", dataset="small", config_dict={**settings, key: "here"})


def test_a_pickle_does_not_take_the_place_of_the_files(small_dataset, settings):
    small_dataset()
    config = Config("LLMSASRec", "small", config_dict=dict(settings))
    folder = Path(config["checkpoint_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small-XLingDataset.pth").write_bytes(b"no pickle")
    assert recbole.data.utils.create_dataset(config).item_num > 1


def test_a_learning_rate_is_the_maps_under_quick_start_as_under_a_run(settings, tmp_path):
    other = {key: value for key, value in settings.items() if not key.startswith(("hidden", "inner", "attn"))}
    other |= {"encoder": str(tmp_path), "learning_rate": 0.05}
    config = Config("XLingTwoTower", "small", config_dict=dict(other))
    own = XLingConfig("XLingTwoTower", "small", config_dict=dict(other))
    assert config["learning_rates"] == own["learning_rates"] and "encoder.projection" not in config["learning_rates"]
    with pytest.raises(ConfigError, match="lora_rank is for adapters"):
        Config("XLingTwoTower", "small", config_dict={**other, "lora_rank": 4})


def test_a_wrong_setting_of_ours_is_refused_by_the_model_itself(small_dataset, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_dataset()
    with pytest.raises(ConfigError, match="n_layers must be at least 1, not 0"):
        quick_start.run_recbole(model="LLMSASRec", dataset="small", config_dict={**settings, "n_layers": 0})


@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_quick_start_splits_as_a_run_does(small_dataset, settings, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    small_dataset()
    kept = ("data_path", "checkpoint_dir", "load_col", "epochs", "topk")
    changed = {key: settings[key] for key in kept} | {"metrics": ["NDCG"], "valid_metric": "NDCG@10", "epochs": 1}
    changed["eval_args"] = {"split": {"GT": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": None, "mode": "full"}
    changed["train_neg_sample_args"] = None if model == "SASRec" else {"distribution": "uniform", "sample_num": 1}
    theirs = quick_start.run_recbole(model=model, dataset="small", config_dict=dict(changed))
    ours = recbole_xling.run(model, "small", config_dict=dict(changed))
    assert theirs["test_result"] == ours["test"]


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"GT": [0.6, 0.2, 0.2]}])
def test_quick_start_splits_and_leaves_out_histories_as_a_run_of_ours_does(
    small_dataset, settings, tmp_path, monkeypatch, split
):
    """Histories are longer than models read them; run_recbole counts FLOPs with a row of the dataset that was split."""
    monkeypatch.chdir(tmp_path)
    small_dataset(lengths=np.full(40, 12))
    asked = {"split": split, "order": "TO", "group_by": "user", "mode": "full"}
    changed = {**settings, "exclude_history": True, "MAX_ITEM_LIST_LENGTH": 3, "eval_args": asked}
    theirs = quick_start.run_recbole(model="LLMSASRec", dataset="small", config_dict=dict(changed))
    ours = recbole_xling.run("LLMSASRec", "small", config_dict=dict(changed))
    assert theirs["test_result"] == ours["test"]


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"GT": [0.6, 0.2, 0.2]}])
def test_datasets_of_quick_start_are_those_of_recbole(small_dataset, settings, split):
    """A copy splits its own rows, and a split dataset has the interactions of all parts."""
    small_dataset(lengths=np.full(40, 12))
    asked = {"split": split, "order": "TO", "group_by": "user", "mode": "full"}
    dataset = recbole.data.create_dataset(Config("LLMSASRec", "small", config_dict={**settings, "eval_args": asked}))
    part = dataset.copy(dataset.inter_feat.head(120))
    assert sum(len(rows) for rows in part.build()) < 120
    pickle.loads(pickle.dumps(dataset))
    n = len(dataset.inter_feat)
    parts = dataset.build()
    assert len(dataset.inter_feat) in (n, sum(len(rows) for rows in parts)) and n > len(parts[0])
    row = dataset[torch.tensor([1])]
    assert row["item_id_list"].shape == (1, settings["MAX_ITEM_LIST_LENGTH"]) and int(row["item_length"]) > 0


def test_a_registered_model_runs_by_its_name_and_by_its_class(small_dataset, settings):
    small_dataset()

    class MySASRec(SASRec):
        """RecBole's SASRec under another name."""

    register_model(MySASRec, dataset=recbole.data.dataset.SequentialDataset)
    sasrec = {"n_layers": 1, "n_heads": 1, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02}
    own = {**settings, **sasrec, "loss_type": "CE", "allow_unknown_keys": True, "item_representation": "none"}
    result = recbole_xling.run("MySASRec", "small", config_dict=own)
    assert result["slices"]["target_language=de"]["n"] > 0
    assert recbole_xling.run(MySASRec, "small", config_dict=own)["test"] == result["test"]


def test_a_registered_model_of_pairs_has_recboles_rows_and_results(small_dataset, settings_without_layers):
    small_dataset()

    class MyBPR(BPR):
        """RecBole's BPR under another name."""

    register_model(MyBPR)
    own = {**settings_without_layers, "embedding_size": 8}
    results = [
        recbole_xling.run(model, "small", config_dict={**own, "allow_unknown_keys": True})["test"]
        for model in ("MyBPR", "BPR")
    ]
    assert results[0] == results[1]


def test_a_model_without_training_by_steps_is_not_registered():
    with pytest.raises(ConfigError, match="Pop2 is of type TRADITIONAL: only SEQUENTIAL, GENERAL"):
        register_model(type("Pop2", (EASE,), {}))


def test_import_loads_neither_ray_nor_encoders_nor_pytest():
    heavy = ("ray", "transformers", "sentence_transformers", "pytest", "torch", "recbole")
    code = f"import recbole_xling, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
