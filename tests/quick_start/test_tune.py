"""Searching settings: what is drawn is run and kept, what was stopped goes on, what is worse stops early."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna")

from recbole_xling.cli.main import main
from recbole_xling.config import XLingConfig
from recbole_xling.errors import CheckpointError, ConfigError, XlingError
from recbole_xling.quick_start import tune as tuning
from recbole_xling.quick_start.benchmark import only_one
from recbole_xling.quick_start.train import run
from recbole_xling.quick_start.tune import trials_table, tune
from recbole_xling.testing import make_tiny_encoder, small_settings, write_small_dataset
from recbole_xling.utils.run_folder import read_result


@pytest.fixture
def plan(tmp_path):
    """Write a search of two settings; return its file."""
    write_small_dataset(tmp_path / "data")
    settings = {**small_settings(tmp_path), "model": "SASRec", "dataset": "small", "hidden_size": 8, "inner_size": 8}
    search = {"learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}, "n_layers": {"low": 1, "high": 2}}
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump({"settings": settings, "search": search, "trials": 3}))
    return file


@pytest.fixture
def scored(monkeypatch):
    """Replace runs: each validates with the scores that the function put here makes of its settings; return calls."""

    class Calls(list):
        scores = staticmethod(lambda settings: [0.1])

    calls = Calls()

    def run_here(config_dict, arguments, callback_fn):
        calls.append(config_dict)
        for epoch, score in enumerate(calls.scores(config_dict)):
            callback_fn(epoch, score)

    monkeypatch.setattr(tuning, "run", run_here)
    return calls


def test_the_best_settings_repeat_the_best_trial(tmp_path, plan, capsys):
    words = [str(plan), "--output", str(tmp_path / "out"), "--trials", "2", "--epochs=1"]
    assert main(["tune", *words]) == 0
    printed = capsys.readouterr().out
    study = tune(plan, tmp_path / "out", ["--epochs=1"], trials=2)
    folder = Path(study.best_trial.user_attrs["run_dir"])
    assert folder.name in printed and f"{study.best_value:.4f}" in printed
    result = read_result(folder)
    assert result["best_valid"]["ndcg@10"] == round(study.best_value, 4)
    again = run(config_file_list=[tmp_path / "out" / "best.yaml"])
    assert again["test"] == result["test"] and again["best_valid"] == result["best_valid"]


def stopped_and_resumed(scored, plan, output, **options):
    """Stop a search in its second trial, and return the study of the same words given again."""

    def interrupted(settings):
        if len(scored) == 2:
            raise KeyboardInterrupt
        return [settings["learning_rate"]]

    scored.scores = interrupted
    with pytest.raises(KeyboardInterrupt):
        tune(plan, output, **options)
    scored.scores = lambda settings: [settings["learning_rate"]]
    return tune(plan, output, **options)


def test_a_search_goes_on_where_it_was_stopped(tmp_path, plan, scored):
    study = stopped_and_resumed(scored, plan, tmp_path / "out")
    assert len(scored) == 4
    drawn = [{key: call[key] for key in ("learning_rate", "n_layers")} for call in scored]
    assert drawn[1] == drawn[2] and drawn[3] not in drawn[:3]  # the one that was running, then a new one
    assert study.best_value == max(call["learning_rate"] for call in scored)
    assert len(trials_table(study)[1]) == 3
    tune(plan, tmp_path / "out")
    assert len(scored) == 4
    with pytest.raises(ConfigError, match="other settings, ranges, data or encoder"):
        tune(plan, tmp_path / "out", ["--train_batch_size=32"])
    (tmp_path / "out" / "study.db").write_bytes(b"garbage" * 900)
    with pytest.raises(CheckpointError, match=r"study\.db' is damaged: .*Name another folder"):
        tune(plan, tmp_path / "out")


def test_a_search_does_not_go_on_with_another_encoder(tmp_path, plan, scored):
    encoder = make_tiny_encoder(tmp_path / "encoder")
    search = yaml.safe_load(plan.read_text())
    search["settings"] |= {"model": "XLingTwoTower", "encoder": str(encoder), "encoder_options": None}
    search["search"].pop("n_layers")
    del search["settings"]["hidden_size"], search["settings"]["inner_size"]
    plan.write_text(yaml.safe_dump(search))
    tune(plan, tmp_path / "out", trials=1)
    tune(plan, tmp_path / "out", trials=2)
    make_tiny_encoder(encoder, seed=1)
    with pytest.raises(ConfigError, match="other settings, ranges, data or encoder"):
        tune(plan, tmp_path / "out")
    assert len(scored) == 2


def test_two_searches_do_not_share_a_folder(tmp_path, plan, scored):
    with only_one(tmp_path / "out"), pytest.raises(ConfigError, match=r"out': another .* is at work"):
        tune(plan, tmp_path / "out")
    assert not scored and not list((tmp_path / "out").iterdir())
    assert len(tune(plan, tmp_path / "out").trials) == 3


def test_settings_drawn_twice_are_run_once_and_failures_do_not_stop_the_rest(tmp_path, plan, scored):
    def scores(settings):
        if settings["n_layers"] == 2:
            raise ConfigError("two are too many")
        return [0.5]

    scored.scores = scores
    study = tune(plan, tmp_path / "out", trials=12, search={"n_layers": {"low": 1, "high": 2}})
    assert len(study.trials) == 12 and study.best_params == {"n_layers": 1}
    assert sum(call["n_layers"] == 1 for call in scored) == 1
    assert "failed" in str(trials_table(study))
    with pytest.raises(XlingError, match=r"all 1 trials failed.*too many"):
        tune(plan, tmp_path / "none", trials=1, search={"n_layers": [2]})


def test_lists_with_no_more_combinations_than_trials_are_tried_out(tmp_path, plan, scored):
    search = {"learning_rate": [0.1, 0.01], "n_layers": [1, 2]}
    stopped_and_resumed(scored, plan, tmp_path / "out", trials=4, search=search)
    tried = [(call["learning_rate"], call["n_layers"]) for call in scored]
    assert len(tried) == 5 and tried[1] == tried[2]
    assert sorted(set(tried)) == [(0.01, 1), (0.01, 2), (0.1, 1), (0.1, 2)]
    study = tune(plan, tmp_path / "more", trials=9, search=search)
    assert len(study.trials) == 4


def test_all_combinations_are_tried_however_many_an_earlier_call_drew_twice(tmp_path, plan, scored):
    rates = [0.001, 0.01, 0.1, 0.0001]
    for trials in (3, 4, 6):
        study = tune(plan, tmp_path / "out", trials=trials, search={"learning_rate": rates})
    assert sorted({trial.params["learning_rate"] for trial in study.trials}) == sorted(rates)


def test_a_combination_whose_trial_was_killed_before_it_began_is_tried_once(tmp_path, plan, scored, monkeypatch):
    rates = [0.001, 0.01, 0.1, 0.0001]
    drawn = tuning._draw

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "_draw", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(plan, tmp_path / "out", trials=4, search={"learning_rate": rates})
    monkeypatch.setattr(tuning, "_draw", drawn)
    study = tune(plan, tmp_path / "out", trials=4, search={"learning_rate": rates})
    tried = [trial.params["learning_rate"] for trial in study.trials if "interrupted" not in trial.user_attrs]
    assert sorted(tried) == sorted(rates)


def test_a_trial_that_is_worse_than_the_median_stops_early(tmp_path, plan, scored):
    seen = []

    def scores(settings):
        bad = len(scored) > 6
        for epoch in range(4):
            seen.append((len(scored), epoch))
            yield 0.1 if bad else 0.5 + epoch

    scored.scores = scores
    study = tune(plan, tmp_path / "out", trials=8)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6 + ["PRUNED"] * 2
    assert study.best_value == 3.5
    assert [epoch for number, epoch in seen if number == 7] == [0]
    assert all(trial.state.name == "COMPLETE" for trial in tune(plan, tmp_path / "all", trials=8, pruning=False).trials)


def test_a_run_that_stops_early_keeps_its_folder_and_its_state(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(tuning, "_FEWEST", 1)
    study = tune(plan, tmp_path / "out", trials=3, search={"learning_rate": [0.05, 1e-9, 1e-8, 1e-7]})
    for trial in study.trials:
        assert (Path(trial.user_attrs["run_dir"]) / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("changed", "words", "told"),
    [
        ({"search": {"learning_rat": [1, 2]}}, [], "Did you mean 'learning_rate'"),
        ({"search": {"n_layers": 3}}, [], "n_layers must be a list of values or a range"),
        ({"search": {"n_layers": {"low": 3, "high": 2}}}, [], "n_layers must have low < high"),
        ({"search": {"hidden_size": [8, 16]}}, [], "hidden_size is both set and searched"),
        ({"search": {"learning_rate": [0.1, "fast"]}}, [], "learning_rate must be a number"),
        ({}, ["--n_layers=2"], "n_layers is both set and searched"),
        ({"search": {"loss_type": [["CE"]]}}, [], "plain values only"),
        ({"search": {"n_layers": {"low": "1", "high": 2}}}, [], "search: n_layers: low must be a number, not '1'"),
        ({"search": {"n_layers": {"low": 1, "high": 10**400}}}, [], "high must be a number, not 100"),
        ({"search": {"n_layers": {"low": 1, "high": True}}}, [], "high must be a number, not True"),
        ({"search": {"n_layers": {"low": 1, "hihg": 2}}}, [], "unknown key 'hihg'"),
        ({"search": {"exclude_history": [False, True]}}, [], "exclude_history decides what is validated"),
        ({"search": {"valid_metric": ["NDCG@10", "MRR@10"]}}, [], "valid_metric decides what is validated"),
        ({"search": {}}, [], "search must be a dictionary with an entry"),
    ],
)
def test_a_wrong_search_is_an_error_before_anything_is_run(tmp_path, plan, scored, changed, words, told):
    with pytest.raises(ConfigError, match=told):
        tune(plan, tmp_path / "out", words, **changed)
    assert not scored and not (tmp_path / "out").exists()


def test_a_file_of_a_search_that_is_wrong_is_named(tmp_path, plan, scored):
    plan.write_text("{1: 2, search: {n_layers: [1, 2]}}")
    with pytest.raises(ConfigError, match=r"plan\.yaml: unknown key '1'"):
        tune(plan, tmp_path / "out")


def test_the_folder_of_a_search_may_have_any_name_and_its_damaged_file_is_named(tmp_path, plan, scored):
    output = tmp_path / "what? 100% #1"
    tune(plan, output, trials=1)
    assert (output / "study.db").is_file()
    (output / "study.db").write_bytes(b"no database")
    with pytest.raises(CheckpointError, match=r"study\.db' is damaged"):
        tune(plan, output, trials=1)


def test_texts_of_the_file_are_not_read_again(tmp_path, plan, scored):
    content = yaml.safe_load(plan.read_text())
    plan.write_text(yaml.safe_dump({**content, "settings": {**content["settings"], "wandb_project": "no"}}))
    tune(plan, tmp_path / "out", trials=1)
    assert XLingConfig(config_dict=scored[0])["wandb_project"] == "no"


def test_a_full_disk_is_no_damage_and_leaves_no_search_behind(tmp_path, plan, scored, monkeypatch):
    from sqlalchemy.exc import OperationalError

    def full(*_, **__):
        raise OperationalError("CREATE", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr("optuna.create_study", full)
        with pytest.raises(CheckpointError, match=r"study\.db' cannot be used: .*disk is full\. Free space"):
            tune(plan, tmp_path / "out")
    assert not (tmp_path / "out" / "study.db").exists()
    with monkeypatch.context() as patch:
        patch.setattr("optuna.Study.tell", full)
        with pytest.raises(CheckpointError, match=r"study\.db' cannot be used"):
            tune(plan, tmp_path / "out", trials=1)
    assert len(trials_table(tune(plan, tmp_path / "out", trials=1))[1]) == 1  # what was begun is there
