"""The texts of a catalog as tokens, tokenized once before training and batched by length."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from recbole_xling.encode.cache import text_digests
from recbole_xling.utils.kept_folder import kept_folder
from recbole_xling.utils.terminal import on_screen

_TEXTS_AT_ONCE = 4096  # per call of the tokenizer, which spreads them over its threads
_MULTIPLE = 8  # of a batch's width: shapes are few, so that freed memory fits the next batch, and suit a GPU
_SHOW_PROGRESS_FROM = 20_000  # texts: fewer take about a second
_KEPT_FROM = 20_000
_TOKENS, _LENGTHS = "tokens.npy", "lengths.npy"


@dataclass(frozen=True, eq=False)
class TokenizedTexts:
    """The distinct texts of some rows, in one flat array of tokens.

    Args:
        texts: the distinct texts.
        text_of_row: ``(n_rows,)`` number of each row's text; equal texts share one.
        token_ids: ``(n_tokens,)`` int32, text after text.
        offset: ``(n_texts,)`` where each text begins in ``token_ids``.
        length: ``(n_texts,)`` its tokens, at least 1 unless special ones are left out.
        pad_id: the token that fills up shorter texts of a batch.
    """

    texts: Sequence[str]
    text_of_row: Tensor
    token_ids: Tensor
    offset: Tensor
    length: Tensor
    pad_id: int

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        tokenizer: Any,
        max_length: int,
        prompt: str | None,
        *,
        special_tokens: bool = True,
        cache_dir: Path | None = None,
    ) -> TokenizedTexts:
        """Tokenize each distinct text once, and many texts once for all runs.

        Args:
            texts: one per row, empty ones included.
            tokenizer: of transformers.
            max_length: longest text in tokens, special ones and the prompt included; the rest is cut.
            prompt: put before every text.
            special_tokens: whether the tokenizer adds its own; without them an empty text has no tokens at all.
            cache_dir: where the tokens of many texts are kept (:func:`~recbole_xling.utils.kept_folder.kept_folder`);
                None: nowhere.

        Raises:
            XlingError: they cannot be written there.
        """
        number: dict[str, int] = {}
        text_of_row = [number.setdefault(text, len(number)) for text in texts]
        pad_id = next((one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None), 0)
        distinct = [(prompt or "") + text if text or special_tokens else "" for text in number]
        options = {"truncation": True, "max_length": max_length, "add_special_tokens": special_tokens}
        identity = _identity(tokenizer, {**options, "pad_id": pad_id})
        if cache_dir is None or identity is None or len(distinct) < _KEPT_FROM:
            token_ids, length = _tokenized(distinct, tokenizer, options, pad_id)
        else:
            hashed = blake2b(identity.encode(), digest_size=16)
            hashed.update(text_digests(distinct).tobytes())

            def make(folder: Path) -> None:
                tokens, lengths = _tokenized(distinct, tokenizer, options, pad_id)
                np.save(folder / _TOKENS, tokens)
                np.save(folder / _LENGTHS, lengths)

            folder = kept_folder(cache_dir / "tokens" / hashed.hexdigest(), make, "tokens")
            # mapped, so that processes share them; written to by nobody
            token_ids, length = (np.load(folder / name, mmap_mode="c") for name in (_TOKENS, _LENGTHS))
        return cls(
            texts=list(number),
            text_of_row=torch.tensor(text_of_row, dtype=torch.int64),
            token_ids=torch.from_numpy(token_ids),
            offset=torch.from_numpy(np.cumsum(length) - length),
            length=torch.from_numpy(length),
            pad_id=pad_id,
        )

    @property
    def n_rows(self) -> int:
        """Texts that were given, repeated ones included."""
        return len(self.text_of_row)

    @property
    def n_texts(self) -> int:
        """Distinct texts."""
        return len(self.length)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(self.length.max())

    def batch(self, text_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and mask of some texts, filled up on the right, see :func:`batch_width`.

        Args:
            text_ids: ``(N,)`` numbers of texts, on the CPU.

        Returns:
            ``input_ids`` and ``attention_mask`` (1 for tokens, 0 for padding), both ``(N, T)`` int64.
        """
        length = self.length[text_ids]  # (N,)
        position = torch.arange(batch_width(length, self.longest))  # (T,)
        mask = position < length[:, None]  # (N, T)
        place = (self.offset[text_ids][:, None] + position).clamp(max=len(self.token_ids) - 1)
        input_ids = self.token_ids[place].long().masked_fill(~mask, self.pad_id)
        return input_ids, mask.long()


def _identity(tokenizer: Any, options: Mapping[str, Any]) -> str | None:
    """Return all that decides what tokens a text has; None where a tokenizer is code of its own."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    backend.no_truncation()  # what an earlier call left is no part of it
    backend.no_padding()
    own = {
        "class": type(tokenizer).__name__,
        "truncation_side": tokenizer.truncation_side,
        "tokenizers": version("tokenizers"),
    }
    return backend.to_str() + json.dumps({**own, **options}, sort_keys=True)


def _tokenized(
    texts: Sequence[str], tokenizer: Any, options: Mapping[str, Any], pad_id: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the tokens of texts, one text after the other, ``(n_tokens,)``, and their numbers, ``(n_texts,)``."""
    parts, lengths = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.int64)]
    hidden = len(texts) <= _SHOW_PROGRESS_FROM or not on_screen()
    with tqdm(total=len(texts), desc="tokenizing", unit="text", disable=hidden) as bar:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            batch = texts[start : start + _TEXTS_AT_ONCE]
            found = tokenizer(batch, padding=False, return_attention_mask=False, **options)
            # a tokenizer without special tokens gives nothing for an empty text, which needs one token
            tokens = [ids or [pad_id] * options["add_special_tokens"] for ids in found["input_ids"]]
            parts.append(np.concatenate([np.asarray(ids, dtype=np.int32) for ids in tokens]))
            lengths.append(np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens)))
            bar.update(len(batch))
    return np.concatenate(parts), np.concatenate(lengths)


def batch_width(length: Tensor, longest: int) -> int:
    """Return how long the rows of a batch are: its longest text, up to the next multiple of 8 or the longest of all.

    Args:
        length: ``(N,)`` of the texts of the batch.
        longest: length of the longest of all texts.
    """
    if not len(length):
        return 0
    return min(-(-int(length.max()) // _MULTIPLE) * _MULTIPLE, longest)


# ---- texts of about one length --------------------------------------------------------------------------------

_SLACK = 1.2  # longest over shortest text of a bucket: about a tenth of its tokens is padding, at most
_LEAST_TOKENS = {"cpu": 256}  # of a bucket: with fewer, a pass costs more than the padding that it saves
_LEAST_TOKENS_ELSEWHERE = 8192


def length_buckets(length: Tensor, most: int, device: torch.device) -> list[Tensor]:
    """Cut texts into buckets of at most ``most`` texts, short ones first.

    Args:
        length: ``(N,)`` tokens of each text.
        most: texts in a bucket.
        device: where they will be encoded; a GPU needs larger buckets than a CPU.

    Returns:
        The places of each bucket's texts in ``length``.
    """
    least = _LEAST_TOKENS.get(device.type, _LEAST_TOKENS_ELSEWHERE)
    order = torch.argsort(length, stable=True)
    ordered = length[order].tolist()
    ends, start = [], 0
    for end in range(1, len(ordered)):
        large = (end - start) * ordered[end - 1] >= least
        if end - start == most or (large and ordered[end] > _SLACK * ordered[start]):
            ends.append(end)
            start = end
    return list(order.tensor_split(ends)) if len(order) else []
