"""LLMSASRec: the contract of all models, and what is its own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.model.sequential_recommender import SASRec

from recbole_xling.config import XLingConfig
from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.model import llmsasrec
from recbole_xling.model.layers.hstu import time_buckets
from recbole_xling.model.layers.item_representation import (
    ItemRepresentation,
    RepresentationConfig,
    principal_components,
    whiten,
)
from recbole_xling.quick_start.build import build, build_trainer, load_run
from recbole_xling.quick_start.train import run
from recbole_xling.testing import ModelContract

SAMPLED = {"loss_type": "sampled_softmax", "n_negatives": 16}


class TestContract(ModelContract):
    model = "LLMSASRec"
    overfit = {f"{part}_dropout_prob": 0.0 for part in ("hidden", "attn", "id", "text_projection")}
    variants = {
        **{
            name: {"item_representation": name}
            for name in ("none", "text_only", "add", "concat", "gate", "init", "delta", "null_space")
        },
        "linear": {"item_representation": "gate", "text_projection": "linear", "text_whitening": True},
        "mlp": {"item_representation": "text_only", "text_projection": "mlp"},
        "moe": {
            "item_representation": "add",
            "text_projection": "moe",
            "n_experts": 3,
            "item_language_embedding": True,
        },
        "sampled in batch": {**SAMPLED, "negatives": "in_batch"},
        "sampled uniform": {**SAMPLED, "negatives": "uniform", "item_representation": "text_only"},
        "sampled mixed": {**SAMPLED, "negatives": "mixed", "logq_correction": "refined"},
        "sampled popularity": {**SAMPLED, "negatives": "popularity", "item_representation": "none"},
        "gBCE": {"loss_type": "gBCE", "negatives": "uniform", "n_negatives": 16, "item_representation": "none"},
        "SCE": {"loss_type": "SCE", "n_negatives": 16},
        "ligr": {"block": "ligr", "positions": "rotary", "item_representation": "none"},
        "hstu": {"block": "hstu", "item_representation": "none"},
        "cosine": {"temperature": 0.1},
        "cosine, sampled": {**SAMPLED, "negatives": "uniform", "temperature": 0.1, "item_representation": "none"},
        "cosine, buckets": {"loss_type": "SCE", "n_negatives": 16, "temperature": 0.1, "block": "ligr"},
        "hstu, times": {"block": "hstu", "positions": "relative_time", **SAMPLED, "negatives": "in_batch"},
    }

    @pytest.fixture
    def base_settings(self, settings):
        return settings


@pytest.fixture
def make(small_dataset, settings):
    small_dataset()

    def make_parts(**changed):
        return build(XLingConfig("LLMSASRec", "small", config_dict={**settings, **changed}))

    return make_parts


def test_scores_equal_recboles_sasrec_with_the_same_weights(make, settings):
    parts = make(item_representation="none", n_heads=2, n_layers=2)
    config = XLingConfig("SASRec", "small", config_dict={**settings, "n_heads": 2, "n_layers": 2})
    theirs = SASRec(config, parts.train_data._dataset)
    ours = parts.model
    own = ours.state_dict()
    weights = {"item_embedding.weight": own["items.item_embedding.weight"]}
    weights["position_embedding.weight"] = own["sequence_encoder.position_embedding.weight"]
    for kind in ("weight", "bias"):
        weights[f"LayerNorm.{kind}"] = own[f"sequence_encoder.input_norm.{kind}"]
        for layer in range(2):
            mine, its = f"sequence_encoder.layers.{layer}", f"trm_encoder.layer.{layer}"
            packed = own[f"{mine}.attention.query_key_value.{kind}"].chunk(3)
            for name, part in zip(("query", "key", "value"), packed, strict=True):
                weights[f"{its}.multi_head_attention.{name}.{kind}"] = part
            weights[f"{its}.multi_head_attention.dense.{kind}"] = own[f"{mine}.attention.dense.{kind}"]
            weights[f"{its}.multi_head_attention.LayerNorm.{kind}"] = own[f"{mine}.attention_norm.{kind}"]
            weights[f"{its}.feed_forward.dense_1.{kind}"] = own[f"{mine}.feed_forward.0.{kind}"]
            weights[f"{its}.feed_forward.dense_2.{kind}"] = own[f"{mine}.feed_forward.2.{kind}"]
            weights[f"{its}.feed_forward.LayerNorm.{kind}"] = own[f"{mine}.feed_forward_norm.{kind}"]
    theirs.load_state_dict(weights)
    theirs.eval(), ours.eval()
    rows = parts.test_data._dataset[np.arange(len(parts.test_data._dataset))]
    with torch.no_grad():
        want, got = theirs.full_sort_predict(rows), ours.full_sort_predict(rows)
    torch.testing.assert_close(got[:, 1:], want[:, 1:], rtol=1e-4, atol=1e-5)


def test_a_position_sees_nothing_that_comes_after_it(make):
    model = make().model.eval()
    table = model.items()
    history = torch.tensor([[3, 5, 7, 9]])
    changed = torch.tensor([[3, 5, 8, 2]])
    with torch.no_grad():
        every = torch.ones_like(history, dtype=torch.bool)
        a, b = (model.sequence_encoder(table[items], every)[None] for items in (history, changed))
    torch.testing.assert_close(a[:, :2], b[:, :2])
    assert not torch.allclose(a[:, 2:], b[:, 2:])


def test_cold_items_are_scored_by_their_text(make):
    parts = make(
        item_representation="add",
        eval_args={"split": {"RS": [0.3, 0.2, 0.5]}, "order": "TO", "group_by": "none", "mode": "full"},
    )
    counts = parts.train_data._dataset.train_item_counts
    items = parts.model.items
    cold = int(np.flatnonzero(counts[1:] == 0)[0]) + 1 if (counts[1:] == 0).any() else None
    if cold is None:  # make one
        items.id_weight[5] = 0
        cold = 5
    items.eval()
    with torch.no_grad():
        before = items()[cold].clone()
        items.item_embedding.weight[cold] += 100
        after = items()[cold]
        text = items.text_projection(items.text_vectors)[cold]
    torch.testing.assert_close(before, after)
    torch.testing.assert_close(after, text)


def test_id_dropout_leaves_the_text_and_only_in_training(make):
    items = make(item_representation="add", id_dropout_prob=0.5).model.items
    with torch.no_grad():
        items.item_embedding.weight += 10
        text = items.text_projection(items.text_vectors)
        dropped = torch.isclose(items.train()(), text, atol=1e-4).all(dim=1)
        assert 0.1 < dropped[1:].float().mean() < 0.9
        assert not torch.isclose(items.eval()(), text, atol=1e-4).all(dim=1)[1:].any()


def test_items_without_training_are_no_negatives_where_they_are_known_by_text(make):
    for representation in ("none", "gate"):
        parts = make(item_representation=representation, **HALF_TRAINED)
        trained = np.flatnonzero(parts.train_data._dataset.train_item_counts)
        everything = np.arange(1, parts.dataset.item_num)
        assert 0 < len(trained) < len(everything)
        want = everything if representation == "none" else trained
        np.testing.assert_array_equal(parts.model.candidates.numpy(), want)
        np.testing.assert_array_equal(parts.model.candidate_place[parts.model.candidates], np.arange(len(want)))


@pytest.mark.parametrize("representation", ["add", "delta"])
def test_a_shift_of_the_text_starts_at_zero(make, representation):
    items = make(item_representation=representation).model.items.eval()
    with torch.no_grad():
        torch.testing.assert_close(items(), items.text_projection(items.text_vectors))


def test_pca_keeps_the_text_as_it_is_and_trains_nothing_of_it(make):
    parts = make(item_representation="text_only", text_projection="pca")
    vectors = parts.train_data._dataset.catalog.vectors
    want = principal_components(vectors, 16, std=0.02)
    np.testing.assert_array_equal(parts.model.items().detach().numpy(), want)
    assert not list(parts.model.items.parameters())


@pytest.mark.parametrize("loss_type", ["CE", "sampled_softmax"])
def test_scores_are_the_match_plus_the_popularity_of_the_item(make, loss_type):
    """Same weights with and without it: the scores differ by the logarithm of the share of the largest count."""
    with_prior, without = (
        make(item_representation="add", loss_type=loss_type, popularity_prior=on) for on in (True, False)
    )
    without.model.load_state_dict(with_prior.model.state_dict())
    rows = with_prior.test_data._dataset[np.arange(5)]
    with torch.no_grad():
        scores = [parts.model.eval().full_sort_predict(rows)[:, 1:] for parts in (with_prior, without)]
    counts = with_prior.train_data._dataset.train_item_counts[1:]
    want = np.log(np.where(counts > 0, counts / counts.max(), 1.0))
    np.testing.assert_allclose((scores[0] - scores[1]).numpy(), np.tile(want, (5, 1)), atol=1e-5)


@pytest.mark.parametrize("representation", ["none", "delta"])
def test_with_a_temperature_the_match_is_the_cosine_over_it(make, representation):
    model = make(item_representation=representation, popularity_prior=False, temperature=0.05).model.eval()
    plain = make(item_representation=representation, popularity_prior=False).model.eval()
    plain.load_state_dict(model.state_dict())
    rows = make().test_data._dataset[np.arange(5)]
    with torch.no_grad():
        items = torch.nn.functional.normalize(plain.items(), dim=-1)
        states = plain.forward(rows["item_id_list"], rows["item_length"], items)
        want = torch.cosine_similarity(states[:, None], items[None], dim=-1) / 0.05
        got = model.full_sort_predict(rows)
    torch.testing.assert_close(got[:, 1:], want[:, 1:], rtol=1e-4, atol=1e-4)
    assert got[:, 1:].abs().max() <= 20.001


@pytest.mark.parametrize("loss_type", ["CE", "sampled_softmax"])
def test_with_a_temperature_losses_train_the_scores_that_are_served(make, loss_type):
    """A softmax over items that are drawn once each is that over all."""
    negatives = "in_batch" if loss_type == "CE" else "uniform"
    parts = make(temperature=0.2, item_representation="none", loss_type=loss_type, negatives=negatives)
    model, batch = parts.model.eval(), next(iter(parts.train_data))
    n_items = model.n_items
    if model.negatives is not None:
        model.negatives.draw = lambda target: torch.arange(1, n_items)
    trained = batch["target_weight_list"].nonzero(as_tuple=True)
    with torch.no_grad():
        table = model.item_table()
        states = model.sequence_encoder(table[batch["item_id_list"]], trained)
        scores = torch.nn.functional.normalize(states, dim=-1) @ table.T / 0.2
        loss = torch.nn.functional.cross_entropy(scores[:, 1:], batch["target_id_list"][trained] - 1, reduction="none")
        want = (loss * batch["target_weight_list"][trained]).sum()
        got = model.calculate_loss(batch)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


HALF_TRAINED = {"eval_args": {"split": {"RS": [0.1, 0.1, 0.8]}, "order": "TO", "group_by": "none", "mode": "full"}}


@pytest.mark.parametrize(("representation", "masked"), [("add", False), ("gate", True), ("text_only", False)])
def test_items_never_trained_on_are_shown_as_often_as_asked(make, representation, masked):
    parts = make(item_representation=representation, cold_exposure=2, exclude_history=masked, topk=[10], **HALF_TRAINED)
    trainer = build_trainer(parts.config, parts.model)
    trainer.fit(parts.train_data, parts.valid_data, saved=False)
    data = parts.train_data._dataset
    cold = data.train_item_counts == 0
    cold[0] = False
    share = min(0.2, 2 * cold.sum() / (len(cold) - 1))
    assert cold.sum() > 2
    rows = data.last_histories(1000)
    with torch.no_grad():
        scores = parts.model.eval().full_sort_predict(rows)
    if masked:
        scores.scatter_(1, rows["item_id_list"], float("-inf"))
    shown = cold[scores.topk(10).indices.numpy()].mean()
    assert shown == pytest.approx(share, abs=0.2 / 10)


@pytest.mark.device
def test_exposure_is_kept_with_the_model(small_dataset, settings):
    small_dataset()
    result = run("LLMSASRec", "small", config_dict={**settings, **HALF_TRAINED})
    offset = torch.load(Path(result["run_dir"]) / "model.pt", weights_only=True)["state_dict"]["score_bias.cold_offset"]
    assert offset != 0
    assert load_run(result["run_dir"]).model.score_bias.cold_offset == offset


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_popularity_may_count_less_after_training(small_dataset, settings, weight):
    small_dataset()
    folder = run("LLMSASRec", "small", config_dict={**settings, **HALF_TRAINED, "topk": [10]})["run_dir"]
    usual, other = load_run(folder), load_run(folder, popularity_weight=weight)
    bias, usual_bias, cold = other.model.score_bias, usual.model.score_bias, other.model.score_bias.cold
    torch.testing.assert_close(bias()[~cold], weight * usual_bias()[~cold])
    assert bias.cold_offset != usual_bias.cold_offset
    batch = next(iter(other.train_data))
    torch.testing.assert_close(other.model.calculate_loss(batch), usual.model.calculate_loss(batch))
    scores = other.model.full_sort_predict(other.train_data._dataset.last_histories(1000))
    shown = cold[scores.topk(10).indices].float().mean()  # new items are shown as often as before
    assert float(shown) == pytest.approx(min(0.2, 5 * int(cold.sum()) / (len(cold) - 1)), abs=0.2 / 10)


def test_a_run_that_goes_on_scores_as_it_began_and_one_that_starts_from_it_places_new_items_anew(
    small_dataset, settings
):
    small_dataset()
    first = {**settings, **HALF_TRAINED, "topk": [10], "epochs": 1}
    folder = run("LLMSASRec", "small", config_dict=first)["run_dir"]
    with pytest.raises(CheckpointError, match=r"popularity_weight was 1\.0 and is 0"):
        run(config_dict={"resume": folder, "epochs": 2, "popularity_weight": 0})
    other = {**first, "epochs": 0, "init_from": folder, "popularity_weight": 0.5}
    found = load_run(run("LLMSASRec", "small", config_dict=other)["run_dir"]).model.score_bias.cold_offset
    assert found == load_run(folder, popularity_weight=0.5).model.score_bias.cold_offset


@pytest.mark.parametrize("representation", ["none", "init"])
def test_plain_sasrec_scores_have_no_popularity_part(make, representation):
    assert not make(item_representation=representation, popularity_prior=True).model.score_bias.prior.any()


def test_plain_sasrec_can_have_the_popularity_part_as_well(make):
    parts = make(item_representation="none", popularity_prior="always", **HALF_TRAINED)
    counts = parts.train_data._dataset.train_item_counts
    want = np.log(np.maximum(counts, 1) / counts.max())  # an item without interactions is as rare as can be
    np.testing.assert_allclose(parts.model.score_bias().numpy()[1:], want[1:], atol=1e-6)


def test_delta_stays_within_its_bound(make):
    items = make(item_representation="delta", delta_max_norm=0.3).model.items.eval()
    with torch.no_grad():
        items.item_embedding.weight += torch.randn_like(items.item_embedding.weight) * 50
        text = items.text_projection(items.text_vectors)
        shift = (items() - text).norm(dim=1)
    assert (shift <= 0.3 * text.norm(dim=1) * 1.001).all()
    assert (shift[1:] >= 0.3 * text.norm(dim=1)[1:] * 0.99).all()


def test_delta_does_not_bind_items_without_text_to_it():
    vectors = np.ones((4, 3), dtype=np.float32)
    vectors[[0, 2]] = 0
    config = RepresentationConfig(
        hidden_size=5, initializer_range=0.02, item_representation="delta", text_projection=None, n_experts=1,
        text_projection_dropout_prob=0.0, text_whitening=False, item_language_embedding=False, id_dropout_prob=0.0,
        delta_max_norm=0.5,
    )  # fmt: skip
    counts = np.array([0, 1, 1, 1])
    items = ItemRepresentation(
        config,
        train_counts=counts,
        text_vectors=lambda: (vectors, np.arange(4)[None]),
        unit_vectors=lambda: (vectors, np.arange(4)[None], 1.0),
        language_ids=lambda: np.zeros((1, 4), dtype=np.int64),
    )
    with torch.no_grad():
        items.item_embedding.weight[1:] = 100
        shift = (items() - items.text_projection(items.text_vectors)).norm(dim=1)
    assert shift[2] == pytest.approx(100 * 5**0.5, rel=1e-5)
    assert shift[1] == shift[3] < 1


def test_the_log_recommends_sampled_negatives_for_large_catalogs(make, caplog, monkeypatch):
    make().model.begin_training(10, 0)
    assert "sampled_softmax" not in caplog.text
    monkeypatch.setattr(llmsasrec, "_FULL_SOFTMAX_TO", 10)
    make(**SAMPLED).model.begin_training(10, 0)
    assert "sampled_softmax" not in caplog.text
    make().model.begin_training(10, 0)
    assert "loss_type=CE scores" in caplog.text and "loss_type=sampled_softmax with learner=sparse_adam" in caplog.text


def test_init_starts_from_the_principal_components_of_the_text(make):
    parts = make(item_representation="init")
    vectors = parts.train_data._dataset.catalog.vectors
    want = principal_components(vectors, 16, std=0.02)
    np.testing.assert_allclose(parts.model.items.item_embedding.weight.detach().numpy(), want, atol=1e-6)
    centered = vectors[1:] - vectors[1:].mean(axis=0)
    distances = np.linalg.norm(centered[:, None] - centered[None], axis=-1)
    projected = np.linalg.norm(want[1:, None] - want[None, 1:], axis=-1)
    assert np.corrcoef(distances.ravel(), projected.ravel())[0, 1] > 0.9


@pytest.mark.device
def test_text_vectors_are_not_in_the_checkpoint_but_known_after_loading(small_dataset, settings):
    small_dataset()
    result = run("LLMSASRec", "small", config_dict={**settings, "item_representation": "text_only"})
    state = torch.load(Path(result["run_dir"]) / "model.pt", weights_only=True)["state_dict"]
    assert not any("text_vectors" in name for name in state)
    assert load_run(result["run_dir"]).model.items.text_vectors.abs().sum() > 0


@pytest.mark.device
def test_plain_sasrec_needs_no_text(small_dataset, settings):
    small_dataset(item_text=False)
    result = run("LLMSASRec", "small", config_dict={**settings, "item_representation": "none"})
    assert result["n_test"] == 40


def test_whitening_decorrelates_and_leaves_empty_rows():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(500, 1)) * 5 + rng.normal(size=(500, 8)) @ rng.normal(size=(8, 8))).astype(np.float32)
    vectors[7] = 0
    white = whiten(vectors, floor=0.0)
    assert (white[7] == 0).all()
    rest = np.delete(white, 7, axis=0)
    np.testing.assert_allclose(rest.T @ rest / len(rest), np.eye(8) / 8, atol=1e-3)
    assert np.mean(np.sum(whiten(vectors) ** 2, axis=1)) == pytest.approx(499 / 500, rel=1e-3)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("item_representation", "gated", "gate"),
        ("text_projection", "moa", "moe"),
        ("loss_type", "BCE", "CE"),
        ("negatives", "inbatch", "in_batch"),
        ("loss_type", "gBCE", "uniform"),
        ("negatives", "uniform", "loss_type=CE"),
        ("n_heads", 3, "hidden_size"),
        ("n_layers", 0, "n_layers"),
        ("hidden_act", "gleu", "gelu"),
        ("block", "higr", "ligr"),
        ("cold_exposure", 0, "cold_exposure"),
    ],
)
def test_wrong_settings_name_the_right_ones(make, key, value, named):
    changed = {"item_representation": "gate", key: value}
    with pytest.raises(ConfigError, match=named):
        make(**changed)


TIMES = {"block": "hstu", "positions": "relative_time", "item_representation": "none"}


def test_times_of_histories_are_those_of_the_file_in_training_and_in_evaluation(make):
    parts = make(**TIMES, train_stride=8, shuffle=False)
    dataset = parts.train_data.dataset
    moment = dataset.sequence[dataset.time_field].double()
    users, items = dataset.sequence[dataset.uid_field], dataset.sequence[dataset.iid_field]
    seen = 0
    for batch in (*parts.train_data, *(rows for rows, *_ in parts.test_data)):
        for user, history, elapsed, length in zip(
            batch["user_id"], batch["item_id_list"], batch["elapsed_list"], batch["item_length"], strict=True
        ):
            of_user = (users == user).nonzero().squeeze(1)
            n = int(length)
            (start,) = [at for at in of_user.tolist() if torch.equal(items[at : at + n], history[:n])][:1]
            want = moment[start : start + n] - moment[start]
            torch.testing.assert_close(elapsed[:n].double(), 1000 * want)
            assert not elapsed[n:].any()
            seen += 1
    assert seen > 40 and batch["elapsed_list"].any()


def test_seconds_within_a_session_count_after_years(small_dataset, build_small):
    times = [0, 3 * 365 * 86_400, 3 * 365 * 86_400 + 2, 3 * 365 * 86_400 + 7, 6 * 365 * 86_400]
    lines = [f"u{user}\ti{item}\t1\t{1_600_000_000 + t}" for user in range(9) for item, t in enumerate(times)]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (small_dataset() / "small.inter").write_text("\n".join([head, *lines]) + "\n")
    rows = next(iter(build_small(**TIMES).test_data))[0]
    assert rows["elapsed_list"][0, :4].tolist() == [1000 * t for t in times[:4]]
    bucket = time_buckets(rows["elapsed_list"])[0]
    assert bucket[1, 2] == int(math.log(2) / 0.301) and bucket[2, 3] == int(math.log(5) / 0.301)
    lines = [f"u{user}\ti{item}\t1\t{1_600_000_000 + t}000000000" for user in range(9) for item, t in enumerate(times)]
    (small_dataset() / "small.inter").write_text("\n".join([head, *lines]) + "\n")
    far = time_buckets(next(iter(build_small(**TIMES).test_data))[0]["elapsed_list"])[0]
    assert far[0, 1] > bucket[0, 1]  # nanoseconds, which are more than fit


def test_times_that_are_no_seconds_are_refused(make):
    with pytest.raises(DataError, match="positions=relative_time needs the times of interactions as they are"):
        next(iter(make(**TIMES, normalize_all=True).train_data))


def test_scores_depend_on_the_times_between_interactions(make):
    parts = make(**TIMES)
    with torch.no_grad():
        parts.model.sequence_encoder.layers[0].time_bias.normal_()
        rows = next(iter(parts.test_data))[0]
        before = parts.model.eval().full_sort_predict(rows)
        rows.interaction["elapsed_list"] *= 1000
        after = parts.model.full_sort_predict(rows)
        several = rows["item_length"] > 1
        assert not torch.isclose(before[several, 1:], after[several, 1:]).all(dim=1).any()
        rows.interaction["elapsed_list"] += 86_400_000  # what counts is the time between two of them
        torch.testing.assert_close(parts.model.full_sort_predict(rows), after)
        del rows.interaction["elapsed_list"]
        with pytest.raises(ConfigError, match="relative_time reads when the items of a history were chosen"):
            parts.model.full_sort_predict(rows)


@pytest.mark.parametrize(
    ("changed", "idle"),
    [
        ({"n_negatives": 9, "gbce_t": 0.5}, "n_negatives=9, gbce_t=0.5"),
        ({"loss_type": "gBCE", "negatives": "uniform", "n_negatives": 9, "logq_correction": False},
         "logq_correction=False"),
        ({"item_representation": "none", "text_centering": True, "train_text_view": "random"},
         "text_centering=True, train_text_view=random"),
        ({"item_representation": "add", "text_projection_init": "random"}, "text_projection_init=random"),
        ({"item_representation": "init", "id_half_count": 3}, "id_half_count=3"),
        ({"train_text_languages": ["de"]}, "train_text_languages=['de']"),
    ],
)  # fmt: skip
def test_a_run_says_which_settings_change_nothing_beside_the_others(small_dataset, build_small, caplog, changed, idle):
    small_dataset()
    build_small(**changed)
    assert f"without effect on LLMSASRec beside the other settings: {idle}" in caplog.text


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"loss_type": "SCE", "n_negatives": 9},
        {"text_projection": "moe", "n_experts": 2},
        {"item_representation": "none", "item_language_embedding": True, "train_text_view": "random"},
        {"item_representation": "init", "text_centering": True, "train_text_view": "all"},
    ],
)
def test_settings_with_an_effect_are_not_named(small_dataset, build_small, caplog, changed):
    small_dataset()
    build_small(**changed)
    assert "without effect" not in caplog.text
