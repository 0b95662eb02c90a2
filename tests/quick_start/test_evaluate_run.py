"""Evaluating a saved run: on new items, new users and languages, and on its own dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import recbole_xling
from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.evaluator.slices import popularity_bands
from recbole_xling.quick_start import evaluate as zero_shot
from recbole_xling.quick_start import trained as trained_runs
from recbole_xling.quick_start.build import load_run
from recbole_xling.utils import run_folder
from recbole_xling.utils.run_folder import read_result

# Hand-made tensors are compared here.
pytestmark = pytest.mark.usefixtures("cpu")


def users_of(result):
    return pl.read_parquet(Path(result["run_dir"]) / "users.parquet")


# ---- ranking the catalog ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "at"), [("test", -1), ("valid", -2)])
def test_another_dataset_is_ranked_by_texts_and_the_users_own_history(trained, sequences, hand_made_scores, split, at):
    result = recbole_xling.evaluate_run(trained(), "sud", split=split)
    table = users_of(result)
    walks = sequences("sud")
    users = table["user_id"].to_list()
    assert sorted(users) == sorted(walks)
    assert table["target_item"].to_list() == [walks[user][at] for user in users]
    scores, tokens = hand_made_scores(trained(), "sud", [walks[user][:at] for user in users])
    targets = torch.tensor([tokens[walks[user][at]] for user in users])[:, None]
    place = (scores[:, 1:] > scores.gather(1, targets)).sum(1) + 1
    want = np.where(place <= 10, 1 / np.log2(place + 1), 0)
    np.testing.assert_allclose(table["ndcg@10"], want, atol=1e-6)
    assert result["test"]["ndcg@10"] == pytest.approx(want.mean(), abs=1e-4)


def test_all_items_of_another_dataset_count_as_cold(trained):
    result = recbole_xling.evaluate_run(trained(), "sud")
    assert (result["zero_shot"], result["trained_on"], result["dataset"]) == (True, "nord", "sud")
    names = {name for name in result["slices"] if name.startswith(("popularity", "target_language"))}
    assert names == {"popularity=cold", "target_language=it"}
    assert result["splits"]["test"]["cold_targets"] == result["n_test"] == 20


@pytest.fixture
def readers(home, trained):
    """The catalog of 'nord' with other readers: with its texts, or with others in another language and a new item."""

    def write(name, *, same_texts):
        folder, own = home / "data" / name, home / "data" / "nord"
        if folder.exists():
            return name
        folder.mkdir()
        (folder / f"{name}.inter").write_text((own / "nord.inter").read_text().replace("nu", "other"))
        items, texts = (own / "nord.item").read_text(), (own / "nord.itemtext.jsonl").read_text()
        if not same_texts:
            items = items.replace("\tde", "\tit") + "new\tit\n"
            texts = texts.replace('"de"', '"it"').replace("rot", "rosso")
            texts += '{"item_id": "new", "language": "it", "fields": {"title": "x"}, "source": "display"}\n'
        (folder / f"{name}.item").write_text(items)
        (folder / f"{name}.itemtext.jsonl").write_text(texts)
        return name

    return write


@pytest.mark.parametrize("same_texts", [True, False])
def test_items_that_are_the_runs_keep_their_popularity(trained, readers, same_texts):
    run, name = trained(), readers("alike" if same_texts else "abroad", same_texts=same_texts)
    result = recbole_xling.evaluate_run(run, name, same_items=not same_texts)
    context, table = load_run(run).context, users_of(result)
    band = dict(zip(context.item_tokens, popularity_bands(context.train_counts), strict=True))
    assert result["zero_shot"]
    assert result["known_items"] == sum(of_item != "cold" for of_item in band.values())
    assert table["popularity"].to_list() == [band[item] for item in table["target_item"]]
    assert set(table["popularity"]) != {"cold"}


def test_a_known_popularity_is_part_of_the_scores(trained, readers):
    run = trained()
    table = users_of(recbole_xling.evaluate_run(run, readers("alike", same_texts=True)))
    mine = pl.read_parquet(run / "users.parquet")
    # with the same histories, texts and counts the lists are the same, whoever reads
    columns = ["target_item", "popularity", "ndcg@10"]
    assert table.select(columns).sort(columns).equals(mine.select(columns).sort(columns))


def test_new_items_keep_their_place_where_no_history_of_training_is_and_that_is_told(trained, readers, caplog):
    run, name = trained(eval_args={"split": {"CI": [0.6, 0.2, 0.2]}}), readers("alike", same_texts=True)
    with caplog.at_level("WARNING"):
        usual = recbole_xling.evaluate_run(run, name)
        assert "stay where its own settings" not in caplog.text
        other = recbole_xling.evaluate_run(run, name, config_dict={"popularity_weight": 0.0})
    assert "items that training did not have stay where its own settings of scores have placed them" in caplog.text
    assert other["test"] != usual["test"]


def test_equal_ids_alone_mean_nothing_and_are_told(trained, readers, caplog):
    with caplog.at_level("INFO"):
        result = recbole_xling.evaluate_run(trained(), readers("abroad", same_texts=False))
    assert "all its items count as new (24 have the id of an item of the run's: --same-items if they" in caplog.text
    assert result["known_items"] == 0
    assert set(users_of(result)["popularity"]) == {"cold"}


def test_a_run_that_did_not_keep_its_counts_cannot_take_items_for_its_own(trained, readers, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained(), run)
    state = torch.load(run / "model.pt", weights_only=True)
    del state["data"]["item_field"], state["data"]["item_counts"]
    torch.save(state, run / "model.pt")
    with pytest.raises(CheckpointError, match="does not know how often it met its items"):
        recbole_xling.evaluate_run(run, readers("abroad", same_texts=False), same_items=True)
    assert recbole_xling.evaluate_run(run, readers("alike", same_texts=True))["known_items"] == 0


def test_interactions_of_other_users_do_not_change_the_ranking(home, trained, write_shop):
    before = users_of(recbole_xling.evaluate_run(trained(), "sud"))
    folder = write_shop(home / "data", "busy", prefix="s", language="it", n_users=20, n_items=18, shift=3)
    with open(folder / "busy.inter", "a") as file:
        file.writelines(f"crowd{n}\tsi{(3, 4, 5, 6)[step]}\t{step}\n" for n in range(50) for step in range(4))
    after = users_of(recbole_xling.evaluate_run(trained(), "busy"))
    after = before.select("user_id").join(after, on="user_id", maintain_order="left")
    assert after["ndcg@10"].to_list() == pytest.approx(before["ndcg@10"].to_list())


def test_split_all_ranks_every_interaction_with_a_history(trained, sequences):
    walks = sequences("sud")
    for split in ("{'LS': 'valid_and_test'}", "{'GT': [0.6, 0.2, 0.2]}"):
        result = recbole_xling.evaluate_run(
            trained(), "sud", split="all", arguments=[f"--eval_args={{'split': {split}}}"]
        )
        table = users_of(result)
        assert len(table) == result["n_test"] == sum(len(walk) - 1 for walk in walks.values())
        assert set(table["user_language"]) == {"it"}
    every = recbole_xling.evaluate_run(trained(), "sud", split="all", arguments=["--languages=[it]"])
    assert every["n_test"] == len(table)
    with pytest.raises(DataError, match="has no row of them; its languages are it"):
        recbole_xling.evaluate_run(trained(), "sud", split="all", arguments=["--languages=[de]"])


@pytest.mark.parametrize("split", ["{'CI': [0.6, 0.2, 0.2]}", "{'GT': [0.6, 0.2, 0.2]}"])
def test_split_all_ranks_the_same_rows_for_recboles_models(trained, sequences, split):
    run, arguments = trained("SASRec", train_neg_sample_args=None), [f"--eval_args={{'split': {split}}}"]
    table = users_of(recbole_xling.evaluate_run(run, split="all", arguments=arguments))
    rows = sorted(zip(table["user_id"], table["target_item"], strict=True))
    assert rows == sorted((user, item) for user, walk in sequences("nord").items() for item in walk[1:])


def test_settings_of_the_evaluation_win_over_those_of_the_run(trained):
    words = ["--topk=[9]", "--valid_metric=NDCG@9", "--text_template={brand}", "--exclude_history=True"]
    result = recbole_xling.evaluate_run(trained(), "sud", config_dict={"metrics": ["NDCG"]}, arguments=words)
    assert set(result["test"]) == {"ndcg@9"}
    other = recbole_xling.evaluate_run(trained(), "sud", config_dict={"metrics": ["NDCG"]}, arguments=words[:2])
    assert users_of(result)["ndcg@9"].to_list() != users_of(other)["ndcg@9"].to_list()
    assert "text_template: '{brand}'" in (Path(result["run_dir"]) / "config.yaml").read_text()


def test_defaults_of_the_runs_dataset_are_not_used_for_another(trained, monkeypatch):
    run = trained(seed=7)
    monkeypatch.setattr(trained_runs, "dataset_defaults", lambda name: {"nord": {"seed": 7, "topk": [3]}}[name])
    result = recbole_xling.evaluate_run(run, "sud")
    assert result["seed"] == 2020
    assert "ndcg@5" in result["test"]  # set by the run, not by the defaults


# ---- the run's own dataset -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changed"),
    [
        ("LLMSASRec", {}),
        ("LLMSASRec", {"item_representation": "add", "text_projection": None, "item_language_embedding": True}),
        ("SASRec", {}),
        ("BPR", {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}),
    ],
)
def test_a_run_evaluated_on_its_own_dataset_repeats_its_result_and_loses_nothing(trained, model, changed):
    run = trained(model, **changed)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.parent == run}
    results = [recbole_xling.evaluate_run(run), recbole_xling.evaluate_run(run)]
    for result in results:
        for key in ("test", "slices", "n_test"):
            assert result[key] == read_result(run)[key]
        assert users_of(result).equals(pl.read_parquet(run / "users.parquet"))
        assert not result["zero_shot"]
        folder = Path(result["run_dir"])
        assert folder.parent == run
        assert {path.name for path in folder.iterdir()} == {"config.yaml", "result.json", "users.parquet"}
        assert read_result(folder) == result
    assert results[0]["run_dir"] != results[1]["run_dir"]
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_evaluated_on_its_validation_part_repeats_the_best_epoch(trained):
    run = trained()
    assert recbole_xling.evaluate_run(run, "nord", split="valid")["test"] == read_result(run)["best_valid"]


def test_popularity_bands_stay_those_of_training_whatever_the_split(trained, caplog):
    run = trained(item_representation="add", text_projection=None)
    split = {"eval_args": {"split": {"GT": [0.4, 0.1, 0.5]}}}
    with caplog.at_level("WARNING"):
        table = users_of(recbole_xling.evaluate_run(run, "nord", config_dict=split))
    assert "was trained on 'nord': what is evaluated may be what it has seen" in caplog.text
    context = load_run(run).context
    band = dict(zip(context.item_tokens, popularity_bands(context.train_counts), strict=True))
    assert len(table) > 60
    assert table["popularity"].to_list() == [band[item] for item in table["target_item"]]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, False),
        ({"seed": 7}, True),
        ({"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}}}, True),
        ({"topk": [10, 20]}, False),
    ],
)
def test_rows_that_are_split_anew_are_told(trained, caplog, changed, told):
    """Of a split by chance: another seed, or an order that falls back to that of times."""
    run = trained(
        "BPR", eval_args={"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"}
    )
    with caplog.at_level("WARNING"):
        recbole_xling.evaluate_run(run, config_dict=changed)
    assert ("may be what it has seen" in caplog.text) is told


# ---- what cannot be done --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changed", "message"),
    [
        (
            "LLMSASRec",
            {"item_representation": "add", "text_projection": None},
            "item_representation=add.*text_projection=pca",
        ),
        ("LLMSASRec", {"text_whitening": True}, "text_whitening"),
        ("LLMSASRec", {"item_language_embedding": True}, "item_language_embedding"),
        ("SASRec", {}, "learns from ids"),
    ],
)
def test_a_model_bound_to_its_dataset_is_refused_on_another(trained, model, changed, message):
    run = trained(model, **changed)
    before = sorted(run.iterdir())
    with pytest.raises(CheckpointError, match=f"'sud'.*'nord'.*{message}"):
        recbole_xling.evaluate_run(run, "sud")
    assert sorted(run.iterdir()) == before


def test_items_of_a_file_that_training_did_not_load_are_ranked_or_refused(small_dataset, settings, tmp_path):
    folder = small_dataset()
    with (folder / "small.item").open("a") as items, (folder / "small.itemtext.jsonl").open("a") as texts:
        for number in range(30, 40):
            items.write(f"i{number}\tde\n")
            record = {"item_id": f"i{number}", "language": "de", "fields": {"title": f"Neu {number}"}}
            texts.write(json.dumps({**record, "source": "display"}) + "\n")
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    own = {**settings, "item_representation": "text_only", "text_projection": "linear", "beyond_accuracy": True}
    more = {"load_col": {**columns, "item": ["item_id"]}}
    run = recbole_xling.run("LLMSASRec", "small", config_dict={**own, "load_col": columns})["run_dir"]
    assert load_run(run, **more).dataset.item_num == load_run(run, **more).model.n_items == 1 + 40
    result = recbole_xling.evaluate_run(run, config_dict=more)
    assert sum(part["n"] for part in result["beyond_accuracy"]["items"].values()) == 40
    sasrec = recbole_xling.run("SASRec", "small", config_dict={**settings, "load_col": columns})["run_dir"]
    with pytest.raises(CheckpointError, match="item_id"):
        recbole_xling.evaluate_run(sasrec, config_dict=more)


@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec", "BPR"])
def test_filters_and_listed_users_need_no_other_model(small_dataset, settings, settings_without_layers, model):
    folder = small_dataset()
    given = settings_without_layers if model == "BPR" else settings
    run = recbole_xling.run(model, "small", config_dict=given)
    users = [f"{user}\tde" for user in (*(f"u{number}" for number in range(40)), "listed")]
    (folder / "small.user").write_text("\n".join(["user_id:token\tuser_language:token", *users]) + "\n")
    listed = {"load_col": {**given["load_col"], "user": ["user_id", "user_language"]}}
    assert recbole_xling.evaluate_run(run["run_dir"], config_dict=listed)["test"]["ndcg@10"] > 0
    (folder / "small.user").unlink()
    if model != "BPR":
        with (folder / "small.inter").open("a") as rows:
            rows.write("short\ti1\t1\t5\nshort\ti2\t1\t6\n")
        filtered = recbole_xling.evaluate_run(run["run_dir"], config_dict={"user_inter_num_interval": "[4,inf)"})
        assert filtered["n_test"] == run["n_test"]


def test_settings_of_recboles_networks_are_those_of_training(small_dataset, settings):
    small_dataset()
    run = recbole_xling.run("SASRec", "small", config_dict=settings)["run_dir"]
    with pytest.raises(CheckpointError, match="hidden_act=gelu, and mean nothing with hidden_act=tanh"):
        recbole_xling.evaluate_run(run, config_dict={"hidden_act": "tanh"})
    recbole_xling.evaluate_run(run, config_dict={"hidden_dropout_prob": 0.3})


@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec"])
def test_filters_choose_among_the_runs_own_users(trained, sequences, model):
    run = trained(model)
    table = users_of(recbole_xling.evaluate_run(run, arguments=["--user_inter_num_interval=[6,inf)"]))
    whole = pl.read_parquet(run / "users.parquet")
    assert set(table["user_id"]) == {user for user, walk in sequences("nord").items() if len(walk) >= 6}
    assert table.equals(table.select("user_id").join(whole, on="user_id", maintain_order="left"))


def test_a_model_bound_to_its_catalog_needs_the_same_texts(trained):
    with pytest.raises(CheckpointError, match=r"text_template.*text_projection=pca"):
        recbole_xling.evaluate_run(
            trained(item_representation="add", text_projection=None), arguments=["--text_template={brand}"]
        )
    result = recbole_xling.evaluate_run(trained(), arguments=["--text_template={brand}"])
    assert not result["zero_shot"]
    assert not users_of(result).equals(pl.read_parquet(trained() / "users.parquet"))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"dataset": "sued"}, DataError, "sued.*sud"),
        ({"split": "tests"}, ConfigError, "Did you mean 'test'"),
        ({"arguments": ["--top=[5]"]}, ConfigError, "'topk'"),
        ({"arguments": ["--model=SASRec"]}, ConfigError, "LLMSASRec"),
        ({"arguments": ["--text_template={abstract}"]}, DataError, "abstract"),
        ({"arguments": ["--hidden_size=8"]}, CheckpointError, "another shape"),
        ({"split": "valid", "arguments": ["--eval_args={'split': {'LS': 'test_only'}}"]}, DataError, "'valid'"),
        ({"impressions": True}, DataError, r"sud\.imp"),
    ],
)
def test_a_mistake_is_explained_and_leaves_no_folder(trained, changed, error, message):
    run = trained()
    before = sorted(run.iterdir())
    with pytest.raises(error, match=message):
        recbole_xling.evaluate_run(run, **{"dataset": "sud", **changed})
    assert sorted(run.iterdir()) == before


def test_evaluating_a_folder_that_is_not_a_run_names_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        recbole_xling.evaluate_run(tmp_path, "sud")


def test_data_that_are_rewritten_during_an_evaluation_are_named(trained, home, monkeypatch, caplog):
    run, rank, path = trained(), zero_shot.evaluate_full_ranking, home / "data" / "sud" / "sud.inter"
    content = path.read_bytes()

    def rewritten(*arguments):
        path.write_bytes(content + content.splitlines(keepends=True)[1])
        return rank(*arguments)

    monkeypatch.setattr(zero_shot, "evaluate_full_ranking", rewritten)
    try:
        result = recbole_xling.evaluate_run(run, "sud")
    finally:
        path.write_bytes(content)
    (changed,) = result["data"]["changed_during_run"]
    assert ".inter" in changed
    assert changed in caplog.text


def test_evaluation_on_a_full_disk_leaves_nothing_half_written(trained, monkeypatch, full_disk):
    run = trained()
    before = sorted(run.iterdir())
    monkeypatch.setattr(run_folder, "write_result", full_disk)
    with pytest.raises(OSError, match="No space left"):
        recbole_xling.evaluate_run(run, "sud")
    assert sorted(run.iterdir()) == before
