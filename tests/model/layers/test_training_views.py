"""Training sees items in other texts than evaluation does: train_text_view in LLMSASRec."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from shop import write_shop

from recbole_xling.config import XLingConfig
from recbole_xling.data.loader import TARGET_LIST, TARGET_WEIGHT
from recbole_xling.errors import ConfigError
from recbole_xling.quick_start.build import build
from recbole_xling.quick_start.evaluate import evaluate_run
from recbole_xling.quick_start.train import run

TEXT_ONLY = {"item_representation": "text_only", "text_projection": "linear", "hidden_size": 16, "n_layers": 1}
DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}


@pytest.fixture
def make(tmp_path, settings):
    write_shop(tmp_path / "data")
    given = {**settings, **TEXT_ONLY, **DROPOUT, "load_col": None, "text_view": "display"}
    return lambda **changed: build(XLingConfig("LLMSASRec", "shop", config_dict={**given, **changed}))


def test_draws_follow_the_chances_and_depend_on_seed_and_step_alone(make):
    first, again = (make(train_text_view="random", train_text_languages={"fr": 2}) for _ in range(2))
    views = first.model.training_views
    assert views.number == 3 and first.model.views.number == 1
    drawn = [views.draw(1, step, 1) for step in range(2000)]
    for step in (0, 7):
        for side, same in zip(drawn[step], again.model.training_views.draw(1, step, 1), strict=True):
            torch.testing.assert_close(side, same)
    for side in range(2):
        views_of = torch.stack([pair[side] for pair in drawn])  # (steps, n_items)
        share = torch.stack([(views_of == view).float().mean(dim=0) for view in range(3)])
        torch.testing.assert_close(share, views.chance, rtol=0, atol=0.05)
        assert (share[views.chance == 0] == 0).all()
    agree = torch.stack([one == other for one, other in drawn]).float().mean(dim=0)[2:]  # drawn independently
    torch.testing.assert_close(agree, (views.chance**2).sum(dim=0)[2:], rtol=0, atol=0.06)
    assert not torch.equal(views.draw(2, 0, 1)[0], drawn[0][0])


def test_a_draw_for_the_batch_shows_items_with_the_same_languages_in_one(make):
    views = make(train_text_view="random", train_text_languages={"fr": 2}, train_text_draw="batch").model.training_views
    kinds, kind_of = torch.unique(views.chance, dim=1, return_inverse=True)
    assert kinds.shape[1] < len(kind_of)
    drawn = torch.stack([torch.stack(views.draw(1, step, 1)) for step in range(2000)])  # (steps, 2, n_items)
    for kind in range(kinds.shape[1]):
        alike = drawn[:, :, kind_of == kind]
        assert (alike == alike[:, :, :1]).all()
        share = torch.stack([(alike[..., 0] == view).float().mean(dim=0) for view in range(3)], dim=1)
        torch.testing.assert_close(share, kinds[:, kind].float().expand(2, -1), rtol=0, atol=0.05)
    assert (drawn[:, 0] != drawn[:, 1]).any()  # histories and candidates independently


def test_how_to_draw_needs_draws(settings):
    with pytest.raises(ConfigError, match="train_text_draw says how train_text_view: random draws"):
        XLingConfig("LLMSASRec", "small", config_dict={**settings, "train_text_draw": "batch"})


def test_histories_and_candidates_have_the_texts_that_were_drawn(make, monkeypatch):
    """The loss is the cross entropy of states over French texts against English ones."""
    parts = make(train_text_view="random", popularity_prior=False)
    model, batch = parts.model, next(iter(parts.train_data))
    n_items = parts.dataset.item_num
    names = ["", *parts.dataset.catalog.training_views.own]
    drawn = [torch.full((n_items,), names.index(language)) for language in ("fr", "en")]
    monkeypatch.setattr(model.training_views, "draw", lambda *number: tuple(drawn))
    tables = {}
    for language in ("fr", "en"):
        other = make(text_view=f"language:{language}")
        raw = torch.from_numpy(other.dataset.catalog.vectors)
        tables[language] = model.items.text_projection(raw)  # hashed texts have unit length
    trained = batch[TARGET_WEIGHT] > 0
    states = model.sequence_encoder(tables["fr"][batch["item_id_list"]], trained)
    logits = states @ tables["en"][1:].T
    want = torch.nn.functional.cross_entropy(logits, batch[TARGET_LIST][trained] - 1, reduction="none")
    got = model.calculate_loss(batch)
    torch.testing.assert_close(got, (want * batch[TARGET_WEIGHT][trained]).sum(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss_type", ["CE", "sampled_softmax"])
@pytest.mark.parametrize(
    ("kind", "view", "vectors"), [("reader", "reader", "reader"), ("all", "reader", "mean")], ids=["reader", "all"]
)
def test_training_is_that_of_a_run_that_is_evaluated_so(make, loss_type, kind, view, vectors):
    changed = {"item_representation": "delta", "id_dropout_prob": 0.0, "loss_type": loss_type}
    want, got = make(text_view=view, reader_vectors=vectors, **changed), make(train_text_view=kind, **changed)
    got.model.load_state_dict(want.model.state_dict())
    batch, losses = next(iter(want.train_data)), []
    for parts in (want, got):
        torch.manual_seed(1)
        losses.append(parts.model.calculate_loss(batch))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    rows = want.test_data._dataset[np.arange(36)]
    shown = make(**changed).model
    shown.load_state_dict(want.model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            got.model.eval().full_sort_predict(rows), shown.eval().full_sort_predict(rows), rtol=1e-4, atol=1e-4
        )


@pytest.mark.device
@pytest.mark.parametrize("representation", ["none", "init", "text_only", "add", "concat", "gate", "delta"])
def test_every_representation_trains_with_drawn_texts_and_loads(make, tmp_path, settings, representation):
    given = {**settings, "hidden_size": 16, "load_col": None, "reader_vectors": "reader", "train_text_view": "random"}
    given |= {"item_representation": representation, "item_language_embedding": True, "loss_type": "sampled_softmax"}
    result = run("LLMSASRec", "shop", config_dict=given)
    assert evaluate_run(result["run_dir"])["test"] == result["test"]


@pytest.mark.device
def test_another_dataset_is_ranked_without_the_languages_of_training(tmp_path, settings):
    write_shop(tmp_path / "data")
    other = write_shop(tmp_path / "data", "other", n_items=18)
    texts = other / "other.itemtext.jsonl"
    texts.write_text("".join(line for line in texts.open() if '"fr"' not in line))
    given = {**settings, **TEXT_ONLY, "load_col": None, "train_text_view": "random", "train_text_languages": ["fr"]}
    given["train_text_draw"] = "batch"
    result = run("LLMSASRec", "shop", config_dict=given)
    assert evaluate_run(result["run_dir"], "other")["zero_shot"]


KILLED = """
import json, os, sys
given = json.loads(sys.argv.pop())
from recbole_xling.quick_start.train import run
from recbole_xling.trainer.trainer import XLingTrainer
save = XLingTrainer._save_resume_state
def save_and_die(self, epoch, *given):
    save(self, epoch, *given)
    if epoch == 1:
        os._exit(9)
