"""What item vectors start from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.model.layers.item_representation import principal_axes, principal_components
from recbole_xling.quick_start.build import build


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
@pytest.mark.parametrize("white", [False, True])
def test_a_linear_projection_starts_at_the_principal_components(items_of, representation, white):
    changed = {"item_representation": representation, "text_whitening": white}
    items, vectors = items_of(text_projection="linear", text_projection_init="pca", **changed)
    want = principal_components(vectors, 16, 0.02, white=white)[1:]
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
