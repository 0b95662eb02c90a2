"""RecBole's own models under our command: those that need more than the usual training loop."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from recbole.utils import get_model, get_trainer

from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError
from recbole_xling.quick_start.build import build, build_trainer, load_run
from recbole_xling.quick_start.train import run
from recbole_xling.trainer.mixin import XLingTrainerMixin

# Scores are compared exactly, and with hand-made tensors.
pytestmark = pytest.mark.usefixtures("cpu")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    """The script that tries every model, whose datasets and checks these tests use."""
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("all_recbole_models", BENCHMARKS / "recbole_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(BENCHMARKS))
    return module


@pytest.fixture(scope="module")
def data(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "data"
    script.write_data(folder)
    return folder


@pytest.fixture
def settings_of(script, data, tmp_path):
    return lambda model: {**script.settings_of(model, get_model(model).type.name, tmp_path), "data_path": str(data)}


# A module among the other parameters; a counter; a history of losses; a shuffled list; two optimizers and frozen
# weights; two loaders; pretraining; modes of a knowledge graph's loader; a setting whose keys are numbers.
@pytest.mark.parametrize(
    "model", ["SASRecF", "MultiVAE", "DiffRec", "LINE", "RecVAE", "CFKG", "S3Rec", "RaCT", "MKR", "FwFM", "KSR"]
)
def test_a_model_ranks_resumes_and_reloads_exactly(script, data, tmp_path, model):
    checks = script.check(model, tmp_path, data)
    assert checks == {"slices": "yes", "ranks": "yes", "resumes": "yes", "reloads": "yes"}


@pytest.mark.parametrize("model", ["ADMMSLIM", "KTUP", "Random"])
def test_a_model_that_scores_with_random_numbers_uses_the_same_ones_each_time(script, data, tmp_path, model):
    checks = script.check(model, tmp_path, data)
    assert (checks["ranks"], checks["reloads"]) == ("random scores", "yes")


@pytest.mark.parametrize("model", ["RecVAE", "CFKG", "MKR", "Pop"])
def test_a_special_trainer_trains_as_in_recbole(settings_of, model):
    weights = []
    for own_loop in (True, False):
        config = XLingConfig(model, "small", config_dict={**settings_of(model), "epochs": 2})
        parts = build(config)
        trainer = build_trainer(config, parts.model)
        if own_loop:
            found = get_trainer(config["MODEL_TYPE"], model)
            trainer = type(model, (XLingTrainerMixin, found), {})(config, parts.model)
        trainer.fit(parts.train_data, parts.valid_data, saved=False)
        weights.append(parts.model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=1e-6)


def test_the_stages_of_pretraining_follow_each_other(settings_of):
    known = {**settings_of("RaCT"), "epochs": 1, "pretrain_epochs": 1, "metrics_k": 10}
    stages = [("actor_pretrain", "no weights"), ("critic_pretrain", "encoder."), ("finetune", "critic_net.")]
    path = ""
    for stage, kept in stages:
        result = run("RaCT", "small", config_dict={**known, "train_stage": stage, "pre_model_path": path})
        assert result["n_test"] == 40
        if path:
            before, after = (torch.load(file, weights_only=True)["state_dict"] for file in (path, model_of(result)))
            frozen = [name for name in after if name.startswith(kept) and "critic_net.0" not in name]  # a BatchNorm
            assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
            assert any(not torch.equal(before[name], weight) for name, weight in after.items())
        path = model_of(result)
    assert load_run(result["run_dir"]).model.train_stage == "finetune"


def model_of(result):
    return str(Path(result["run_dir"]) / "model.pt")


@pytest.mark.parametrize(("model", "package"), [("KGAT", "dgl"), ("KGIN", "torch_scatter"), ("NCL", "faiss")])
def test_a_missing_package_is_named_before_training(settings_of, monkeypatch, model, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == package else find(name, *of))
    with pytest.raises(ConfigError, match=f"{model} needs a package that is not installed: {package}"):
        build(XLingConfig(model, "small", config_dict=settings_of(model)))
