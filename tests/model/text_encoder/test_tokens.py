"""Texts as tokens: each distinct one once, and batches as the tokenizer itself would make them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from recbole_xling.model.text_encoder import tokens as module
from recbole_xling.model.text_encoder.tokens import TokenizedTexts

_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "about", "a", "shark", "query:", "hai"]
_TEXTS = ["the film", "", "about a shark", "the film", "hai", "", "the film about a shark about a hai"]


def _tokenizer(special: bool = True) -> Any:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


@pytest.mark.parametrize("prompt", [None, "query: "])
def test_batches_are_the_tokenizers_own(prompt: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TEXTS_AT_ONCE", 2)
    tokens = TokenizedTexts.of(_TEXTS, _tokenizer(), 6, prompt)
    for rows in ([0, 2, 6], [5, 1], [4], [6, 0, 1, 2, 3, 4, 5]):
        input_ids, mask = tokens.batch(tokens.text_of_row[rows])
        texts = [(prompt or "") + _TEXTS[row] for row in rows]
        filled = {"padding": "max_length", "max_length": input_ids.shape[1]}
        expected = _tokenizer()(texts, truncation=True, return_tensors="pt", **filled)
        torch.testing.assert_close(input_ids, expected["input_ids"])
        torch.testing.assert_close(mask, expected["attention_mask"])


@pytest.mark.parametrize(("longest", "width"), [(2, 8), (8, 8), (9, 16), (17, 20), (20, 20)])
def test_batches_are_filled_up_to_a_multiple_of_eight_or_to_the_longest_text(longest: int, width: int) -> None:
    tokens = TokenizedTexts.of(["the film " * 10, "the " * longest], _tokenizer(special=False), 30, None)
    input_ids, mask = tokens.batch(torch.tensor([1]))
    assert input_ids.shape == mask.shape == (1, width)
    assert mask.sum() == longest


def test_equal_texts_share_a_number_and_lengths_are_in_tokens() -> None:
    tokens = TokenizedTexts.of(_TEXTS, _tokenizer(), 6, None)
    assert (tokens.n_rows, tokens.n_texts) == (7, 5)
    assert tokens.text_of_row.tolist() == [0, 1, 2, 0, 3, 1, 4]
    assert tokens.length.tolist() == [4, 2, 5, 3, 6]


def test_an_empty_text_has_a_token_even_where_the_tokenizer_adds_none() -> None:
    tokens = TokenizedTexts.of(["", "the film"], _tokenizer(special=False), 6, None)
    input_ids, mask = tokens.batch(tokens.text_of_row)
    assert input_ids.tolist() == [[0, 0], [4, 5]]
    assert mask.tolist() == [[1, 0], [1, 1]]


def test_no_texts_at_all() -> None:
    tokens = TokenizedTexts.of([], _tokenizer(), 6, None)
    assert (tokens.n_rows, tokens.n_texts) == (0, 0)
