"""Estimates: from the steps of the run itself, and nothing is left behind."""

from __future__ import annotations

import pytest

from recbole_xling.cli.main import main
from recbole_xling.errors import ConfigError
from recbole_xling.quick_start import estimate as estimates
from recbole_xling.quick_start.estimate import estimate
from recbole_xling.testing import make_tiny_encoder, small_settings
from recbole_xling.trainer.trainer import XLingTrainer


@pytest.mark.parametrize("model", ["LLMSASRec", "BPR", "ContentKNN"])
def test_an_estimate_has_all_parts_of_the_run_and_leaves_no_folder(small_dataset, tmp_path, monkeypatch, model):
    small_dataset()
    monkeypatch.chdir(tmp_path)
    found = estimate(model, "small", config_dict={**small_settings(tmp_path), "epochs": 7, "train_batch_size": 8})
    assert found["epochs"] == 7
    parts = found["build"] + found["epochs"] * (found["epoch"] + found["valid"]) + found["test"]
    assert found["total"] >= parts > 0 and found["memory"] > 2**20
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "cache"}


def test_where_nothing_is_validated_the_test_rows_are_measured(small_dataset, tmp_path):
    small_dataset()
    found = estimate("LLMSASRec", "small", config_dict={**small_settings(tmp_path), "train_on_validation": True})
    assert found["valid"] == 0 < found["test"]


def test_a_batch_takes_what_a_step_takes_whatever_the_first_ones_took(monkeypatch):
    clock = [0.0]

    class Loader:
        def __iter__(self):
            clock[0] += 3.0  # plans its batches
            yield from range(50)

        def __len__(self):
            return 50

    monkeypatch.setattr(estimates, "_now", lambda: clock[0])
    loader = estimates._FirstBatches(Loader(), seconds=2.0)
    n_trained = []
    for _ in range(2):
        for batch in loader:
            clock[0] += 7.0 if batch < 2 else 0.125
            n_trained.append(batch)
    assert n_trained == [*range(20), *range(5)]
    assert loader.per_batch == 0.125 and loader.first == [10.0, 10.0]


def test_the_number_of_steps_is_that_of_the_whole_run(small_dataset, tmp_path, monkeypatch):
    small_dataset()
    settings = {key: value for key, value in small_settings(tmp_path).items() if not key.startswith("encoder")}
    encoder = {"encoder": str(make_tiny_encoder(tmp_path / "tiny")), "encoder_max_length": 16, "train_batch_size": 64}
    adalora = {**settings, **encoder, "peft": "adalora", "epochs": 6}
    trained, epoch = [], XLingTrainer._train_epoch
    monkeypatch.setattr(XLingTrainer, "_train_epoch", lambda *a, **o: trained.append(a[2]) or epoch(*a, **o))
    found = estimate("XLingTwoTower", "small", config_dict=adalora)
    assert trained == [0, 1, 2]  # the third ends before its first batch
    assert found["epochs"] == 6 and 2 <= found["batches"] <= 4  # AdaLoRA needs ten steps: two epochs have fewer


def test_what_cannot_be_estimated_is_said(small_dataset, tmp_path, capsys):
    small_dataset()
    settings = [f"--{key}={value}" for key, value in small_settings(tmp_path).items()]
    assert main(["estimate", "--model=BPR", "--dataset=small", "--nproc=2", *settings]) == 2
    assert "one process" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="estimate each stage"):
        estimate("LLMSASRec", "small", config_dict={**small_settings(tmp_path), "stages": ["joint"]})
