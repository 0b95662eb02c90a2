"""Texts as tokens: each distinct one once, and batches as the tokenizer itself would make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
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


# ---- kept for later runs --------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[TokenizedTexts, int]]:
    """Tokenize and return the tokens, and how many texts were read for them."""
    monkeypatch.setattr(module, "_KEPT_FROM", 3)

    def tokenize(texts: Sequence[str] = _TEXTS, prompt: str | None = None, **changed: Any) -> tuple[Any, int]:
        tokenizer, read = _tokenizer(changed.get("special", True)), []
        call = type(tokenizer).__call__

        def counting(self: Any, batch: list[str], **options: Any) -> Any:
            read.extend(batch)
            return call(self, batch, **options)

        with monkeypatch.context() as patch:
            patch.setattr(type(tokenizer), "__call__", counting)
            tokens = TokenizedTexts.of(texts, tokenizer, changed.get("longest", 6), prompt, cache_dir=tmp_path)
        return tokens, len(read)

    return tokenize


def _same(one: TokenizedTexts, other: TokenizedTexts) -> bool:
    names = ("text_of_row", "token_ids", "offset", "length")
    return one.pad_id == other.pad_id and all(torch.equal(getattr(one, n), getattr(other, n)) for n in names)


def test_tokens_of_many_texts_are_read_by_the_next_run(kept: Any) -> None:
    wanted = TokenizedTexts.of(_TEXTS, _tokenizer(), 6, None)
    (first, n_read), (again, n_again) = kept(), kept()
    assert (n_read, n_again) == (5, 0)
    assert _same(first, wanted) and _same(again, wanted)
    torch.testing.assert_close(again.batch(torch.tensor([2, 0])), wanted.batch(torch.tensor([2, 0])))


@pytest.mark.parametrize(
    "changed", [{"prompt": "query: "}, {"longest": 5}, {"special": False}, {"texts": [*_TEXTS[:-1], "a hai"]}]
)
def test_other_settings_tokenizers_and_texts_have_tokens_of_their_own(kept: Any, changed: dict[str, Any]) -> None:
    kept()
    assert kept(**changed)[1] == 5 and kept(**changed)[1] == 0


def test_few_texts_are_not_kept_and_damaged_tokens_are_made_again(
    kept: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(_TEXTS[:2])
    assert not list(tmp_path.iterdir())
    kept()
    (path,) = tmp_path.glob("tokens/*/tokens.npy")
    path.write_bytes(path.read_bytes()[:-4] + b"\1\0\0\0")
    found, n_read = kept()
    wanted = TokenizedTexts.of(_TEXTS, _tokenizer(), 6, None)
    assert n_read == 5 and _same(found, wanted) and "damaged and is made again" in caplog.text
