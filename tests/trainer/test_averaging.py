"""The mean of epochs' weights: what is kept is that mean, and an interrupted run ends with the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from recbole_xling.errors import CheckpointError
from recbole_xling.quick_start.build import build_trainer
from recbole_xling.quick_start.train import run
from recbole_xling.trainer.checkpoint import load_checkpoint, trainable_state
from recbole_xling.trainer.trainer import XLingTrainer


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def epochs(monkeypatch):
    """The weights after each epoch, as they were trained."""
    found = []
    train = XLingTrainer._train_epoch

    def recorded(self, *args, **options):
        loss = train(self, *args, **options)
        found.append({name: tensor.clone() for name, tensor in trainable_state(self.model).items()})
        return loss

    monkeypatch.setattr(XLingTrainer, "_train_epoch", recorded)
    return found


@pytest.mark.usefixtures("cpu")
def test_the_stored_model_is_the_mean_of_the_last_epochs_and_training_goes_on_without_it(
    small_dataset, settings, epochs
):
    small_dataset()
    extra = {"epochs": 5, "eval_step": 0}
    plain = run("LLMSASRec", "small", config_dict={**settings, **extra})
    alone = list(epochs)
    epochs.clear()
    mean = run("LLMSASRec", "small", config_dict={**settings, **extra, "average_checkpoints": 3})
    for trained, again in zip(alone, epochs, strict=True):
        for name, tensor in trained.items():
            if not name.startswith("score_bias"):
                torch.testing.assert_close(again[name], tensor, rtol=0, atol=0)
    stored = load_checkpoint(Path(mean["run_dir"]) / "model.pt")["state_dict"]
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not name.startswith("score_bias"):
            torch.testing.assert_close(tensor, (alone[2][name] + alone[3][name] + alone[4][name]) / 3)
    assert mean["test"] != plain["test"]


def test_a_mean_that_is_not_saved_has_what_follows_from_its_weights(small_dataset, build_small):
    small_dataset()
    split = {"eval_args": {"split": {"CI": [0.6, 0.2, 0.2]}}}
    parts = build_small(epochs=4, average_checkpoints=3, cold_exposure=0.1, **split)
    build_trainer(parts.config, parts.model).fit(parts.train_data, saved=False, verbose=False)
    found = parts.model.score_bias.cold_offset.clone()
    assert not parts.model.training
    with torch.no_grad():
        parts.model.end_epoch(3)
    assert found != 0 and torch.equal(parts.model.score_bias.cold_offset, found)


def test_a_killed_run_ends_with_the_same_average(small_dataset, settings, monkeypatch):
    small_dataset()
    extra = {"epochs": 6, "stopping_step": 9, "average_checkpoints": 3}
    whole = run("LLMSASRec", "small", config_dict={**settings, **extra})
    save = XLingTrainer._save_resume_state

    def save_and_die(self, epoch, *rest):
        save(self, epoch, *rest)
        if epoch == 3:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(XLingTrainer, "_save_resume_state", save_and_die)
        separate = {**settings, **extra, "run_dir": f"{settings['checkpoint_dir']}/killed"}
        with pytest.raises(Killed):
            run("LLMSASRec", "small", config_dict=separate)
    resumed = run(config_dict={"resume": separate["run_dir"]})
    assert resumed["test"] == whole["test"] and resumed["best_valid"] == whole["best_valid"]
    first, second = (load_checkpoint(Path(one["run_dir"]) / "model.pt")["state_dict"] for one in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_penalty_pulls_to_the_weights_that_the_run_started_from(small_dataset, settings):
    small_dataset()
    start = run("LLMSASRec", "small", config_dict=settings)

    def distance(**changed):
        tuned = run("LLMSASRec", "small", config_dict={**settings, "init_from": start["run_dir"], "eval_step": 0,
                                                       "learner": "sgd", "learning_rate": 0.05, **changed})  # fmt: skip
        before, after = (load_checkpoint(Path(one["run_dir"]) / "model.pt")["state_dict"] for one in (start, tuned))
        moved = [(after[name] - before[name]).square().sum() for name in after if after[name].is_floating_point()]
        return float(torch.stack(moved).sum()), tuned

    free, _ = distance()
    held, tuned = distance(l2_sp=10.0)
    assert 0 < held < free
    # resumed, it is still pulled there, and not to where it was interrupted
    folder = shutil.copytree(tuned["run_dir"], f"{tuned['run_dir']}-longer")
    longer = run(config_dict={"resume": str(folder), "epochs": 4})
    whole = distance(l2_sp=10.0, epochs=4)[1]
    assert longer["test"] == whole["test"]
    run(config_dict={"resume": start["run_dir"], "epochs": settings["epochs"] + 1})
    with pytest.raises(CheckpointError, match="no longer those that this run started from"):
        run(config_dict={"resume": str(folder), "epochs": 5})
