"""What LLMSASRec and XLingTwoTower train besides the next item, or train it on: the same settings for both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from resumed import resume_like_whole
from shop import write_shop

from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError
from recbole_xling.quick_start.build import build, build_trainer
from recbole_xling.quick_start.evaluate import evaluate_run
from recbole_xling.quick_start.train import run
from recbole_xling.testing import make_tiny_encoder, small_settings

MODELS = ("LLMSASRec", "XLingTwoTower")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(make_tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def settings_of(tmp_path, encoder):
    """Return a function that returns the settings of a fast run of a model on the shop."""
    write_shop(tmp_path / "data")
    own = {
        "LLMSASRec": {"hidden_size": 16, "inner_size": 32, "train_batch_size": 16},
        "XLingTwoTower": {
            "encoder": encoder,
            "encoder_options": None,
            "encoder_max_length": 24,
            "peft": "lora",
            "lora_rank": 2,
        },
    }
    return lambda model, **changed: {**small_settings(tmp_path), "load_col": None, **own[model], **changed}


@pytest.fixture
def make(settings_of):
    return lambda model, **changed: build(XLingConfig(model, "shop", config_dict=settings_of(model, **changed)))


RESUMED = {
    "fgm": {"adversarial": "fgm"},
    "pgd": {"adversarial": "pgd", "adversarial_steps": 2},
    "augmented histories": {"history_crop": 0.5, "history_mask": 0.3, "history_reorder": 0.5},
    "tasks": {"auxiliary_fields": ["category"], "task_weights": "uncertainty", "adversarial": "fgm"},
    "code switch": {"train_text_view": "random", "train_text_code_switch": 0.5},
    "language adversary": {"language_adversary_weight": 0.5, "train_text_view": "random"},
}


LOSSES = {
    "mixed, refined": {"loss_type": "sampled_softmax", "negatives": "mixed", "logq_correction": "refined"},
    "popularity": {"loss_type": "sampled_softmax", "negatives": "popularity"},
    "gBCE": {"loss_type": "gBCE", "negatives": "uniform"},
    "SCE": {"loss_type": "SCE"},
    "SCE of gated layers": {"loss_type": "SCE", "block": "ligr", "positions": "rotary"},
    "CE of hstu": {"block": "hstu"},
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_resumed_run_goes_on_with_the_same_negatives_and_layers(settings_of, name):
    settings = settings_of("LLMSASRec", **LOSSES[name], n_negatives=8, epochs=3, stopping_step=10)
    resume_like_whole("LLMSASRec", "shop", settings, after=0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_ends_like_one_that_never_stopped(settings_of, model, name):
    resume_like_whole(model, "shop", settings_of(model, **RESUMED[name], epochs=3, stopping_step=10), after=0)


# ---- adversarial perturbation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changed"),
    [
        ("LLMSASRec", {}),
        ("LLMSASRec", {"loss_type": "sampled_softmax", "negatives": "uniform"}),
        ("XLingTwoTower", {}),
        ("XLingTwoTower", {"peft": "frozen"}),
    ],
)
def test_perturbed_histories_are_harder_and_stay_near(make, model, changed):
    losses = {}
    for epsilon in (0.0, 1e-6, 0.3):
        parts = make(model, **changed, **({"adversarial": "fgm", "adversarial_epsilon": epsilon} if epsilon else {}))
        torch.manual_seed(0)
        losses[epsilon] = parts.model.eval().calculate_loss(next(iter(parts.train_data))).item()
    assert losses[1e-6] == pytest.approx(2 * losses[0.0], rel=1e-3)
    assert losses[0.3] > losses[1e-6] * 1.001


# ---- language adversary ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("view", [{"train_text_view": "random"}, {"reader_vectors": "reader"}, {}])
def test_the_classifier_learns_languages_and_items_get_its_reversed_gradient(make, model, view):
    """Texts are German for everybody, French and English for their readers."""
    if model == "LLMSASRec" and not view:
        with pytest.raises(ConfigError, match="one known language only"):
            make(model, language_adversary_weight=1.0)
        return
    parts, plain = make(model, language_adversary_weight=1.0, **view), make(model, **view)
    plain.model.load_state_dict(parts.model.state_dict(), strict=False)
    batch, gradients = next(iter(parts.train_data)), []
    for made in (parts, plain):
        made.model.begin_training(10, 0)
        for step in range(9):  # as if they had been made
            made.model.end_step(step)
        made.model.eval().calculate_loss(batch).backward()
        gradients.append({name: p.grad for name, p in made.model.named_parameters() if p.grad is not None})
    ours, theirs = gradients
    classifier = [name for name in ours if name.startswith("language_adversary")]
    assert len(classifier) == 4 and all(ours[name].abs().sum() > 0 for name in classifier)
    of_items = [name for name in theirs if name.startswith(("items.", "encoder."))]
    assert of_items and any(not torch.allclose(ours[name], theirs[name]) for name in of_items)


@pytest.mark.parametrize("model", MODELS)
def test_another_dataset_is_ranked_with_the_classifier_of_training(settings_of, tmp_path, model):
    other = write_shop(tmp_path / "data", "other", n_items=18)
    texts = other / "other.itemtext.jsonl"
    texts.write_text("".join(line for line in texts.open() if '"de"' in line))  # one language
    changed = {"language_adversary_weight": 0.5, "train_text_view": "random", "epochs": 1}
    changed |= {"item_representation": "text_only"} if model == "LLMSASRec" else {}
    result = run(model, "shop", config_dict=settings_of(model, **changed))
    assert evaluate_run(result["run_dir"], "other")["zero_shot"]


# ---- auxiliary tasks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("changed", [{}, {"reader_vectors": "reader"}])
def test_users_learn_to_tell_the_category_of_the_next_item(make, model, changed):
    """Categories take turns: the next item has another one than the last."""
    given = {**changed, "auxiliary_fields": ["category"], "auxiliary_weight": 5.0, "epochs": 12, "learning_rate": 0.01}
    own = {"XLingTwoTower": {"user_tower": "transformer"}, "LLMSASRec": {"text_projection_init": "random"}}
    parts = make(model, **given, **own[model])
    batch, errors = next(iter(parts.train_data)), []
    tasks, forward = parts.model.tasks, parts.model.tasks.forward
    tasks.forward = lambda *rows: errors.append(forward(*rows)) or errors[-1]
    for train in (True, False):
        errors.clear()
        with torch.no_grad():
            parts.model.eval().calculate_loss(batch)
        first = sum(error.item() for error in errors)
        if train:
            before = first
            build_trainer(parts.config, parts.model).fit(parts.train_data, saved=False, verbose=False)
    assert before == pytest.approx(5 * np.log(2), rel=0.15)
    assert first < before * (0.8 if model == "LLMSASRec" else 0.98)  # of a random encoder less can be learned


def test_alignment_is_a_task_whose_weight_can_be_learned(make):
    given = {"alignment_weight": 0.5, "task_weights": "uncertainty"}
    parts = make("XLingTwoTower", **given)
    fixed = make("XLingTwoTower", alignment_weight=0.5)
    fixed.model.load_state_dict(parts.model.state_dict(), strict=False)
    batch = next(iter(parts.train_data))
    got, want = (made.model.eval().calculate_loss(batch) for made in (parts, fixed))
    torch.testing.assert_close(got, want - np.log(0.5) / 2, rtol=1e-4, atol=1e-5)
    got.backward()
    assert all(s.grad is not None for s in parts.model.tasks.log_variance.values())
