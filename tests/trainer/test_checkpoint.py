"""Checkpoint files: damage is noticed, an interruption stays one, and a refusal does not tell how to run code."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_xling.data.identity import DataIdentity
from recbole_xling.errors import CheckpointError
from recbole_xling.quick_start.build import build_trainer, load_run
from recbole_xling.quick_start.train import run
from recbole_xling.trainer import checkpoint


def _equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture
def finished(small_dataset, settings):
    small_dataset()
    return Path(run("LLMSASRec", "small", config_dict={**settings, "epochs": 1})["run_dir"])


def test_a_flipped_bit_is_noticed_or_changes_nothing(finished, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "flipped.pt"
    refused = 0
    for name in ("model.pt", "last.pt"):
        content, want = (finished / name).read_bytes(), checkpoint.load_checkpoint(finished / name)
        for place in rng.integers(len(content), size=150):
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            try:
                assert _equal(checkpoint.load_checkpoint(path), want), f"byte {place} of {name}"
            except CheckpointError:
                refused += 1
    assert refused > 200


@pytest.mark.parametrize("number", [2, "1", None, torch.zeros(3)])
def test_a_format_that_is_not_ours_is_named(tmp_path, number):
    torch.save({"format": number, "state_dict": {}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"has format .*this version reads 1"):
        checkpoint.load_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("written", [0, 1, 5, 20, 60])
def test_an_interruption_while_a_checkpoint_is_written_is_no_full_disk(tmp_path, monkeypatch, written):
    path, save = tmp_path / "last.pt", torch.save
    state = {"state_dict": {str(n): torch.ones(n) for n in range(30)}}
    checkpoint.save_checkpoint(path, state)
    before = path.read_bytes()

    class Interrupted:
        def __init__(self, file):
            self.file, self.left = file, written

        def write(self, content):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return self.file.write(content)

        def flush(self):
            self.file.flush()

    monkeypatch.setattr(torch, "save", lambda content, file: save(content, Interrupted(file)))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_checkpoint(path, {"state_dict": {}, **state})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_disk_that_fills_up_meanwhile_is_named_as_the_cause(tmp_path, monkeypatch, full_disk):
    save = torch.save

    class Full:
        write = flush = staticmethod(full_disk)

    monkeypatch.setattr(torch, "save", lambda content, file: save(content, Full()))
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoint.save_checkpoint(tmp_path / "last.pt", {"state_dict": {}})


def test_a_pickled_checkpoint_is_refused_without_advice_to_run_it(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    torch.save({"state_dict": {}, "x": Evil()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="could run code") as caught:
        checkpoint.load_checkpoint(tmp_path / "model.pt")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# ---- ids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["LLMSASRec", "BPR", "MultiVAE"])
def test_checkpoints_name_the_ids_of_all_token_fields(small_dataset, settings_without_layers, model):
    small_dataset()
    folder = Path(run(model, "small", config_dict=settings_without_layers)["run_dir"])
    loaded = load_run(folder)
    for path in sorted(folder.glob("*.pt")):
        known = DataIdentity.from_state(checkpoint.load_checkpoint(path)["data"])
        assert set(known.vocabulary) == {"user_id", "item_id", "item_language"}
        for field, tokens in known.vocabulary.items():
            assert tokens.tolist() == loaded.dataset.field2id_token[field].tolist()
        assert set(zip(*(part.tolist() for part in known.sample), strict=True))


def test_a_trainer_refuses_a_checkpoint_whose_ids_are_numbered_otherwise(small_dataset, build_small, finished):
    folder = small_dataset()
    head, *rows = (folder / "small.inter").read_text().splitlines()
    (folder / "small.inter").write_text("\n".join([head, *rows[::-1]]) + "\n")
    parts = build_small(epochs=1)
    trainer = build_trainer(parts.config, parts.model)
    with pytest.raises(CheckpointError, match="numbers user_id, item_id otherwise"):
        trainer.evaluate(parts.test_data, model_file=finished / "model.pt")
    trainer.resume_checkpoint(finished / "last.pt")
    with pytest.raises(CheckpointError, match="numbers user_id, item_id otherwise"):
        trainer.fit(parts.train_data, parts.valid_data, saved=False)
