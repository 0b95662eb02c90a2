"""PairTexts: (history, candidate) as one input of an encoder, put together from texts that were tokenized once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from recbole_xling.model.text_encoder.tokens import TokenizedTexts


class PairTexts:
    """The texts of a catalog, of which pairs are made as the encoder's tokenizer makes them.

    A pair has the texts of a history, the newest first, as its first part, and the text of a candidate as its second.
    Between two texts of the history is the token that separates texts. What stands before, between and after both parts
    is the tokenizer's own; where it has nothing between them, the same token stands there. Segment ids are all 0.

    Args:
        texts: one per row, empty ones included.
        tokenizer: of transformers.
        max_length: longest pair in tokens; the oldest texts that do not fit whole are left out.
        text_max_length: longest text in tokens, the prompt included; the rest is cut. The newest text and any candidate
            fit together if it is at most :attr:`most_tokens`.
        prompt: put before every text.

    Attributes:
        text_of_row: number of each row's text; equal texts share one.
        most_tokens: how long both texts of a pair may be at most.
    """

    def __init__(
        self, texts: Sequence[str], tokenizer: Any, max_length: int, text_max_length: int, prompt: str | None
    ) -> None:
        single = TokenizedTexts.of(texts, tokenizer, text_max_length, prompt, special_tokens=False)
        self._single, self.text_of_row = single, single.text_of_row
        before, between, after = _frame(tokenizer)
        ends = (tokenizer.sep_token_id, tokenizer.eos_token_id)
        separator = [next(token for token in ends if token is not None)] if any(t is not None for t in ends) else []
        pieces = [before, separator, between or separator, after, []]  # kept behind the texts
        n = single.n_texts
        self._before, self._separator, self._between, self._after, self._nothing = range(n, n + len(pieces))
        self._token_ids = torch.cat([single.token_ids, torch.tensor([*chain.from_iterable(pieces)], dtype=torch.int32)])
        self._length = torch.cat([single.length, torch.tensor([len(piece) for piece in pieces])])
        self._offset = self._length.cumsum(0) - self._length
        self._room = max_length - len(before) - len(pieces[2]) - len(after)

    @property
    def most_tokens(self) -> int:
        """Tokens for which there is room in each of two texts of a pair."""
        return self._room // 2

    def fitting(self, history: Tensor, candidate: Tensor) -> Tensor:
        """Return which texts of histories fit, ``(N, L)``; arguments are those of :meth:`pairs`.

        Empty texts are left out.
        """
        length = self._length[history.clamp_min(0)] * (history >= 0)  # (N, L)
        number = (length > 0).cumsum(dim=1)
        used = length.cumsum(dim=1) + (number - 1).clamp_min(0) * self._length[self._separator]
        return (length > 0) & (used <= self._room - self._length[candidate][:, None])

    def pairs(self, history: Tensor, candidate: Tensor) -> TokenizedTexts:
        """Return pairs as texts, in their order; none is merged with an equal one.

        Args:
            history: numbers of texts, the newest first, -1 for none, ``(N, L)``.
            candidate: number of a text, ``(N,)``.
        """
        fits = self.fitting(history, candidate)
        separated = fits & (fits.cumsum(dim=1) > 1)
        texts = torch.stack(
            [
                torch.where(separated, self._separator, self._nothing),
                torch.where(fits, history, self._nothing),
            ],
            dim=2,
        ).flatten(1)  # (N, 2 L)
        fixed = (torch.full_like(candidate, piece)[:, None] for piece in (self._before, self._between, self._after))
        before, between, after = fixed
        pieces = torch.cat([before, texts, between, candidate[:, None], after], dim=1)  # (N, P)
        length = self._length[pieces]
        of_piece, of_pair = length.flatten(), length.sum(dim=1)
        shift = self._offset[pieces].flatten() - (of_piece.cumsum(0) - of_piece)  # from here to where a piece is kept
        place = torch.arange(int(of_piece.sum())) + shift.repeat_interleave(of_piece)
        return replace(
            self._single,
            text_of_row=torch.arange(len(candidate)),
            token_ids=self._token_ids[place],
            offset=of_pair.cumsum(0) - of_pair,
            length=of_pair,
        )


def _frame(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """Return the tokens that the tokenizer puts before, between and after two texts."""
    words = ("a", "b")
    first, second = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in words)
    whole = tokenizer(*words)["input_ids"]

    def find(part: list[int], begin: int) -> int:
        return next(at for at in range(begin, len(whole)) if whole[at : at + len(part)] == part)

    start = find(first, 0)
    end = start + len(first)
    start_second = find(second, end)
    return whole[:start], whole[end:start_second], whole[start_second + len(second) :]
