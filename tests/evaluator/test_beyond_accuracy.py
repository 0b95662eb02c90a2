"""What lists show, against values that are worked out by hand."""

from __future__ import annotations

from math import log, log2

import numpy as np
import pytest

from recbole_xling.evaluator.beyond_accuracy import Lists, beyond_accuracy_table, gini
from recbole_xling.evaluator.collector import EvaluatedRows
from recbole_xling.evaluator.slices import EvalContext
from recbole_xling.language.users import Readers


@pytest.fixture
def lists():
    # items 1 to 3 are shown in German, 4 and 5 in French; readers of French see item 1 in it too
    displayed = ["und", "de", "de", "de", "fr", "fr"]
    readers = Readers(["und", "de", "fr", "und"], displayed, {"fr": np.array([0, 1, 0, 0, 1, 1], dtype=bool)})
    context = EvalContext(
        user_tokens=["[PAD]", "a", "b", "c"],
        item_tokens=["[PAD]", *"12345"],
        readers=readers,
        train_counts=np.array([0, 3, 1, 0, 1, 0]),
        known_users=np.array([1, 1, 1, 1, 2, 2]),
        known_items=np.array([1, 2, 3, 4, 1, 2]),
    )
    rows = EvaluatedRows(np.array([1, 2, 3]), np.array([1, 1, 1]), np.array([5, 3, 1]))
    return Lists(np.array([[5, 1], [1, 4], [2, 3]]), rows, context, [1, 2])


def _divergence(history, shares):
    return sum(p * log(p / (0.99 * q + 0.01 * p)) for p, q in zip(history, shares, strict=True) if p)


def test_values_of_rows(lists):
    found = lists.of_rows()
    everybody = (4 / 6, 2 / 6)  # 3 + 1 German of 6
    assert found["miscalibration@2"] == pytest.approx(
        [
            _divergence((0.75, 0.25), (0.5, 0.5)),
            _divergence((0.5, 0.5), (0.0, 1.0)),  # b sees item 1 in French
            _divergence(everybody, (1.0, 0.0)),  # c has no history
        ]
    )
    assert found["miscalibration@1"][0] == pytest.approx(_divergence((0.75, 0.25), (0.0, 1.0)))
    share = {1: 4 / 10, 2: 2 / 10, 3: 1 / 10, 4: 2 / 10, 5: 1 / 10}
    assert found["novelty@2"] == pytest.approx(
        [-(log2(share[a]) + log2(share[b])) / 2 for a, b in ((5, 1), (1, 4), (2, 3))]
    )
    assert found["novelty@1"] == pytest.approx([-log2(share[item]) for item in (5, 1, 2)])


def test_places_without_an_item_are_no_items(lists):
    rows = EvaluatedRows(lists.users, np.ones(3, dtype=int), np.ones(3, dtype=int))
    short = Lists(np.array([[5, 0], [1, 4], [2, 3]]), rows, lists.context, [1, 2])
    found = short.of_rows()
    assert found["miscalibration@2"][0] == found["miscalibration@1"][0]
    assert found["novelty@2"][0] == found["novelty@1"][0]
    assert short.by_language()["items"]["fr"]["coverage@2"] == lists.by_language()["items"]["fr"]["coverage@2"]


def test_a_list_like_the_history_is_calibrated():
    readers = Readers(["und", "und"], ["und", "de", "de", "fr", "fr"])
    ids = np.array([1, 1]), np.array([1, 3])
    context = EvalContext(["", "a"], ["", *"1234"], readers, np.zeros(5, dtype=int), *ids)
    rows = EvaluatedRows(np.array([1]), np.array([1]), np.array([2]))
    assert Lists(np.array([[2, 4]]), rows, context, [2]).of_rows()["miscalibration@2"] == pytest.approx([0])
    assert Lists(np.array([[1, 2]]), rows, context, [2]).of_rows()["miscalibration@2"] > 1


def test_values_of_languages(lists):
    found = lists.by_language()
    german, french = found["items"]["de"], found["items"]["fr"]
    assert (german["n"], french["n"]) == (3, 3)  # item 1 is in both, for different readers
    assert german["catalog"] == pytest.approx((3 / 5 + 2 / 5 + 3 / 5) / 3)
    assert german["history"] == pytest.approx((0.75 + 0.5 + 4 / 6) / 3)
    assert german["exposure@2"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert french["exposure@1"] == pytest.approx(2 / 3)
    assert german["coverage@1"] == pytest.approx(1 / 3) and german["coverage@2"] == 1
    assert french["gini@2"] == 0 and german["gini@1"] == pytest.approx(2 / 3)  # once each; one of three alone
    assert french["novelty@1"] == pytest.approx(-(log2(0.1) + log2(0.4)) / 2)
    assert found["readers"]["fr"]["n"] == 1 and found["readers"]["fr"]["exposure@2"]["fr"] == 1
    assert found["readers"]["und"]["history"]["de"] == pytest.approx(4 / 6)
    table = beyond_accuracy_table(found)
    assert "readers of fr, exposure@2" in table and f"{german['history']:.4f}" in table


def test_gini_is_the_mean_difference_over_twice_the_mean():
    times = np.random.default_rng(0).poisson(3, size=40)
    reference = np.abs(times[:, None] - times).mean() / (2 * times.mean())
    assert gini(times) == pytest.approx(reference)


def test_the_table_of_many_languages_stays_readable():
    names = [f"l{n:02}" for n in range(30)]
    shares = {name: (1 + n) / 465 for n, name in enumerate(names)}
    items = {name: {"n": n + 1, "catalog": shares[name], "exposure@5": shares[name]} for n, name in enumerate(names)}
    found = {"items": items, "readers": {name: {"n": n, "exposure@5": shares} for n, name in enumerate(names)}}
    first, second = beyond_accuracy_table(found).split("\n\n")
    assert [line.split()[0] for line in first.splitlines()[2:]] == [*names[:-13:-1], "18"]
    assert first.splitlines()[-1].split() == ["18", "others", "171", f"{171 / 465:.4f}", f"{171 / 465:.4f}"]
    header, _, line, *_ = second.splitlines()
    assert header.split()[-9:] == [*names[-8:], "others"] and line.startswith("readers of l29, exposure@5")
    assert sum(map(float, line.split()[-9:])) == pytest.approx(1, abs=1e-3)
    assert second.splitlines()[-1].startswith("18 more in result.json") and len(second.splitlines()) == 2 + 12 + 1
