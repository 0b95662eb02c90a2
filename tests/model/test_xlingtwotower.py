"""XLingTwoTower: the contract of all models, and what is its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from resumed import resume_like_whole

from recbole_xling.config import XLingConfig
from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.quick_start.build import build, build_trainer, load_run
from recbole_xling.quick_start.evaluate import evaluate_run
from recbole_xling.quick_start.train import run
from recbole_xling.testing import ModelContract, make_tiny_encoder, small_settings
from recbole_xling.trainer.checkpoint import warm_start


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(make_tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def settings(settings, encoder):
    changed = {key: value for key, value in settings.items() if key not in ("hidden_size", "inner_size")}
    changed |= {"encoder": encoder, "encoder_options": None, "encoder_max_length": 24, "peft": "lora", "lora_rank": 4}
    return {**changed, "learning_rate": 0.003}


def add_parallel_text(folder, item, title, language="it"):
    record = {"item_id": f"i{item}", "language": language, "fields": {"title": title}, "source": "parallel"}
    with open(folder / f"{folder.name}.itemtext.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def topic(item):
    """Return a text that neighboring items share most of."""
    words = "the film about shark beach matrix love star war der pate ein hai am strand titel".split()
    return " ".join([words[item // 4]] * 3 + [words[(item + 2) // 4]] * 3 + ["abcd"[item % 4]])


class TestContract(ModelContract):
    model = "XLingTwoTower"
    # the user's own items are no negatives, so all of them, in any order, are right
    overfit_data = {"n_users": 30, "n_items": 60, "lengths": [6] * 30, "title": topic}
    overfit = {"peft": "full", "adapter_layers": None, "learning_rate": 0.002, "learning_rates": None, "epochs": 180}
    overfit |= {"temperature": 0.05, "exclude_history": True, "popularity_prior": False, "logq_correction": False}
    overfit |= {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "train_batch_size": 64}
    variants = {
        "lora, mean": {},
        "top layers, attention": {"adapter_layers": 2, "user_tower": "attention", "language_embedding": True},
        "adalora, transformer": {"peft": "adalora", "user_tower": "transformer", "train_batch_size": 8},
        "learned temperature": {"learn_temperature": True},
        "ia3, projection": {"peft": "ia3", "embedding_size": 16, "logq_correction": False},
        "full, hard negatives": {"peft": "full", "hard_negatives": 3, "popularity_prior": False},
        "frozen, map with perceptron": {"peft": "frozen", "embedding_size": 16, "embedding_mlp_size": 8},
        "nested sizes, hardness": {
            "peft": "frozen",
            "embedding_size": 32,
            "matryoshka_sizes": [8, 16],
            "score_size": 16,
            "hardness": 1.0,
            "hard_negatives": 3,
            "hard_negative_margin": 0.95,
            "catalog_negatives": 10,
        },
        "sub-batches": {"mini_batch_size": 20, "gradient_checkpointing": True},
    }

    @pytest.fixture
    def base_settings(self, settings):
        return settings

    @pytest.mark.slow
    def test_overfits_a_small_set(self, tmp_path, base_settings, variant):
        super().test_overfits_a_small_set(tmp_path, base_settings, variant)


@pytest.fixture
def make(small_dataset, settings):
    small_dataset()
    return lambda **changed: build(XLingConfig("XLingTwoTower", "small", config_dict={**settings, **changed}))


@pytest.mark.parametrize(
    ("changed", "rate"),
    [
        ({"peft": "frozen"}, 0.001),
        ({"peft": "lora"}, 0.0003),
        ({"peft": "frozen", "learning_rate": 0.02}, 0.02),
        ({"peft": "lora", "learning_rate": 0.02}, 0.02),
        ({"peft": "frozen", "learning_rate": 0.02, "learning_rates": {"encoder.projection": 0.1}}, 0.1),
    ],
)
def test_map_and_adapters_have_learning_rates_of_their_own(small_dataset, settings, changed, rate):
    small_dataset()
    given = {key: value for key, value in settings.items() if key != "learning_rate"} | changed
    run = build(XLingConfig("XLingTwoTower", "small", config_dict=given))
    groups = build_trainer(run.config, run.model).optimizer.param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    of_name = {name: rates[id(p)] for name, p in run.model.named_parameters() if p.requires_grad}
    assert {of_name[name] for name in of_name if name.startswith("encoder.")} == {rate}
    assert "learning_rates" in changed or of_name["user_tower.pooling.recency"] == 0.03


def scores_at_the_start(make, **changed):
    model = (parts := make(popularity_prior=False, **changed)).model
    model.begin_training(100, 0)
    return model.eval().full_sort_predict(parts.test_data._dataset[np.arange(12)])[:, 1:]


@pytest.mark.parametrize("peft", ["frozen", "lora"])
def test_a_learned_map_starts_at_the_frozen_encoder(make, peft):
    frozen, same, smaller = (
        scores_at_the_start(make, **changed)
        for changed in (
            {"peft": "frozen", "embedding_size": None},
            {"peft": peft, "embedding_size": 32},
            {"peft": peft, "embedding_size": 16},
        )
    )
    torch.testing.assert_close(same, frozen, rtol=0, atol=0 if peft == "frozen" else 1e-4)
    assert torch.corrcoef(torch.stack([smaller.flatten(), frozen.flatten()]))[0, 1] > 0.95


def test_a_frozen_encoder_has_a_map_that_starts_at_it_and_the_full_softmax(make):
    want = scores_at_the_start(make, peft="frozen", embedding_size=None, catalog_negatives=0)
    torch.testing.assert_close(scores_at_the_start(make, peft="frozen"), want, rtol=0, atol=0)
    model = make(peft="frozen").model
    assert model.encoder.projection.weight.requires_grad and model.catalog_negatives.rate == 1
    tuned = make().model
    assert tuned.encoder.projection is None and tuned.catalog_negatives.rate == 0


def test_popularity_may_count_less_after_training(settings, small_dataset, caplog):
    small_dataset(n_items=40, title=topic)
    split = {"eval_args": {"split": {"RS": [0.1, 0.1, 0.8]}, "order": "TO", "group_by": "none", "mode": "full"}}
    folder = run("XLingTwoTower", "small", config_dict={**settings, **split, "peft": "frozen", "epochs": 1})["run_dir"]
    usual, other = (load_run(folder, **changed).model.score_bias for changed in ({}, {"popularity_weight": 0.5}))
    torch.testing.assert_close(other()[~other.cold], 0.5 * usual()[~usual.cold])
    assert usual.cold.any() and other.cold_offset != usual.cold_offset
    idle = {"popularity_prior": False, "popularity_weight": 0.5}
    with caplog.at_level("WARNING"):
        run("XLingTwoTower", "small", config_dict={**settings, "peft": "frozen", "epochs": 1, **idle})
    assert "without effect on XLingTwoTower beside the other settings: popularity_weight=0.5" in caplog.text


@pytest.mark.device
@pytest.mark.parametrize("size", [None, 8])
def test_runs_of_earlier_releases_load_and_give_the_same(settings, small_dataset, size):
    """Their settings lack those of the map's start, of negatives of the catalog, of the gate and of popularity."""
    small_dataset()
    first = {**settings, "peft": "frozen", "embedding_size": size, "embedding_init": "random", "catalog_negatives": 0}
    result = run("XLingTwoTower", "small", config_dict={**first, "epochs": 2})
    file = Path(result["run_dir"]) / "model.pt"
    content = torch.load(file, weights_only=True)
    new = {"embedding_init", "embedding_mlp_size", "catalog_negatives", "untuned_count", "anchor_weight"}
    new |= {"bias_by_history", "popularity_weight"}
    kept = [pair for pair in content["config"]["items"] if pair[0] not in new]
    assert len(kept) == len(content["config"]["items"]) - len(new)
    content["config"]["items"] = kept
    torch.save(content, file)
    assert evaluate_run(result["run_dir"])["test"] == result["test"]
    assert load_run(result["run_dir"]).model.score_bias.known is None


