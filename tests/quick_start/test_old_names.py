"""Run folders written before settings and weights got their present names still load, go on and can be evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import recbole_xling
from recbole_xling.quick_start.build import load_run
from recbole_xling.trainer.checkpoint import load_checkpoint, load_trainable, trainable_state
from recbole_xling.trainer.optimizer import parameter_groups
from recbole_xling.utils.plain_data import from_plain, to_plain

_OLD = {
    "centering": "centring",
    "mini_batch_size": "sub_batch_size",
    "text_projection": "adaptor",
    "text_projection_dropout_prob": "adaptor_dropout_prob",
}
PROJECTED = {
    "item_representation": "add",
    "text_projection": "mlp",
    "text_projection_dropout_prob": 0.3,
    "learning_rates": {"items.text_projection": 0.01, "items.item_embedding": 0.002},
}


def _with_old_names(settings: dict) -> dict:
    old = {_OLD.get(key, key): value for key, value in settings.items()}
    if old.get("learning_rates"):
        rates = old["learning_rates"].items()
        old["learning_rates"] = {key.replace("items.text_projection", "items.adaptor"): rate for key, rate in rates}
    return old


@pytest.fixture
def old_run(trained, tmp_path):
    """A function that trains, and returns a copy of the run folder with the old names everywhere in it."""

    def make(*arguments, **changed) -> Path:
        folder = tmp_path / "old"
        shutil.copytree(trained(*arguments, **changed), folder)
        for name in ("model.pt", "last.pt"):
            state = load_checkpoint(folder / name)
            state["config"] = to_plain(_with_old_names(from_plain(state["config"])))
            weights = state["state_dict"].items()
            state["state_dict"] = {
                key.replace("items.text_projection.", "items.adaptor."): weight for key, weight in weights
            }
            torch.save(state, folder / name)
        written = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(_with_old_names(written)))
        return folder

    return make


def test_an_old_run_loads_with_its_weights(trained, old_run):
    folder = old_run(**PROJECTED)
    assert any(name.startswith("items.adaptor.") for name in load_checkpoint(folder / "model.pt")["state_dict"])
    old, new = load_run(folder), load_run(trained(**PROJECTED))
    assert {key: old.config[key] for key in PROJECTED} == PROJECTED
    for name, weight in new.model.state_dict().items():
        torch.testing.assert_close(old.model.state_dict()[name], weight, rtol=0, atol=0)


def test_an_old_run_of_the_two_tower_model_keeps_its_settings(tiny_encoder, old_run):
    changed = {"encoder": str(tiny_encoder), "encoder_options": None, "centering": False, "mini_batch_size": 8}
    old = load_run(old_run("XLingTwoTower", epochs=1, **changed))
    assert (old.model.texts.centering, old.config["mini_batch_size"]) == (None, 8)


def test_an_old_run_is_evaluated_on_its_own_and_on_another_dataset(trained, old_run):
    text_only = {"item_representation": "text_only", "text_projection": "mlp"}
    old, new = old_run(**text_only), trained(**text_only)
    for dataset in (None, "sud"):
        results = [recbole_xling.evaluate_run(folder, dataset)["test"] for folder in (old, new)]
        assert results[0] == results[1]


@pytest.mark.parametrize("key", ["text_projection_dropout_prob", "adaptor_dropout_prob"])
def test_settings_replace_an_old_runs_by_either_name(old_run, key):
    result = recbole_xling.evaluate_run(old_run(**PROJECTED), config_dict={key: 0.5})
    written = yaml.safe_load((Path(result["run_dir"]) / "config.yaml").read_text())
    assert written["text_projection_dropout_prob"] == 0.5
    assert not set(_OLD.values()) & set(written)


def test_an_old_run_goes_on(trained, old_run, tmp_path):
    longer = {"epochs": 4, "stopping_step": 9}
    resumed = recbole_xling.run(config_dict={**longer, "resume": str(old_run(**PROJECTED))})
    shutil.copytree(trained(**PROJECTED), tmp_path / "new")
    assert resumed["test"] == recbole_xling.run(config_dict={**longer, "resume": str(tmp_path / "new")})["test"]
    assert len(resumed["seconds"]["epochs"]) == 4


def _with_items(*names: str) -> torch.nn.Module:
    model = torch.nn.Module()
    model.items = torch.nn.ModuleDict({name: torch.nn.Linear(1, 1) for name in names})
    return model


def test_groups_of_the_optimizer_keep_their_order():
    """A resumed run finds its optimizer's state by the place of the group."""
    rates = {"items.text_projection": 0.1, "items.item_embedding": 0.2}
    groups = parameter_groups(_with_items("text_projection", "item_embedding"), 0.3, rates)
    assert [group["lr"] for group in groups] == [0.2, 0.1]


def test_a_part_of_another_model_with_the_old_name_stays(tmp_path):
    model = _with_items("adaptor")
    weights = {name: torch.ones_like(weight) for name, weight in trainable_state(model).items()}
    load_trainable(model, weights, tmp_path)
    assert (model.items["adaptor"].weight == 1).all()
