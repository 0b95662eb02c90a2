"""Tiny encoders with random weights and their tokenizers, made on the spot: tests need no network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedTokenizerFast, XLMRobertaConfig

_WORDS = "the a film about shark beach matrix love star war der pate ein hai am strand titel".split()


def _pieces() -> list[tuple[str, float]]:
    letters = [chr(code) for code in (*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1))]
    pairs = ["".join(pair) for pair in itertools.product("aeiou", letters[:26])]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *("\u2581" + word for word in _WORDS), "\u2581", *letters, *pairs]
    return [(piece, -1.0 - len(pieces) / 100 + place / 1000) for place, piece in enumerate(pieces)]


def make_tokenizer(positions: int = 64) -> Any:
    """Return an XLM-R tokenizer with a unigram model of about 190 pieces."""
    tokenizer = Tokenizer(models.Unigram(_pieces(), unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=positions,
    )


def make_tiny_encoder(folder: Path, config: Any = None, seed: int = 0) -> Path:
    """Write an encoder of 32 dimensions and 4 layers with its tokenizer: XLM-R, or what ``config`` says."""
    config = config or XLMRobertaConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=66,
        type_vocab_size=1,
        initializer_range=0.3,
        pad_token_id=1,
    )
    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    if hasattr(model, "pooler"):
        model.pooler = None
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
