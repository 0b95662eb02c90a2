"""Checkpoints hold the Config, load with ``weights_only=True`` and run no code."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from enum import Enum
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
import scipy.sparse
import torch
import yaml
from recbole.config import Config
from recbole.utils import ModelType

from recbole_xling import compat
from recbole_xling.compat import checkpoint
from recbole_xling.errors import CheckpointError
from recbole_xling.utils import plain_data
from recbole_xling.utils.plain_data import Call, from_plain


def test_config_comes_back_whole(config, through_file, monkeypatch):
    original = config(learning_rate=0.123, topk=[1, 2])
    for name in ("float", "str"):
        monkeypatch.delattr(np, name, raising=False)  # as in a process that has not made a Config yet
    loaded = through_file({"config": original})["config"]
    assert type(loaded) is Config
    assert loaded.final_config_dict == original.final_config_dict
    assert loaded.parameters == original.parameters
    assert str(loaded) == str(original)
    assert (loaded["MODEL_TYPE"], loaded["device"], loaded.model) == (ModelType.GENERAL, original["device"], "BPR")
    assert loaded.model_class is original.model_class
    assert yaml.load("1e-3", Loader=loaded.yaml_loader) == 0.001
    assert np.float is np.float64


class OtherConfig(Config):
    """A Config of a user, known to nobody."""


@compat.register_config_class
class KnownConfig(Config):
    """A Config with an attribute of its own."""

    extra = ("default",)


def test_subclasses_come_back_by_name_if_registered(config, through_file):
    known, other = config(config_class=KnownConfig), config(config_class=OtherConfig)
    known.extra = ["mine"]
    loaded = through_file([known, other])
    assert [type(item) for item in loaded] == [KnownConfig, Config]
    assert loaded[0].extra == ["mine"]
    assert loaded[1].final_config_dict == other.final_config_dict


def test_setting_that_cannot_be_stored_is_left_out_with_a_warning(config, through_file, caplog):
    checkpoint._warn.cache_clear()
    original = config()
    original["callback"] = print
    loaded = through_file(original)
    assert "callback" not in loaded
    assert loaded["learning_rate"] == original["learning_rate"]
    assert "'callback'" in caplog.text


def test_copies_and_ordinary_pickles_of_a_config_stay_as_they_were(config):
    original = config(config_class=OtherConfig)
    original["callback"] = print
    for twin in (copy.copy(original), copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert type(twin) is OtherConfig
        assert twin["callback"] is print
        assert twin.model_class is original.model_class


def test_recbole_trainers_write_through_save_and_nobody_else():
    from recbole.trainer import trainer

    assert trainer.torch.save is checkpoint.save
    assert torch.save is not checkpoint.save
    assert trainer.torch.load is torch.load


def test_save_makes_a_trainer_state_loadable(config, tmp_path):
    layer = torch.nn.BatchNorm1d(2)
    matrix = scipy.sparse.identity(3, format="csr")
    state = {
        "config": config(),
        "best_valid_score": np.float64(0.25),
        "state_dict": layer.state_dict(),
        "optimizer": torch.optim.Adam(layer.parameters()).state_dict(),
        "other_parameter": {"w": matrix, "layer": layer},
    }
    checkpoint.save(state, tmp_path / "model.pth", pickle_protocol=4)
    loaded = torch.load(tmp_path / "model.pth", weights_only=True)
    assert loaded["best_valid_score"] == 0.25
    assert loaded["state_dict"]._metadata == state["state_dict"]._metadata
    assert loaded["other_parameter"].keys() == {"w"}  # the weights of "layer" are in the state dict
    assert (loaded["other_parameter"]["w"] != matrix).nnz == 0
    assert state["other_parameter"]["layer"] is layer
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "model.pth"
    checkpoint.save({"epoch": 1, "state_dict": {}}, file)
    with pytest.raises(CheckpointError, match="other_parameter"):
        checkpoint.save({"epoch": 2, "other_parameter": {"f": print}}, file)
    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):  # which one: Python's version
        checkpoint.save({"epoch": 2, "state_dict": {"f": lambda: 0}}, file)
    assert torch.load(file)["epoch"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize(
    "attack",
    [
        Call(os.mkdir, "attacked"),
        Call(eval, "__import__('os').mkdir('attacked')"),
        Call(Config, "BPR", "toy", None, {"seed": "__import__('os').mkdir('attacked')"}),
        Call(Call, os.mkdir, "attacked"),
    ],
    ids=["function", "eval", "Config", "class of this package"],
)
def test_file_that_runs_code_is_refused(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    torch.save({"config": attack}, "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load("evil.pth")
    assert not Path("attacked").exists()
    if attack.function is not Call:  # the same file does harm when it is trusted, so the test is not empty
        torch.load("evil.pth", weights_only=False)
        assert Path("attacked").exists()


_TEXTS = dict.fromkeys(["data", "indices", "indptr"], "x")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Call(from_plain, {"kind": "enum", "enum": "sys", "name": "path"}), "enumerations"),
        (Call(from_plain, {"kind": "enum", "enum": "ModelType", "name": "__class__"}), "no member"),
        (Call(from_plain, {"kind": "sparse", "format": "csr", "shape": [1, 2], **_TEXTS}), "stored as a str"),
        (Call(from_plain, {"kind": "array", "values": [1]}), "stored as a list"),
        (Call(from_plain, {"kind": "eval", "items": ["1"]}), "not plain data"),
        (Call(from_plain, {"kind": "dict", "items": [[[], 1]]}), "not plain data"),
        (Call(from_plain, {"kind": "list", "items": None}), "not plain data"),
        (Call(from_plain, {"a": 1}), "not plain data"),
        (Call(checkpoint.restore_config, "x", {"final_config_dict": {"model": "os.path"}}), "no settings"),
        (Call(checkpoint.restore_config, "x", ["final_config_dict"]), "no settings"),
    ],
)
def test_calls_that_recbole_does_not_make_are_refused(call, message, through_file):
    with pytest.raises(CheckpointError, match=message):
        through_file(call)


# ---- files of the first releases ----


@pytest.fixture
def old_call(monkeypatch):
    """A function that makes a call as the first releases pickled it: by the name of a module that is gone."""
    module = ModuleType("recbole_xling.compat.plain")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("restore_array", "restore_enum", "restore_sparse"):
        function = getattr(plain_data, name)
        old = FunctionType(function.__code__, function.__globals__, name)
        old.__module__ = module.__name__
        setattr(module, name, old)

    def make(name: str, *arguments: object) -> Call:
        return Call(getattr(module, name), *arguments)

    return make


def test_a_checkpoint_of_the_first_releases_loads(config, old_call, through_file):
    matrix = scipy.sparse.random(3, 4, density=0.5, format="coo", random_state=1)
    rows = matrix.tocsr()
    parts = [torch.from_numpy(part) for part in (rows.data, rows.indices, rows.indptr)]
    original = config(topk=[1, 2])
    settings = {
        key: old_call("restore_enum", type(value).__name__, value.name) if isinstance(value, Enum) else value
        for key, value in original.final_config_dict.items()
    }
    old = {
        "config": Call(
            checkpoint.restore_config, "recbole.config.configurator.Config", {"final_config_dict": settings}
        ),
        "epoch": 3,
        "state_dict": {"a": torch.ones(2)},
        "other_parameter": {
            "w": old_call("restore_sparse", "coo", [3, 4], *parts),
            "pred": old_call("restore_array", torch.arange(3)),
            "set": {1, (2, "x")},
        },
    }
    loaded = through_file(old)
    assert type(loaded["config"]) is Config
    assert loaded["config"].final_config_dict == original.final_config_dict
    assert loaded["other_parameter"]["w"].format == "coo"
    assert (loaded["other_parameter"]["w"] != matrix).nnz == 0
    assert loaded["other_parameter"]["pred"].tolist() == [0, 1, 2]
    assert (loaded["epoch"], loaded["other_parameter"]["set"]) == (3, {1, (2, "x")})


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("restore_enum", ["sys", "path"], "enumerations"),
        ("restore_enum", ["ModelType", "__class__"], "no member"),
        ("restore_sparse", ["eval", [1, 1], *[torch.zeros(1)] * 3], "format"),
        ("restore_sparse", ["csr", [1, 2], torch.ones(1), torch.tensor([9]), torch.tensor([0, 1])], "not valid"),
        ("restore_sparse", ["csr", [1, 2], torch.ones(1), torch.tensor([0]), torch.tensor([0, 9])], "not valid"),
        ("restore_sparse", ["csr", [1, 2], "x", "y", "z"], "stored as a str"),
    ],
)
def test_calls_that_the_first_releases_did_not_make_are_refused(name, arguments, message, old_call, through_file):
    with pytest.raises(CheckpointError, match=message):
        through_file(old_call(name, *arguments))
