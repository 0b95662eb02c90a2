"""Distinct texts of a batch: every text finds its own vector, padding finds none."""

from __future__ import annotations

import torch

from recbole_xling.model.text_encoder.distinct_texts import DistinctTexts


def test_texts_find_their_vectors_in_any_shape() -> None:
    found = DistinctTexts(torch.tensor([2, 5, 9]), torch.arange(6.0).view(3, 2))
    texts = torch.tensor([[9, 2], [5, 5]])
    assert found.rows(texts).tolist() == [[2, 0], [1, 1]]
    assert found.look_up(texts).tolist() == [[[4, 5], [0, 1]], [[2, 3], [2, 3]]]


def test_texts_outside_the_mask_are_zero_and_need_not_be_known() -> None:
    vectors = torch.ones(2, 3, requires_grad=True)
    found = DistinctTexts(torch.tensor([4, 6]), vectors)
    rows = found.look_up(torch.tensor([6, 99]), torch.tensor([True, False]))
    assert rows.tolist() == [[1, 1, 1], [0, 0, 0]]
    rows.sum().backward()
    assert vectors.grad is not None and vectors.grad.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_repeated_texts_keep_their_first_vector() -> None:
    found = DistinctTexts.of_repeated(torch.tensor([7, 3, 7]), torch.tensor([[1.0], [2.0], [3.0]]))
    assert found.texts.tolist() == [3, 7] and found.vectors.tolist() == [[2], [1]]
