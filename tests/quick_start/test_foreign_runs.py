"""A run folder may be anybody's: its settings run no code and write nowhere else."""

from __future__ import annotations

import shutil

import pytest
import torch
import yaml

import recbole_xling
from recbole_xling.data import catalog
from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.quick_start import export
from recbole_xling.quick_start import trained as trained_runs
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.train import configure
from recbole_xling.quick_start.trained import refuse_code
from recbole_xling.trainer.checkpoint import load_checkpoint
from recbole_xling.utils.plain_data import from_plain, to_plain


@pytest.fixture
def foreign(trained, tmp_path):
    """Return a function that copies a run folder and changes settings in all its files."""

    def make(**changed):
        folder = shutil.copytree(trained(), tmp_path / "foreign")
        for name in ("model.pt", "last.pt"):
            state = load_checkpoint(folder / name)
            state["config"] = to_plain({**from_plain(state["config"]), **changed})
            torch.save(state, folder / name)
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**settings, **changed}))
        return folder

    return make


@pytest.mark.parametrize("options", [{"trust_remote_code": True}, {"model_kwargs": {"trust_remote_code": "yes"}}])
def test_code_of_an_encoder_runs_only_if_the_users_own_settings_say_so(foreign, options):
    folder = foreign(encoder_options=options)
    uses = (
        load_run,
        recbole_xling.evaluate_run,
        lambda run: recbole_xling.evaluate_run(run, "sud"),
        lambda run: recbole_xling.run(arguments=[f"--resume={run}"]),
    )
    for use in uses:
        with pytest.raises(ConfigError, match=r"by encoder_options: .*trust_remote_code.* give that setting yourself"):
            use(folder)
    own = {"dimension": 32}
    assert load_run(folder, encoder_options=own).config["encoder_options"] == own
    words = [f"--encoder_options={own}"]
    assert recbole_xling.evaluate_run(folder, arguments=words)["n_test"] == 30
    assert recbole_xling.run(config_dict={"resume": str(folder), "encoder_options": own})["n_test"] == 30


@pytest.mark.parametrize(
    "stored",
    [
        {"teacher": "__import__('os').getcwd()"},  # KD_DAGFM
        {"n_cate": 2},  # LDiffRec
        {"encoder_options": {"model_kwargs": {"weights_only": False}}},
        {"encoder_options": {"model_kwargs": {"attn_implementation": "somebody/kernels"}}},
        {"encoder_options": {"model_kwargs": "weights_only"}},
    ],
)
def test_settings_that_are_run_as_code_are_refused(stored):
    with pytest.raises(ConfigError, match=f"by {next(iter(stored))}"):
        refuse_code("run", stored, {})
    refuse_code("run", stored, stored)


@pytest.mark.parametrize("text", ["{'trust_remote_code': True}", "{trust_remote_code: yes}"])
def test_a_text_that_reads_as_such_settings_is_refused_too(foreign, text):
    with pytest.raises(ConfigError, match="encoder_options"):
        load_run(foreign(encoder_options=text))
    with pytest.raises(ConfigError, match="would run code"):
        refuse_code("run", {"encoder_options": text}, {})


@pytest.mark.parametrize(("key", "text"), [("wandb_project", "no"), ("text_template", "'{title}'")])
def test_texts_among_a_runs_settings_stay_as_they_are(foreign, key, text):
    assert load_run(foreign(**{key: text})).config[key] == text


def test_files_of_weights_are_refused_where_torch_would_unpickle_them(monkeypatch):
    refuse_code("run", {"pre_model_path": "weights.pth"}, {})
    monkeypatch.setattr(trained_runs, "_TORCH_UNPICKLES", True)
    with pytest.raises(ConfigError, match=r"by pre_model_path: weights\.pth"):
        refuse_code("run", {"pre_model_path": "weights.pth"}, {})
    refuse_code("run", {"pre_model_path": None, "warm_up": ""}, {})


@pytest.mark.parametrize("options", [None, {"dimension": 3}, {"model_kwargs": {"file_name": "model.onnx"}}])
def test_settings_of_ordinary_runs_are_not(options):
    refuse_code("run", {"teacher": "CrossNet", "n_cate": 1, "encoder_options": options, "trust_remote_code": True}, {})


def test_no_folder_is_made_where_the_run_kept_its_vectors(foreign, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "user_cache_folder", lambda kind: tmp_path / "own" / kind)
    load_run(foreign(embedding_cache_dir=str(tmp_path / "theirs")))
    assert not (tmp_path / "theirs").exists()
    assert (tmp_path / "own" / "embeddings").is_dir()


def test_merging_makes_no_folder_where_the_run_kept_its_vectors(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(export, "build_encoder", lambda config: built.append(config))
    settings = {"embedding_cache_dir": str(tmp_path / "theirs")}
    torch.save({"model": "XLingTwoTower", "config": to_plain(settings), "state_dict": {}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError):
        export.merge_run(tmp_path, tmp_path / "merged")
    assert built[0]["embedding_cache_dir"] is None


def test_a_resumed_run_sends_nothing_and_makes_no_folder_unless_the_users_own_settings_say_so(
    foreign, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(catalog, "user_cache_folder", lambda kind: tmp_path / "own" / kind)
    folder = foreign(log_wandb=True, embedding_cache_dir=str(tmp_path / "theirs"))
    assert recbole_xling.run(arguments=[f"--resume={folder}"])["n_test"] == 30
    assert "give --log_wandb=True to log again" in caplog.text
    assert not (tmp_path / "theirs").exists()
    own = ["--log_wandb=True", f"--embedding_cache_dir={tmp_path / 'theirs'}"]
    config, _ = configure(arguments=[f"--resume={folder}", *own])
    assert (config["log_wandb"], config["embedding_cache_dir"]) == (True, str(tmp_path / "theirs"))