XLingTrainer._save_resume_state = save_and_die
run(*given[:2], config_dict=given[2])
"""


@pytest.mark.parametrize("model", ["LLMSASRec", pytest.param("XLingTwoTower", marks=pytest.mark.slow)])
def test_a_resumed_run_draws_on_where_it_was(tmp_path, settings, model, request):
    write_shop(tmp_path / "data")
    given = {**settings, "load_col": None, "train_text_view": "random", "epochs": 4, "train_batch_size": 16}
    if model == "XLingTwoTower":
        folder = request.getfixturevalue("tiny_encoder")
        given = {key: value for key, value in given.items() if key not in ("hidden_size", "inner_size")}
        given |= {"encoder": folder, "encoder_options": None, "encoder_max_length": 24, "peft": "lora"}
    whole = run(model, "shop", config_dict=given)
    given["checkpoint_dir"] += "-killed"
    done = subprocess.run([sys.executable, "-c", KILLED, json.dumps([model, "shop", given])], capture_output=True)
    assert done.returncode == 9, done.stderr.decode()
    (folder,) = Path(given["checkpoint_dir"]).iterdir()
    resumed = run(config_dict={"resume": str(folder)})
    want, got = (torch.load(Path(result["run_dir"]) / "last.pt")["state_dict"] for result in (whole, resumed))
    assert want.keys() == got.keys() and resumed["test"] == whole["test"]
    for name, weight in want.items():
        assert torch.equal(got[name], weight), name


@pytest.fixture
def tiny_encoder(tmp_path):
    from recbole_xling.testing import make_tiny_encoder

    return str(make_tiny_encoder(tmp_path / "encoder"))