def test_maps_of_earlier_runs_keep_their_weights(settings, small_dataset):
    small_dataset()
    first = {**settings, "peft": "frozen", "embedding_size": 8, "embedding_init": "random", "epochs": 1}
    earlier = run("XLingTwoTower", "small", config_dict=first)["run_dir"]
    want = torch.load(Path(earlier) / "model.pt", weights_only=True)["state_dict"]["encoder.projection.weight"]
    torch.testing.assert_close(load_run(earlier).model.encoder.projection.weight, want)
    again = {**first, "embedding_init": "pca", "init_adapter_from": earlier}
    parts = build(config := XLingConfig("XLingTwoTower", "small", config_dict=again))
    warm_start(parts.model, config)
    parts.model.begin_training(100, 0)
    torch.testing.assert_close(parts.model.encoder.projection.weight, want)


def losses(parts):
    parts.model.eval()  # no dropout
    return [parts.model.calculate_loss(batch) for batch in parts.train_data]


def gradients(parts):
    parts.model.zero_grad()
    sum(losses(parts)).backward()
    return {name: p.grad.clone() for name, p in parts.model.named_parameters() if p.grad is not None}


def test_sub_batches_change_neither_loss_nor_gradients(make):
    whole, cut = make(), make(mini_batch_size=4)
    cut.model.load_state_dict(whole.model.state_dict())
    want, got = gradients(whole), gradients(cut)
    assert want.keys() == got.keys() and want
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-6)


