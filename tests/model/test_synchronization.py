"""A training step makes the host wait for a GPU as rarely as can be: each wait is counted, on the CPU."""

from __future__ import annotations

import warnings
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recbole.data.interaction import Interaction
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_xling.config import XLingConfig
from recbole_xling.quick_start.build import build, build_trainer
from recbole_xling.testing import small_settings
from recbole_xling.trainer.optimizer import build_schedule
from recbole_xling.trainer.trainer import on_device

_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}


class Waits(TorchDispatchMode):
    """Counts what needs a number of the GPU before the host can go on: ``item()``, and shapes that depend on data."""

    def __init__(self) -> None:
        super().__init__()
        self.number: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name in ("index", "index_put_", "index_put", "_index_put_impl_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask and name != "index" and args[2].dim() == 0:
            by_mask = False  # a number for all places is filled in without looking for them
        if name in _WAITS or by_mask:
            self.number["by mask" if by_mask else name] += 1
        return func(*args, **(kwargs or {}))


ONCE = {"nonzero": 1}  # where the targets are: how many there are shapes all that follows
DRAWN = {**ONCE, "_unique2": 1}  # and which items the batch needs
# which texts the batch needs, how long they are, and what its processes have in common
TOWER = {"nonzero": 5, "_unique2": 10, "_local_scalar_dense": 5, "by mask": 2}
PAIRS = {"nonzero": 2, "_unique2": 1, "_local_scalar_dense": 50, "by mask": 1}  # lengths, which are on the CPU anyway
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "CE": ("LLMSASRec", {}, ONCE),
    "none": ("LLMSASRec", {"item_representation": "none"}, ONCE),
    "sampled": ("LLMSASRec", {"loss_type": "sampled_softmax", "n_negatives": 8}, DRAWN),
    "gBCE": ("LLMSASRec", {"loss_type": "gBCE", "negatives": "uniform", "n_negatives": 8}, DRAWN),
    "SCE": ("LLMSASRec", {"loss_type": "SCE", "n_negatives": 8}, ONCE),
    "hstu": ("LLMSASRec", {"block": "hstu"}, ONCE),
    "ligr": ("LLMSASRec", {"block": "ligr"}, ONCE),
    "rotary": ("LLMSASRec", {"positions": "rotary"}, ONCE),
    "times": ("LLMSASRec", {"block": "hstu", "positions": "relative_time"}, ONCE),
    "adversary": ("LLMSASRec", {"language_adversary_weight": 0.1}, ONCE),
    "drawn views": ("LLMSASRec", {"train_text_view": "random"}, ONCE),
    "mlp": ("XLingMLP", {}, {}),
    "tower": ("XLingTwoTower", {}, TOWER),
    "tower, frozen": ("XLingTwoTower", {"peft": "frozen", "embedding_size": 16}, TOWER),
    "tower, hard negatives": ("XLingTwoTower", {"hard_negatives": 3}, TOWER),
    "cross-encoder": ("XLingCrossEncoder", {}, PAIRS),
}


@pytest.fixture
def step(request, tmp_path, small_dataset, tiny_encoder):
    """Return a training step of the model that a test is about, and how often the host may wait in it."""
    model, changed, allowed = MODELS[request.param]
    small_dataset()
    settings = small_settings(tmp_path)
    if model in ("XLingTwoTower", "XLingCrossEncoder"):
        settings |= {"encoder": str(tiny_encoder), "encoder_options": None, "encoder_max_length": 24}
    if model == "XLingCrossEncoder":
        settings |= {"text_max_length": 4}
    if model == "XLingMLP":
        del settings["MAX_ITEM_LIST_LENGTH"]
    run = build(XLingConfig(model, "small", config_dict={**settings, **changed}))
    trainer = build_trainer(run.config, run.model)
    trainer.hooks.begin_training(10, 0)
    trainer.schedule = build_schedule(trainer.optimizer, "constant", 0, 10)
    batch = on_device(next(iter(run.train_data)), run.config["device"])
    run.model.train()

    def make() -> None:
        run.model.calculate_loss(batch).backward()
        trainer._step()

    return make, allowed


@pytest.mark.parametrize("step", MODELS, indirect=True)
def test_a_step_waits_for_the_gpu_no_more_often_than_it_must(step):
    make, allowed = step
    with Waits() as waits:
        make()
    assert {name: n for name, n in waits.number.items() if n > allowed.get(name, 0)} == {}


@pytest.mark.device
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks a GPU for the waits")
@pytest.mark.parametrize("step", MODELS, indirect=True)
def test_a_gpu_sees_no_further_waits(step):
    make, allowed = step
    make()  # the first step builds kernels and the optimizer's state
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            make()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in told if "synchroniz" in str(warning.message)]
    assert len(waits) <= sum(allowed.values()), waits


class Column:
    """Stands for a tensor, and notes how it is moved."""

    def __init__(self) -> None:
        self.moves: list[tuple[Any, ...]] = []

    def pin_memory(self) -> Column:
        self.moves.append(("pinned",))
        return self

    def to(self, device: torch.device, **options: Any) -> torch.Tensor:
        self.moves.append((device, options))
        return torch.ones(2)


def test_a_batch_goes_to_a_gpu_from_pinned_memory_without_waiting():
    column, gpu = Column(), torch.device("cuda", 1)
    on_device(SimpleNamespace(interaction={"a": column}), gpu)
    assert column.moves == [("pinned",), (gpu, {"non_blocking": True})]


def test_a_batch_goes_to_another_device_whole():
    moved = on_device(Interaction({"a": torch.ones(2), "b": torch.zeros(2, 3)}), torch.device("meta"))
    assert [column.device.type for column in moved.interaction.values()] == ["meta", "meta"]
