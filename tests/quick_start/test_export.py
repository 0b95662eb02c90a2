"""A merged encoder: sentence-transformers and transformers load it and return the item tower's vectors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModel

from recbole_xling.encode.hub import find_model
from recbole_xling.errors import CheckpointError, ConfigError, XlingError
from recbole_xling.model.text_encoder.encoder import TextEncoder
from recbole_xling.quick_start import export as merge
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.export import merge_run, merge_to_folder
from recbole_xling.quick_start.train import run
from recbole_xling.trainer.checkpoint import load_trainable

_Build = Callable[..., TextEncoder]
_TEXTS = ["the film about a shark", "", "der pate am strand ein hai " * 5, "love"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"peft": "adalora", "pooling": "cls", "adapter_layers": 2},
        {"peft": "ia3", "embedding_size": 6, "encoder_prompt": "query: "},
        {"peft": "full", "pooling": "last", "encoder_max_length": 9},
        {"peft": "frozen", "embedding_size": 6, "embedding_l2_sp": 0.1, "encoder_prompt": "ein "},
    ],
)
def test_sentence_transformers_returns_the_vectors_of_the_merged_encoder(
    build_encoder: _Build, stir: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = build_encoder(**settings)
    stir(encoder)
    merge_to_folder(encoder, tmp_path / "runs" / "merged")
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path / "runs" / "merged"), device="cpu")
    vectors = torch.from_numpy(loaded.encode(_TEXTS))
    tokens = encoder.tokenize(_TEXTS)
    torch.testing.assert_close(vectors, encoder.encode_all(tokens)[tokens.text_of_row], atol=1e-5, rtol=0)
    assert loaded.max_seq_length == encoder.config.encoder_max_length
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["merged"]


def test_a_merged_encoder_can_be_tuned_again(build_encoder: _Build, stir: Any, tmp_path: Path) -> None:
    encoder = build_encoder()
    stir(encoder)
    merge_to_folder(encoder, tmp_path / "merged")
    assert type(transformers.AutoModel.from_pretrained(tmp_path / "merged")) is transformers.XLMRobertaModel
    again = build_encoder(folder=tmp_path / "merged", peft="ia3")
    tokens = encoder.tokenize(_TEXTS)
    torch.testing.assert_close(again.encode_all(again.tokenize(_TEXTS)), encoder.encode_all(tokens), atol=1e-5, rtol=0)
    assert not find_model(tmp_path / "merged").plain, "it brings its own pooling"


def test_what_sentence_transformers_cannot_compute_is_not_merged(build_encoder: _Build, tmp_path: Path) -> None:
    encoder = build_encoder(peft="frozen", embedding_size=6, embedding_mlp_size=4)
    with pytest.raises(ConfigError, match="no perceptron beside the learned map"):
        merge_to_folder(encoder, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_merging_into_a_filled_folder_overwrites_nothing(build_encoder: _Build, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    merge_to_folder(build_encoder(), tmp_path / "merged")  # an empty folder is filled
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(ConfigError, match=r"merged' exists and is not empty"):
        merge_to_folder(build_encoder(), tmp_path / "merged")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_merging_on_a_full_disk_leaves_nothing_behind(
    build_encoder: _Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_disk: Callable[..., Any]
) -> None:
    monkeypatch.setattr(merge, "_write_json", full_disk)
    with pytest.raises(XlingError, match=r"cannot write the encoder to .*merged.*No space left.*Free space"):
        merge_to_folder(build_encoder(), tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_loading_a_damaged_encoder_names_its_folder(build_encoder: _Build, tiny_encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "broken"))
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(XlingError, match=r"cannot load the encoder '.*broken'"):
        build_encoder(folder=folder)


@pytest.mark.usefixtures("cpu")
def test_a_run_is_merged_without_its_data(
    small_dataset: Any, settings: dict, tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = small_dataset()
    changed = {key: value for key, value in settings.items() if key not in ("hidden_size", "inner_size")}
    changed |= {
        "encoder": str(tiny_encoder),
        "encoder_options": None,
        "encoder_max_length": 24,
        "epochs": 1,
        "peft": "lora",
    }
    result = run("XLingTwoTower", "small", config_dict={**changed, "learning_rate": 0.01})
    encoder = load_run(result["run_dir"]).model.encoder
    shutil.rmtree(folder)
    merge_run(result["run_dir"], tmp_path / "merged")
    plain = AutoModel.from_pretrained(tmp_path / "merged").eval()
    tokens = encoder.tokenize(_TEXTS[:1])
    ids, mask = tokens.batch(torch.tensor([0]))
    with torch.no_grad():
        vector = plain(input_ids=ids, attention_mask=mask).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(torch.nn.functional.normalize(vector), encoder.encode_all(tokens), atol=1e-5, rtol=0)


def test_merging_a_run_without_a_tuned_encoder_is_refused(small_dataset: Any, settings: dict, tmp_path: Path) -> None:
    small_dataset()
    result = run("LLMSASRec", "small", config_dict={**settings, "epochs": 1})
    with pytest.raises(CheckpointError, match="LLMSASRec"):
        merge_run(result["run_dir"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("part", ["model", "config", "other_parameter"])
def test_a_checkpoint_that_lacks_something_is_named(tmp_path: Path, part: str) -> None:
    state = {"model": "XLingTwoTower", "config": {}, "other_parameter": {}, "state_dict": {}}
    del state[part]
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is damaged"):
        merge_run(tmp_path, tmp_path / "merged")


def test_weights_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weight is no tensor"):
        load_trainable(torch.nn.Linear(1, 1), {"weight": [1.0], "bias": torch.zeros(1)}, tmp_path / "model.pt")