def test_the_catalog_is_encoded_once_for_given_weights(make, monkeypatch):
    parts = make()
    model = parts.model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = []
    encode = model.encoder.pooled
    monkeypatch.setattr(model.encoder, "pooled", lambda *given: calls.append(1) or encode(*given))
    rows = parts.test_data._dataset[np.arange(4)]
    first = model.full_sort_predict(rows)
    model.full_sort_predict(rows)
    assert len(calls) == 1
    with torch.no_grad():
        next(p for name, p in model.encoder.named_parameters() if "lora_B" in name).add_(0.5)
    assert not torch.allclose(model.full_sort_predict(rows)[:, 1:], first[:, 1:])
    assert len(calls) == 2
    model.load_state_dict(before)
    torch.testing.assert_close(model.full_sort_predict(rows), first)


def batches_that_have_texts(parts, n_epochs):
    """Return in how many batches of some epochs each text is, and how many batches there are."""
    texts, n_batches = parts.model.texts, 0
    seen = torch.zeros(texts.tokens.n_texts)
    for epoch in range(n_epochs):
        parts.train_data.set_epoch(epoch)
        for batch in parts.train_data:
            items = torch.cat([batch["item_id_list"].flatten(), batch["target_id_list"].flatten()])
            seen[torch.unique(texts.served.of_item[0, items[items > 0]])] += 1
            n_batches += 1
    return seen, n_batches


def test_candidates_are_corrected_by_how_often_a_batch_has_them(small_dataset, settings):
    """The offset is minus the logarithm of the chance that a text is in a batch, which is no more than 1."""
    small_dataset(n_users=400, n_items=60)
    changed = {"popularity_prior": False, "train_batch_size": 64}
    parts = build(XLingConfig("XLingTwoTower", "small", config_dict={**settings, **changed}))
    seen, n_batches = batches_that_have_texts(parts, 20)
    often = seen > 20
    assert often.sum() > 30
    expected = (seen / n_batches)[often]
    torch.testing.assert_close(torch.exp(-parts.model.logit_adjustment)[often], expected, rtol=0, atol=0.1)


def two_languages(folder):
    """Write 60 readers of Danish and 240 of English, who share some items, and return the columns to load."""
    readers = [f"u{user}\t{'da' if user < 60 else 'en'}" for user in range(300)]
    (folder / "small.user").write_text("\n".join(["user_id:token\tuser_language:token", *readers]) + "\n")
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(300):
        items = np.random.default_rng(user).permutation(np.arange(20, 60) if user < 60 else np.arange(40))[:8]
        rows += [f"u{user}\ti{item}\t{time}" for time, item in enumerate(items)]
    (folder / "small.inter").write_text("\n".join(rows) + "\n")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "user_language"], "item": ["item_id"]}
    return {"load_col": columns, "text_view": "display"}


@pytest.mark.parametrize("changed", [{"language_temperature": 5}, {"languages": ["da"]}], ids=str)
def test_corrections_go_by_what_batches_have_where_languages_are_balanced(small_dataset, settings, changed):
    known = two_languages(small_dataset(n_users=300, n_items=60))
    known |= {"popularity_prior": False, "train_batch_size": 64, "catalog_negatives": 0, **changed}
    parts = build(XLingConfig("XLingTwoTower", "small", config_dict={**settings, **known}))
    seen, n_batches = batches_that_have_texts(parts, 60)
    often = seen > 20
    expected = (seen / n_batches)[often]
    torch.testing.assert_close(torch.exp(-parts.model.logit_adjustment)[often], expected, rtol=0, atol=0.15)


