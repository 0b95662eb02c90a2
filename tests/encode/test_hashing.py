"""Character n-gram hashing: the numbers, what counts as alike, and that nothing depends on the process."""

from __future__ import annotations

import subprocess
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest

from recbole_xling.encode.hashing import HashingEncoder
from recbole_xling.errors import EncoderError

_TEXTS = ["The Matrix", "黑客帝国", "Матрица: Революция", "  ", "a", "İstanbul ﬁlm\tＡＢＣ", "मैट्रिक्स", "ab"]
_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _reference(text: str, dimension: int, ngram_min: int, ngram_max: int) -> np.ndarray:
    """The same counts word by word in whole numbers of any size."""
    counts = np.zeros(dimension)
    for word in unicodedata.normalize("NFKC", text).lower().split():
        padded = f" {word} "
        for n in range(ngram_min, ngram_max + 1):
            for start in range(len(padded) - n + 1):
                value = 0
                for character in padded[start : start + n]:
                    value = (value * 0x100000001B3 + _mix(ord(character))) & _MASK
                if padded[start : start + n].strip():
                    hashed = _mix((value + n) & _MASK)
                    counts[hashed % dimension] += -1.0 if hashed >> 63 else 1.0
    norm = np.linalg.norm(counts)
    return counts / norm if norm else counts


@pytest.mark.parametrize(("dimension", "ngram_min", "ngram_max"), [(512, 3, 5), (37, 1, 2), (64, 2, 4), (16, 6, 9)])
def test_vectors_match_a_word_by_word_reference(dimension: int, ngram_min: int, ngram_max: int) -> None:
    encoder = HashingEncoder(dimension=dimension, ngram_min=ngram_min, ngram_max=ngram_max)
    expected = [_reference(text, dimension, ngram_min, ngram_max) for text in _TEXTS]
    vectors = encoder.encode(_TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_vector_does_not_depend_on_its_neighbors() -> None:
    encoder = HashingEncoder()
    texts = [f"title number {number} {'x' * (number % 7)}" for number in range(600)]
    together = encoder.encode(texts)
    for number in (0, 255, 256, 599):
        np.testing.assert_array_equal(together[number], encoder.encode([texts[number]])[0])


def test_case_width_and_blanks_do_not_count_but_spelling_does() -> None:
    vectors = HashingEncoder().encode(
        ["The  Matrix ", "the matrix", "ＴＨＥ ＭＡＴＲＩＸ", "the matrices", "gone wind"]
    )
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[1], vectors[2])
    assert vectors[1] @ vectors[3] > 0.5 > abs(vectors[1] @ vectors[4]) + 0.3


def test_an_empty_text_is_zero_and_every_other_has_unit_length() -> None:
    norms = np.linalg.norm(HashingEncoder().encode(_TEXTS), axis=1)
    np.testing.assert_allclose(norms, [1, 1, 1, 0, 1, 1, 1, 1], atol=1e-6)
    assert HashingEncoder().encode([]).shape == (0, 512)


def test_another_process_with_another_hash_seed_gets_the_same_bits(
    start_python: Callable[..., subprocess.Popen[str]],
) -> None:
    code = (
        "from recbole_xling.encode import create_encoder\n"
        f"print(create_encoder('hashing').encode({_TEXTS!a}).tobytes().hex())"
    )
    output, errors = start_python(code, PYTHONHASHSEED="12345").communicate(timeout=60)
    assert errors == ""
    assert output.strip() == HashingEncoder().encode(_TEXTS).tobytes().hex()


def test_identity_tells_settings_apart() -> None:
    settings = [{}, {"dimension": 256}, {"ngram_min": 2}, {"ngram_max": 4}]
    identities = [str(HashingEncoder(**setting).identity) for setting in settings]
    assert len(set(identities)) == len(settings)


def test_swapped_limits_are_refused() -> None:
    with pytest.raises(EncoderError, match="ngram_min=5 exceeds ngram_max=3"):
        HashingEncoder(ngram_min=5, ngram_max=3)
