"""Probing runs: which vectors are probed, and what is left on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shop import write_shop

from recbole_xling import probe
from recbole_xling.cli.main import main
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.quick_start.train import run
from recbole_xling.testing import make_tiny_encoder, small_settings


@pytest.fixture
def settings(tmp_path):
    write_shop(tmp_path / "data")
    return {**small_settings(tmp_path), "load_col": None, "epochs": 1, "text_view": "reader"}


@pytest.mark.parametrize("model", ["LLMSASRec", "XLingTwoTower"])
def test_each_text_of_an_item_is_probed_once_before_and_after(settings, tmp_path, capsys, model):
    given = {**settings, "reader_vectors": "reader"}
    if model == "XLingTwoTower":
        given |= {"encoder": str(make_tiny_encoder(tmp_path / "encoder")), "encoder_options": None}
        given |= {"encoder_max_length": 24, "peft": "lora", "lora_rank": 2}
    else:  # a vector per language is added: nothing is easier to tell
        given |= {"hidden_size": 16, "item_language_embedding": True, "initializer_range": 1.0}
    folder = run(model, "shop", config_dict=given)["run_dir"]
    found = probe(folder)
    assert found["languages"] == {"de": 24, "en": 23, "fr": 23} and found["items"] == 24
    assert found["majority"]["accuracy"] == pytest.approx(24 / 70)
    assert found["text_vectors"]["accuracy"] > 0.6  # the words are others
    assert 0 <= found["item_vectors"]["macro_f1"] <= 1
    if model == "LLMSASRec":
        assert found["item_vectors"]["accuracy"] > 0.9
    assert json.loads((Path(found["run_dir"]) / "result.json").read_text())["item_vectors"] == found["item_vectors"]
    assert main(["probe", folder, "--items", "12"]) == 0
    told = capsys.readouterr().out
    assert "item vectors" in told and "majority" in told and "of 12 items" in told


def test_texts_that_the_model_reads_in_one_language_are_not_told_apart(settings):
    folder = run("LLMSASRec", "shop", config_dict={**settings, "hidden_size": 16, "text_view": "language:de"})[
        "run_dir"
    ]
    with pytest.raises(DataError, match="found: de 24"):
        probe(folder)


def test_a_run_that_cannot_be_probed_says_why(settings):
    folder = run("LLMSASRec", "shop", config_dict={**settings, "hidden_size": 16})["run_dir"]
    with pytest.raises(DataError, match="found: de 24"):
        probe(folder)
    with pytest.raises(ConfigError, match="at least one item"):
        probe(folder, most_items=0)
    pop = run("Pop", "shop", config_dict={key: value for key, value in settings.items() if key != "text_view"})
    with pytest.raises(ConfigError, match="Pop has no vectors"):
        probe(pop["run_dir"])