def test_negatives_of_a_batch_are_corrected_by_what_it_has_where_languages_are_balanced(small_dataset, tmp_path):
    known = two_languages(small_dataset(n_users=300, n_items=60))
    known |= {"loss_type": "sampled_softmax", "negatives": "in_batch", "language_temperature": 5}
    parts = build(XLingConfig("LLMSASRec", "small", config_dict={**small_settings(tmp_path), **known}))
    met = torch.zeros(parts.dataset.item_num)
    for epoch in range(20):
        parts.train_data.set_epoch(epoch)
        for batch in parts.train_data:
            target = batch["target_id_list"][batch["target_weight_list"] > 0]
            met += torch.bincount(target, minlength=len(met))
    torch.testing.assert_close(parts.model.negatives.rate, met / met.sum(), rtol=0.15, atol=0.001)


def test_with_all_items_as_negatives_the_softmax_is_over_the_catalog(small_dataset, settings):
    """By hand, users to items: the own items are no negatives, items never trained on neither."""
    small_dataset(n_items=40, title=topic)
    changed = {"peft": "frozen", "embedding_size": 32, "train_batch_size": 16, "catalog_negatives": 1000}
    loading = {"load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}}
    parts = build(XLingConfig("XLingTwoTower", "small", config_dict={**settings, **changed, **loading}))
    model, batch = parts.model.eval(), next(iter(parts.train_data))
    trained = torch.from_numpy(parts.dataset.train_item_counts > 0).nonzero().squeeze(1)
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "recbole_xling.model.xlingtwotower.in_batch_softmax", lambda found, *options: seen.update(b=found)
        )
        with pytest.raises(TypeError):  # the loss that is not computed here has no regularization added
            model.calculate_loss(batch) + 0
    found = seen["b"]
    texts = torch.unique(model.texts.trained.of_item[0, trained])
    assert len(found.items) == len(texts) > 16
    with torch.no_grad():
        vectors = model.encoder(model.texts.tokens, texts)
        vectors = model.texts.centering(vectors, model.texts.text_language[texts], torch.ones(len(texts)))
    torch.testing.assert_close(found.items, vectors, atol=1e-5, rtol=1e-4)
    prior = torch.zeros(model.texts.tokens.n_texts)
    prior[model.texts.trained.of_item[0]] = model.score_bias.prior
    torch.testing.assert_close(found.logit_adjustment, prior[texts])
    place = {int(text): row for row, text in enumerate(texts)}
    positions = [(row, t) for row, t in (batch["target_weight_list"] > 0).nonzero().tolist()]
    for n, (row, _) in enumerate(positions[:8]):
        own = {*batch["item_id_list"][row].tolist(), *batch["target_id_list"][row].tolist()} - {0}
        own = {place[int(model.texts.trained.of_item[0, item])] for item in own}
        assert set(found.accidental_hit_mask[n].nonzero().squeeze(1).tolist()) == own


def test_scores_use_the_first_dimensions_that_were_trained_for_it(settings, small_dataset):
    small_dataset(n_items=40, title=topic)
    sizes = {"peft": "frozen", "embedding_size": 16, "matryoshka_sizes": [4, 8], "epochs": 1}
    folder = run("XLingTwoTower", "small", config_dict={**settings, **sizes})["run_dir"]
    whole, cut = load_run(folder), load_run(folder, score_size=8)
    ((_, of_whole),), ((_, of_cut),) = (loaded.model.factors(_rows(loaded)) for loaded in (whole, cut))
    assert of_cut.items.shape == (41, 8)
    for first, second in ((of_whole.items, of_cut.items), (of_whole.users, of_cut.users / cut.model.scale)):
        unit = torch.nn.functional.normalize(first[1:, :8], dim=-1)
        torch.testing.assert_close(second[1:], unit)
    torch.testing.assert_close(cut.model.item_table(), of_cut.items)
    assert whole.model.scores_of_new() is not None and cut.model.scores_of_new() is None
    with pytest.raises(ConfigError, match=r"score_size 5 is not among matryoshka_sizes \[4, 8\]"):
        load_run(folder, score_size=5)


def _rows(loaded):
    return next(iter(loaded.test_data))[0]


