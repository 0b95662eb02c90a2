"""What an item's score loses without each item of a history, against scores taken one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import recbole_xling
from recbole_xling.cli import main as cli
from recbole_xling.errors import ConfigError
from recbole_xling.quick_start.build import load_run
from recbole_xling.serve import explanations
from recbole_xling.testing import small_settings, write_small_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("explain")
    write_small_dataset(root / "data")
    settings = {**small_settings(root), "hidden_size": 8, "inner_size": 8, "epochs": 1}
    return recbole_xling.run("LLMSASRec", "small", config_dict=settings)["run_dir"]


def lead(run, history, item):
    scores = run.recommend_histories([history], 30, exclude_seen=False).set_index("item")["score"]
    assert len(scores) == 30
    return scores[item] - scores.mean()


def test_worths_are_what_the_lead_loses_without_an_item(folder):
    run = load_run(folder)
    history = ["i1", "i2", "i3", "i2"]
    found = run.explain("i7", history=[*history, "gone"])
    assert found.lead == pytest.approx(lead(run, history, "i7"), abs=1e-5)
    worths = {part.item: part.worth for part in found.parts}
    for left_out in ("i1", "i2", "i3"):
        rest = [item for item in history if item != left_out]
        assert worths[left_out] == pytest.approx(found.lead - lead(run, rest, "i7"), abs=1e-5)
    assert len(worths) == 3 and [part.worth for part in found.parts] == sorted(worths.values(), reverse=True)
    assert found.notes == ["1 of 5 items of the history are unknown ('gone')"]
    assert json.loads(json.dumps(found.record()))["parts"][0]["item"] == found.parts[0].item


def test_only_what_the_model_reads_is_left_out_and_users_have_their_histories(folder):
    run = load_run(folder)  # MAX_ITEM_LIST_LENGTH is 8
    long = [f"i{item}" for item in range(12)]
    assert {part.item for part in run.explain("i20", history=long).parts} == set(long[-8:])
    own = run.recommender.users.history(run.recommender.users.number["u3"])
    expected = {run.recommender.catalog.tokens[item] for item in own[-8:]}
    assert {part.item for part in run.explain("i20", user="u3").parts} == expected


def test_the_sentence_names_what_speaks_for_the_item_in_the_language_asked_for(folder):
    run = load_run(folder)
    found = run.explain("i7", history=["i1", "i2", "i3"], language="de")
    reasons = [part.title for part in found.parts if part.worth > 0]
    assert found.sentence.startswith(f"„{found.title}“ wird vor allem wegen „{reasons[0]}“")
    single = run.explain("i7", history=["i1"])
    assert single.parts == [] and "Nothing" not in single.sentence  # nothing was measured
    assert single.notes == ["the history is one item, without which LLMSASRec cannot score"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"item": "gone", "user": "u1"}, "no item 'gone'"),
        ({"item": "i1", "user": "nobody"}, "needs a history with a known item"),
        ({"item": "i1", "user": "u1", "language": "tlh"}, "unknown language of sentences 'tlh'"),
    ],
)
def test_what_cannot_be_explained_is_an_error(folder, words, message):
    with pytest.raises(ConfigError, match=message):
        load_run(folder).explain(**words)


def test_the_command_line_explains(folder, capsys):
    words = ["recommend", str(folder), "--history", "i1,i2,i3", "--explain", "i7", "--in", "fr"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    found = load_run(folder).explain("i7", history=["i1", "i2", "i3"], language="fr")
    assert out.splitlines()[0] == found.sentence
    assert [line.split()[0] for line in out.splitlines()[5:]] == [part.item for part in found.parts]
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lead"] == pytest.approx(found.lead)
    assert np.isfinite(found.lead)


def test_attention_is_that_of_the_last_position(folder):
    run = load_run(folder)
    history = ["i1", "i2", "i3", "i2"]
    found = {part.item: part.attention for part in run.explain("i7", history=history).parts}
    assert sum(found.values()) == pytest.approx(1, abs=1e-5) and min(found.values()) > 0
    model, number = run.model, run.recommender.catalog.number
    with torch.no_grad():  # the mean of layers and heads, by hand
        encoder, of_layers = model.sequence_encoder, []
        x = model.item_table()[[number[item] for item in history]] + encoder.position_embedding.weight[:4]
        x = encoder.input_norm(x)[None]
        for layer in encoder.layers:
            heads = layer.attention.n_heads
            packed = layer.attention.query_key_value(x[0]).view(4, 3, heads, -1)  # (L, 3, heads, size)
            match = torch.einsum("hd,lhd->hl", packed[-1, 0], packed[:, 1]) / packed.shape[-1] ** 0.5
            of_layers.append(match.softmax(dim=1).mean(dim=0))
            x = layer(x)
        weights = torch.stack(of_layers).mean(dim=0)
    expected = {"i1": weights[0], "i2": weights[1] + weights[3], "i3": weights[2]}
    assert found == pytest.approx({item: float(share) for item, share in expected.items()}, abs=1e-5)


def test_neighbors_are_the_most_similar_items_of_other_languages(folder):
    run = load_run(folder)
    found = run.explain("i7", history=["i1", "i2"], language="fr")
    others = run.similar_items("i7", 29)
    others = others[others["language"] != found.language]
    assert [item.item for item in found.neighbors] == others["item"].tolist()[:3]
    assert found.language not in {item.language for item in found.neighbors}
    assert "Semblable dans d’autres langues : « " in found.sentence


def test_words_are_worth_what_an_item_loses_without_them(folder):
    run = load_run(folder)
    item = run.recommender.catalog.number["i7"]
    title = run.recommender.catalog.titles[0][item]
    found = run.explain("i7", history=["i1", "i2"], words=True)
    assert sorted(word.word for word in found.words) == sorted(title.split()) and len(found.words) > 1
    user = run.user_vectors([["i1", "i2"]])[0]
    for word in found.words:
        rest = " ".join(part for part in title.split() if part != word.word)
        with_it, without = run.encode_items([title, rest], [found.language] * 2) @ user
        assert word.worth == pytest.approx(with_it - without, abs=1e-5)
    assert [word.worth for word in found.words] == sorted((word.worth for word in found.words), reverse=True)
    best = found.words[0].word
    assert best in found.sentence.split("Words of its title")[1]
    assert run.explain("i7", history=["i1", "i2"]).words == []


def test_scripts_without_spaces_are_read_letter_by_letter():
    words = explanations._WORD.findall("Wok 中華鍋 30cm いい、ดี")
    assert words == ["Wok", "中", "華", "鍋", "30cm", "い", "い", "ด", "ี"]


def test_models_that_read_no_texts_explain_no_words(folder, tmp_path):
    write_small_dataset(tmp_path / "data")
    settings = {**small_settings(tmp_path), "hidden_size": 8, "inner_size": 8, "epochs": 1}
    settings |= {"item_representation": "none"}
    run = load_run(recbole_xling.run("LLMSASRec", "small", config_dict=settings)["run_dir"])
    assert run.explain("i7", history=["i1", "i2"]).parts
    with pytest.raises(ConfigError, match="takes no items that training did not have"):
        run.explain("i7", history=["i1", "i2"], words=True)
