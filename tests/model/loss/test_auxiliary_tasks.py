"""Tasks besides the next item: their losses, their weights, and what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recbole_xling.errors import ConfigError, DataError
from recbole_xling.model.loss.auxiliary_tasks import AuxiliaryTasks, AuxiliaryTasksConfig

TOKENS = ["[PAD]", "a", "b", "c", "d", "e"]


@pytest.fixture
def dataset(tmp_path):
    rows = ["item_id:token\tkind:token\tprice:float", "e\ty\t1", "a\tx\t1", "b\ty\t1", "c\tz\t1", "d\t\t1"]
    (tmp_path / "shop.item").write_text("\n".join(rows) + "\n")
    config = {"data_path": str(tmp_path), "dataset": "shop", "ITEM_ID_FIELD": "item_id", "field_separator": "\t"}
    config["encoding"] = "utf-8"
    catalog = SimpleNamespace(languages=["und", "it", "da", "it", "und", "it"], tokens=TOKENS)
    return SimpleNamespace(inter_feat=[1], config=config, catalog=catalog, dataset_name="shop")


def made(dataset, others=None, **settings):
    torch.manual_seed(0)
    return AuxiliaryTasks(AuxiliaryTasksConfig(**settings), dataset, 3, others or {"next_item": 1.0})


def test_the_loss_is_the_weighed_cross_entropy_of_each_classifier(dataset):
    tasks = made(dataset, auxiliary_fields=["kind", "language"], auxiliary_weight=0.25)
    states, weight = torch.randn(4, 3), torch.tensor([0.1, 0.2, 0.3, 0.4])
    target = torch.tensor([1, 5, 4, 2])  # kinds x, y, none, y; languages it, it, unknown, da
    want = 0.0
    for classifier, n_values, labels in zip(tasks.classifiers, (3, 2), ((0, 1, -1, 1), (1, 1, -1, 0)), strict=True):
        logits = (states @ classifier.weight.T + classifier.bias).detach().numpy()[:, :n_values]
        for row, (label, share) in enumerate(zip(labels, weight.tolist(), strict=True)):
            if label >= 0:
                want -= 0.25 * share * (logits[row, label] - np.log(np.exp(logits[row]).sum()))
    assert tasks(states, target, weight).item() == pytest.approx(want, rel=1e-5)
    assert tasks.weighed("next_item", torch.tensor(2.0)) == 2 and tasks.penalty() == 0


def test_learned_weights_start_at_the_fixed_ones_and_follow_the_losses(dataset):
    settings = {"auxiliary_fields": ["kind"], "auxiliary_weight": 0.25, "task_weights": "uncertainty"}
    tasks = made(dataset, {"next_item": 1.0, "alignment": 0.5}, **settings)
    losses = {"next_item": 4.0, "alignment": 1.0, "field_0": 0.1}
    starts = {"next_item": 1.0, "alignment": 0.5, "field_0": 0.25}
    for name, loss in losses.items():
        assert tasks.weighed(name, torch.tensor(loss)).item() == pytest.approx(starts[name] * loss)
    assert tasks.penalty().item() == pytest.approx(-(math.log(0.5) + math.log(0.25)) / 2)
    optimizer = torch.optim.Adam(tasks.log_variance.parameters(), lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        (tasks.penalty() + sum(tasks.weighed(name, torch.tensor(loss)) for name, loss in losses.items())).backward()
        optimizer.step()
    for name, loss in losses.items():  # where exp(-s) loss + s / 2 is smallest
        assert tasks.weighed(name, torch.tensor(1.0)).item() == pytest.approx(1 / (2 * loss), rel=0.01)


def test_without_fields_there_is_nothing(dataset):
    tasks = made(dataset, {"next_item": 1.0, "alignment": 0.5})
    assert tasks(torch.randn(2, 3), torch.tensor([1, 2]), torch.ones(2)) == 0
    assert not tasks.state_dict() and tasks.weighed("alignment", torch.tensor(2.0)) == 1


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"auxiliary_fields": ["kinds"]}, ConfigError, "Did you mean 'kind'"),
        ({"auxiliary_fields": ["price"]}, ConfigError, "type token"),
        ({"auxiliary_fields": ["kind", "kind"]}, ConfigError, "twice"),
        ({"task_weights": "uncertainty"}, ConfigError, "one only"),
    ],
)
def test_what_cannot_be_predicted_is_refused(dataset, settings, error, told):
    with pytest.raises(error, match=told):
        made(dataset, **settings)


def test_one_value_or_too_many_are_refused(dataset):
    dataset.catalog.languages = ["und", *["it"] * 5]
    with pytest.raises(DataError, match="1 different values of 'language'"):
        made(dataset, auxiliary_fields=["language"])
    dataset.catalog.languages = ["und", *(f"l{number}" for number in range(2000))]
    with pytest.raises(DataError, match="2,000 different values"):
        made(dataset, auxiliary_fields=["language"])
    dataset.inter_feat = []  # nothing is trained
    made(dataset, auxiliary_fields=["language", "kinds"])
