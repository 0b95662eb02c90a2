"""XLingConfig: sources in order, literals only, and no setting that silently does nothing."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import pytest
import yaml
from pydantic import Field
from recbole.config import Config
from recbole.model.sequential_recommender import GRU4Rec
from recbole.utils import InputType

import recbole_xling.config.names as module
from recbole_xling.config import DatasetConfig, OverallConfig, XLingConfig, plain_settings
from recbole_xling.errors import ConfigError
from recbole_xling.model.layers.fusion import FUSIONS
from recbole_xling.model.layers.text_projection import TEXT_PROJECTIONS
from recbole_xling.model.layers.transformer import ACTIVATIONS
from recbole_xling.model.layers.user_tower import POOLINGS
from recbole_xling.model.llmsasrec import LLMSASRec, LLMSASRecConfig
from recbole_xling.model.text_encoder.encoder import POOLING
from recbole_xling.model.xlingcrossencoder import XLingCrossEncoderConfig
from recbole_xling.model.xlingmlp import XLingMLPConfig
from recbole_xling.model.xlingtwotower import XLingTwoTowerConfig
from recbole_xling.registry import register_model
from recbole_xling.utils.typed_config import TypedConfig
from recbole_xling.utils.yaml_text import parse_value


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
    assert parse_value(text) == value
    config = XLingConfig("LLMSASRec", "ml-100k", config_dict={"own": text, "allow_unknown_keys": True})
    assert config["own"] == value


def test_unknown_setting_names_the_nearest(tmp_path):
    for given in ({"config_dict": {"hiden_size": 8}}, {"arguments": ["--hiden_size=8"]}):
        with pytest.raises(ConfigError, match=r"'hiden_size'.*'hidden_size'"):
            XLingConfig("LLMSASRec", "ml-100k", **given)
    config = XLingConfig("LLMSASRec", "ml-100k", config_dict={"hiden_size": 8, "allow_unknown_keys": True})
    assert config["hiden_size"] == 8


def test_settings_of_another_model_are_unknown():
    XLingConfig("GRU4Rec", "ml-100k", config_dict={"dropout_prob": 0.1, "train_neg_sample_args": None})
    XLingConfig("MultiVAE", "ml-100k", config_dict={"train_neg_sample_args": None})  # it learns from whole users
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
        ({"valid_metric": "NDCG_mean@10"}, "_macro and _worst"),
        ({"valid_metric": "ItemCoverage_macro@10", "metrics": ["ItemCoverage"]}, "as in NDCG_macro@10"),
        ({"valid_metric": "MAP_macro@10"}, "valid_metric.*MAP_macro@10.*metrics"),
        ({"metrics": ["Foo"], "valid_metric": "Foo@10"}, "unknown metric 'foo'"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"eval_args": {"order": "RO"}}, "time order"),
        ({"embedding_size": 7}, "embedding_size"),
        ({"epochs": "many"}, "epochs"),
        ({"train_batch_size": 0}, "train_batch_size"),
        ({"train_stride": 51}, "train_stride"),
        ({"save_dataset": True}, "pickle"),
        ({"text_fields": "title"}, "text_fields"),
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


# ---- typed settings -------------------------------------------------------------------------------------------


def test_files_of_defaults_and_tables_of_keys_are_up_to_date():
    script = Path(__file__).parents[1] / "docs" / "write_tables.py"
    spec = importlib.util.spec_from_file_location("write_tables", script)
    write_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write_tables)
    for path, content in write_tables.contents().items():
        assert path.read_text(encoding="utf-8") == content, f"{path} is out of date: make tables"


@pytest.mark.parametrize(
    "typed", [OverallConfig, LLMSASRecConfig, XLingCrossEncoderConfig, XLingMLPConfig, XLingTwoTowerConfig]
)
def test_defaults_are_allowed_and_every_setting_is_described_in_one_line(typed):
    assert typed(**typed.defaults()).model_dump() == typed.defaults()
    for field in typed.model_fields.values():
        assert field.description.endswith(".") and "\n" not in field.description


@pytest.mark.parametrize(
    ("typed", "key", "implemented"),
    [
        (LLMSASRecConfig, "item_representation", FUSIONS),
        (LLMSASRecConfig, "text_projection", TEXT_PROJECTIONS),
        (LLMSASRecConfig, "hidden_act", ACTIVATIONS),
        (XLingTwoTowerConfig, "pooling", POOLING),
        (XLingCrossEncoderConfig, "pooling", POOLING),
        (XLingTwoTowerConfig, "user_tower", POOLINGS),
    ],
)
def test_choices_are_what_is_implemented(typed, key, implemented):
    annotation = typed.model_fields[key].annotation
    literal = get_args(annotation)[0] if type(None) in get_args(annotation) else annotation
    assert set(get_args(literal)) - {"auto"} == set(implemented)


@pytest.mark.parametrize(
    ("model", "key", "value", "message"),
    [
        ("LLMSASRec", "n_layers", 0, "n_layers must be at least 1, not 0"),
        ("LLMSASRec", "n_layers", True, "n_layers must be a whole number, not True"),
        ("LLMSASRec", "n_layers", 1.0, "n_layers must be a whole number, not 1.0"),
        ("LLMSASRec", "n_layers", None, "n_layers must be a whole number, not None"),
        ("LLMSASRec", "id_dropout_prob", 1.5, "id_dropout_prob must be at most 1, not 1.5"),
        ("LLMSASRec", "id_dropout_prob", "some", "id_dropout_prob must be a number, not 'some'"),
        ("LLMSASRec", "loss_type", "XE", "loss_type must be one of CE, sampled_softmax, gBCE, SCE, not 'XE'"),
        (
            "LLMSASRec",
            "text_projection",
            "moa",
            "text_projection must be one of pca, linear, mlp, moe, not 'moa'. Did you mean 'moe'?",
        ),
        ("LLMSASRec", "text_whitening", 1, "text_whitening must be True or False, not 1"),
        ("LLMSASRec", "n_heads", 3, "hidden_size (64) must be a multiple of n_heads (3)"),
        ("LLMSASRec", "text_fields", "title", "text_fields must be a list such as ['title'], not 'title'"),
        ("LLMSASRec", "text_fields", ["title", 1], "text_fields[1] must be text, not 1"),
        ("LLMSASRec", "encoder_options", [], "encoder_options must be a dictionary such as {'dimension': 512}, not []"),
        ("LLMSASRec", "learning_rates", {"items": "x"}, "learning_rates['items'] must be a number, not 'x'"),
        ("LLMSASRec", "topk", [0], "topk[0] must be greater than 0, not 0"),
        ("LLMSASRec", "metrics", {}, "metrics must be a list such as ['NDCG'], not {}"),
        ("LLMSASRec", "lr_schedule", "cosin", "lr_schedule must be one of constant, linear, cosine, not 'cosin'"),
        ("XLingTwoTower", "temperature", 0, "temperature must be at least 0.01, not 0"),
        ("XLingTwoTower", "lora_dropout", 1, "lora_dropout must be less than 1, not 1"),
        ("XLingTwoTower", "encoder_batch_size", 0, "encoder_batch_size must be at least 1, not 0"),
        ("XLingTwoTower", "lora_alpha", 0, "lora_alpha must be at least 1, not 0"),
        ("XLingTwoTower", "adapter_layers", 0, "adapter_layers must be at least 1, not 0"),
        (
            "XLingTwoTower",
            "popularity_prior",
            1,
            "popularity_prior must be one of True, False, always, not '1'",
        ),
        ("LLMSASRec", "languages", [], "languages must be a list with an entry"),
        ("LLMSASRec", "train_text_languages", "it", "train_text_languages must be such as ['it', 'da'] or {'it': 2, "),
        (
            "LLMSASRec",
            "train_text_languages",
            {False: 1},
            "train_text_languages must be BCP 47 tags such as 'en', not False; write 'no' in quotes",
        ),
        (
            "LLMSASRec",
            "train_text_languages",
            {"it": -1},
            "train_text_languages['it'] must be a number that is at least 0, not -1",
        ),
        ("BPR", "warmup_steps", -1, "warmup_steps must be at least 0, not -1"),
        ("BPR", "train_batch_size", 0, "train_batch_size must be at least 1, not 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(model, key, value, message):
    with pytest.raises(ConfigError) as raised:
        XLingConfig(model, "ml-100k", config_dict={key: value})
    lines = str(raised.value).splitlines()
    assert len(lines) == 1 and lines[0].startswith(message)


def test_several_wrong_values_are_named_together():
    wrong = {"warmup_steps": -1, "n_layers": 0, "n_experts": "8", "id_dropout_prob": 2, "text_view": "all"}
    with pytest.raises(ConfigError) as raised:
        XLingConfig("LLMSASRec", "ml-100k", config_dict={**wrong, "topk": [5, 10]})
    lines = str(raised.value).splitlines()
    assert len(lines) == len(set(lines)) == 3
    assert {line.split()[0] for line in lines} < set(wrong)


def test_whole_numbers_pass_for_numbers_and_numpys_for_pythons():
    typed = LLMSASRecConfig.of({"cold_exposure": 2, "n_layers": np.int64(3), "id_dropout_prob": np.float32(0.5)})
    assert (typed.cold_exposure, typed.n_layers, typed.id_dropout_prob) == (2.0, 3, 0.5)
    assert type(typed.cold_exposure) is float and type(typed.n_layers) is int


def test_one_metric_and_one_length_need_no_list():
    config = XLingConfig("BPR", "ml-100k", config_dict={"metrics": "NDCG", "topk": 5, "valid_metric": "NDCG@5"})
    assert (config["metrics"], config["topk"]) == (["NDCG"], [5])


class OwnConfig(TypedConfig):
    strength: float = Field(0.5, ge=0, description="How much.")
    kind: Literal["soft", "hard"] = Field("soft", description="How.")


def test_a_model_of_ones_own_brings_typed_settings():
    @register_model
    class Own(GRU4Rec):
        input_type = InputType.POINTWISE
        config_class: ClassVar = OwnConfig

    for config in (kind("Own", "ml-100k", config_dict={"kind": "hard"}) for kind in (Config, XLingConfig)):
        assert config["strength"] == 0.5
        assert OwnConfig.of(config) == OwnConfig(strength=0.5, kind="hard")
    with pytest.raises(ConfigError, match=r"'strenght'.*'strength'"):
        XLingConfig("Own", "ml-100k", config_dict={"strenght": 1})
    with pytest.raises(ConfigError, match="strength must be at least 0, not -1"):
        XLingConfig("Own", "ml-100k", config_dict={"strength": -1})


# ---- RecBole's settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "key", "value", "message"),
    [
        ("BPR", "learning_rate", -0.1, "learning_rate must be greater than 0, not -0.1"),
        ("BPR", "weight_decay", float("nan"), "weight_decay must be a finite number, not nan"),
        (
            "BPR",
            "learner",
            "adamm",
            "learner must be one of adam, adamw, sgd, adagrad, rmsprop, sparse_adam, not 'adamm'.",
        ),
        ("BPR", "shuffle", "maybe", "shuffle must be True or False, not 'maybe'"),
        ("BPR", "seed", -1, "seed must be at least 0, not -1"),
        ("BPR", "gpu_id", "first", "gpu_id must be numbers of GPUs such as 0 or '0,1', not 'first'"),
        (
            "BPR",
            "threshold",
            {"rating": 3, "time": 4},
            "threshold must be a dictionary of one entry such as {'rating': 4}",
        ),
        ("BPR", "threshold", 3, "threshold must be a dictionary such as {'rating': 4}, not 3"),
        ("BPR", "metrics", 3, "metrics[0] must be text, not 3"),
        (
            "BPR",
            "val_interval",
            {"rating": "3-5"},
            "val_interval['rating'] must be an interval such as '[3,inf)' or '(0,5]'",
        ),
        ("BPR", "user_inter_num_interval", "[5,1]", "user_inter_num_interval must be an interval"),
        ("BPR", "load_col", {"inter": "user_id"}, "load_col['inter'] must be a list of columns or '*' for all"),
        (
            "BPR",
            "train_neg_sample_args",
            {"sample_num": 0},
            "train_neg_sample_args: sample_num must be at least 1, not 0",
        ),
        ("BPR", "train_neg_sample_args", {"num": 1}, "train_neg_sample_args: unknown key 'num'."),
        ("BPR", "train_neg_sample_args", None, "BPR learns from pairs"),
        ("BPR", "clip_grad_norm", {"max_norm": -1}, "clip_grad_norm: max_norm must be greater than 0, not -1"),
        ("BPR", "eval_args", {"mode": "uni"}, "eval_args: mode must be full, labeled, or such as uni100"),
        ("BPR", "eval_args", {"order": "random"}, "eval_args: order must be TO or RO, not 'random'"),
        ("BPR", "eval_args", {"spilt": {}}, "unknown key of eval_args 'spilt'. Did you mean 'split'?"),
        ("BPR", "eval_args", {"split": {"RS": [0.8, 0.1, 0.2]}}, "eval_args: split RS needs shares whose sum is 1"),
        ("BPR", "encoder", False, "encoder must be text, not False; words such as no and off mean False"),
        ("BPR", "embedding_size", 0, "embedding_size must be at least 1, not 0"),
        ("BPR", "embedding_size", "64d", "embedding_size must be a whole number, not '64d'"),
        ("SASRec", "n_heads", 3, "hidden_size (64) must be a multiple of n_heads (3)"),
        ("SASRec", "hidden_dropout_prob", 1.2, "hidden_dropout_prob must be at most 1, not 1.2"),
        ("SASRec", "hidden_act", "gelu2", "hidden_act must be one of gelu, relu, swish, tanh, sigmoid, not 'gelu2'."),
        ("SASRec", "loss_type", "XE", "loss_type must be CE or BPR, not 'XE'"),
        ("AutoInt", "num_heads", 3, "attention_size (16) must be a multiple of num_heads (3)"),
        ("NeuMF", "mlp_hidden_size", [64, -1], "mlp_hidden_size[1] must be at least 1, not -1"),
        ("NeuMF", "mlp_hidden_size", 64, "mlp_hidden_size must be a list, not 64"),
        ("LightGCN", "reg_weight", -1e-3, "reg_weight must be at least 0, not -0.001"),
        ("LightGCN", "require_pow", 1, "require_pow must be True or False, not 1"),
    ],
)
@pytest.mark.parametrize("way", ["dictionary", "file", "words"])
def test_recboles_settings_have_types_and_ranges_in_every_way_in(model, key, value, message, way, tmp_path):
    if way == "dictionary":
        given = {"config_dict": {key: value}}
    elif way == "file":
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({key: value}))
        given = {"config_file_list": [tmp_path / "run.yaml"]}
    else:
        given = {"arguments": [f"--{key}={'.nan' if value != value else value}"]}
    with pytest.raises(ConfigError) as raised:
        XLingConfig(model, "small", **given)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("model", "words", "key", "value"),
    [
        ("XLingTwoTower", ["--target_modules=[query,value]", "--peft=lora"], "target_modules", ["query", "value"]),
        ("XLingTwoTower", ["--train_stride=3"], "train_stride", 3),
        ("BPR", ["--shuffle=no"], "shuffle", False),
        ("BPR", ["--gpu_id=0,1"], "gpu_id", "0,1"),
        ("BPR", ["--user_inter_num_interval=[5,10]"], "user_inter_num_interval", "[5,10]"),
        ("BPR", ["--user_inter_num_interval=[5, inf )"], "user_inter_num_interval", "[5,inf)"),
        ("BPR", ["--topk=5,10"], "topk", [5, 10]),
        ("BPR", ["--encoder_prompt=None"], "encoder_prompt", None),
        ("BPR", ["--clip_grad_norm=None"], "clip_grad_norm", None),
        ("BPR", ["--state=DEBUG"], "state", "debug"),
        ("BPR", ["--wandb_project=2024"], "wandb_project", "2024"),
        ("DCN", ["--reg_weight=0.5"], "reg_weight", 0.5),
        ("SASRecCPR", ["--reranker_CAN_NUM=500,100,20"], "reranker_CAN_NUM", "500,100,20"),
    ],
)
def test_what_a_setting_may_be(model, words, key, value):
    found = XLingConfig(model, "small", arguments=words)[key]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("name", ["datasets/small", "/small", "small/", "..", "../small"])
def test_a_dataset_has_a_name_and_no_path(name):
    for given in ({"dataset": name}, {"config_dict": {"dataset": name}}, {"arguments": [f"--dataset={name}"]}):
        with pytest.raises(ConfigError, match="dataset must be a name, not the path"):
            XLingConfig("BPR", **given)


def test_a_dataset_may_have_a_number_for_a_name(tmp_path):
    assert XLingConfig("BPR", arguments=["--dataset=2024"])["dataset"] == "2024"
    assert XLingConfig("BPR", config_dict={"dataset": "1e3"})["dataset"] == "1e3"
    (tmp_path / "run.yaml").write_text("dataset: 2024\n")
    with pytest.raises(ConfigError, match="dataset must be a name, not 2024; in a YAML file, write '2024' with quotes"):
        XLingConfig("BPR", config_file_list=[tmp_path / "run.yaml"])


@pytest.mark.parametrize(
    ("model", "name", "meant"),
    [
        ("LLMSASRec", "lr", "learning_rate"),
        ("BPR", "batch_size", "train_batch_size"),
        ("BPR", "dim", "embedding_size"),
        ("SASRec", "dim", "hidden_size"),
        ("SASRec", "max_len", "MAX_ITEM_LIST_LENGTH"),
        ("BPR", "patience", "stopping_step"),
        ("BPR", "slices", "slice_by"),
        ("BPR", "split", "eval_args"),
        ("XLingTwoTower", "rank", "lora_rank"),
    ],
)
def test_usual_abbreviations_are_understood_as_what_they_mean(model, name, meant):
    with pytest.raises(ConfigError, match=rf"unknown setting '{name}'\. Did you mean '{meant}'"):
        XLingConfig(model, "small", arguments=[f"--{name}=1"])


@pytest.mark.parametrize("given", [{"lora_rank": 16}, {"adapter_layers": 4}, {"target_modules": ["query"]}])
def test_settings_of_adapters_ask_for_adapters(given):
    with pytest.raises(ConfigError, match=rf"{next(iter(given))} is for adapters, and peft: frozen.*set peft: lora"):
        XLingConfig("XLingTwoTower", "small", config_dict=given)
    XLingConfig("XLingTwoTower", "small", config_dict={**given, "peft": "frozen"})
    assert XLingConfig("XLingTwoTower", "small", config_dict={**given, "peft": "lora"})["peft"] == "lora"
    assert XLingConfig("XLingCrossEncoder", "small", config_dict=given)["peft"] == "lora"


def test_commands_about_datasets_check_what_they_use_and_suggest_settings_of_models():
    with pytest.raises(ConfigError, match=r"unknown setting 'lora_rnk'\. Did you mean 'lora_rank'"):
        DatasetConfig("small", arguments=["--lora_rnk=3"])
    with pytest.raises(ConfigError, match="encoder_batch_size must be at least 1"):
        DatasetConfig("small", arguments=["--encoder_batch_size=0"])
    assert DatasetConfig("small", arguments=["--lora_rank=3", "--model=BPR"])["model"] == "LLMSASRec"


def test_a_configuration_is_shown_in_one_line():
    assert re.fullmatch(r"<XLingConfig of BPR on small, \d+ settings>", repr(XLingConfig("BPR", "small")))


# ---- old names of settings --------------------------------------------------------------------------------------


@pytest.fixture
def warnings(caplog):
    """A function that returns the warnings of old names since it was last called."""
    module._warn_of_old_name.cache_clear()

    def read():
        found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        caplog.clear()
        return [message for message in found if "the old name" in message]

    yield read
    module._warn_of_old_name.cache_clear()


OLD = [
    ("LLMSASRec", "adaptor", "text_projection", "mlp"),
    ("LLMSASRec", "adaptor_dropout_prob", "text_projection_dropout_prob", 0.4),
    ("XLingTwoTower", "centring", "centering", False),
    ("XLingTwoTower", "sub_batch_size", "mini_batch_size", 8),
]


@pytest.mark.parametrize("source", ["file", "dictionary", "command line", "RecBole's Config"])
@pytest.mark.parametrize(("model", "old", "new", "value"), OLD)
def test_an_old_name_works_with_one_warning(model, old, new, value, source, tmp_path, warnings):
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({old: value}))
    make = {
        "file": lambda: XLingConfig(model, "ml-100k", [tmp_path / "old.yaml"]),
        "dictionary": lambda: XLingConfig(model, "ml-100k", config_dict={old: value}),
        "command line": lambda: XLingConfig(model, "ml-100k", arguments=[f"--{old}={value}"]),
        "RecBole's Config": lambda: Config(model, "ml-100k", config_dict={old: value}),
    }[source]
    config = make()
    assert config[new] == value and old not in config
    (message,) = warnings()
    assert f"'{old}'" in message and f"'{new}'" in message and "\n" not in message
    make()
    assert warnings() == []


@pytest.mark.parametrize("prefix", ["items.adaptor", "items.adaptor.experts"])
def test_an_old_prefix_of_learning_rates_works(prefix, warnings):
    rates = {prefix: 0.1, "items.item_embedding": 0.2}
    config = XLingConfig("LLMSASRec", "ml-100k", config_dict={"learning_rates": rates})
    assert config["learning_rates"] == {prefix.replace("adaptor", "text_projection"): 0.1, "items.item_embedding": 0.2}
    assert len(warnings()) == 1


def test_later_sources_win_whatever_name_they_use(tmp_path):
    (tmp_path / "a.yaml").write_text("adaptor: mlp\nadaptor_dropout_prob: 0.1\n")
    arguments = ["--text_projection=moe", "--adaptor_dropout_prob=0.3"]
    settings = {"adaptor": "linear", "text_projection_dropout_prob": 0.2}
    config = XLingConfig("LLMSASRec", "ml-100k", [tmp_path / "a.yaml"], settings, arguments)
    assert (config["text_projection"], config["text_projection_dropout_prob"]) == ("moe", 0.3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"adaptor": "mlp", "text_projection": "moe"}, "text_projection is given twice"),
        ({"text_projection": "moe", "adaptor": "mlp"}, "text_projection is given twice"),
        ({"learning_rates": {"items.adaptor": 1.0, "items.text_projection": 2.0}}, "items.text_projection is given"),
    ],
)
def test_both_names_with_different_values_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        XLingConfig("LLMSASRec", "ml-100k", config_dict=settings)
    with pytest.raises(ConfigError, match=named):
        Config("LLMSASRec", "ml-100k", config_dict=settings)
    XLingConfig("LLMSASRec", "ml-100k", config_dict={"adaptor": "mlp", "text_projection": "mlp"})


def test_other_models_keep_settings_of_an_old_name(warnings):
    given = {"adaptor": 3, "centring": 4, "train_neg_sample_args": None, "allow_unknown_keys": True}
    config = XLingConfig("GRU4Rec", "ml-100k", config_dict=given)
    assert (config["adaptor"], config["centring"], warnings()) == (3, 4, [])
    assert LLMSASRec.config_class is LLMSASRecConfig


def test_of_two_files_the_later_one_wins_whatever_name_it_uses(tmp_path, warnings):
    (tmp_path / "a.yaml").write_text("adaptor: mlp\n")
    (tmp_path / "b.yaml").write_text("text_projection: moe\n")
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    assert XLingConfig("LLMSASRec", "small", files)["text_projection"] == "moe"
    assert XLingConfig("LLMSASRec", "small", files[::-1])["text_projection"] == "mlp"


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("LLMSASRec", {"n_layers": 10**12}, "n_layers must be at most 256, not 1000000000000"),
        ("LLMSASRec", {"hidden_size": 10**15}, "hidden_size must be at most 65,536, not 1000000000000000"),
        ("LLMSASRec", {"train_batch_size": 2**31}, "train_batch_size must be at most 2,147,483,647, not 2147483648"),
        ("LLMSASRec", {"loss_decimal_place": 10**9}, "loss_decimal_place must be at most 100, not 1000000000"),
        ("LLMSASRec", {"encoder_options": {"dimension": 10**9}}, "encoder_options['dimension'] must be at most 65,536"),
        ("XLingMLP", {"mlp_hidden_size": [64, 10**9]}, "mlp_hidden_size must be at most 65,536, not [64, 1000000000]"),
        ("XLingTwoTower", {"embedding_size": 10**9}, "embedding_size must be at most 65,536, not 1000000000"),
        ("HistoryItemKNN", {"k": 10**400}, "k must be at most 2,147,483,647, not 1000000000"),
        ("SASRec", {"MAX_ITEM_LIST_LENGTH": 10**9}, "MAX_ITEM_LIST_LENGTH must be at most 65,536, not 1000000000"),
        ("LightGCN", {"n_layers": 10**9, "worker": 10**9}, "worker must be at most 256, not 1000000000"),
        ("NGCF", {"hidden_size_list": [10**9]}, "hidden_size_list must be at most 65,536, not [1000000000]"),
        ("BPR", {"train_neg_sample_args": {"sample_num": 10**9}}, "sample_num must be at most 65,536, not 1000000000"),
    ],
)  # fmt: skip
def test_sizes_that_no_machine_has_memory_or_time_for_are_errors(model, settings, message):
    with pytest.raises(ConfigError) as error:
        XLingConfig(model, "small", config_dict=settings)
    assert message in str(error.value) and len(str(error.value)) < 500


def test_the_largest_sizes_that_are_used_are_none():
    settings = {"hidden_size": 16384, "n_layers": 128, "n_heads": 128, "train_batch_size": 2**31 - 1, "seed": 2**32 - 1}
    config = XLingConfig("LLMSASRec", "small", config_dict=settings)
    assert {key: config[key] for key in settings} == settings
    XLingConfig("LLMSASRec", "small", config_dict={"encoder": "random", "encoder_options": {"seed": 2**40}})
    XLingConfig("XLingCrossEncoder", "small", config_dict={"max_ranked_pairs": 10**12})
    XLingConfig("RaCT", "small", config_dict={"critic_layers": [300, 300]})  # a list of layers is one of their sizes


@pytest.mark.parametrize("key", ["model", "dataset"])
def test_an_empty_name_is_an_error(key):
    with pytest.raises(ConfigError, match=f"{key} is empty"):
        XLingConfig(config_dict={"model": "BPR", "dataset": "small", key: None})
