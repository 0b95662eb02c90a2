"""A tiny text encoder with random weights and its tokenizer, made on the spot: tests need no network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_WORDS = "the a film about shark beach matrix love star war der pate ein hai am strand titel".split()


def make_tiny_encoder(folder: Path, config: PretrainedConfig | None = None, seed: int = 0) -> Path:
    """Write a text encoder with random weights and its tokenizer, as ``save_pretrained`` does; needs no network.

    Args:
        folder: where to write to; can be given as ``encoder``.
        config: configuration of the encoder, of at least 300 tokens; an XLM-R of 32 dimensions and 4 layers by default.
        seed: of the weights.

    Returns:
        The folder.
    """
    from transformers import AutoModel, XLMRobertaConfig

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
    _tiny_tokenizer().save_pretrained(folder)
    return folder


def _tiny_tokenizer() -> Any:
    """Return an XLM-R tokenizer for up to 64 tokens, with a unigram model of about 190 pieces."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in (*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1))]
    pairs = ["".join(pair) for pair in itertools.product("aeiou", letters[:26])]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *("\u2581" + word for word in _WORDS), "\u2581", *letters, *pairs]
    # earlier pieces are less likely, but whole words are still more likely than their letters together
    scored = [(piece, -1.0 - len(pieces) / 100 + place / 1000) for place, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=64,
    )