def test_a_user_without_a_history_is_scored_by_his_language(make):
    parts = make()
    rows = parts.test_data._dataset[np.arange(2)]
    rows["item_length"] = torch.tensor([0, int(rows["item_length"][1])])
    rows["item_id_list"][0] = 0
    with torch.no_grad():
        scores = parts.model.eval().full_sort_predict(rows)
        known = parts.model.item_table() @ parts.model.user_tower.empty(torch.zeros(1, dtype=torch.long))[0]
    want = known * parts.model.scale + parts.model.score_bias()
    torch.testing.assert_close(scores[0, 1:], want[1:])


@pytest.mark.device
def test_checkpoints_hold_adapters_and_heads_and_refuse_another_encoder(make, settings, small_dataset, tmp_path):
    small_dataset()
    result = run("XLingTwoTower", "small", config_dict={**settings, "epochs": 1})
    state = torch.load(Path(result["run_dir"]) / "model.pt", weights_only=True)
    assert not any("word_embeddings" in name for name in state["state_dict"])
    assert any("lora_A" in name for name in state["state_dict"])
    other = str(make_tiny_encoder(tmp_path / "other", seed=1))
    parts = make(encoder=other)
    with pytest.raises(CheckpointError, match="encoder"):
        build_trainer(parts.config, parts.model)._load_model(Path(result["run_dir"]) / "model.pt")


@pytest.mark.device
@pytest.mark.parametrize(
    "changed",
    [
        {"peft": "adalora", "hard_negatives": 2, "hard_negative_epochs": 2},
        {"peft": "frozen", "embedding_size": 16, "embedding_mlp_size": 4, "catalog_negatives": 7, "untuned_count": 1},
    ],
)
def test_a_resumed_run_ends_like_one_that_never_stopped(settings, small_dataset, changed):
    small_dataset()
    changed = {**settings, **changed, "epochs": 5, "stopping_step": 10}
    whole, again, _ = resume_like_whole("XLingTwoTower", "small", changed, after=2)
    assert again["best_valid"] == whole["best_valid"]


def test_alignment_brings_translations_together(small_dataset, settings):
    folder = small_dataset(title=topic)
    for item in range(30):
        add_parallel_text(folder, item, f"ein hai pate {topic(item)}")
    ranks = {}
    for weight in (0.0, 1.0):
        changed = {"alignment_weight": weight, "alignment_pairs": 16, "epochs": 30, "peft": "full"}
        config = XLingConfig("XLingTwoTower", "small", config_dict={**settings, **changed})
        parts = build(config)
        build_trainer(config, parts.model).fit(parts.train_data, saved=False, verbose=False)
        encoder, store = parts.model.encoder.eval(), parts.dataset.catalog.store
        texts = [[store.display(f"i{n}").fields["title"] for n in range(30)]]
        texts.append([store.parallel(f"i{n}")[0].fields["title"] for n in range(30)])
        with torch.no_grad():
            first, second = (encoder.encode_all(encoder.tokenize(side)) for side in texts)
        match = first @ second.T
        ranks[weight] = (match > match.diagonal()[:, None]).float().sum(dim=1).mean().item()
    assert ranks[1.0] < ranks[0.0] / 2


@pytest.mark.parametrize("peft", ["lora", "ia3", "adalora"])
def test_the_vectors_of_before_stay_what_they_were_and_adapters_trainable(make, peft):
    model = make(peft=peft, adapter_layers=2, embedding_size=8).model.eval()
    texts = torch.arange(model.texts.tokens.n_texts)
    with torch.no_grad():
        want = torch.nn.functional.normalize(model.encoder.pooled(model.texts.tokens, texts), dim=-1)
        trained = [(name, p) for name, p in model.encoder.named_parameters() if p.requires_grad]
        for _, parameter in trained:
            parameter.add_(torch.randn_like(parameter))
    model.train()
    got = model.encoder.untuned(model.texts.tokens, texts)
    torch.testing.assert_close(got, want, rtol=0, atol=5e-3)  # kept in half precision
    tuned = torch.nn.functional.normalize(model.encoder.pooled(model.texts.tokens, texts), dim=-1)
    assert not torch.allclose(tuned, want, rtol=0, atol=0.1)
    assert trained == [(name, p) for name, p in model.encoder.named_parameters() if p.requires_grad]
    assert model.encoder.training


