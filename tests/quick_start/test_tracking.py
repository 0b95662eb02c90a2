"""Runs that are followed by W&B, MLflow and CodeCarbon, for which stand-ins note what they are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from recbole_xling.errors import ConfigError
from recbole_xling.quick_start.estimate import estimate
from recbole_xling.quick_start.train import run


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in whose ``told`` has the calls, and whose ``metrics`` has what was logged by name and step."""
    told, metrics, params = [], {}, {}
    stand_in = SimpleNamespace(
        told=told,
        metrics=metrics,
        params=params,
        start_run=lambda run_name: told.append(("start", run_name)),
        end_run=lambda status: told.append(("end", status)),
        log_params=lambda some: params.update(some) if len(some) <= 100 else pytest.fail("MLflow takes 100 at a time"),
        log_metric=lambda name, value, step: metrics.update({(name, step): value}),
        log_metrics=lambda some: metrics.update(some),
    )
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    return stand_in


def test_mlflow_has_settings_curves_and_results(small_dataset, settings, mlflow):
    small_dataset()
    result = run("SASRec", "small", config_dict={**settings, "log_mlflow": True})
    assert mlflow.told == [("start", Path(result["run_dir"]).name), ("end", "FINISHED")]
    assert mlflow.params["learning_rate"] == "0.001" and mlflow.params["model"] == "SASRec"
    assert mlflow.metrics["ndcg_at_10"] == result["test"]["ndcg@10"]
    assert {name for name in mlflow.metrics if isinstance(name, tuple)} == {
        (name, epoch) for name in ("train_loss", "valid_score") for epoch in range(2)
    }
    assert round(max(mlflow.metrics["valid_score", epoch] for epoch in range(2)), 4) == result["best_valid"]["ndcg@10"]


def test_a_failed_run_is_closed_as_failed(small_dataset, settings, mlflow):
    small_dataset()
    with pytest.raises(ConfigError):
        run("SASRec", "small", config_dict={**settings, "log_mlflow": True, "topk": [99], "valid_metric": "NDCG@99"})
    assert mlflow.told[-1] == ("end", "FAILED")


class Wandb(ModuleType):
    """A stand-in for W&B that keeps each of its runs: how it began, its rows, its summary and how it ended."""

    class Error(Exception):
        """What it raises."""

    def __init__(self):
        super().__init__("wandb")
        self.run, self.runs = None, []

    def init(self, **begun):
        self.run = SimpleNamespace(**begun, rows=[], summary={}, exit_code=None)
        self.runs.append(self.run)

    def define_metric(self, *names, **options):
        pass

    def log(self, row, commit):
        self.run.rows.append(row)

    def finish(self, exit_code):
        self.run.exit_code, self.run = exit_code, None


@pytest.fixture
def wandb(monkeypatch):
    stand_in = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    return stand_in


def test_each_run_of_a_process_is_one_of_wandb(small_dataset, settings, wandb):
    small_dataset()
    for model in ("SASRec", "LLMSASRec"):
        result = run(model, "small", config_dict={**settings, "log_wandb": True, "wandb_project": "shop"})
        found = wandb.runs[-1]
        assert (found.project, found.name, found.exit_code) == ("shop", Path(result["run_dir"]).name, 0)
        assert found.config["model"] == model and found.config["learning_rate"] == 0.001
        assert [row["train_step"] for row in found.rows if "train_step" in row] == [0, 1]
        valid = [row for row in found.rows if "valid_step" in row]
        assert max(row["valid/ndcg@10"] for row in valid) == result["best_valid"]["ndcg@10"]
        assert found.summary == {f"eval/{name}": value for name, value in result["test"].items()}
    assert len(wandb.runs) == 2
    wrong = {"topk": [99], "valid_metric": "NDCG@99"}
    with pytest.raises(ConfigError):
        run("SASRec", "small", config_dict={**settings, "log_wandb": True, **wrong})
    assert wandb.runs[-1].exit_code == 1


def test_a_run_of_wandb_that_is_there_is_used_and_left_open(small_dataset, settings, wandb):
    small_dataset()
    wandb.init(project="sweep")
    run("SASRec", "small", config_dict={**settings, "log_wandb": True})
    assert len(wandb.runs) == 1 and wandb.run.exit_code is None and "eval/ndcg@10" in wandb.run.summary


def test_without_an_account_wandb_is_told_how_to_work(small_dataset, settings, wandb, monkeypatch):
    small_dataset()

    def init(**begun):
        raise wandb.Error("No API key configured.\nMore.")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(ConfigError, match=r"log_wandb: No API key configured\.: .*WANDB_MODE=offline"):
        run("SASRec", "small", config_dict={**settings, "log_wandb": True})


def test_estimates_are_not_logged(small_dataset, settings, wandb):
    small_dataset()
    estimate("SASRec", "small", config_dict={**settings, "log_wandb": True})
    assert wandb.runs == []


def test_wandb_itself_takes_what_it_is_given(small_dataset, settings, monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    small_dataset()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for _ in range(2):
        run("SASRec", "small", config_dict={**settings, "log_wandb": True, "epochs": 1})
        assert wandb.run is None
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


def test_the_energy_of_a_run_is_in_its_result(small_dataset, settings, monkeypatch):
    small_dataset()
    calls = []

    class Tracker:
        final_emissions_data = SimpleNamespace(energy_consumed=0.5, emissions=0.25)

        def __init__(self, **options):
            calls.append(options)

        def start(self):
            calls.append("start")

        def stop(self):
            calls.append("stop")

    source = SimpleNamespace(get_global_energy_mix_data=lambda: {"DEU": {}, "ITA": {}})
    monkeypatch.setitem(sys.modules, "codecarbon", SimpleNamespace(OfflineEmissionsTracker=Tracker))
    monkeypatch.setitem(sys.modules, "codecarbon.input", SimpleNamespace(DataSource=lambda: source))
    with pytest.raises(ConfigError, match="unknown energy_country 'DEX'"):
        run("SASRec", "small", config_dict={**settings, "energy_country": "DEX"})
    assert calls == []
    result = run("SASRec", "small", config_dict={**settings, "energy_country": "DEU", "epochs": 1})
    assert calls[0]["country_iso_code"] == "DEU" and not calls[0]["save_to_file"] and calls[1:] == ["start", "stop"]
    stored = json.loads((Path(result["run_dir"]) / "result.json").read_text())
    assert stored["energy"] == {"kwh": 0.5, "co2_kg": 0.25, "country": "DEU"}


@pytest.mark.parametrize(
    ("setting", "package"),
    [({"log_mlflow": True}, "mlflow"), ({"log_wandb": True}, "wandb"), ({"energy_country": "ITA"}, "c")],
)
def test_a_missing_package_is_named_before_the_run(small_dataset, settings, monkeypatch, tmp_path, setting, package):
    small_dataset()
    for name in ("mlflow", "wandb", "codecarbon"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'recbole-xling\[{package}"):
        run("SASRec", "small", config_dict={**settings, **setting})
    assert not list((tmp_path / "saved").glob("*"))
