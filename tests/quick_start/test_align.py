"""Correspondence of runs and encoders: which texts are paired, by whose vectors, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shop import write_shop

from recbole_xling import align
from recbole_xling.cli.main import main
from recbole_xling.data.catalog import catalog_of
from recbole_xling.encode import create_encoder
from recbole_xling.errors import CheckpointError, ConfigError, DataError, EncoderError
from recbole_xling.evaluator.correspondence import Side, correspondence
from recbole_xling.quick_start.align import _center
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.export import merge_run
from recbole_xling.quick_start.train import run
from recbole_xling.testing import make_tiny_encoder, small_settings


@pytest.fixture
def settings(tmp_path):
    folder = write_shop(tmp_path / "data")
    path = folder / "shop.itemtext.jsonl"  # the French name of one product is the German one
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    german = next(row for row in rows if row["item_id"] == "i5" and row["language"] == "de")
    for row in rows:
        if row["item_id"] == "i5" and row["language"] == "fr":
            row["fields"] = {"title": german["fields"]["title"].upper()}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reader = {"text_view": "reader", "reader_vectors": "reader"}
    return {**small_settings(tmp_path), "load_col": None, "epochs": 1, **reader}


def _encoder(tmp_path):
    name = str(make_tiny_encoder(tmp_path / "encoder"))
    return {"encoder": name, "encoder_options": None, "peft": "lora", "lora_rank": 2, "encoder_max_length": 24}


@pytest.fixture
def files(tmp_path):
    words = [f"word{n} thing{n % 7}" for n in range(30)]
    for name, lines in (("x.de-en.de", words), ("x.de-en.en", [*words[:20], *(line + " more" for line in words[20:])])):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "x.de-en.de", tmp_path / "x.de-en.en"


def test_of_few_texts_the_whole_mean_is_taken_as_well():
    rng, language = np.random.default_rng(0), np.repeat(["de", "fr"], [3, 5])
    vectors = (rng.normal(size=(8, 4)) + np.repeat([[3.0], [-2.0]], [3, 5], axis=0)).astype(np.float32)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.concatenate([part - part.mean(axis=0) for part in np.split(units, [3])])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(_center(vectors, language), expected, atol=1e-6)


def test_the_items_of_a_run_are_paired_by_the_texts_that_readers_see(settings, capsys):
    folder = run("LLMSASRec", "shop", config_dict={**settings, "hidden_size": 16})["run_dir"]
    result = align(folder, centered=True)
    assert set(result["vectors"]) == {
        *("text_vectors", "item_vectors", "text_vectors_centered", "item_vectors_centered"),
    }
    counts = {(line["from"], line["to"]): (line["n"], line["candidates"]) for line in result["vectors"]["item_vectors"]}
    assert counts == {
        **{("de", "en"): (23, 23), ("en", "de"): (23, 23)},
        **{("de", "fr"): (22, 23), ("fr", "de"): (22, 23)},  # i5 is a candidate, and not asked for
        **{("en", "fr"): (22, 22), ("fr", "en"): (22, 22)},  # neither i0 nor i1
    }
    loaded = load_run(folder)
    catalog = catalog_of(loaded.train_data._dataset)
    texts, row = catalog.model_vectors
    place = {language: view for view, language in enumerate(catalog.readers([]).own, start=1)}
    items = [item for item, token in enumerate(catalog.tokens) if item and token not in ("i0", "i1")]
    sides = [Side(tag, texts[row[place[tag], items]]) for tag in ("en", "fr")]
    expected = correspondence(*sides, seed=loaded.config["seed"])[0]
    assert expected in result["vectors"]["text_vectors"]
    raw, centered = (result["vectors"][name][0]["mean_cosine"] for name in ("text_vectors", "text_vectors_centered"))
    assert abs(centered) < abs(raw)
    kept = json.loads((Path(result["run_dir"]) / "result.json").read_text(encoding="utf-8"))
    assert kept["vectors"] == result["vectors"]
    assert main(["align", folder, "--items", "16"]) == 0
    assert "de to en" in capsys.readouterr().out


def test_a_run_that_shows_one_language_says_how_to_see_more(settings, tmp_path):
    folder = run("XLingTwoTower", "shop", config_dict={**settings, **_encoder(tmp_path), "reader_vectors": "mean"})
    with pytest.raises(DataError, match=r"no two languages have 10 pairs.*found: items in de.*reader_vectors: reader"):
        align(folder["run_dir"])
    found = align(folder["run_dir"], arguments=["--reader_vectors=reader"])["vectors"]["item_vectors"]
    assert {line["from"] for line in found} == {"de", "en", "fr"}


def test_aligned_files_are_read_by_the_encoder_that_a_run_has_tuned(settings, files, tmp_path):
    encoder = _encoder(tmp_path)
    folder = run("XLingTwoTower", "shop", config_dict={**settings, **encoder, "learning_rate": 0.05})["run_dir"]
    cache = {"embedding_cache_dir": str(tmp_path / "cache")}
    tuned = align(folder, [files])["vectors"]["sentence_vectors"]
    merge_run(folder, tmp_path / "merged")
    float32 = {**cache, "encoder_options": {"dtype": "float32"}}
    merged = align(tmp_path / "merged", [files], config_dict=float32)["vectors"]["sentence_vectors"]
    before = align(encoder["encoder"], [files], config_dict=float32)["vectors"]["sentence_vectors"]
    assert [line["n"] for line in tuned] == [10, 10] and tuned[0]["candidates"] == 30
    for of_run, of_folder, of_base in zip(tuned, merged, before, strict=True):
        assert of_run["cosine_pairs"] == pytest.approx(of_folder["cosine_pairs"], abs=1e-4)
        assert of_run["cosine_pairs"] != pytest.approx(of_base["cosine_pairs"], abs=1e-3)


def test_a_named_encoder_and_its_settings(files, tmp_path, capsys):
    words = ["align", "hashing", "--files", *map(str, files), "--output", str(tmp_path / "found.json")]
    assert main([*words, "--encoder_options={'dimension': 64}", f"--embedding_cache_dir={tmp_path / 'cache'}"]) == 0
    told = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["vectors"]["sentence_vectors"]
    sides = [Path(file).read_text(encoding="utf-8").splitlines() for file in files]
    vectors = [create_encoder("hashing", dimension=64).encode(side) for side in sides]
    expected = correspondence(Side("de", vectors[0]), Side("en", vectors[1]), np.arange(30) >= 20, seed=2020)
    assert found == expected
    assert f"{expected[0]['accuracy']:.3f}" in told


def test_a_line_ends_at_a_line_break_alone(files):
    def sizes() -> list[tuple[int, int]]:
        return [(line["n"], line["candidates"]) for line in align("hashing", [files])["vectors"]["sentence_vectors"]]

    expected = sizes()
    for path in files:
        first, rest = path.read_text(encoding="utf-8").split(" ", 1)
        path.write_bytes(f"{first}\u2028{rest}".replace("\n", "\r\n").encode())
    assert sizes() == expected == [(10, 30)] * 2


def test_what_cannot_be_used_is_refused(settings, files, tmp_path, capsys):
    with pytest.raises(CheckpointError, match="an encoder needs aligned files"):
        align("hashing")
    assert main(["align", "hashing", "--files", str(files[0])]) == 2
    assert "pairs of files, not 1" in capsys.readouterr().err
    with pytest.raises(EncoderError, match="unknown encoder"):
        align("hashin", [files])
    (tmp_path / "short.en").write_text("one\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"30 lines and .* 1: equal lines"):
        align("hashing", [(files[0], tmp_path / "short.en")])
    with pytest.raises(DataError, match="two pairs of files are in en and de"):
        align("hashing", [files, files[::-1]])
    with pytest.raises(DataError, match="cannot be read"):
        align("hashing", [(files[0], tmp_path / "gone.en")])
    (tmp_path / "latin.en").write_bytes("é\n".encode("latin-1") * 30)
    with pytest.raises(DataError, match="cannot be read"):
        align("hashing", [(files[0], tmp_path / "latin.en")])
    with pytest.raises(DataError, match=r"found: x\.de-en\.de-x\.de-en\.de 0"):
        align("hashing", [(files[0], files[0])])
    folder = run("BPR", "shop", config_dict=small_settings(tmp_path))["run_dir"]
    with pytest.raises(CheckpointError, match="only XLingTwoTower tunes an encoder"):
        align(folder, [files])
    with pytest.raises(ConfigError, match="at least one item"):
        align(folder, most_items=0)
    with pytest.raises(ConfigError, match=r"no folder .*gone' to write"):
        align("hashing", [files], output=tmp_path / "gone" / "found.json")
    with pytest.raises(ConfigError, match="leave out encoder, encoder_max_length"):
        align(folder, [files], arguments=["--encoder=hashing", "--encoder_max_length=3", "--seed=1"])