def test_an_anchor_keeps_the_encoder_near_what_it_was(small_dataset, settings):
    small_dataset(title=topic)
    away = {}
    for weight in (0.0, 10.0):
        changed = {"anchor_weight": weight, "epochs": 10, "learning_rate": 0.01, "lora_dropout": 0.0}
        parts = build(config := XLingConfig("XLingTwoTower", "small", config_dict={**settings, **changed}))
        build_trainer(config, parts.model).fit(parts.train_data, saved=False, verbose=False)
        encoder, tokens = parts.model.encoder.eval(), parts.model.texts.tokens
        texts = torch.arange(tokens.n_texts)
        with torch.no_grad():
            cosine = torch.cosine_similarity(encoder.pooled(tokens, texts), encoder.untuned(tokens, texts))
        away[weight] = (1 - cosine).mean().item()
    assert away[10.0] < away[0.0] / 2


@pytest.mark.parametrize(
    "changed",
    [{"peft": "frozen", "embedding_size": 8}, {"peft": "lora"}, {"embedding_size": 8, "user_tower": "attention"}],
)
def test_items_that_training_met_seldom_are_scored_by_the_encoder_as_it_was(small_dataset, settings, changed):
    """By hand: a mix of the scores of a trained and of an untrained model, by how often each item was trained."""
    small_dataset(title=topic)
    trained, gated, untrained = (
        build(XLingConfig("XLingTwoTower", "small", config_dict={**settings, **given}))
        for given in (changed, {**changed, "untuned_count": 3.0}, {"peft": "frozen"})
    )
    with torch.no_grad():
        for parameter in trained.model.encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
        trained.model.user_tower.pooling.recency.mul_(0.5)
        gated.model.load_state_dict(trained.model.state_dict())
        untrained.model.user_tower.load_state_dict(
            {k: v for k, v in trained.model.user_tower.state_dict().items() if "without" not in k}, strict=False
        )
    rows = trained.test_data._dataset[np.arange(12)]
    rows["item_length"][3] = 0  # no history: nothing is known of what the encoder would say
    new, mixed, old = (parts.model.eval().full_sort_predict(rows)[:, 1:] for parts in (trained, gated, untrained))
    bias = trained.model.score_bias()[1:]
    count = torch.from_numpy(trained.train_data._dataset.train_item_counts)[1:]
    share = count / (count + 3.0)
    old[3] = bias
    torch.testing.assert_close(mixed, share * new + (1 - share) * old, rtol=1e-3, atol=1e-3)
    rows["item_id"] = torch.arange(1, 13)
    torch.testing.assert_close(gated.model.predict(rows), mixed[torch.arange(12), torch.arange(12)])


@pytest.mark.device
def test_a_run_is_not_evaluated_with_another_gate(settings, small_dataset):
    small_dataset()
    folder = run("XLingTwoTower", "small", config_dict={**settings, "peft": "frozen", "epochs": 1})["run_dir"]
    with pytest.raises(CheckpointError, match="untuned_count=0"):
        evaluate_run(folder, config_dict={"untuned_count": 2.0})


@pytest.mark.parametrize("key", ["anchor_weight", "untuned_count"])
def test_the_encoder_as_it_was_is_not_known_where_all_of_it_is_trained(make, key):
    with pytest.raises(ConfigError, match=key):
        make(peft="full", **{key: 1.0})


@pytest.mark.parametrize("peft", ["frozen", "full"])
def test_an_anchor_needs_adapters(make, peft):
    with pytest.raises(ConfigError, match="anchor_weight"):
        make(peft=peft, anchor_weight=1.0)


def test_pairs_are_no_candidates(make, small_dataset, settings):
    """Texts drawn for alignment must not be negatives of positions: they may be the target in another language."""
    folder = small_dataset(name="pairs")
    with open(folder / "pairs.itemtext.jsonl", "a", encoding="utf-8") as file:
        file.write(
            json.dumps({"item_id": "i1", "language": "it", "fields": {"title": "x"}, "source": "parallel"}) + "\n"
        )
    weights = [
        XLingConfig("XLingTwoTower", "pairs", config_dict={**settings, "alignment_weight": w}) for w in (0, 1e-9)
    ]
    torch.manual_seed(0)
    without, with_pairs = (build(config) for config in weights)
    with_pairs.model.load_state_dict(without.model.state_dict())
    for a, b in zip(losses(without), losses(with_pairs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("user_tower", "max", "mean"),
        ("peft", "lorra", "lora"),
        ("pooling", "max", "mean"),
        ("temperature", 0, "temperature"),
        ("temperature", 0.001, "temperature"),
        ("alignment_weight", -1, "alignment_weight"),
        ("alignment_weight", 1, "alignment_weight"),
        ("hard_negative_cross_language", 2, "hard_negative"),
        ("embedding_init", "identity", "pca"),
        ("embedding_mlp_size", 8, "embedding_size"),
    ],
)
def test_wrong_settings_name_the_right_ones(make, key, value, named):
    changed = {"hard_negatives": 1} if key.startswith("hard") else {}
    with pytest.raises((ConfigError, DataError), match=named):
        make(**changed, **{key: value})


