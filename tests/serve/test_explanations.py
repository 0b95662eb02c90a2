"""What an item's score loses without each item of a history, against scores taken one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest

import recbole_xling
from recbole_xling.cli import main as cli
from recbole_xling.errors import ConfigError
from recbole_xling.quick_start.build import load_run
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
    assert single.parts == [] and single.sentence.startswith(f"Nothing in the history speaks for “{single.title}”.")
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
