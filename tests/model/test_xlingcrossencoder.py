"""XLingCrossEncoder: the contract of all models, its scores and loss by hand, resume, costs, other data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from resumed import resume_like_whole
from transformers import AutoModel, AutoTokenizer

from recbole_xling.config import XLingConfig
from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.quick_start.build import build, build_trainer, load_run
from recbole_xling.quick_start.evaluate import evaluate_run
from recbole_xling.quick_start.train import run
from recbole_xling.testing import ModelContract, make_tiny_encoder

MODEL = "XLingCrossEncoder"
WORDS = "the film about shark beach matrix love star war der pate ein hai am strand titel".split()


@pytest.fixture
def settings(settings, tiny_encoder):
    changed = {key: value for key, value in settings.items() if not key.startswith(("hidden", "inner", "attn"))}
    changed |= {"encoder": str(tiny_encoder), "encoder_options": None, "lora_rank": 4, "mini_batch_size": 64}
    changed |= {"encoder_max_length": 48, "text_max_length": 10, "train_batch_size": 32, "train_negatives": 2}
    return {**changed, "learning_rate": 0.003, "encoder_batch_size": 512}


def topic(item):
    """Return a text of two words that no other item has."""
    return f"{WORDS[item % 16]} {WORDS[item // 16]}"


class TestContract(ModelContract):
    model = MODEL
    overfit_data = {"n_users": 30, "n_items": 16, "lengths": [5] * 30, "title": topic}
    overfit = {"peft": "full", "adapter_layers": None, "pooling": "mean", "learning_rate": 0.001, "epochs": 70}
    overfit |= {"train_negatives": 8, "train_batch_size": 16, "learning_rates": None, "mini_batch_size": 512}
    overfit |= {"text_max_length": 4, "encoder_max_length": 24, "exclude_history": True}
    variants = {
        "lora, softmax": {},
        "top layers, binary": {"adapter_layers": 2, "pair_loss": "binary", "mini_batch_size": 10},
        "adalora, first token": {"peft": "adalora", "pooling": "cls", "train_batch_size": 8},
    }

    @pytest.fixture
    def base_settings(self, settings, tmp_path):
        steady = make_tiny_encoder(tmp_path / "steady")  # without dropout, with which it learns too slowly
        written = json.loads((steady / "config.json").read_text())
        written |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (steady / "config.json").write_text(json.dumps(written))
        return {**settings, "encoder": str(steady), "epochs": 1}

    @pytest.mark.slow
    def test_overfits_a_small_set(self, tmp_path, base_settings, variant):
        super().test_overfits_a_small_set(tmp_path, base_settings, variant)


@pytest.fixture
def make(small_dataset, settings):
    small_dataset(title=topic)
    return lambda **changed: build(XLingConfig(MODEL, "small", config_dict={**settings, **changed}))


def by_hand(parts, tiny_encoder, pairs):
    """Score pairs of texts by transformers: histories of a list of texts, the newest last."""
    tokenizer, encoder = AutoTokenizer.from_pretrained(tiny_encoder), AutoModel.from_pretrained(tiny_encoder).eval()
    found = []
    for history, candidate in pairs:
        parts_of = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (*history, candidate)]
        ids = [0]
        for text in reversed(parts_of[:-1]):
            ids += [*text, 2]
        ids += [2, *parts_of[-1], 2]
        with torch.no_grad():
            states = encoder(input_ids=torch.tensor([ids])).last_hidden_state[0]  # (T, H)
            found.append(float(parts.model.head(states.mean(dim=0))))
    return torch.tensor(found)


def test_scores_are_those_of_transformers_for_the_pair_of_texts(make, tiny_encoder):
    parts = make(peft="frozen")
    rows = parts.test_data._dataset[np.arange(6)]
    with torch.no_grad():
        scores = parts.model.eval().full_sort_predict(rows)
    tokens = parts.dataset.field2id_token["item_id"]
    text = [""] + [topic(int(token[1:])) for token in tokens[1:]]
    for row in range(6):
        history = [text[item] for item in rows["item_id_list"][row, : rows["item_length"][row]]]
        want = by_hand(parts, tiny_encoder, [(history, text[item]) for item in (3, 17, 30)])
        torch.testing.assert_close(scores[row, [3, 17, 30]], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pair_loss", ["softmax", "binary"])
def test_the_loss_is_that_of_targets_among_their_negatives(make, pair_loss):
    parts = make(pair_loss=pair_loss, train_negatives=3)
    model = parts.model.eval()
    batch = next(iter(parts.train_data))
    loss = model.calculate_loss(batch)
    want = 0.0
    for row, step in torch.nonzero(batch["target_weight_list"]).tolist():
        user, target = batch["user_id"][row], batch["target_id_list"][row, step]
        negative, wrong = model.negatives.draw(user[None], target[None], model.seed, 0, 1)
        items = torch.cat([target[None], negative[wrong]])
        n = len(items)
        rows = {
            "user_id": user.expand(n),
            "item_id_list": batch["item_id_list"][row, : step + 1].expand(n, -1),
            "item_length": torch.full((n,), step + 1),
            "item_id": items,
        }
        logits = model.predict(Interaction(rows)).detach().double()
        if pair_loss == "softmax":
            own = logits[0].exp() / logits.exp().sum()
            one = -own.log()
        else:
            p = logits.sigmoid()
            one = -(p[0].log() + (1 - p[1:]).log().sum()) / n
        want += float(batch["target_weight_list"][row, step]) * float(one)
    assert float(loss.detach()) == pytest.approx(want, rel=1e-4)


def test_a_resumed_run_ends_with_the_same_weights(settings, small_dataset):
    small_dataset(title=topic)
    changed = {**settings, "epochs": 3, "stopping_step": 10, "valid_users": 5, "hard_negatives": 2}
    *_, weights = resume_like_whole(MODEL, "small", changed, after=1)
    assert any("lora_A" in name for name in weights) and not any("word_embeddings" in name for name in weights)


def test_weights_of_another_encoder_are_refused(make, settings, tmp_path):
    make()
    result = run(MODEL, "small", config_dict={**settings, "epochs": 1, "eval_args": {"mode": "uni5"}, "topk": [5],
                                              "valid_metric": "NDCG@5"})  # fmt: skip
    parts = make(encoder=str(make_tiny_encoder(tmp_path / "other", seed=1)))
    with pytest.raises(CheckpointError, match="encoder"):
        build_trainer(parts.config, parts.model)._load_model(Path(result["run_dir"]) / "model.pt")


def test_full_rankings_say_what_they_cost_and_are_refused_before_training(settings, small_dataset, caplog):
    small_dataset()
    with pytest.raises(ConfigError, match=r"40 histories x 30 items = 1,200 passes .* max_ranked_pairs \(1,000\)"):
        run(MODEL, "small", config_dict={**settings, "max_ranked_pairs": 1000})
    assert not list(Path(settings["checkpoint_dir"]).iterdir())
    caplog.set_level("INFO")
    few = {**settings, "max_ranked_pairs": 1200, "valid_users": 3, "epochs": 1}
    result = run(MODEL, "small", config_dict=few)
    assert "Ranking all items: 3 histories x 30 items = 90 passes of the encoder" in caplog.text
    assert "Ranking all items: 40 histories x 30 items = 1,200 passes of the encoder" in caplog.text
    assert "Pairs of at most 48 tokens have room for" in caplog.text
    with pytest.raises(ConfigError, match="1,200 passes"):
        evaluate_run(result["run_dir"], config_dict={"max_ranked_pairs": 1000})


def test_scores_of_half_precision_do_not_tie(settings, small_dataset):
    small_dataset()
    result = run(MODEL, "small", config_dict={**settings, "enable_amp": True, "epochs": 1})
    loaded = load_run(result["run_dir"])
    (interaction, *_), *_ = loaded.test_data
    with torch.no_grad():
        scores = loaded.model.full_sort_predict(interaction.to(loaded.config["device"]))[:, 1:]
    assert scores.dtype == torch.float32
    assert all(len(row.unique()) == len(row) for row in scores)


def test_sampled_candidates_cost_no_full_ranking(settings, small_dataset, monkeypatch):
    from recbole_xling.model.xlingcrossencoder import XLingCrossEncoder

    small_dataset()
    monkeypatch.setattr(XLingCrossEncoder, "full_sort_predict", None)
    sampled = {"max_ranked_pairs": 1, "eval_args": {"mode": "uni5"}, "topk": [5], "valid_metric": "NDCG@5"}
    result = run(MODEL, "small", config_dict={**settings, **sampled, "epochs": 1})
    assert 0 < result["test"]["ndcg@5"] <= 1


def test_a_run_ranks_a_dataset_it_has_never_seen(small_dataset, settings):
    small_dataset(title=topic)
    result = run(MODEL, "small", config_dict={**settings, "epochs": 1, "valid_users": 3})
    small_dataset(name="other", n_items=17, n_users=23, title=lambda item: topic(item + 1))
    evaluated = evaluate_run(result["run_dir"], "other")
    assert evaluated["n_test"] == 23 and evaluated["zero_shot"]
    assert 0 < evaluated["test"]["ndcg@10"] <= 1


def test_a_user_without_a_history_is_scored(make, tiny_encoder):
    parts = make(peft="frozen")
    rows = parts.test_data._dataset[np.arange(2)]
    rows["item_length"] = torch.tensor([0, int(rows["item_length"][1])])
    with torch.no_grad():
        scores = parts.model.eval().full_sort_predict(rows)
    ids = AutoTokenizer.from_pretrained(tiny_encoder)("", topic(int(parts.dataset.field2id_token["item_id"][5][1:])))[
        "input_ids"
    ]
    with torch.no_grad():
        states = AutoModel.from_pretrained(tiny_encoder)(input_ids=torch.tensor([ids])).last_hidden_state[0]
        want = parts.model.head(states.mean(dim=0))[0]
    torch.testing.assert_close(scores[0, 5], want, rtol=1e-4, atol=1e-5)


# ---- languages ------------------------------------------------------------------------------------------------


@pytest.fixture
def in_two_languages(small_dataset):
    """Items in German with a parallel text in Italian, and users who read one of both."""
    folder = small_dataset(title=topic)
    (folder / "small.item").write_text("item_id:token\n" + "".join(f"i{item}\n" for item in range(30)))
    texts = []
    for item in range(30):
        for language, source in (("de", "display"), ("it", "parallel")):
            fields = {"title": topic(item) if language == "de" else f"hai {topic(item)}"}
            texts.append({"item_id": f"i{item}", "language": language, "fields": fields, "source": source})
    (folder / "small.itemtext.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    users = "".join(f"u{user}\t{('de', 'it')[user % 2]}\n" for user in range(40))
    (folder / "small.user").write_text("user_id:token\tuser_language:token\n" + users)
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "user_language"]}
    return {"text_view": "reader", "load_col": columns}


def test_each_reader_sees_pairs_in_his_language(in_two_languages, settings, tiny_encoder):
    changed = {**settings, **in_two_languages, "peft": "frozen"}
    parts = build(XLingConfig(MODEL, "small", config_dict=changed))
    rows = parts.test_data._dataset[np.arange(8)]
    with torch.no_grad():
        scores = parts.model.eval().full_sort_predict(rows)
    items, users = (parts.dataset.field2id_token[field] for field in ("item_id", "user_id"))
    seen = set()
    for row in range(8):
        italian = int(users[rows["user_id"][row]][1:]) % 2
        seen.add(italian)
        text = [""] + ["hai " * italian + topic(int(token[1:])) for token in items[1:]]
        history = [text[item] for item in rows["item_id_list"][row, : rows["item_length"][row]]]
        want = by_hand(parts, tiny_encoder, [(history, text[7])])
        torch.testing.assert_close(scores[row, [7]], want, rtol=1e-4, atol=1e-5)
    assert seen == {0, 1}


def test_training_shows_items_in_other_languages_at_random(in_two_languages, settings, monkeypatch):
    changed = {**settings, **in_two_languages, "train_text_view": "random"}
    parts = build(XLingConfig(MODEL, "small", config_dict=changed))
    model, shown = parts.model, []
    pairs = model.pairs.pairs

    def watched(history, candidate):
        shown.append((history, candidate))
        return pairs(history, candidate)

    monkeypatch.setattr(model.pairs, "pairs", watched)
    model.begin_training(10, 0)
    for step, batch in zip(range(4), parts.train_data, strict=False):
        model.calculate_loss(batch)
        model.end_step(step)
    italian = set(model.text_row[-1, 1:].tolist()) - set(model.text_row[0].tolist())
    assert len(italian) == 30
    for place in (0, 1):
        texts = torch.cat([both[place].flatten() for both in shown])
        share = np.isin(texts[texts >= 0].numpy(), list(italian)).mean()
        assert 0.3 < share < 0.7
    with pytest.raises(ConfigError, match="train_text_view must be one of own, reader, random"):
        XLingConfig(MODEL, "small", config_dict={**changed, "train_text_view": "all"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text_max_length": 30}, "room for two texts of 22 tokens, not of text_max_length 30"),
        ({"encoder_max_length": 65}, "takes 64 tokens at most"),
        ({"pair_loss": "hinge"}, "pair_loss must be one of softmax, binary"),
        ({"reader_vectors": "mean"}, "reader_vectors must be one of reader"),
    ],
)
def test_wrong_settings_say_what_is_right(make, changed, message):
    with pytest.raises(ConfigError, match=message):
        make(**changed)


def test_a_saved_run_scores_as_before(settings, small_dataset):
    small_dataset(title=topic)
    result = run(MODEL, "small", config_dict={**settings, "epochs": 1, "peft": "frozen", "valid_users": 3})
    loaded = load_run(result["run_dir"])
    state = torch.load(Path(result["run_dir"]) / "model.pt", weights_only=True)["state_dict"]
    assert set(state) == {"head.weight", "head.bias"}
    rows = loaded.test_data._dataset[np.arange(3)]
    with torch.no_grad():
        assert torch.isfinite(loaded.model.full_sort_predict(rows)[:, 1:]).all()


def test_items_of_the_targets_own_text_are_no_negatives(make, monkeypatch):
    parts = make(train_negatives=3)
    model, found = parts.model, []
    monkeypatch.setattr(model, "_losses", lambda logits, shown: found.append(shown) or logits[:, 0])
    batch = next(iter(parts.train_data))
    model.calculate_loss(batch)
    assert found[0][:, 1:].any()
    model.text_row.fill_(1)
    model.calculate_loss(batch)
    assert found[1][:, 0].all() and not found[1][:, 1:].any()
