"""The control encoder: stable per text, unrelated between texts."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_xling.encode.random import RandomEncoder


def test_a_text_keeps_its_vector_whatever_stands_around_it() -> None:
    encoder = RandomEncoder()
    vectors = encoder.encode(["one", "two", "three", "one"])
    np.testing.assert_array_equal(vectors[0], vectors[3])
    np.testing.assert_array_equal(encoder.encode(["three", "one"]), vectors[[2, 0]])
    np.testing.assert_array_equal(RandomEncoder().encode(["two"])[0], vectors[1])


def test_the_drawn_numbers_stay_what_they_are() -> None:
    vector = RandomEncoder(seed=7, dimension=4).encode(["Der Pate"])[0]
    np.testing.assert_allclose(vector, [0.6180506, 0.3706968, -0.6792313, -0.1387167], atol=1e-6)


def test_vectors_are_isotropic_unit_directions() -> None:
    vectors = RandomEncoder(dimension=64).encode([f"text {number}" for number in range(2000)]).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    covariance = vectors.T @ vectors / len(vectors)  # (64, 64), I / 64 for directions without preference
    assert np.abs(covariance * 64 - np.eye(64)).max() < 0.15
    assert np.abs(vectors.mean(axis=0)).max() < 0.015
    # a coordinate of a random direction is nearly Gaussian: fourth moment 3, for uniform numbers it were 1.8
    assert np.mean((vectors * 8) ** 4) == pytest.approx(3 * 64 / 66, abs=0.1)


def test_near_texts_are_no_nearer_than_others() -> None:
    vectors = RandomEncoder().encode(["The Matrix", "The Matrix ", "the matrix"])
    assert np.abs(vectors @ vectors.T - np.eye(3)).max() < 0.25


@pytest.mark.parametrize("dimension", [1, 3, 512])
def test_any_dimension_and_no_text_at_all(dimension: int) -> None:
    encoder = RandomEncoder(dimension=dimension)
    assert encoder.encode(["x", "y"]).shape == (2, dimension)
    assert encoder.encode([]).shape == (0, dimension)


def test_seed_and_dimension_are_part_of_the_identity() -> None:
    assert not np.allclose(RandomEncoder(seed=1).encode(["x"]), RandomEncoder(seed=2).encode(["x"]))
    settings = [{}, {"seed": 1}, {"dimension": 8}]
    assert len({str(RandomEncoder(**setting).identity) for setting in settings}) == len(settings)