@pytest.mark.device
def test_a_run_ranks_a_dataset_it_has_never_seen(small_dataset, settings):
    """Other items, users and languages, no parallel texts: the ranking is that of the towers over its own texts."""
    folder = small_dataset(title=topic)
    with open(folder / "small.itemtext.jsonl", "a", encoding="utf-8") as file:
        file.write(
            json.dumps({"item_id": "i1", "language": "it", "fields": {"title": "x"}, "source": "parallel"}) + "\n"
        )
    changed = {"alignment_weight": 0.1, "hard_negatives": 2, "language_embedding": True, "epochs": 1}
    result = run("XLingTwoTower", "small", config_dict={**settings, **changed})
    small_dataset(name="other", n_items=17, n_users=23, title=lambda item: topic(item + 1))
    evaluated = evaluate_run(result["run_dir"], "other")
    assert evaluated["n_test"] == 23 and evaluated["zero_shot"]
    assert evaluated["slices"]["popularity=cold"]["n"] == 23
    assert 0 < evaluated["test"]["ndcg@10"] <= 1


@pytest.mark.device
def test_parts_start_from_an_earlier_run(settings, small_dataset):
    small_dataset()
    small_dataset(name="other", n_items=17)
    earlier = run("XLingTwoTower", "small", config_dict={**settings, "user_tower": "attention"})["run_dir"]
    want = torch.load(Path(earlier) / "model.pt", weights_only=True)["state_dict"]
    named = {"init_adapter_from": earlier, "init_user_tower_from": earlier, "user_tower": "attention"}
    config = XLingConfig("XLingTwoTower", "other", config_dict={**settings, **named})
    parts = build(config)
    warm_start(parts.model, config)
    got = parts.model.state_dict()
    taken = [name for name in want if name.startswith(("encoder.", "user_tower."))]
    assert any("lora" in name for name in taken) and any("query" in name for name in taken)
    for name in taken:
        torch.testing.assert_close(got[name], want[name])


@pytest.mark.device
def test_adapters_start_from_a_run_with_a_frozen_encoder(settings, small_dataset):
    """First the head, then the adapters: they begin where the head is, and change nothing yet."""
    small_dataset()
    head = {**settings, "embedding_size": 8, "user_tower": "transformer"}
    earlier = run("XLingTwoTower", "small", config_dict={**head, "peft": "frozen"})["run_dir"]
    frozen = load_run(earlier)
    config = XLingConfig(
        "XLingTwoTower", "small", config_dict={**head, "init_adapter_from": earlier, "init_user_tower_from": earlier}
    )
    parts = build(config)
    warm_start(parts.model, config)
    assert any("lora" in name for name, _ in parts.model.encoder.named_parameters())
    rows = parts.test_data._dataset[np.arange(4)]
    want, got = (model.eval().item_table() for model in (frozen.model, parts.model))
    torch.testing.assert_close(got, want, rtol=0, atol=0.01)  # what frozen layers return is kept in half precision
    users = [
        model.forward(rows["item_id_list"], rows["item_length"], torch.zeros(4, dtype=torch.long), want)
        for model in (frozen.model, parts.model)
    ]
    torch.testing.assert_close(users[1], users[0])


@pytest.mark.device
def test_a_run_that_trained_nothing_of_a_part_is_no_start(settings, small_dataset):
    small_dataset()
    frozen = {**settings, "peft": "frozen", "embedding_size": None, "epochs": 1}
    earlier = run("XLingTwoTower", "small", config_dict=frozen)["run_dir"]
    with pytest.raises(CheckpointError, match="nothing of its encoder"):
        run("XLingTwoTower", "small", config_dict={**settings, "init_adapter_from": earlier})


