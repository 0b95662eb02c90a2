"""A trained model belongs to ids: what loading, evaluating and resuming do once the files have changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
import yaml

import recbole_xling
from recbole_xling.errors import CheckpointError
from recbole_xling.model.xlingtwotower import XLingTwoTower, XLingTwoTowerConfig
from recbole_xling.quick_start.build import load_run
from recbole_xling.trainer.checkpoint import check_trained, load_checkpoint
from recbole_xling.utils.plain_data import from_plain, to_plain
from recbole_xling.utils.run_folder import read_result

# Hand-made tensors are compared here.
pytestmark = pytest.mark.usefixtures("cpu")

DELTA = {"item_representation": "delta", "text_projection": None, "item_language_embedding": True}
BY_ID = ("BPR", {})


@pytest.fixture(scope="module", autouse=True)
def sequences(home, write_shop):
    """Write the shop 'markt', with times that no float rounds; return a function that reads the items of its users."""
    folder = write_shop(home / "data", "markt", prefix="n", language="de", n_users=30, n_items=24, shift=1)
    inter, item, texts = (folder / f"markt.{suffix}" for suffix in ("inter", "item", "itemtext.jsonl"))
    inter.write_text(inter.read_text().replace("\t1573463", "\t"))
    item.write_text(item.read_text().replace("ni23\tde", "ni23\tfr"))
    lines = texts.read_text().splitlines()
    texts.write_text("\n".join([*lines[:23], lines[23].replace('"de"', '"fr"')]) + "\n")
    walks = {}
    for line in inter.read_text().splitlines()[1:]:
        user, clicked, _ = line.split("\t")
        walks.setdefault(user, []).append(clicked)
    return walks


@pytest.fixture
def trained(trained):
    """Return a function that trains on 'markt', each model once."""
    return lambda model="LLMSASRec", **changed: trained(model, "markt", **changed)


@pytest.fixture(scope="module")
def two_tower(tiny_encoder):
    return "XLingTwoTower", {
        "encoder": str(tiny_encoder),
        "encoder_options": None,
        "encoder_max_length": 12,
        "peft": "lora",
        "language_embedding": True,
        "epochs": 1,
    }


@pytest.fixture
def moved(home, tmp_path):
    """Return a function that copies a dataset to another folder, under any name, and edits its files by line."""

    def copy(name="markt", folder="elsewhere", source="markt", **edits):
        new = tmp_path / folder / name
        new.mkdir(parents=True)
        for path in sorted((home / "data" / source).iterdir()):
            head, *rows = path.read_text().splitlines()
            if path.suffix == ".jsonl":
                head, rows = None, [head, *rows]
            rows = edits.get(path.suffix[1:], list)(rows)
            lines = rows if head is None else [head, *rows]
            (new / f"{name}{path.name.removeprefix(source)}").write_text("".join(f"{line}\n" for line in lines))
        return str(tmp_path / folder)

    return copy


def _scores(run, histories):
    """Return user -> item -> score by tokens, for histories by user."""
    data, model = run.dataset, run.model
    users, items = data.field2token_id[data.uid_field], data.field2token_id[data.iid_field]
    found = {}
    for user, history in histories.items():
        row = {"user_id": torch.tensor([users[user]])}
        row["item_id_list"] = torch.tensor([[items[item] for item in history[-6:]]])
        row["item_length"] = torch.tensor([row["item_id_list"].shape[1]])
        from recbole.data.interaction import Interaction

        with torch.no_grad():
            scores = model.full_sort_predict(Interaction(row)).flatten().tolist()
        found[user] = {
            str(item): score for item, score in zip(data.field2id_token[data.iid_field], scores, strict=True)
        }
    return found


def _models(request):
    return {
        "BPR": BY_ID,
        "LightGCN": ("LightGCN", {}),
        "SASRec": ("SASRec", {}),
        "delta": ("LLMSASRec", DELTA),
        "pca": ("LLMSASRec", {"item_representation": "add", "text_projection": None}),
        "two tower": request.getfixturevalue("two_tower"),
    }


@pytest.fixture(params=["BPR", "LightGCN", "SASRec", "delta", "pca", "two tower"])
def any_run(request, trained):
    model, changed = _models(request)[request.param]
    return trained(model, **changed)


# ---- the same data --------------------------------------------------------------------------------------------


def test_reordered_rows_give_every_user_the_same_scores_and_metrics(any_run, moved, sequences):
    walks = sequences
    place = moved(inter=lambda rows: rows[::-1], item=lambda rows: rows[::-1], jsonl=lambda rows: rows[::-1])
    before, after = _scores(load_run(any_run), walks), _scores(load_run(any_run, data_path=place), walks)
    for user, scores in before.items():
        assert after[user] == pytest.approx(scores, abs=1e-5)
    languages = (
        load_run(any_run, **given).dataset.field2id_token["item_language"] for given in ({}, {"data_path": place})
    )
    assert next(languages).tolist() == next(languages).tolist() == ["[PAD]", "de", "fr"]
    result = recbole_xling.evaluate_run(any_run, config_dict={"data_path": place})
    assert result["test"] == read_result(any_run)["test"]
    assert not result["zero_shot"] and len(result["data"]["changed_since_training"]) == 3
    mine, theirs = (
        pl.read_parquet(Path(folder) / "users.parquet").sort("user_id") for folder in (result["run_dir"], any_run)
    )
    assert mine.equals(theirs)


def test_the_same_files_are_the_same_data_under_any_path_and_name(trained, moved):
    run = trained(*BY_ID[:1])
    place = moved(name="shop")
    result = recbole_xling.evaluate_run(run, "shop", config_dict={"data_path": place})
    assert (result["zero_shot"], result["dataset"]) == (False, "shop")
    assert result["data"]["changed_since_training"] == []
    for key in ("test", "slices", "n_test"):
        assert result[key] == read_result(run)[key]


def test_settings_of_load_run_replace_the_runs(trained, moved):
    run = load_run(trained(), data_path=moved(), eval_batch_size=7)
    assert (run.config["eval_batch_size"], run.test_data.step) == (7, 7)
    with pytest.raises(ValueError, match="eval_batch_size"):
        load_run(trained(), eval_batchsize=7)


# ---- grown data -----------------------------------------------------------------------------------------------

NEW = ["nu90\tni90\t000", "nu90\tni91\t010", "nu90\tni1\t020", "nu90\tni2\t030"]


def _with_new_items(moved):
    """Two new items, one of them in a new language, and a new user come first in all files."""
    texts = [
        {
            "item_id": f"ni9{n}",
            "language": language,
            "fields": {"title": "rot lang 3", "brand": "rot"},
            "source": "display",
        }
        for n, language in enumerate(("aa", "de"))
    ]
    return moved(
        inter=lambda rows: [*NEW, *rows],
        item=lambda rows: ["ni90\taa", "ni91\tde", *rows],
        jsonl=lambda rows: [*map(json.dumps, texts), *rows],
    )


@pytest.mark.parametrize("which", ["delta", "two tower"])
def test_new_items_of_a_text_model_are_known_by_their_texts(request, trained, moved, sequences, which):
    model, changed = _models(request)[which]
    run = trained(model, **changed)
    old = load_run(run)
    place = _with_new_items(moved)
    new = load_run(run, data_path=place)
    tokens = new.dataset.field2id_token["item_id"].tolist()
    assert tokens[:25] == old.dataset.field2id_token["item_id"].tolist() and set(tokens[25:]) == {"ni90", "ni91"}
    assert new.dataset.field2id_token["user_id"][-1] == "nu90"
    if which == "delta":
        items, known = new.model.items, old.model.items
        weights, languages = items.item_embedding.weight, items.language_embedding.weight
        torch.testing.assert_close(weights[:25], known.item_embedding.weight, rtol=0, atol=0)
        assert (new.dataset.inter_feat["item_id"] >= 25).any()  # they have interactions, but none that trained them
        torch.testing.assert_close(items.id_weight[:25], known.id_weight)
        assert items.id_weight[25:].sum() == 0
        assert weights[25:].abs().sum() == 0 and known.item_embedding.weight.abs().sum() > 0
        torch.testing.assert_close(languages[:3], known.language_embedding.weight, rtol=0, atol=0)  # unknown, de, fr
        assert languages[3].abs().sum() == 0 and new.dataset.catalog.language_ids[tokens.index("ni90")] == 3
        # items of equal texts and languages differ by their ids alone
        vectors = torch.from_numpy(new.dataset.catalog.vectors[25:])
        plain = items.text_projection(vectors) + languages[torch.from_numpy(new.dataset.catalog.language_ids[25:])]
        torch.testing.assert_close(items(torch.tensor([25, 26])), plain)
    result = recbole_xling.evaluate_run(run, config_dict={"data_path": place})
    assert result["n_test"] == read_result(run)["n_test"] + 1
    assert "nu90" in pl.read_parquet(Path(result["run_dir"]) / "users.parquet")["user_id"].to_list()


def test_new_texts_that_move_the_mean_of_their_language_are_told(trained, moved, caplog):
    run = trained(text_centering=True)
    load_run(run)
    assert "text_centering" not in caplog.text
    load_run(run, data_path=_with_new_items(moved))
    assert "the texts that are read are not those of training" in caplog.text


@pytest.mark.parametrize("which", ["BPR", "LightGCN", "SASRec", "pca"])
def test_a_model_of_ids_is_refused_on_new_items_with_both_counts(request, trained, moved, which):
    model, changed = _models(request)[which]
    place = _with_new_items(moved)
    for load in (load_run, lambda run, **given: recbole_xling.evaluate_run(run, config_dict=given)):
        with pytest.raises(CheckpointError, match=r"item_id: 24 then, 26 now \(new: 'ni90', 'ni91'\)"):
            load(trained(model, **changed), data_path=place)


def test_new_users_are_fine_for_models_that_know_users_by_their_histories(trained, moved):
    rows = ["nu90\tni3\t000", "nu90\tni4\t010", "nu90\tni5\t020"]
    place = moved(inter=lambda old: [*rows, *old])
    assert load_run(trained("SASRec"), data_path=place).dataset.user_num == 32
    with pytest.raises(CheckpointError, match=r"user_id: 30 then, 31 now \(new: 'nu90'\)"):
        load_run(trained("BPR"), data_path=place)


@pytest.fixture
def clicked_later(moved):
    """Return two places of 'markt' with one more item: where nobody chose it, and where it was among later clicks."""
    text = {"item_id": "ni24", "language": "de", "fields": {"title": "rot lang 24"}, "source": "display"}
    files = {"item": lambda rows: [*rows, "ni24\tde"], "jsonl": lambda rows: [*rows, json.dumps(text)]}
    later = [f"nu{user}\tni{item}\t9{step}0" for user in range(9) for step, item in enumerate((24, 5, 24))]
    return moved(folder="before", **files), moved(folder="later", inter=lambda rows: [*later, *rows], **files)


@pytest.mark.parametrize("which", ["delta", "text", "two tower", "mlp"])
def test_clicks_that_have_come_since_change_no_score(request, trained, clicked_later, sequences, which):
    of_text = {"text": ("LLMSASRec", {}), "mlp": ("XLingMLP", {"features": ["item_id", "user_id", "text"]})}
    model, changed = of_text.get(which) or _models(request)[which]
    before, later = clicked_later
    run = trained(model, **changed, data_path=before)
    old, new = (_scores(load_run(run, data_path=place), sequences) for place in clicked_later)
    for user, scores in old.items():
        assert new[user] == pytest.approx(scores, abs=1e-5)
    # the item is one that training did not have, in slices as well
    slices = recbole_xling.evaluate_run(run, config_dict={"data_path": later})["slices"]
    assert slices["popularity=cold"]["n"] == 9


@pytest.mark.parametrize("model", ["BPR", "SASRec", "XLingMLP", "LLMSASRec"])
def test_slices_of_popularity_go_by_what_training_counted(trained, moved, model):
    run = trained(model)
    place = moved(
        inter=lambda rows: [*rows, *(f"nu{user}\tni{item}\t9{item}0" for user in range(9) for item in range(9))]
    )
    before, after = load_run(run), load_run(run, data_path=place)
    counts = before.context.train_counts
    assert 0 < counts.sum() < len(before.interactions.items) < len(after.interactions.items)
    np.testing.assert_array_equal(after.context.train_counts, counts)


def test_a_model_of_nothing_but_interactions_is_refused_on_others(trained, clicked_later):
    before, later = clicked_later
    for model in ("HistoryItemKNN", "LanguagePop"):
        run = trained(model, data_path=before)
        assert load_run(run).dataset.trained_on is not None
        with pytest.raises(CheckpointError, match=rf"not those of the run, and {model} consists of nothing else"):
            load_run(run, data_path=later)


# ---- shrunk data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["BPR", "delta", "two tower"])
def test_items_that_the_data_lack_keep_their_numbers_and_are_not_ranked(request, trained, moved, caplog, which):
    model, changed = _models(request)[which]
    run = trained(model, **changed)

    def without(rows):
        return [row for row in rows if "ni7\t" not in row and '"ni7"' not in row]

    place = moved(inter=without, item=without, jsonl=without)
    with caplog.at_level("WARNING"):
        result = recbole_xling.evaluate_run(
            run, config_dict={"data_path": place, "topk": [23], "valid_metric": "NDCG@23"}
        )
    assert "1 of 24 item_id of the run are not in 'markt' as it is loaded ('ni7')" in caplog.text
    assert result["test"]["recall@23"] == 1  # the other 23 items fill the list
    loaded = load_run(run, data_path=place)
    assert loaded.dataset.field2token_id == load_run(run).dataset.field2token_id


# ---- knowledge graphs -----------------------------------------------------------------------------------------


@pytest.fixture
def graph(home, sequences):
    """Write a knowledge graph for most items of 'markt'; RecBole numbers items by their links to it."""
    folder = home / "data" / "markt"
    links = [f"ni{item}\te{item}" for item in range(20)]
    triples = [f"e{item}\tr{item % 2}\t{'e' if item % 3 else 'x'}{(item * 5 + 1) % 20}" for item in range(20)]
    (folder / "markt.link").write_text("\n".join(["item_id:token\tentity_id:token", *links]) + "\n")
    header = "head_id:token\trelation_id:token\ttail_id:token"
    (folder / "markt.kg").write_text("\n".join([header, *triples]) + "\n")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "kg": header.replace(":token", "").split("\t")}
    yield {"load_col": {**columns, "link": ["item_id", "entity_id"]}}
    for suffix in ("kg", "link"):
        (folder / f"markt.{suffix}").unlink()


def test_models_of_a_knowledge_graph_follow_ids_or_are_refused(trained, moved, graph, sequences):
    def turned(rows):
        return rows[::-1]

    run = trained("CKE", **graph)
    place = moved(inter=turned, item=turned, kg=turned, link=turned)
    before, after = load_run(run), load_run(run, data_path=place)
    entities = before.dataset.field2id_token["entity_id"].tolist()
    assert after.dataset.field2id_token["entity_id"].tolist() == entities
    histories = {user: ["ni1"] for user in sequences}
    scores = _scores(after, histories)
    for user, expected in _scores(before, histories).items():
        assert scores[user] == pytest.approx(expected, abs=1e-5)
    fewer = moved(folder="fewer", link=lambda rows: rows[1:])
    with pytest.raises(CheckpointError, match=r"numbers .*item_id.* otherwise"):
        load_run(run, data_path=fewer)


# ---- other data -----------------------------------------------------------------------------------------------


def test_other_data_of_the_same_name_ids_and_counts_are_another_dataset(home, trained, moved, write_shop, tmp_path):
    """The same users and items, as numbers have them, with other interactions and texts."""
    write_shop(tmp_path / "other", "markt", prefix="n", language="de", n_users=30, n_items=24, shift=4)
    place = str(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"that is another dataset.*BPR learns from ids"):
        load_run(trained("BPR"), data_path=place)
    with pytest.raises(CheckpointError, match="that is another dataset"):
        recbole_xling.evaluate_run(trained("BPR"), config_dict={"data_path": place})
    result = recbole_xling.evaluate_run(trained(), config_dict={"data_path": place})
    assert result["zero_shot"]
    assert "popularity=cold" in result["slices"]


def test_load_run_gives_a_text_model_on_another_dataset(trained, hand_made_scores):
    loaded = load_run(trained(), dataset="sud")
    user, walk = "su0", ["si1", "si2", "si3"]
    scores = _scores(loaded, {user: walk})[user]
    want, tokens = hand_made_scores(trained(), "sud", [walk])
    offset = float(loaded.model.score_bias.cold_offset)  # all items are new there
    assert [scores[item] - offset for item in list(tokens)[1:]] == pytest.approx(want[0][1:].tolist(), abs=1e-5)


# ---- resume ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unfinished(trained, tmp_path):
    """A copy of a run folder, whose run is to go on."""
    return Path(shutil.copytree(trained("BPR"), tmp_path / "unfinished"))


def test_resume_on_changed_data_is_refused_and_names_the_file(unfinished, moved):
    before = {path: path.read_bytes() for path in unfinished.iterdir() if path.is_file()}
    rows = r"\.inter \(182 lines, [\d,]+ bytes before, 183 lines"
    with pytest.raises(CheckpointError, match=rows):
        recbole_xling.run(
            config_dict={
                "resume": str(unfinished),
                "data_path": moved(inter=lambda rows: [*rows, rows[0]]),
                "epochs": 4,
            }
        )
    place = moved(folder="reversed", inter=lambda rows: rows[::-1])
    with pytest.raises(CheckpointError, match="its data have changed"):
        recbole_xling.run(config_dict={"resume": str(unfinished), "data_path": place, "epochs": 4})
    assert {path: path.read_bytes() for path in before if path.name != "log.txt"} == {
        path: content for path, content in before.items() if path.name != "log.txt"
    }


def test_resume_with_the_same_data_elsewhere_goes_on(trained, unfinished, moved, tmp_path):
    longer = {"epochs": 4, "stopping_step": 9}
    result = recbole_xling.run(config_dict={"resume": str(unfinished), "data_path": moved(), **longer})
    other = shutil.copytree(trained("BPR"), tmp_path / "other")
    assert result["test"] == recbole_xling.run(config_dict={"resume": str(other), **longer})["test"]


# ---- another encoder ------------------------------------------------------------------------------------------

OTHER = {"encoder_options": {"dimension": 32, "ngram_min": 2}}  # vectors of the same size


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: load_run(folder, **OTHER),
        lambda folder: recbole_xling.evaluate_run(folder, config_dict=OTHER),
        lambda folder: recbole_xling.run(config_dict={"resume": str(folder), "epochs": 4, **OTHER}),
        lambda folder: recbole_xling.run(
            config_dict={**yaml.safe_load((folder / "config.yaml").read_text()), "init_from": str(folder), **OTHER}
        ),
    ],
)
@pytest.mark.parametrize("model", ["LLMSASRec", "ContentEASE", "XLingMLP"])
def test_vectors_of_another_encoder_are_refused(trained, tmp_path, model, use):
    if model == "ContentEASE" and "epochs" in use.__code__.co_consts:
        pytest.skip("nothing to resume")
    folder = Path(shutil.copytree(trained(model), tmp_path / "run"))
    with pytest.raises(CheckpointError, match="ngram_min"):
        use(folder)


@pytest.mark.parametrize(
    "changed", [{"n_heads": 4}, {"hidden_act": "relu"}, {"text_centering": True}, {"temperature": 0.1}]
)
def test_weights_are_not_run_in_another_network(trained, tmp_path, changed):
    folder = Path(shutil.copytree(trained(), tmp_path / "run"))
    told = next(f"{key}={value}" for key, value in changed.items())
    with pytest.raises(CheckpointError, match=f"mean nothing with {told}"):
        recbole_xling.evaluate_run(folder, config_dict=changed)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    with pytest.raises(CheckpointError, match=f"mean nothing with {told}"):
        recbole_xling.run(config_dict={**settings, "init_from": str(folder), **changed})
    with pytest.raises(CheckpointError, match=f"mean nothing with {told}"):
        recbole_xling.run(config_dict={"resume": str(folder), "epochs": 4, **changed})


def test_weights_of_before_a_setting_are_not_run_with_another_value_of_it(trained, tmp_path):
    folder = Path(shutil.copytree(trained(), tmp_path / "run"))
    state = load_checkpoint(folder / "model.pt")
    settings = from_plain(state["config"])
    assert settings.pop("temperature") is None
    torch.save({**state, "config": to_plain(settings)}, folder / "model.pt")
    with pytest.raises(CheckpointError, match=r"mean nothing with temperature=0\.1"):
        recbole_xling.evaluate_run(folder, config_dict={"temperature": 0.1})
    assert recbole_xling.evaluate_run(folder)["test"] == read_result(folder)["test"]


def test_settings_of_the_network_go_by_their_present_names():
    old, now = {"centring": False}, {key: field.default for key, field in XLingTwoTowerConfig.model_fields.items()}
    model = object.__new__(XLingTwoTower)
    check_trained(model, old, None, SimpleNamespace(config={**now, "centering": False}))
    with pytest.raises(CheckpointError, match="trained with centering=False, and mean nothing with centering=True"):
        check_trained(model, old, None, SimpleNamespace(config=now))


def test_a_model_that_reads_no_vectors_may_name_another_encoder(trained):
    run = trained(item_representation="none", text_projection=None)
    assert recbole_xling.evaluate_run(run, config_dict=OTHER)["test"] == read_result(run)["test"]


# ---- checkpoints of earlier releases --------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["BPR", "LLMSASRec"])
def test_checkpoints_without_ids_load_with_a_warning(trained, tmp_path, caplog, model):
    folder = tmp_path / "old"
    shutil.copytree(trained(model), folder)
    for name in ("model.pt", "last.pt"):
        state = load_checkpoint(folder / name)
        del state["data"]
        state["config"] = to_plain({**from_plain(state["config"]), "setting_of_then": 3})
        torch.save(state, folder / name)
    with caplog.at_level("WARNING"):
        result = recbole_xling.evaluate_run(folder)
        load_run(folder)
    assert "they cannot be checked" in caplog.text
    assert result["test"] == read_result(folder)["test"] and not result["zero_shot"]
    caplog.clear()
    recbole_xling.run(config_dict={"resume": str(folder), "epochs": 3})
    assert "they cannot be checked" in (folder / "log.txt").read_text()
    assert load_checkpoint(folder / "last.pt")["data"]["vocabulary"].keys() >= {"user_id", "item_id"}


def test_a_run_from_before_a_setting_goes_on_as_it_began(trained, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(trained("LLMSASRec"), folder)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert settings.pop("bias_by_history") is True
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    given = tmp_path / "given"
    shutil.copytree(folder, given)
    recbole_xling.run(config_dict={"resume": str(folder), "epochs": 3})
    recbole_xling.run(config_dict={"resume": str(given), "epochs": 3, "bias_by_history": True})
    assert [load_run(run).config["bias_by_history"] for run in (folder, given)] == [False, True]
