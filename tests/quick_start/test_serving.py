"""What a loaded run recommends: the evaluator's lists, filters, and who it does not know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from shop import write_shop

import recbole_xling
from recbole_xling.data.sequences import EARLIER_LIST
from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.serving_export import export_run
from recbole_xling.serve import load_export
from recbole_xling.trainer.mixin import Evaluation

GENERAL = {"BPR": {}, "NeuMF": {}, "ItemKNN": {}}
SEQUENTIAL = {"LLMSASRec": {}, "HistoryEASE": {}, "ContentKNN": {}, "SASRec": {"inner_size": 16}, "GRU4Rec": {}}


def evaluated_lists(folder: Path, k: int, **changed):
    """Return the run, and the lists by which its test is evaluated."""
    run = load_run(folder, metrics=["ItemCoverage"], valid_metric="ItemCoverage@5", topk=[k], **changed)
    evaluation = Evaluation(run.config, run.model, run.train_data._dataset)
    evaluation.evaluate(run.test_data, load_best_model=False)  # prepares; the collector is drained
    with torch.no_grad():
        for batch in run.test_data:
            evaluation._collect_full_ranking(batch, ())
    items = evaluation.eval_collector.finish(run.test_data.sample_size).get("rec.items")
    tokens = run.dataset.field2id_token[run.dataset.iid_field]
    return run, [[str(tokens[item]) for item in row] for row in items.tolist()]


def lists_of(frame: pd.DataFrame) -> list[list[str]]:
    return [group["item"].tolist() for _, group in frame.groupby("user", sort=False)]


def agree(frame: pd.DataFrame, expected: list[list[str]]) -> None:
    """Assert that lists are the expected ones, in which items of one score stand in any order."""
    assert list(map(len, lists_of(frame))) == list(map(len, expected))
    for (_, group), wanted in zip(frame.groupby("user", sort=False), expected, strict=True):
        items, scores = group["item"].tolist(), group["score"].tolist()
        for score in set(scores) - {scores[-1]}:  # the last one's equals may be beyond the end
            places = [place for place, own in enumerate(scores) if own == score]
            assert {items[place] for place in places} == {wanted[place] for place in places}


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("model", SEQUENTIAL)
def test_lists_of_histories_are_those_of_the_evaluation(trained, model, exclude):
    run, expected = evaluated_lists(trained(model, **SEQUENTIAL[model]), 5, exclude_history=exclude)
    rows, users = run.test_data._dataset, run.dataset.field2id_token[run.dataset.uid_field]
    batch = run.test_data.collate_fn(np.arange(len(rows)))[0]
    tokens = run.dataset.field2id_token[run.dataset.iid_field]
    lengths = batch[rows.item_list_length_field].tolist()
    earlier = batch[EARLIER_LIST].tolist() if exclude else [[]] * len(rows)  # what is not ranked, and not read either
    assert not exclude or any(map(any, earlier))
    histories = [
        [str(tokens[item]) for item in [*filter(None, before), *row[:length]]]
        for before, row, length in zip(earlier, batch[rows.item_id_list_field].tolist(), lengths, strict=True)
    ]
    found = run.recommend_histories(histories, 5, exclude_seen=False)
    if exclude:  # the user's known items are more than this row's history, so users are not named here
        found = run.recommend_histories(histories, 5)
    agree(found, expected)
    assert (found.groupby("user", sort=False)["score"].diff().dropna() <= 0).all()
    assert len(users) > 20


@pytest.mark.parametrize("model", GENERAL)
def test_lists_of_users_are_those_of_the_evaluation_of_general_models(trained, model):
    run, expected = evaluated_lists(trained(model), 5)
    users = run.dataset.field2id_token[run.dataset.uid_field]
    tokens = run.dataset.field2id_token[run.dataset.iid_field]
    for user, wanted in zip(run.test_data.uid_list.tolist(), expected, strict=True):
        known = [str(tokens[item]) for item in run.test_data.uid2history_item[user].tolist()]
        agree(run.recommend([str(users[user])], 5, exclude_seen=False, block=known), [wanted])


def test_known_items_are_left_out_and_scores_are_those_of_the_model(trained, sequences):
    run = load_run(trained("LLMSASRec"))
    found = run.recommend(["nu3"], 24)
    history = sequences("nord")["nu3"]
    assert not set(found["item"]) & set(history)
    assert len(found) == 24 - len(set(history))
    assert "only" in found["note"][0]
    everything = run.recommend(["nu3"], 24, exclude_seen=False)
    assert set(everything["item"]) == {f"ni{item}" for item in range(24)}
    users, items = run.user_vectors([history]), run.recommender.scorer.vectors(0, np.arange(25))
    bias = run.model.score_bias().detach().numpy()
    number = run.recommender.catalog.number
    scores = (items @ users[0] + bias)[[number[item] for item in everything["item"]]]
    np.testing.assert_allclose(everything["score"], scores, rtol=1e-5, atol=1e-6)
    assert everything["title"][0].split()[2] == everything["item"][0][2:]
    assert set(everything["language"]) == {"de"}


def test_a_longer_list_begins_with_a_shorter_one_where_texts_are_alike(small_dataset, settings):
    small_dataset(title=lambda item: "one title" if item >= 10 else f"Titel {item}")
    given = {**settings, "item_representation": "text_only", "text_projection": "linear", "popularity_prior": False}
    own = load_run(recbole_xling.run("LLMSASRec", "small", config_dict=given)["run_dir"]).recommender
    users = [f"u{number}" for number in range(40)]
    short, long = ([[item.item for item in answer.items] for answer in own.recommend(users, k)] for k in (5, 20))
    assert short == [items[:5] for items in long]
    number = {str(token): place for place, token in enumerate(own.catalog.tokens)}
    for items in long:
        equal = [number[item] for item in items if int(item.lstrip("i")) >= 10]
        assert equal == sorted(equal) and len(equal) > 5


def test_who_or_what_is_unknown_is_said_in_the_answer(trained):
    run = load_run(trained("LLMSASRec"))
    counts = pd.Series(dict(zip(run.recommender.catalog.tokens, run.recommender.catalog.counts, strict=True)))
    found = run.recommend(["nobody"], 3)
    assert found["note"][0].startswith("user 'nobody' is unknown; LLMSASRec needs a history with a known item")
    assert counts[found["item"]].tolist() == sorted(counts, reverse=True)[:3] == found["score"].tolist()
    partly = run.recommend_histories([["ni1", "gone"]], 3)
    assert partly["note"][0] == "1 of 2 items of the history are unknown ('gone')"
    assert partly["item"].tolist() == run.recommend_histories([["ni1"]], 3)["item"].tolist()
    by_id = load_run(trained("BPR"))
    found = by_id.recommend_histories([["ni1"]], 3)
    assert "learns something of each user" in found["note"][0] and "ni1" not in set(found["item"])


def test_users_whom_training_did_not_meet_get_what_is_chosen_most(small_dataset, settings_without_layers, tmp_path):
    folder = small_dataset()
    rows = (folder / "small.inter").read_text().splitlines()
    (folder / "small.inter").write_text("\n".join(row for row in rows if not row.startswith(("u38\t", "u39\t"))) + "\n")
    (folder / "small.user").write_text("user_id:token\tage:token\n" + "".join(f"u{user}\t3\n" for user in range(40)))
    columns = {**settings_without_layers["load_col"], "user": ["user_id", "age"]}
    run_dir = recbole_xling.run("BPR", "small", config_dict={**settings_without_layers, "load_col": columns})["run_dir"]
    run, asked = load_run(run_dir), ["u38", "nobody", "u3"]
    pytest.importorskip("onnxruntime")
    export_run(run_dir, tmp_path / "export")
    for recommender in (run.recommender, load_export(tmp_path / "export")):
        idle, nobody, known = recommender.recommend(asked, 5, exclude_seen=False)
        assert [one.item for one in idle.items] == [one.item for one in nobody.items]
        assert "learns something of each user in training" in idle.notes[0] and not known.notes


def test_similar_items_are_the_nearest_by_cosine(trained):
    run = load_run(trained("LLMSASRec"))
    with torch.no_grad():
        table = torch.nn.functional.normalize(run.model.item_table(), dim=-1)
    number, tokens = run.recommender.catalog.number, run.recommender.catalog.tokens
    cosine = table @ table[number["ni5"]]
    cosine[[0, number["ni5"]]] = -2
    assert run.similar_items("ni5", 4)["item"].tolist() == [tokens[item] for item in cosine.topk(4).indices]
    with pytest.raises(ConfigError, match="unknown language of items 'fr'"):
        run.similar_items("ni5", language="fr")
    with pytest.raises(ConfigError, match="no item 'xx'"):
        run.similar_items("xx")
    with pytest.raises(ConfigError, match="no inner products"):
        load_run(trained("HistoryEASE")).similar_items("ni5")


def test_a_reader_who_is_known_and_states_no_language_reads_what_is_asked_for(shop_run):
    number = shop_run.recommender.users.number["u0"]
    history = [shop_run.recommender.catalog.tokens[item] for item in shop_run.recommender.users.history(number)]
    french = shop_run.recommend(["u0"], 5, reader="fr")
    stranger = shop_run.recommend_histories([history], 5, reader="fr")
    assert (
        french["language"].tolist() == ["fr"] * 5 and shop_run.recommend(["u0"], 5)["language"].tolist() != ["fr"] * 5
    )
    assert french["item"].tolist() == stranger["item"].tolist()
    np.testing.assert_array_equal(french["score"], stranger["score"])
    given = shop_run.recommend_histories([history], 5, users=["u0"], reader="fr")
    assert given["item"].tolist() == french["item"].tolist()
    stated = shop_run.recommend(["u4"], 5, reader="en")
    assert stated["language"].tolist() == ["fr"] * 5  # his own counts


@pytest.fixture(scope="module")
def shop_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop")
    write_shop(root / "data", silent=2)
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "user_language"], "item": ["item_id"]}
    settings = {"data_path": str(root / "data"), "checkpoint_dir": str(root), "encoder": "hashing", "epochs": 1}
    settings |= {"embedding_cache_dir": str(root / "cache"), "encoder_options": {"dimension": 16}, "load_col": columns}
    settings |= {"text_view": "reader", "reader_vectors": "reader", "item_representation": "text_only", "topk": [5, 10]}
    settings |= {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "show_progress": False}
    return load_run(recbole_xling.run("LLMSASRec", "shop", config_dict=settings)["run_dir"])


def test_everybody_gets_items_in_his_language_and_filters_go_by_it(shop_run):
    assert shop_run.recommend(["u4"], 3)["language"].tolist() == ["fr"] * 3  # reads French
    everything = shop_run.recommend(["u4"], 24, exclude_seen=False).set_index("item")
    assert everything.loc["i0", "language"] == "de" and everything.loc["i0", "title"].startswith("rot")
    assert everything.loc["i4", "title"].split()[0] in ("rouge", "bleu")
    only = shop_run.recommend(["u4"], 24, exclude_seen=False, languages=["de"])
    assert only["item"].tolist() == ["i0"]  # all others have a French text
    of_reader = shop_run.recommend_histories([["i3", "i4"]], 24, reader="fr", exclude_seen=False)
    own = shop_run.recommend_histories([["i3", "i4"]], 24, users=["u4"], exclude_seen=False)
    assert of_reader["item"].tolist() == own["item"].tolist()
    np.testing.assert_array_equal(of_reader["score"], own["score"])
    other = shop_run.recommend_histories([["i3", "i4"]], 24, reader="en", exclude_seen=False)
    assert not np.allclose(other["score"], own["score"])
    foreign = shop_run.recommend_histories([["i3", "i4"]], 24, reader="ja", exclude_seen=False)
    assert "no user of the model states the language ja" in foreign["note"][0]
    assert set(foreign["language"]) == {"de"}
    assert set(shop_run.similar_items("i7", 5, language="fr")["language"]) == {"fr"}


def test_filters_by_columns_and_lists(shop_run):
    category = shop_run.recommend(["u5"], 24, exclude_seen=False, where={"category": ["c1"]})
    assert set(category["item"]) == {f"i{item}" for item in range(1, 24, 2)}
    few = shop_run.recommend(["u5"], 24, exclude_seen=False, items=["i3", "i4", "xx"], block=["i4"])
    assert few["item"].tolist() == ["i3"]
    assert few["note"][0].startswith("1 of 3 items to choose from are unknown; only 1 items are left")
    for wrong, message in (
        ({"where": {"colour": ["x"]}}, "unknown column 'colour'"),
        ({"where": {"category": ["c7"]}}, "no item has 'c7' in column 'category'"),
        ({"languages": "fr"}, "must be a list of names"),
        ({"languages": ["nl"]}, "unknown language of items 'nl'"),
        ({"k": 0}, "k must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            shop_run.recommend(["u5"], **wrong)
    with pytest.raises(ConfigError, match="users must be a list of ids"):
        shop_run.recommend("u5")


def test_answers_are_plain_data(shop_run):
    record = shop_run.recommender.recommend(["u4"], 1)[0].record()
    assert json.loads(json.dumps(record)) == record
    assert record["user"] == "u4" and record["items"][0]["rank"] == 1


def test_withdrawn_items_are_shown_to_nobody_until_they_are_restored(trained):
    folder = trained("LLMSASRec", seed=5)
    run = load_run(folder)
    before = run.recommend(["nu3"], 24)["item"].tolist()
    run.withdraw([before[0], before[2]])
    assert run.recommend(["nu3"], 24)["item"].tolist() == [before[1], *before[3:]]
    again = load_run(folder)
    assert again.recommend(["nu3"], 24)["item"].tolist() == [before[1], *before[3:]]
    assert before[0] not in again.similar_items("ni1", 24)["item"].tolist()
    again.restore([before[0]])
    assert again.recommend(["nu3"], 24)["item"].tolist() == [*before[:2], *before[3:]]
    with pytest.raises(ConfigError, match="no item 'xx'"):
        run.withdraw(["xx"])


@pytest.mark.parametrize("kind", ["text_only", "delta"])
def test_a_text_is_worth_what_a_cold_item_with_it_is(trained, kind):
    run = load_run(trained("LLMSASRec", item_representation=kind))
    catalog, number = run.train_data._dataset.catalog, run.recommender.catalog.number
    places = [number["ni4"], number["ni9"]]
    found = run.encode_items([catalog.texts[place] for place in places])
    with torch.no_grad():
        run.model.items.id_weight = torch.zeros(25, 1)  # as if no item had been trained
        expected = run.model.items()[places]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_lists_for_a_text_are_those_for_an_item_with_it(trained):
    run = load_run(trained("LLMSASRec"))  # knows items by their texts alone
    catalog, number = run.train_data._dataset.catalog, run.recommender.catalog.number
    text = catalog.texts[number["ni4"]]
    found = run.recommend_texts([text, catalog.texts[number["ni9"]]], 6, block=["ni2"])
    expected = run.recommend_histories([["ni4"], ["ni9"]], 6, block=["ni2"], exclude_seen=False)
    assert found["item"].tolist() == expected["item"].tolist()
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5, atol=1e-6)
    for model in ("BPR", "HistoryEASE"):
        with pytest.raises(ConfigError, match=f"{model} with these settings has no vectors of new texts"):
            load_run(trained(model)).recommend_texts([text])
    with pytest.raises(ConfigError, match="prepares them by all texts"):
        load_run(trained("LLMSASRec", text_projection="pca")).encode_items([text])


def test_new_items_are_served_by_their_texts_without_training(trained, home, tmp_path):
    shutil.copytree(home / "data" / "nord", tmp_path / "nord")
    with open(tmp_path / "nord" / "nord.item", "a") as items:
        items.write("new\tde\n")
    text = {"item_id": "new", "language": "de", "fields": {"title": "rot blau neu"}, "source": "display"}
    with open(tmp_path / "nord" / "nord.itemtext.jsonl", "a") as texts:
        texts.write(json.dumps(text) + "\n")
    run = load_run(trained("LLMSASRec"), data_path=str(tmp_path))
    found = run.recommend(["nu3"], 25, exclude_seen=False)
    assert set(found["item"]) == {"new", *(f"ni{item}" for item in range(24))}
    assert found.set_index("item").loc["new", "title"] == "rot blau neu"
    assert len(run.recommend_histories([["new"]], 3)) == 3
    with pytest.raises(CheckpointError, match="cannot serve what 'nord' has got since"):
        load_run(trained("BPR"), data_path=str(tmp_path)).recommend(["nu3"])


@pytest.mark.parametrize("tag", ["FR", "Fr"])
def test_languages_are_asked_for_in_any_letter_case(shop_run, tag):
    recommender = shop_run.recommender

    def answers(language):
        yield recommender.similar_items("i3", 4, language=language).record()
        yield [answer.record() for answer in recommender.recommend_texts(["chemise rouge"], 4, reader=language)]
        yield [vars(item) for item in recommender.search_titles("chemise", 4, reader=language)]

    found, expected = list(answers(tag)), list(answers("fr"))
    assert found == expected and expected[0]["items"] and expected[2]
