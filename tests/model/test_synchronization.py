"""A training step makes the host wait for a GPU as rarely as can be: each wait is counted, without a GPU."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from far_device import FAR, FarDevice, move_far
from recbole.data.interaction import Interaction
from shop import write_shop

from recbole_xling.config import XLingConfig
from recbole_xling.quick_start.build import build, build_trainer
from recbole_xling.testing import small_settings
from recbole_xling.trainer.optimizer import build_schedule
from recbole_xling.utils.devices import on_device, to_device

EPOCH = {"item": 1, "down": 1}  # whether losses are numbers, and which
ONCE = {"nonzero": 1}  # where the targets are: how many there are shapes all that follows
DRAWN = {**ONCE, "_unique2": 1}  # and which items the batch needs
# where its targets and inputs are and which users it has; which candidates, texts, windows and items; what mined
# negatives get; the numbers of the texts, which are on the CPU
FROZEN = {"nonzero": 3, "_unique2": 4, "by mask": 1}
LORA = {"peft": "lora"}
TOWER = {**FROZEN, "down": 1, "item": 1}  # and whether a text of the bucket is shorter: transformers asks
SHOP = {"dataset": "shop", "load_col": None, "text_view": "display", "train_text_view": "random"}
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "CE": ("LLMSASRec", {}, ONCE),
    "none": ("LLMSASRec", {"item_representation": "none"}, ONCE),
    "sampled": ("LLMSASRec", {"loss_type": "sampled_softmax", "n_negatives": 8}, DRAWN),
    "sparse": ("LLMSASRec", {"loss_type": "sampled_softmax", "learner": "sparse_adam"}, {**DRAWN, "_coalesce": 1}),
    "gBCE": ("LLMSASRec", {"loss_type": "gBCE", "negatives": "uniform", "n_negatives": 8}, DRAWN),
    "SCE": ("LLMSASRec", {"loss_type": "SCE", "n_negatives": 8}, ONCE),
    "hstu": ("LLMSASRec", {"block": "hstu"}, ONCE),
    "ligr": ("LLMSASRec", {"block": "ligr"}, ONCE),
    "rotary": ("LLMSASRec", {"positions": "rotary"}, ONCE),
    "times": ("LLMSASRec", {"block": "hstu", "positions": "relative_time"}, ONCE),
    "adversary": ("LLMSASRec", {"language_adversary_weight": 0.1}, ONCE),
    "drawn views": ("LLMSASRec", SHOP, ONCE),
    "mlp": ("XLingMLP", {}, {}),
    "tower": ("XLingTwoTower", LORA, TOWER),
    "tower, frozen": ("XLingTwoTower", {"embedding_size": 16}, FROZEN),
    "tower, some layers": ("XLingTwoTower", {**LORA, "adapter_layers": 2}, TOWER),
    "tower, hard negatives": ("XLingTwoTower", {**LORA, "hard_negatives": 3}, {**TOWER, "by mask": 2}),
    "tower, drawn views": ("XLingTwoTower", {**LORA, **SHOP, "catalog_negatives": 4}, TOWER),
    "cross-encoder": ("XLingCrossEncoder", {}, {"item": 40}),  # one for each bucket of texts, as above
}


@pytest.fixture
def trained(request, tmp_path, small_dataset, tiny_encoder):
    """Return the data, the model and its settings that a test is about, and how often the host may wait in a step."""
    model, changed, allowed = MODELS[request.param]
    small_dataset()
    write_shop(tmp_path / "data")
    settings = small_settings(tmp_path)
    if model in ("XLingTwoTower", "XLingCrossEncoder"):
        settings |= {"encoder": str(tiny_encoder), "encoder_options": None, "encoder_max_length": 24}
    if model == "XLingCrossEncoder":
        settings |= {"text_max_length": 4}
    if model == "XLingMLP":
        del settings["MAX_ITEM_LIST_LENGTH"]
    given = {**settings, **changed}
    return build(XLingConfig(model, given.pop("dataset", "small"), config_dict=given)), allowed


def training_step(run):
    """Return a function that makes a step of training."""
    trainer = build_trainer(run.config, run.model)
    trainer.hooks.begin_training(10, 0)
    trainer.schedule = build_schedule(trainer.optimizer, "constant", 0, 10)
    batch = next(iter(run.train_data))
    run.model.train()

    def make() -> None:
        trainer._train_epoch([batch], 0)

    return make


@pytest.fixture
def far(monkeypatch):
    """Return what counts the waits for a GPU that is not there."""
    monkeypatch.setattr("torch.cuda._lazy_init", lambda: None)
    return FarDevice()


@pytest.mark.skipif(torch.cuda.is_available(), reason="imitates a GPU")
@pytest.mark.parametrize("trained", MODELS, indirect=True)
def test_a_step_waits_for_a_gpu_no_more_often_than_it_must(trained, far):
    run, allowed = trained
    move_far(run.model)
    run.model.device = run.config["device"] = FAR
    with far:
        make = training_step(run)
        make()  # the first step also encodes what is kept
        far.waits.clear()
        make()
    far.waits.subtract(EPOCH)
    assert {name: n for name, n in far.waits.items() if n > allowed.get(name, 0)} == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="imitates a GPU")
@pytest.mark.parametrize("trained", ["CE", "mlp", "tower"], indirect=True)
def test_evaluation_on_a_gpu_has_the_values_of_a_cpu(trained, far):
    run, _ = trained
    expected = build_trainer(run.config, run.model).evaluate(run.valid_data, load_best_model=False)
    move_far(run.model)
    run.model.device = run.config["device"] = FAR
    with far:
        trainer = build_trainer(run.config, run.model)
        found = trainer.evaluate(run.valid_data, load_best_model=False)
    assert found == pytest.approx(expected, abs=1e-3)
    assert far.waits["up"] == 2  # the two columns of items, once


@pytest.mark.device
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks a GPU for the waits")
@pytest.mark.parametrize("trained", MODELS, indirect=True)
def test_a_gpu_sees_no_further_waits(trained):
    run, allowed = trained
    make = training_step(run)
    make()  # the first step builds kernels and the optimizer's state
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            make()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in told if "synchroniz" in str(warning.message)]
    assert len(waits) <= sum(allowed.values()) + sum(EPOCH.values()), waits


def test_the_imitation_of_a_gpu_counts_what_a_gpu_waits_for(far):
    near = torch.arange(3.0)
    with far:
        table = near.to(FAR)
        assert table.device == FAR and far.waits == {"up": 1}
        assert to_device(near, FAR).device == FAR and far.waits == {"up": 1}
        assert (table * 2)[table > 0].tolist() == [2.0, 4.0]
        assert far.waits == {"up": 1, "by mask": 1, "down": 1}
        assert float(table.sum()) == 3.0 and far.waits["item"] == 1
        with pytest.raises(RuntimeError, match="both devices"):
            table + near


@pytest.mark.parametrize("device", [FAR, torch.device("cpu")])
def test_a_batch_goes_to_a_device_whole(far, device):
    with far:
        moved = on_device(Interaction({"a": torch.ones(2), "b": torch.zeros(2, 3)}), device)
    assert [column.device for column in moved.interaction.values()] == [device, device]
    assert not far.waits
