"""Random wrong settings, in every way in: each ends in a working run or an error of at most three lines.

RECBOLE_XLING_FUZZ=10000 pytest -rP tests/test_config_fuzz.py
"""

from __future__ import annotations

import random
import traceback
from collections import Counter

import pytest
import yaml
from damage import cases
from recbole.utils import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    get_model,
    training_arguments,
)

from recbole_xling.config import DatasetConfig, OverallConfig, XLingConfig, plain_settings, settings_of
from recbole_xling.config.defaults import recbole_model_defaults
from recbole_xling.errors import XlingError
from recbole_xling.quick_start.train import run
from recbole_xling.registry import registered_models

RECBOLE_MODELS = [
    "BPR",
    "SASRec",
    "LightGCN",
    "GRU4Rec",
    "NeuMF",
    "CORE",
    "FM",
    "MultiVAE",
    "ItemKNN",
    "DIN",
    "SLIMElastic",
]
OF_ENCODER = ("XLingTwoTower", "XLingCrossEncoder")
VALUES = [
    None, True, False, -1, 0, 1, 2, 3, 7, 10**12, 10**400, -0.5, 0.5, 1.5, float("nan"), float("inf"), -1e300, (1, 2),
    "", " ", "x", "-", "None", "no", "off", "true", "0", "1", "1e-3", "nan", "[1, 2", "{'a': ", "[]", "{}", "[a, b]",
    "a: b", "\u00df\t\n", "\x1b[31m", "RS", [], [[]], [None], [0], [-1], [1, 2], ["a"], ["a", 1], [True], [0.1, 0.2],
    {}, {"a": 1}, {"a": None}, {1: 2}, {"a": [1]}, {"a": {"b": []}}, {"inter": "x"}, {"LS": "x"}, {"mode": "uni"},
    {"split": {"RS": [1, 2]}}, {"order": 3},
]  # fmt: skip
# They use the network, or files elsewhere.
NOT_TRIED = {"log_wandb", "encoder", "data_path", "checkpoint_dir", "embedding_cache_dir"}


def case(number: int) -> tuple[str, dict[str, object], str]:
    """Return a model, one to three of its settings with values that are likely to be wrong, and the way in."""
    rng = random.Random(number)
    model = rng.choice([*sorted(registered_models()), *RECBOLE_MODELS])
    typed = settings_of(get_model(model))
    keys = {*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments}
    keys.update(OverallConfig.model_fields, typed.model_fields if typed else recbole_model_defaults(model))
    chosen = rng.sample(sorted(keys - NOT_TRIED), rng.choice([1, 1, 1, 2, 3]))
    return model, {key: rng.choice(VALUES) for key in chosen}, rng.choice(["dictionary", "words", "file"])


def sources(settings, way, folder):
    """Return the arguments of XLingConfig and run by which settings come in."""
    if way == "dictionary":
        return {"config_dict": settings}
    if way == "words":
        return {"arguments": [f"--{key}={value}" for key, value in settings.items()]}
    file = folder / "wrong.yaml"
    file.write_text(yaml.dump(settings), encoding="utf-8")
    return {"config_file_list": [file]}


def outcome(function, *args, **kwargs):
    """Return what a function returns; None for an error of at most three lines, anything else is a failure."""
    try:
        return function(*args, **kwargs)
    except XlingError as error:
        lines = str(error).splitlines()
        assert 1 <= len(lines) <= 3 and str(error).strip(), error
        return None
    except Exception:
        pytest.fail(f"{args} {kwargs}\n{traceback.format_exc()}")


def test_wrong_settings_end_in_a_configuration_or_a_short_error(tmp_path):
    outcomes = Counter()
    for number in cases(60):
        model, settings, way = case(number)
        outcomes[outcome(XLingConfig, model, "small", **sources(settings, way, tmp_path)) is not None] += 1
        if way != "dictionary":
            outcome(DatasetConfig, "small", **sources(settings, way, tmp_path))
    print(f"{outcomes[True]} configurations, {outcomes[False]} errors")
    assert outcomes[True] and outcomes[False]


def test_words_mean_on_the_command_line_what_they_mean_in_a_file(tmp_path):
    same = 0
    for number in cases(60):
        model, settings, _ = case(number)
        lines = {key: str(value) for key, value in settings.items() if str(value).strip() and "\n" not in str(value)}
        lines = {key: word for key, word in lines.items() if "(" not in word}  # only words have tuples, as RecBole's do
        text = "".join(f"{key}: {value}\n" for key, value in lines.items())
        (tmp_path / "words.yaml").write_text(text, encoding="utf-8")
        in_file = outcome(XLingConfig, model, "small", config_file_list=[tmp_path / "words.yaml"])
        if in_file is not None:
            words = [f"--{key}={value}" for key, value in lines.items()]
            typed = outcome(XLingConfig, model, "small", arguments=words)
            assert typed is not None, (model, words)
            assert repr(plain_settings(typed)) == repr(plain_settings(in_file)), (model, words)
            same += 1
    print(f"{same} settings were the same")
    assert same


def test_wrong_settings_end_in_a_run_or_a_short_error(tmp_path, small_dataset, settings, tiny_encoder, monkeypatch):
    monkeypatch.chdir(tmp_path)  # run_dir may be any name
    small_dataset(n_users=8, n_items=12, lengths=[5] * 8)
    outcomes = Counter()
    for number in cases(30):
        model, wrong, way = case(number)
        if wrong.keys() & {"epochs", "worker"}:  # which would take long
            continue
        given = sources(wrong, way, tmp_path)
        base = {**settings, "epochs": 1, "topk": [5], "valid_metric": "NDCG@5", "worker": 0}
        if model in OF_ENCODER:
            base |= {"encoder": str(tiny_encoder), "encoder_options": None, "peft": "lora", "lora_rank": 2}
        known = {*XLingConfig(model, "small").final_config_dict, *OverallConfig.model_fields}
        base = {key: value for key, value in base.items() if key in known and key not in wrong}
        given["config_dict"] = {**base, **given.get("config_dict", {})}
        if outcome(XLingConfig, model, "small", **given) is None:
            outcomes["no configuration"] += 1
            continue
        outcomes["error" if outcome(run, model, "small", **given) is None else "run"] += 1
    print(dict(outcomes))
    assert outcomes["run"]