@pytest.mark.device
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"user_tower": "mean"}, "not in the model"),
        ({"lora_rank": 2}, "another shape"),
        ({"lora_alpha": 128}, "lora_alpha=32, not 128"),
        ({"encoder": None}, "encoder"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings, small_dataset, tmp_path, changed, named):
    small_dataset()
    earlier = run("XLingTwoTower", "small", config_dict={**settings, "user_tower": "attention", "epochs": 1})["run_dir"]
    if "encoder" in changed:
        changed = {"encoder": str(make_tiny_encoder(tmp_path / "other", seed=1))}
    wanted = {"user_tower": "attention", "init_adapter_from": earlier, "init_user_tower_from": earlier, **changed}
    with pytest.raises(CheckpointError, match=named) as told:
        run("XLingTwoTower", "small", config_dict={**settings, **wanted})
    assert not changed.keys().isdisjoint(("encoder", "lora_alpha")) or f"{earlier}/config.yaml" in str(told.value)
    with pytest.raises(CheckpointError, match="lora_alpha=64"):  # another scale of the same adapters
        given = {"user_tower": "attention", "init_from": earlier, "lora_alpha": 64}
        run("XLingTwoTower", "small", config_dict={**settings, **given})


def test_adapters_are_no_start_for_a_frozen_encoder(settings, small_dataset):
    small_dataset()
    earlier = run("XLingTwoTower", "small", config_dict={**settings, "epochs": 1})["run_dir"]
    kept = {key: value for key, value in settings.items() if "lora" not in key and key != "target_modules"}
    with pytest.raises(CheckpointError, match="peft"):
        run("XLingTwoTower", "small", config_dict={**kept, "peft": "frozen", "init_adapter_from": earlier})


def test_a_folder_that_is_no_run_is_refused(settings, small_dataset):
    small_dataset()
    with pytest.raises(ConfigError, match="init_adapter_from"):
        run("XLingTwoTower", "small", config_dict={**settings, "init_adapter_from": "nowhere"})


@pytest.mark.device
@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(small_dataset, settings, run_two, tmp_path):
    folder = small_dataset(title=topic)
    for item in range(30):
        add_parallel_text(folder, item, f"ein hai pate {topic(item)}")
    steady = make_tiny_encoder(tmp_path / "steady")
    written = json.loads((steady / "config.json").read_text())
    written |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (steady / "config.json").write_text(json.dumps(written))
    changed = {"encoder": str(steady), "lora_dropout": 0.0, "learn_temperature": True}
    changed |= {"alignment_weight": 0.5, "hard_negatives": 2, "catalog_negatives": 7, "anchor_weight": 2.0}
    changed |= {"embedding_size": 16, "embedding_init": "pca"}
    changed |= {"adversarial": "pgd", "language_adversary_weight": 0.5, "auxiliary_fields": ["language"]}
    changed |= {"history_crop": 0.3, "history_mask": 0.2, "history_reorder": 0.3, "task_weights": "uncertainty"}
    same = {**settings, **changed, "alignment_pairs": 15, "epochs": 3}
    alone = run("XLingTwoTower", "small", config_dict=same)
    done = run_two("XLingTwoTower", same)
    assert done.returncode == 0, done.stderr[-3000:]
    folders = (alone["run_dir"], json.loads(done.stdout.strip().splitlines()[-1])["run_dir"])
    one, two = (torch.load(Path(folder) / "last.pt", weights_only=True)["losses"] for folder in folders)
    assert len(one) == 3
    for epoch, loss in one.items():
        assert two[epoch] == pytest.approx(loss, rel=1e-4)


def test_hard_negatives_are_told_where_all_items_are_negatives_anyway(make, caplog):
    frozen = {"peft": "frozen", "embedding_size": 16, "hard_negatives": 2}
    all_of_them = make(**frozen)
    assert "hard_negatives" not in caplog.text  # also of a run that is loaded
    all_of_them.model.begin_training(1, 0)
    assert "hard_negatives change nothing: each batch has all items of training" in caplog.text
    assert all_of_them.model.hard_negatives is None
    caplog.clear()
    some = make(**frozen, catalog_negatives=5).model
    some.begin_training(1, 0)
    assert some.hard_negatives is not None
    assert "hard_negatives" not in caplog.text


def test_options_that_are_not_read_are_told(make, caplog):
    with caplog.at_level("WARNING"):
        make(encoder_options={"dtype": "float32"})
    assert "encoder_options: dtype changes nothing for XLingTwoTower, which reads revision, gguf_file" in caplog.text
