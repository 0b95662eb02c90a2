"""A run that goes on from an earlier one: ids by token, new rows, and who cannot go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from resumed import resume_like_whole

import recbole_xling
from recbole_xling.errors import CheckpointError
from recbole_xling.model.layers.language_embedding import LANGUAGES
from recbole_xling.quick_start.build import load_run
from recbole_xling.trainer.checkpoint import load_checkpoint

# Weights are compared bit by bit with those of files.
pytestmark = pytest.mark.usefixtures("cpu")

BY_ID = {"item_representation": "none", "text_projection": None}
MODELS = {
    "delta": ("LLMSASRec", {"item_representation": "delta", "text_projection": None, "item_language_embedding": True}),
    "by id": ("LLMSASRec", BY_ID),
    "text": ("LLMSASRec", {}),
    "BPR": ("BPR", {}),
    "LightGCN": ("LightGCN", {}),
    "SASRec": ("SASRec", {}),
    "XLingMLP": ("XLingMLP", {}),
}


@pytest.fixture(scope="module")
def models(tiny_encoder):
    tower = {
        "encoder": str(tiny_encoder),
        "encoder_options": None,
        "encoder_max_length": 12,
        "peft": "lora",
        "epochs": 1,
    }
    return {**MODELS, "two tower": ("XLingTwoTower", tower)}


@pytest.fixture
def newer(home, tmp_path):
    """Return a function that copies the shop 'nord' to another folder, changed, and gives the settings to use it."""

    def copy(name="nord", **edits):
        new = tmp_path / "data" / name
        new.mkdir(parents=True)
        for path in sorted((home / "data" / "nord").iterdir()):
            head, *rows = path.read_text().splitlines()
            if path.suffix == ".jsonl":
                head, rows = None, [head, *rows]
            rows = edits.get(path.suffix[1:], list)(rows)
            lines = rows if head is None else [head, *rows]
            (new / f"{name}{path.name.removeprefix('nord')}").write_text("".join(f"{line}\n" for line in lines))
        return {"data_path": str(tmp_path / "data"), "checkpoint_dir": str(tmp_path / "saved")}

    return copy


def reverse(rows):
    return rows[::-1]


REVERSED = {"inter": reverse, "item": reverse, "jsonl": reverse}


def text(item):
    fields = {"title": f"neu {item}", "brand": "neu"}
    return json.dumps({"item_id": item, "language": "de", "fields": fields, "source": "display"})


# Item ni0 and user nu0 are gone, items nx1 and nx2 and user nv1 are new, and all rows are in another order.
CHANGED = {
    "inter": lambda rows: [
        *(f"nv1\t{item}\t{1573464000 + at}" for at, item in enumerate(("nx1", "nx2", "ni3", "ni4", "nx1"))),
        *reverse([row for row in rows if "nu0\t" not in row and "\tni0\t" not in row]),
    ],
    "item": lambda rows: ["nx2\tde", "nx1\tde", *reverse([row for row in rows if not row.startswith("ni0\t")])],
    "jsonl": lambda rows: [text("nx2"), text("nx1"), *reverse([row for row in rows if '"ni0"' not in row])],
}


def settings_of(folder: Path) -> dict:
    config = load_run(folder).config
    return {**config.external_config_dict, "init_from": str(folder), "run_dir": None}


def go_on(folder: Path, changed: dict, **further):
    result = recbole_xling.run(config_dict={**settings_of(folder), **changed, **further})
    return result, load_checkpoint(Path(result["run_dir"]) / "model.pt")


def rows_by_token(checkpoint: dict, field: str, weight: str) -> dict[str, torch.Tensor]:
    from recbole_xling.data.identity import DataIdentity

    tokens = DataIdentity.from_state(checkpoint["data"]).vocabulary[field]
    return dict(zip(tokens.tolist(), checkpoint["state_dict"][weight], strict=True))


@pytest.mark.parametrize("name", [*MODELS, "two tower"])
def test_reordered_data_and_no_epochs_give_the_same_metrics(trained, newer, models, name):
    model, changed = models[name]
    folder = trained(model, **changed)
    before = json.loads((folder / "result.json").read_text())
    result, now = go_on(folder, newer(**REVERSED), epochs=0)
    assert result["test"] == pytest.approx(before["test"], abs=1e-6)
    then = load_checkpoint(folder / "model.pt")["state_dict"]
    assert all(torch.equal(now["state_dict"][key], weight) for key, weight in then.items())


@pytest.mark.parametrize(
    ("name", "field", "weight"),
    [
        ("BPR", "item_id", "item_embedding.weight"),
        ("BPR", "user_id", "user_embedding.weight"),
        ("LightGCN", "item_id", "item_embedding.weight"),
        ("SASRec", "item_id", "item_embedding.weight"),
        ("by id", "item_id", "items.item_embedding.weight"),
    ],
)
def test_ids_are_matched_by_token_and_new_ones_get_the_mean(trained, newer, caplog, name, field, weight):
    model, changed = MODELS[name]
    folder = trained(model, **changed)
    with caplog.at_level("INFO"):
        result, now = go_on(folder, newer(**CHANGED), epochs=0)
    then, now = (rows_by_token(part, field, weight) for part in (load_checkpoint(folder / "model.pt"), now))
    assert all(torch.equal(now[token], row) for token, row in then.items())
    new = now.keys() - then.keys()
    assert new == ({"nv1"} if field == "user_id" else {"nx1", "nx2"})
    mean = torch.stack([row for token, row in then.items() if token != "[PAD]"]).mean(dim=0)
    assert all(torch.allclose(now[token], mean, atol=1e-6) for token in new)
    assert "item_id: 23 matched, 2 new, 1 gone; user_id: 29 matched, 1 new, 1 gone" in caplog.text
    assert result["init_from"]["user_id"] == {"matched": 29, "new": 1, "gone": 1}


@pytest.mark.parametrize("name", ["delta", "text", "two tower"])
def test_new_items_are_known_by_their_texts(trained, newer, models, name):
    model, changed = models[name]
    folder, data = trained(model, **changed), newer(**CHANGED)
    served = load_run(folder, data_path=data["data_path"])  # which knows new items by their texts alone
    result, _ = go_on(folder, data, epochs=0)
    going = load_run(result["run_dir"])
    for run in (served, going):
        run.model.eval()
    with torch.no_grad():
        then, now = (np.asarray(run.model.item_table()) for run in (served, going))
    assert np.allclose(then, now, atol=1e-6)
    tokens = going.dataset.field2id_token["item_id"].tolist()
    assert tokens == served.dataset.field2id_token["item_id"].tolist() and now[tokens.index("nx1")].any()


@pytest.mark.parametrize("name", ["delta", "BPR", "SASRec", "XLingMLP"])
def test_training_goes_on_and_is_resumed_exactly(trained, newer, name):
    model, changed = MODELS[name]
    folder = trained(model, **changed)
    settings = {**settings_of(folder), **newer(**CHANGED), "epochs": 3, "l2_sp": 0.1}
    settings = {key: value for key, value in settings.items() if key not in ("model", "dataset", "run_dir")}
    whole, _, _ = resume_like_whole(model, "nord", settings, after=1)
    assert whole["init_from"]["item_id"]["new"] == 2
    weight = {"delta": "items.item_embedding.weight", "XLingMLP": "items.weight"}.get(name, "item_embedding.weight")
    rows = rows_by_token(load_checkpoint(Path(whole["run_dir"]) / "last.pt"), "item_id", weight)
    assert not torch.equal(rows["nx1"], rows["nx2"])  # both began at the mean, or at zero
    again = load_run(whole["run_dir"])  # gone ids keep their numbers, and are shown to nobody
    assert "ni0" in again.dataset.field2id_token["item_id"]
    if name != "XLingMLP":
        assert "ni0" not in set(again.recommend(["nv1"], 30, exclude_seen=False)["item"])


def test_ids_of_items_that_are_chosen_now_count(trained, newer):
    folder = trained("LLMSASRec", **MODELS["delta"][1])
    result, now = go_on(folder, newer(**CHANGED), epochs=1)
    shifts = rows_by_token(now, "item_id", "items.item_embedding.weight")
    assert shifts["nx1"].any() and shifts["nx2"].any()
    run = load_run(result["run_dir"])
    number = run.dataset.field2token_id["item_id"]
    assert run.model.items.id_weight[number["nx1"]] == 1


@pytest.mark.parametrize("model", ["ItemKNN", "HistoryEASE", "BERT4Rec"])
def test_a_model_that_cannot_be_mapped_is_refused_with_both_counts(trained, newer, model):
    with pytest.raises(CheckpointError, match=r"(?s)23 matched, 2 new, 1 gone.*29 matched, 1 new, 1 gone"):
        go_on(trained(model), newer(**CHANGED), epochs=1)


def test_newer_clicks_alone_go_on_under_the_same_name_only(trained, newer):
    folder = trained("SASRec")
    later = {"inter": lambda rows: [f"{user}\tni{(3 * at + int(user[2:])) % 24}\t{1573465000 + at}"
                                    for user in dict.fromkeys(row.split("\t")[0] for row in rows)
                                    for at in range(5)]}  # fmt: skip
    result, _ = go_on(folder, newer(**later), epochs=0)
    assert result["init_from"]["item_id"] == {"matched": 24, "new": 0, "gone": 0}
    with pytest.raises(CheckpointError, match=r"(?s)'other' \(item_id: 24 matched.*give the dataset the name"):
        go_on(folder, newer("other", **later), dataset="other")


def test_a_language_that_the_earlier_run_did_not_meet_is_learned(trained, newer, models, tmp_path):
    model, known = models["two tower"]
    first = trained(model, **known, language_embedding=True)

    def in_french(rows):
        return [row.replace("\tde", "\tfr") for row in rows]

    later = newer(item=in_french, jsonl=lambda rows: [row.replace('"de"', '"fr"') for row in rows])
    _, now = go_on(first, later, epochs=1)
    then = load_checkpoint(first / "model.pt")["state_dict"]
    de, fr = (LANGUAGES.index(tag) + 1 for tag in ("de", "fr"))
    name = "user_tower.item_language"
    assert then[f"{name}.met"][de] and not then[f"{name}.met"][fr]
    assert now["state_dict"][f"{name}.met"][fr] and now["state_dict"][f"{name}.weight"][fr].any()
    assert not torch.equal(now["state_dict"][f"{name}.weight"][fr], now["state_dict"][f"{name}.weight"][0])


def test_a_model_of_texts_goes_on_with_another_dataset(trained, home):
    folder = trained("LLMSASRec")
    result, now = go_on(folder, {}, dataset="sud", epochs=0)
    assert result["init_from"]["item_id"] == {"matched": 0, "new": 18, "gone": 24}
    then = load_checkpoint(folder / "model.pt")["state_dict"]
    weights = [key for key in then if "cold_offset" not in key]
    assert all(torch.equal(now["state_dict"][key], then[key]) for key in weights)
