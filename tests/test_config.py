"""XLingConfig: sources in order, literals only, and no setting that silently does nothing."""

from __future__ import annotations

import sys

import pytest
import yaml

from recbole_xling.config import XLingConfig, parse_literal, plain_settings
from recbole_xling.errors import ConfigError


def test_later_sources_win(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("learning_rate: 0.1\nepochs: 7\nhidden_size: 32\nseed: 1\n")
    second.write_text("epochs: 8\nhidden_size: 16\nseed: 2\n")
    config = XLingConfig("LLMSASRec", "ml-100k", [first, second], {"hidden_size": 8, "seed": 3}, ["--seed=4"])
    assert (config["learning_rate"], config["epochs"], config["hidden_size"], config["seed"]) == (0.1, 8, 8, 4)
    assert config["n_layers"] == 2  # the model's default
    assert config["encoder"] == "usem3"  # the project's default
    assert config["train_batch_size"] == 2048  # RecBole's default


def test_dataset_defaults_apply(tmp_path):
    config = XLingConfig("LLMSASRec", "ml-100k-xling")
    assert config["text_template"] == "{title} ({year}). {genres}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("[5, 10]", [5, 10]),
        ("{'LS': 'valid_only'}", {"LS": "valid_only"}),
        ("true", True),
        ("False", False),
        ("None", None),
        ("none", "none"),
        ("gate", "gate"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("1 + 1", "1 + 1"),
        ("print", "print"),
    ],
)
def test_values_are_literals_and_nothing_is_evaluated(text, value):
    assert parse_literal(text) == value
    config = XLingConfig("LLMSASRec", "ml-100k", config_dict={"wandb_project": text})
    assert config["wandb_project"] == value


def test_unknown_setting_names_the_nearest(tmp_path):
    for given in ({"config_dict": {"hiden_size": 8}}, {"arguments": ["--hiden_size=8"]}):
        with pytest.raises(ConfigError, match=r"'hiden_size'.*'hidden_size'"):
            XLingConfig("LLMSASRec", "ml-100k", **given)
    config = XLingConfig("LLMSASRec", "ml-100k", config_dict={"hiden_size": 8, "allow_unknown_keys": True})
    assert config["hiden_size"] == 8


def test_settings_of_another_model_are_unknown():
    XLingConfig("GRU4Rec", "ml-100k", config_dict={"dropout_prob": 0.1, "train_neg_sample_args": None})
    with pytest.raises(ConfigError, match="'text_projection'"):
        XLingConfig("GRU4Rec", "ml-100k", config_dict={"text_projection": "moe", "train_neg_sample_args": None})


def test_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'LLMSasrec'.*Did you mean 'LLMSASRec'.*BPR.*LightGCN"):
        XLingConfig("LLMSasrec", "ml-100k")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"valid_metric": "MAP@10"}, "valid_metric.*MAP@10.*metrics"),
        ({"valid_metric": "NDCG@7"}, "valid_metric.*7.*topk"),
        ({"valid_metric": "NDCG"}, "'NDCG@10'"),
        ({"metrics": ["Foo"], "valid_metric": "Foo@10"}, "unknown metric 'foo'"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"eval_args": {"order": "RO"}}, "time order"),
        ({"embedding_size": 7}, "embedding_size"),
        ({"epochs": "many"}, "epochs"),
        ({"train_batch_size": 0}, "train_batch_size"),
        ({"train_stride": 51}, "train_stride"),
        ({"save_dataset": True}, "pickle"),
        ({"text_fields": "[title]"}, "text_fields"),
        ({"encoder_options": "x"}, "encoder_options"),
    ],
)
def test_contradictions_are_found_before_anything_runs(settings, message):
    with pytest.raises(ConfigError, match=message):
        XLingConfig("LLMSASRec", "ml-100k", config_dict=settings)


def test_part_of_eval_args_keeps_the_rest_of_the_protocol():
    config = XLingConfig("BPR", "ml-100k", config_dict={"eval_args": {"mode": "uni100"}})
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert config["eval_args"]["order"] == "TO"
    assert config["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}


@pytest.mark.parametrize("arguments", [["epochs=1"], ["--epochs"], ["--=3"], ["--epochs=1", "--epochs=2"]])
def test_malformed_arguments_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"argument|epochs"):
        XLingConfig("LLMSASRec", "ml-100k", arguments=arguments)


def test_arguments_of_the_surrounding_program_do_not_leak_in(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--epochs=99", "--hiden_size=3", "tests/"])
    assert XLingConfig("LLMSASRec", "ml-100k")["epochs"] == 300


def test_missing_or_malformed_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*does not exist"):
        XLingConfig("LLMSASRec", "ml-100k", [tmp_path / "nowhere.yaml"])
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match=r"list\.yaml"):
        XLingConfig("LLMSASRec", "ml-100k", [tmp_path / "list.yaml"])
    (tmp_path / "broken.yaml").write_text("a: [1,\n")
    with pytest.raises(ConfigError, match="YAML"):
        XLingConfig("LLMSASRec", "ml-100k", [tmp_path / "broken.yaml"])
    with pytest.raises(ConfigError, match="model need"):
        XLingConfig(dataset="ml-100k")


@pytest.mark.parametrize("model", ["LLMSASRec", "BPR", "SASRec", "LightGCN"])
def test_plain_settings_build_the_same_configuration_again(model, tmp_path):
    config = XLingConfig(model, "small", config_dict={"data_path": "somewhere/", "epochs": 3, "topk": [5, 10]})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(plain_settings(config)))
    again = XLingConfig(config_file_list=[path])
    assert again.final_config_dict == config.final_config_dict
