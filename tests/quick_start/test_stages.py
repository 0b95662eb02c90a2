"""Stages: what runs in which folder, from which weights, on which rows, and what an interruption or an error leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recbole_xling
from recbole_xling.cli.main import main
from recbole_xling.config.stages import read_stages
from recbole_xling.encode.hashing import HashingEncoder
from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.evaluator.stage_table import language_table, stage_text
from recbole_xling.testing import make_tiny_encoder
from recbole_xling.trainer.checkpoint import load_checkpoint
from recbole_xling.trainer.trainer import XLingTrainer
from recbole_xling.utils.run_folder import in_use

STAGES = ["joint", {"finetune:fr": {"epochs": 3}}, "alone:fr"]


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def readers(small_dataset, settings):
    """Settings of stages on a dataset whose first 25 readers state German, and the other 15 French."""
    folder = small_dataset()
    lines = [f"u{user}\t{'de' if user < 25 else 'fr'}" for user in range(40)]
    (folder / "small.user").write_text("\n".join(["user_id:token\tuser_language:token", *lines]) + "\n")
    return {**settings, "stages": STAGES}


@pytest.fixture
def of_a_tower(settings_without_layers, tmp_path):
    """Settings of XLingTwoTower with the rates that it has by default."""
    given = {**settings_without_layers, "encoder": str(make_tiny_encoder(tmp_path / "encoder")), "epochs": 1}
    return {key: value for key, value in given.items() if key not in ("learning_rate", "encoder_options")}


def _run(settings, **changed):
    return recbole_xling.run("LLMSASRec", "small", config_dict={**settings, **changed})


def _weights(folder):
    return load_checkpoint(Path(folder) / "model.pt")["state_dict"]


def test_stages_leave_a_folder_each_and_one_table_on_the_same_rows(readers):
    result = _run(readers)
    folder = Path(result["run_dir"])
    assert [stage["name"] for stage in result["stages"]] == ["joint", "finetune:fr", "alone:fr"]
    assert json.loads((folder / "stages.json").read_text()) == result
    rows = {name: pl.read_parquet(folder / name / "users.parquet") for name in ("joint", "finetune-fr", "alone-fr")}
    french = {f"u{user}" for user in range(25, 40)}
    assert set(rows["finetune-fr"]["user_id"]) == french == set(rows["alone-fr"]["user_id"])
    of_joint = rows["joint"].filter(pl.col("user_id").is_in(french))
    assert of_joint.select("user_id", "target_item").equals(rows["alone-fr"].select("user_id", "target_item"))
    line = result["languages"]["fr"]
    assert line["n"] == 15 and line["joint"]["ndcg@10"] == pytest.approx(of_joint["ndcg@10"].mean())
    difference = rows["finetune-fr"]["ndcg@10"].mean() - of_joint["ndcg@10"].mean()
    mean, low, high = line["finetune - joint"]["ndcg@10"]
    assert mean == pytest.approx(difference) and low <= mean <= high
    assert "finetune - joint" in stage_text(result)


@pytest.mark.parametrize("stage", ["finetune:xx", "alone:da"])
def test_a_language_without_rows_is_told_before_anything_is_trained(readers, tmp_path, monkeypatch, stage):
    monkeypatch.setattr(XLingTrainer, "fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(DataError, match=f"stages: {stage}: .*no row of them; its languages are de, fr"):
        _run(readers, stages=["joint", "alone:fr", stage])
    assert not (tmp_path / "saved").exists() or not list((tmp_path / "saved").iterdir())


def test_fine_tuning_starts_from_joint_at_a_smaller_rate_and_validates_on_its_language(readers):
    folder = Path(_run(readers, epochs=1)["run_dir"])
    joint, tuned = (recbole_xling.load_run(folder / name) for name in ("joint", "finetune-fr"))
    assert tuned.config["learning_rate"] == pytest.approx(joint.config["learning_rate"] / 10)
    assert tuned.config["l2_sp"] > 0 and tuned.config["languages"] == ["fr"]
    before, after = (_weights(folder / name) for name in ("joint", "finetune-fr"))
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 0.05
    for part in ("valid_data", "test_data"):
        pairs = []
        for run in (joint, tuned):
            table = getattr(run, part)._dataset.inter_feat
            users, items = (run.dataset.field2id_token[f][table[f].numpy()] for f in ("user_id", "item_id"))
            pairs.append(set(zip(users.tolist(), items.tolist(), strict=True)))
        assert pairs[1] == {pair for pair in pairs[0] if int(pair[0][1:]) >= 25}
    # the model counts items as joint did, its loader trains on French readers alone
    np.testing.assert_array_equal(tuned.train_data._dataset.train_item_counts,
                                  joint.train_data._dataset.train_item_counts)  # fmt: skip
    users = {str(u) for batch in tuned.train_data for u in tuned.dataset.id2token("user_id", batch["user_id"].numpy())}
    assert users and all(int(user[1:]) >= 25 for user in users)


def test_the_learning_rate_of_a_stage_is_the_maps_as_well(readers, of_a_tower):
    stages = [{"joint": {"learning_rate": 0.03}}, "refit", {"finetune:fr": {"learning_rate": 0.01}}]
    folder = Path(recbole_xling.run("XLingTwoTower", "small", config_dict={**of_a_tower, "stages": stages})["run_dir"])
    alone = {**of_a_tower, "stages": None, "learning_rate": 0.03}
    plain = _weights(recbole_xling.run("XLingTwoTower", "small", config_dict=alone)["run_dir"])
    assert all(bool((value == plain[name]).all()) for name, value in _weights(folder / "joint").items())
    rates = {name: recbole_xling.load_run(folder / name).config for name in ("refit", "finetune-fr")}
    assert rates["refit"]["learning_rate"] == 0.03 and rates["finetune-fr"]["learning_rate"] == 0.01
    assert all("encoder.projection" not in config["learning_rates"] for config in rates.values())
    assert rates["finetune-fr"]["learning_rates"]["user_tower"] == pytest.approx(0.0001)


def test_rates_that_were_chosen_for_parts_stay_whatever_rate_a_stage_has(readers, of_a_tower):
    chosen = {"learning_rates": {"encoder.projection": 0.05}, "stages": [{"joint": {"learning_rate": 0.03}}, "refit"]}
    folder = Path(recbole_xling.run("XLingTwoTower", "small", config_dict={**of_a_tower, **chosen})["run_dir"])
    for name in ("joint", "refit"):
        config = recbole_xling.load_run(folder / name).config
        assert (config["learning_rate"], config["learning_rates"]) == (0.03, {"encoder.projection": 0.05})
    assert [stage["folder"] for stage in recbole_xling.run(config_dict={"resume": str(folder)})["stages"]] == [
        *("joint", "refit")
    ]


def test_refitting_says_where_a_schedule_goes_by_its_own_epochs(readers, caplog):
    settings = {**readers, "stages": ["joint", "refit"], "epochs": 4, "lr_schedule": "cosine", "stopping_step": 1}
    best = load_checkpoint(Path(_run(settings)["run_dir"]) / "joint" / "model.pt")["epoch"]
    told = f"refit: lr_schedule goes by the {best + 1} epochs of refit, and not by the 4 of joint"
    assert (told in caplog.text) == (best + 1 < 4)


def test_refitting_trains_on_the_validation_rows_as_well_for_as_long_as_was_best(readers):
    settings = {**readers, "stages": [{"joint": {"learning_rate": 0.01}}, "refit"], "epochs": 3}
    folder = Path(_run(settings)["run_dir"])
    best = load_checkpoint(folder / "joint" / "model.pt")["epoch"]
    refit = recbole_xling.load_run(folder / "refit")
    assert load_checkpoint(folder / "refit" / "model.pt")["epoch"] == best
    assert refit.config["epochs"] == best + 1 and refit.config["learning_rate"] == 0.01
    assert not len(refit.valid_data)
    by_hand = _run({**readers, "stages": None}, learning_rate=0.01, train_on_validation=True, epochs=best + 1)
    written = json.loads((folder / "refit" / "result.json").read_text())
    assert by_hand["test"] == written["test"] and written["best_valid"] == {}


def test_killed_stages_go_on_where_they_were_and_finished_ones_are_not_repeated(readers, monkeypatch):
    whole = _run(readers)
    train, done = XLingTrainer._train_epoch, []

    def killed(self, train_data, epoch, **options):
        if self.config["init_from"] and epoch == 2:
            raise Killed
        done.append(Path(self.config["run_dir"]).name)
        return train(self, train_data, epoch, **options)

    separate = f"{readers['checkpoint_dir']}/killed"
    with monkeypatch.context() as patched:
        patched.setattr(XLingTrainer, "_train_epoch", killed)
        with pytest.raises(Killed):
            _run(readers, run_dir=separate)
    assert done == ["joint"] * 2 + ["finetune-fr"] * 2
    before = (Path(separate) / "joint" / "model.pt").stat()
    moved = Path(separate).rename(f"{separate}-moved")  # folders of earlier stages are found there
    calls = []
    monkeypatch.setattr(XLingTrainer, "_train_epoch", lambda *a, **o: calls.append(a[2]) or train(*a, **o))
    resumed = recbole_xling.run(config_dict={"resume": str(moved)})
    assert calls == [2, 0, 1]
    assert (moved / "joint" / "model.pt").stat().st_mtime_ns == before.st_mtime_ns
    for one, other in zip(resumed["stages"], whole["stages"], strict=True):
        assert one["test"] == other["test"] and one["best_valid"] == other["best_valid"]
    assert resumed["languages"] == whole["languages"]
    again = recbole_xling.run(config_dict={"resume": str(moved)})
    assert again == resumed and len(calls) == 3


def test_stages_that_are_going_on_are_not_resumed_by_another_process(readers):
    folder = Path(_run(readers)["run_dir"])
    before = sorted(path for path in folder.rglob("*"))
    with in_use(folder), pytest.raises(CheckpointError, match="is going on in another process"):
        recbole_xling.run(config_dict={"resume": str(folder)})
    assert sorted(path for path in folder.rglob("*")) == before


def test_a_stage_with_other_settings_runs_again_and_so_do_those_that_start_from_it(readers):
    folder = Path(_run(readers)["run_dir"])
    stages = ["joint", {"finetune:fr": {"epochs": 1}}, "alone:fr"]
    again = recbole_xling.run(config_dict={"resume": str(folder), "stages": stages})
    assert [stage["folder"] for stage in again["stages"]] == ["joint", "finetune-fr-2", "alone-fr"]
    stages = [{"joint": {"hidden_size": 8}}, *STAGES[1:]]  # which changes the model of all stages
    again = recbole_xling.run(config_dict={"resume": str(folder), "stages": stages})
    assert [stage["folder"] for stage in again["stages"]] == ["joint-2", "finetune-fr-3", "alone-fr-2"]


def test_results_of_before_are_set_aside_until_all_stages_have_new_ones(readers, monkeypatch):
    folder = Path(_run(readers)["run_dir"])
    train = XLingTrainer._train_epoch

    def killed(self, train_data, epoch, **options):
        if self.config["init_from"]:
            raise Killed
        return train(self, train_data, epoch, **options)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(XLingTrainer, "_train_epoch", killed)
        recbole_xling.run(config_dict={"resume": str(folder), "learning_rate": 0.05})
    assert not (folder / "stages.json").exists() and (folder / "stages.stale.json").is_file()
    recbole_xling.run(config_dict={"resume": str(folder)})
    assert (folder / "stages.json").is_file() and not (folder / "stages.stale.json").exists()


def test_a_stage_runs_again_after_the_one_it_starts_from_was_trained_on(readers):
    first = _run(readers, stages=["joint", {"finetune:fr": {"epochs": 1}}])
    folder = first["run_dir"]
    longer = len(json.loads((Path(folder) / "joint" / "result.json").read_text())["seconds"]["epochs"]) + 3
    recbole_xling.run(arguments=[f"--resume={folder}/joint", f"--epochs={longer}"])
    again = recbole_xling.run(
        arguments=[f"--resume={folder}", f"--stages=[{{joint: {{epochs: {longer}}}}}, {{finetune:fr: {{epochs: 1}}}}]"]
    )
    fresh = _run(readers, stages=[{"joint": {"epochs": longer}}, {"finetune:fr": {"epochs": 1}}])
    assert again["languages"] == fresh["languages"]


def test_changed_data_are_trained_on_again(readers):
    folder = Path(_run(readers, stages=["joint"])["run_dir"])
    file = Path(readers["data_path"]) / "small" / "small.inter"
    file.write_text(file.read_text() + "u1\ti1\t1\t99\n")
    assert recbole_xling.run(config_dict={"resume": str(folder)})["stages"][0]["folder"] == "joint-2"


def test_another_encoder_of_the_same_name_is_trained_with_again(readers, monkeypatch):
    first = _run(readers, stages=["joint", "refit"])
    monkeypatch.setattr(HashingEncoder, "identity", {"backend": "hashing", "scheme": 2})
    again = recbole_xling.run(config_dict={"resume": first["run_dir"]})
    assert [stage["folder"] for stage in first["stages"] + again["stages"]] == ["joint", "refit", "joint-2", "refit-2"]


def test_a_failing_stage_leaves_the_finished_ones(readers, caplog, monkeypatch):
    folder = f"{readers['checkpoint_dir']}/failing"
    train = XLingTrainer._train_epoch

    def failing(self, train_data, epoch, **options):
        if self.config["init_from"]:
            raise DataError("the disk is gone")
        return train(self, train_data, epoch, **options)

    with monkeypatch.context() as patched, pytest.raises(DataError, match="disk is gone"), caplog.at_level("WARNING"):
        patched.setattr(XLingTrainer, "_train_epoch", failing)
        _run(readers, run_dir=folder, stages=["joint", "finetune:fr"])
    assert (Path(folder) / "joint" / "result.json").is_file() and not (Path(folder) / "finetune-fr").exists()
    assert f"--resume={Path(folder).resolve()}" in caplog.text
    assert len(recbole_xling.run(config_dict={"resume": folder, "stages": ["joint"]})["stages"]) == 1
    with pytest.raises(DataError):
        _run(readers, run_dir=f"{folder}-at-once", stages=["alone:sv"])
    assert not Path(f"{folder}-at-once").exists()


def test_a_foreign_folder_of_stages_runs_no_code(readers):
    folder = Path(_run(readers, stages=["joint"])["run_dir"])
    config = folder / "config.yaml"
    foreign = "- joint:\n    encoder_options: {trust_remote_code: true}"
    config.write_text(config.read_text().replace("- joint", foreign))
    with pytest.raises(ConfigError, match="trust_remote_code"):
        recbole_xling.run(config_dict={"resume": str(folder)})


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["jiont"], "Did you mean 'joint'"),
        (["refit", "joint"], "refit needs the best epoch of joint, which must come before it"),
        (["finetune:fr", "joint"], "must come before"),
        (["joint", "joint"], "twice"),
        (["joint", "finetune"], "finetune:<language>"),
        (["joint:fr"], "no language"),
        (["joint", "pretrain"], "must be the first"),
        ([{"joint": {"resume": "x"}}], "cannot set resume"),
        ([{"joint": 3}], "a stage is a name"),
        ("joint", "must be a list"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(ConfigError, match=message):
        read_stages(stages)


def test_a_wrong_setting_of_a_late_stage_is_refused_before_anything_is_trained(readers):
    folder = Path(readers["checkpoint_dir"]) / "none"
    with pytest.raises(ConfigError, match="learning_rate"):
        _run(readers, run_dir=str(folder), stages=["joint", {"finetune:fr": {"learnig_rate": 1}}])
    assert not folder.exists()


def test_rows_that_differ_are_not_compared(caplog):
    rows = pl.DataFrame({"user_id": ["a", "b"], "target_item": ["1", "2"], "ndcg@10": [0.5, 1.0]})
    table = language_table({"joint": rows, "finetune:fr": rows[1:], "alone:de": rows[:1]}, ["ndcg@10"])
    assert table["fr"]["joint"]["ndcg@10"] == 1.0 and "alone" not in table["fr"]
    table = language_table({"finetune:fr": rows, "alone:fr": rows[:1]}, ["ndcg@10"])
    assert table == {"fr": {"n": 2, "finetune": {"ndcg@10": 0.75}}}
    assert "alone was not tested on the rows of finetune:fr" in caplog.text
    table = language_table({"joint": rows[:1], "alone:fr": rows}, ["ndcg@10"])
    assert table == {"fr": {"n": 2, "alone": {"ndcg@10": 0.75}}}
    assert "joint was not tested on the rows of alone:fr" in caplog.text


def test_a_language_that_joint_does_not_know_has_its_stages_without_it(readers):
    result = _run(readers, stages=[{"joint": {"languages": ["de"]}}, "finetune:fr", "alone:fr"])
    assert result["languages"]["fr"].keys() == {"n", "finetune", "alone"} and result["languages"]["fr"]["n"] == 15
    assert recbole_xling.run(config_dict={"resume": result["run_dir"]}) == result


def test_stages_may_have_metrics_of_their_own(readers, caplog):
    own = {"topk": [3], "valid_metric": "NDCG@3"}
    with caplog.at_level("INFO"):
        result = _run(readers, stages=["joint", {"finetune:fr": own}])
    assert result["languages"] == {} and "No table of languages: the stages have no metric in common" in caplog.text
    lines = {line.split()[0]: line.split()[1:] for line in stage_text(result).splitlines()}
    assert lines["joint"] == ["40", f"{result['stages'][0]['test']['ndcg@10']:.4f}"] and lines["finetune:fr"] == ["15"]


def test_languages_are_those_that_stages_mean(readers, monkeypatch):
    stages = [{"joint": {"language_of": "target"}}, "finetune:en"]  # which nobody reads, but items are in
    result = _run(readers, stages=stages, text_view="display")
    assert result["languages"]["en"]["n"] > 0
    monkeypatch.setattr(XLingTrainer, "fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(DataError, match=r"stages: finetune:fr: .*no row of them"):
        split = {"LT": {"source": ["de"], "target": ["en"], "by": "item"}}
        _run(readers, stages=[{"joint": {"eval_args": {"split": split}, "language_of": "target"}}, "finetune:fr"])


def test_labels_have_no_table_of_languages(readers, caplog):
    rated = {"eval_args": {"split": {"LS": "valid_and_test"}, "mode": "labeled"}, "threshold": {"rating": 3}}
    rated |= {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC"}
    known = {key: value for key, value in readers.items() if not key.startswith(("hidden", "inner", "attn", "topk"))}
    with caplog.at_level("INFO"):
        result = recbole_xling.run("XLingMLP", "small", config_dict={**known, **rated, "stages": ["joint", "alone:fr"]})
    assert result["languages"] == {} and "No table of languages: auc, logloss" in caplog.text
    assert "alone:fr" in stage_text(result)


def test_the_command_line_prints_the_table(readers, tmp_path, capsys):
    file = tmp_path / "stages.yaml"
    file.write_text(json.dumps({**readers, "epochs": 1, "model": "LLMSASRec", "dataset": "small"}))
    assert main(["run", f"--config_files={file}"]) == 0
    printed = capsys.readouterr().out
    assert "finetune:fr" in printed and "joint - alone" in printed and "Folder: " in printed
