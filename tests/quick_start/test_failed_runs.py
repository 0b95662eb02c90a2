"""Runs that fail: nothing is left, or what the run can go on from."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.quick_start import train
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.train import run
from recbole_xling.serve.withdrawn import read_withdrawn
from recbole_xling.trainer.trainer import XLingTrainer
from recbole_xling.utils.run_folder import in_use


@pytest.fixture
def fails_in(monkeypatch):
    """Return a function that lets training raise an error in an epoch."""

    def change(epoch, error):
        original = XLingTrainer._train_epoch

        def trained(self, data, number, *args, **kwargs):
            if number == epoch:
                raise error
            return original(self, data, number, *args, **kwargs)

        monkeypatch.setattr(XLingTrainer, "_train_epoch", trained)

    return change


@pytest.mark.parametrize("error", [DataError("no"), ZeroDivisionError("oh"), KeyboardInterrupt()])
def test_a_run_that_fails_before_its_first_epoch_is_over_leaves_no_folder(
    fails_in, small_dataset, settings, tmp_path, error
):
    small_dataset()
    fails_in(0, error)
    with pytest.raises(ConfigError if isinstance(error, ZeroDivisionError) else type(error)):
        run("LLMSASRec", "small", config_dict=settings)
    assert list((tmp_path / "saved").iterdir()) == []


def test_a_run_that_fails_while_data_are_loaded_leaves_no_folder(small_dataset, settings, tmp_path):
    small_dataset()
    with pytest.raises(ConfigError, match="longer lists than the dataset has items"):
        run("LLMSASRec", "small", config_dict={**settings, "topk": [99], "valid_metric": "NDCG@99"})
    assert list((tmp_path / "saved").iterdir()) == []


def test_a_run_that_fails_later_says_how_it_goes_on(fails_in, small_dataset, settings, tmp_path, caplog, monkeypatch):
    small_dataset()
    with monkeypatch.context():
        fails_in(1, ZeroDivisionError("oh"))
        with pytest.raises(ConfigError, match="LLMSASRec cannot be trained with these settings: ZeroDivisionError: oh"):
            run("LLMSASRec", "small", config_dict=settings)
        monkeypatch.undo()
    (folder,) = (tmp_path / "saved").iterdir()
    assert f"--resume={folder}" in caplog.text
    assert run(arguments=[f"--resume={folder}"])["run_dir"] == str(folder)


@pytest.mark.parametrize("on_screen", [True, False])
def test_only_a_terminal_gets_the_module_tree_and_an_epoch_is_one_line(
    small_dataset, settings, caplog, monkeypatch, on_screen
):
    small_dataset()
    monkeypatch.setattr(train, "on_screen", lambda: on_screen)
    with caplog.at_level(logging.INFO):
        run("LLMSASRec", "small", config_dict=settings)
    messages = [record.getMessage() for record in caplog.records]
    assert any("(sequence_encoder)" in message for message in messages) is on_screen
    assert "Dataset small: 40 users, 30 items, " in caplog.text
    epochs = [message for message in messages if "epoch" in message and "training" in message]
    assert len(epochs) == 2 and all("valid_score" in line and "\n" not in line for line in epochs)


def test_what_a_run_consists_of_is_shown_in_one_line(build_small, small_dataset):
    small_dataset()
    shown = repr(build_small())
    assert "\n" not in shown and shown.startswith("Run(<XLingConfig of LLMSASRec on small")
    assert "40 users, 30 items, " in shown


def test_what_a_run_serves_may_change_while_it_goes_on(small_dataset, settings):
    small_dataset()
    folder = Path(run("LLMSASRec", "small", config_dict={**settings, "epochs": 1})["run_dir"])
    with in_use(folder):
        load_run(folder).withdraw(["i3"])
    assert read_withdrawn(folder) == ["i3"]


def test_a_run_that_is_going_on_is_not_resumed_by_another_process(small_dataset, settings, tmp_path):
    small_dataset()
    refused = []

    def resumed(epoch, score):
        if epoch == 1:
            (folder,) = (tmp_path / "saved").iterdir()
            with pytest.raises(CheckpointError, match="is going on in another process: wait for it, or stop it first"):
                run(arguments=[f"--resume={folder}"])
            refused.append(str(folder))

    result = run("LLMSASRec", "small", config_dict=settings, callback_fn=resumed)
    assert refused == [result["run_dir"]]
    assert run(arguments=[f"--resume={result['run_dir']}"])["test"] == result["test"]
