"""Pairs are what the tokenizer makes of two texts; the newest texts of a history fill them up to the limit."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from recbole_xling.model.text_encoder.pair_texts import PairTexts

TEXTS = ["", "a film about war", "shark beach", "matrix", "der pate ein hai am strand"]


@pytest.fixture
def tokenizer(tiny_encoder):
    return AutoTokenizer.from_pretrained(tiny_encoder)


def tokens_of(pairs, number):
    start = int(pairs.offset[number])
    return pairs.token_ids[start : start + int(pairs.length[number])].tolist()


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_pair_is_what_the_tokenizer_makes_of_two_texts(tokenizer):
    made = PairTexts(TEXTS, tokenizer, 64, 16, None).pairs(torch.tensor([[1], [3], [-1]]), torch.tensor([2, 4, 2]))
    assert tokens_of(made, 0) == tokenizer(TEXTS[1], TEXTS[2])["input_ids"]
    assert tokens_of(made, 1) == tokenizer(TEXTS[3], TEXTS[4])["input_ids"]
    assert tokens_of(made, 2) == tokenizer("", TEXTS[2])["input_ids"]
    assert made.n_texts == 3 and made.pad_id == tokenizer.pad_token_id


def test_texts_of_a_history_are_separated_and_empty_ones_left_out(tokenizer):
    made = PairTexts(TEXTS, tokenizer, 64, 16, "war ").pairs(torch.tensor([[0, 1, 0, 3, -1]]), torch.tensor([2]))
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    first, second, candidate = (plain(tokenizer, "war " + TEXTS[number]) for number in (1, 3, 2))
    assert tokens_of(made, 0) == [start, *first, end, *second, end, end, *candidate, end]


def test_the_newest_texts_that_fit_whole_are_kept(tokenizer):
    lengths = [len(plain(tokenizer, text)) for text in TEXTS]
    history, candidate = torch.tensor([[1, 3, 2, 3]]), torch.tensor([4])
    frame = 4 + lengths[4]
    for most, n_fit in [
        (frame + lengths[1], 1),
        (frame + lengths[1] + 1 + lengths[3] - 1, 1),
        (frame + lengths[1] + 1 + lengths[3], 2),
        # the third does not fit, and what is older is not taken in its place
        (frame + lengths[1] + 1 + lengths[3] + 1 + lengths[2] - 1, 2),
        (frame + lengths[1] + 1 + lengths[3] + 1 + lengths[2], 3),
        (200, 4),
    ]:
        texts = PairTexts(TEXTS, tokenizer, most, 16, None)
        assert texts.fitting(history, candidate)[0].tolist() == [True] * n_fit + [False] * (4 - n_fit)
        assert int(texts.pairs(history, candidate).length[0]) <= most


def test_long_texts_are_cut(tokenizer):
    texts = PairTexts(TEXTS, tokenizer, 64, 2, None)
    made = texts.pairs(torch.tensor([[1]]), torch.tensor([4]))
    want = [plain(tokenizer, TEXTS[1])[:2], plain(tokenizer, TEXTS[4])[:2]]
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert tokens_of(made, 0) == [start, *want[0], end, end, *want[1], end]
    assert texts.most_tokens == (64 - 4) // 2


def test_where_a_tokenizer_puts_nothing_between_texts_its_last_token_is_there(tokenizer):
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    made = PairTexts(TEXTS, tokenizer, 64, 16, None).pairs(torch.tensor([[1]]), torch.tensor([2]))
    first, second = plain(tokenizer, TEXTS[1]), plain(tokenizer, TEXTS[2])
    assert tokens_of(made, 0) == [0, *first, tokenizer.sep_token_id, *second]
