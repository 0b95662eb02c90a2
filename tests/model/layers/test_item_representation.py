"""What item vectors start from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from resumed import resume_like_whole

from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError
from recbole_xling.model.layers.item_representation import centered, principal_axes, principal_components
from recbole_xling.quick_start.build import build, build_trainer, load_run
from recbole_xling.quick_start.train import run


@pytest.fixture
def items_of(small_dataset, settings):
    small_dataset()

    def make(**changed):
        parts = build(XLingConfig("LLMSASRec", "small", config_dict={**settings, **changed}))
        return parts.model.items.eval(), parts.train_data._dataset.catalog.vectors

    return make


def test_principal_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) + 3).astype(np.float32)
    vectors[[0, 7]] = 0
    rows = np.delete(vectors, [0, 7], axis=0)
    left, length, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    want = (left * length)[:, :4]
    want *= 0.02 / want.std()
    components = principal_components(vectors, 4, 0.02)
    assert (components[[0, 7]] == 0).all()
    components = np.delete(components, [0, 7], axis=0)
    components *= np.sign((components * want).sum(axis=0))
    np.testing.assert_allclose(components, want, atol=1e-6)


@pytest.mark.parametrize("representation", ["text_only", "delta"])
@pytest.mark.parametrize(("start", "whitening"), [("pca", False), ("pca", True), ("whitened", False)])
def test_a_linear_projection_starts_at_the_principal_components(items_of, representation, start, whitening):
    changed = {"item_representation": representation, "text_whitening": whitening}
    items, vectors = items_of(text_projection="linear", text_projection_init=start, **changed)
    want = principal_components(vectors, 16, 0.02, white=whitening or start == "whitened")[1:]
    got = items().detach().numpy()[1:]
    np.testing.assert_allclose(got * (np.linalg.norm(want) / np.linalg.norm(got)), want, atol=1e-5)
    assert got.std() == pytest.approx(0.02, rel=0.1)
    assert items.text_projection.weight.requires_grad


def test_a_linear_projection_can_start_at_random(items_of):
    starts = [items_of(text_projection_init=start)[0].text_projection.weight for start in ("pca", "random", "random")]
    assert torch.equal(starts[1], starts[2])
    assert not torch.equal(starts[0], starts[1])


def test_vectors_that_do_not_differ_have_no_axes():
    for vectors in (np.zeros((3, 4)), np.ones((3, 4)), np.full((1, 4), 0.3)):
        mean, axes = principal_axes(vectors.astype(np.float32), 2, 0.02)
        assert np.isfinite(mean).all()
        assert not axes.any()


# ---- IDs in the null space ------------------------------------------------------------------------------------

HALF_TRAINED = {"eval_args": {"split": {"RS": [0.1, 0.1, 0.8]}, "order": "TO", "group_by": "none", "mode": "full"}}


@pytest.mark.parametrize("projection", ["pca", "linear"])
def test_ids_learn_only_where_no_text_vector_has_a_component(small_dataset, build_small, projection):
    small_dataset()
    parts = build_small(item_representation="null_space", null_space_size=6, text_projection=projection, **HALF_TRAINED)
    build_trainer(parts.config, parts.model).fit(parts.train_data, saved=False, verbose=False)
    items = parts.model.items.eval()
    with torch.no_grad():
        vectors, trained = items(), items.id_weight[:, 0] > 0
        items.id_weight.zero_()
        text = items()
    learned = vectors - text
    assert text.abs().sum() > 0 and (text[:, -6:] == 0).all()
    assert (learned @ text.T == 0).all()  # each ID against each text, to the last bit
    assert torch.linalg.matrix_rank(text) == 10  # and that leaves IDs nothing but their own six dimensions
    assert (learned[trained].abs().sum(dim=1) > 0).all() and 0 < trained.sum() < len(trained) - 1
    assert (learned[~trained] == 0).all()  # cold items are their texts


def test_texts_of_the_null_space_stay_the_principal_components(small_dataset, build_small):
    small_dataset()
    parts = build_small(item_representation="null_space")
    vectors = parts.train_data._dataset.catalog.vectors
    build_trainer(parts.config, parts.model).fit(parts.train_data, saved=False, verbose=False)
    got = parts.model.items.eval()().detach().numpy()
    np.testing.assert_array_equal(got[:, :8], principal_components(vectors, 8, 0.02))
    assert np.abs(got[1:, 8:]).max() > 0


@pytest.mark.parametrize("size", [16, 20])
def test_a_null_space_leaves_room_for_texts(items_of, size):
    with pytest.raises(ConfigError, match="smaller than hidden_size"):
        items_of(item_representation="null_space", null_space_size=size)


# ---- IDs by training count ------------------------------------------------------------------------------------


@pytest.mark.parametrize("representation", ["add", "delta", "null_space", "gate", "concat"])
@pytest.mark.parametrize("half", [0, 3.5])
def test_ids_count_by_how_often_they_were_trained(small_dataset, build_small, representation, half):
    small_dataset()
    parts = build_small(item_representation=representation, id_half_count=half, **HALF_TRAINED)
    counts = parts.train_data._dataset.train_item_counts
    items = parts.model.items.eval()
    want = [n / (n + half) if n else 0.0 for n in counts.tolist()]
    np.testing.assert_allclose(items.id_weight[:, 0].numpy(), want, rtol=1e-6)
    if representation in ("add", "null_space"):  # linear in the ID
        with torch.no_grad():
            before = items()
            items.item_embedding.weight += 1
            size = items.item_embedding.weight.shape[1]
            np.testing.assert_allclose((items() - before)[:, -size:].mean(dim=1).numpy(), want, atol=1e-5)


def test_the_weights_of_ids_are_kept_with_the_model(small_dataset, settings):
    small_dataset()
    result = run("LLMSASRec", "small", config_dict={**settings, **HALF_TRAINED, "id_half_count": 2})
    model = load_run(result["run_dir"]).model
    counts = load_run(result["run_dir"]).train_data._dataset.train_item_counts
    np.testing.assert_allclose(model.items.id_weight[:, 0].numpy(), counts / np.maximum(counts + 2, 1), rtol=1e-6)
    trained = torch.arange(len(counts)) % 2 == 0  # as earlier releases kept them
    model.load_other_parameter({"trained": trained})
    assert torch.equal(model.items.id_weight[:, 0], trained.float())


# ---- centering ------------------------------------------------------------------------------------------------


def test_centering_takes_the_mean_of_each_language():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(300, 6)) + 4).astype(np.float32)
    vectors[0] = vectors[17] = 0
    row = np.array([np.arange(200), np.r_[np.arange(100), np.arange(200, 300)]])
    language = np.array([np.ones(200, dtype=int), np.r_[np.ones(100, dtype=int), np.full(100, 2)]])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    groups = [[text for text in range(200) if text not in (0, 17)], list(range(200, 300))]
    average = unit.sum(axis=0) / 298
    want = np.zeros_like(unit)
    for texts in groups:
        want[texts] = unit[texts] - (unit[texts].sum(axis=0) + 30 * average) / (len(texts) + 30)
    want /= np.maximum(np.linalg.norm(want, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(centered(vectors, row, language), want, atol=1e-5)


# ---- resume ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("representation", ["null_space", "delta"])
def test_a_resumed_run_ends_with_the_same_weights(small_dataset, settings, representation):
    small_dataset()
    changed = {"item_representation": representation, "id_half_count": 2, "text_centering": True, "epochs": 4}
    resume_like_whole("LLMSASRec", "small", {**settings, **changed}, after=1)
